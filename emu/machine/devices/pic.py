"""The PC's two cascaded 8259A interrupt controllers: 16 request lines in, one vector out.

At power-on they are as a firmware leaves them that wants no interrupts: vectors 0x08 and 0x70, edge
triggered, every line masked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from emu.machine.devices.device import StateDevice
from emu.machine.devices.pic_chip import LEVELS, POLL_PENDING, SPURIOUS_LEVEL, Chip

MASTER_COMMAND = 0x20
MASTER_DATA = 0x21
SLAVE_COMMAND = 0xA0
SLAVE_DATA = 0xA1
CASCADE_LEVEL = 2
CASCADE = 1 << CASCADE_LEVEL
FIRMWARE_MASTER_BASE = 0x08
FIRMWARE_SLAVE_BASE = 0x70


@dataclass(frozen=True, slots=True)
class PicState:
    """Both chips."""

    master: Chip = Chip(FIRMWARE_MASTER_BASE)
    slave: Chip = Chip(FIRMWARE_SLAVE_BASE)


class Pic(StateDevice[PicState]):
    """IRQ 0 to 7 on the master, 8 to 15 on the slave, whose INT is the master's input 2."""

    name = "pic"

    def __init__(self) -> None:
        super().__init__(PicState())
        self._vector_of: PicState | None = None
        self._vector: int | None = None

    def ports(self) -> Iterable[int]:
        """Command and data port of each chip."""
        return (MASTER_COMMAND, MASTER_DATA, SLAVE_COMMAND, SLAVE_DATA)

    def set_line(self, irq: int, high: bool) -> None:
        """Drive request line ``irq``, 0 to 15.  Line 2 is the cascade and takes no device."""
        if irq == CASCADE_LEVEL or not 0 <= irq < 2 * LEVELS:
            message = f"no device can drive IRQ {irq}"
            raise ValueError(message)
        if irq < LEVELS:
            self._put(master=self.state.master.with_line(irq, high))
        else:
            self._put(slave=self.state.slave.with_line(irq - LEVELS, high))

    def _put(self, *, master: Chip | None = None, slave: Chip | None = None) -> None:
        """Replace a chip, then let the master's cascade input follow the slave's INT."""
        state = PicState(master or self.state.master, slave or self.state.slave)
        wanted = state.slave.pending() is not None
        if wanted != bool(state.master.lines & CASCADE):
            state = replace(state, master=state.master.with_line(CASCADE_LEVEL, wanted))
        self.state = state

    def pending_vector(self) -> int | None:
        """The vector that an acknowledge would deliver now, or None while INT is low."""
        if self._vector_of is not self.state:
            self._vector_of, self._vector = self.state, self._pending()
        return self._vector

    def _pending(self) -> int | None:
        level = self.state.master.pending(CASCADE)
        if level is None:
            return None
        if level != CASCADE_LEVEL:
            return self.state.master.base + level
        slave_level = self.state.slave.pending()
        return self.state.slave.base + (SPURIOUS_LEVEL if slave_level is None else slave_level)

    def acknowledge(self) -> int:
        """The processor's INTA cycles: the vector to deliver, its level now in service.

        Without a request the master answers with its vector 7 and puts nothing in service (spurious IRQ 7);
        a cascade request whose slave has none gives the slave's vector 7, with only the master in service.
        """
        master = self.state.master
        level = master.pending(CASCADE)
        if level is None:
            return master.base + SPURIOUS_LEVEL
        if level != CASCADE_LEVEL:
            self._put(master=master.acknowledged(level))
            return master.base + level
        slave = self.state.slave
        slave_level = slave.pending()
        if slave_level is None:
            self._put(master=master.acknowledged(level))
            return slave.base + SPURIOUS_LEVEL
        self._put(master=master.acknowledged(level), slave=slave.acknowledged(slave_level))
        return slave.base + slave_level

    def read(self, port: int, size: int) -> int:
        """The mask from a data port; IRR, ISR or the answer to a poll from a command port."""
        chip = self._chip(port)
        if chip.poll:
            return self._poll(port)
        return chip.imr if port & 1 else chip.status()

    def _poll(self, port: int) -> int:
        """The read after a poll command acts as the acknowledge of that one chip."""
        chip = replace(self._chip(port), poll=False)
        level = chip.pending(self._cascade_of(port))
        if level is None:
            self._put_at(port, chip)
            return 0
        self._put_at(port, chip.acknowledged(level))
        return POLL_PENDING | level

    def write(self, port: int, size: int, value: int) -> None:
        """ICW1, OCW2 and OCW3 to a command port; ICW2 to ICW4 and OCW1 to a data port."""
        chip = self._chip(port)
        self._put_at(port, chip.with_data(value) if port & 1 else chip.with_command(value))

    def _chip(self, port: int) -> Chip:
        return self.state.master if port in (MASTER_COMMAND, MASTER_DATA) else self.state.slave

    def _cascade_of(self, port: int) -> int:
        return CASCADE if port in (MASTER_COMMAND, MASTER_DATA) else 0

    def _put_at(self, port: int, chip: Chip) -> None:
        if port in (MASTER_COMMAND, MASTER_DATA):
            self._put(master=chip)
        else:
            self._put(slave=chip)

    def describe(self) -> list[tuple[str, str]]:
        """The registers of both chips and the vector that is pending."""
        rows = []
        for name, chip in (("master", self.state.master), ("slave", self.state.slave)):
            registers = f"base {chip.base:#04x}  irr {chip.irr:#04x}  isr {chip.isr:#04x}  imr {chip.imr:#04x}"
            rows.append((name, registers + ("  in initialisation" if chip.expects else "")))
        vector = self.pending_vector()
        rows.append(("pending", "none" if vector is None else f"vector {vector:#04x}"))
        return rows
