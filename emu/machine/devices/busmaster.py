"""A bus master that writes into its owner's ring until it is stopped: the device that nobody quieted.

Registers, all dwords: 0x5c0 physical address of the ring, 0x5c4 its length in bytes, 0x5c8 the period in
ticks, 0x5cc control (1 runs, 0 stops; reads 1 while it runs).  A start takes the other registers over,
begins at offset 0 of the ring with the value 1, and stores first one period later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from emu.machine.devices.clock import Clock
from emu.machine.devices.device import StateDevice, all_ones
from emu.units import PAGE_SIZE, Phys, show_phys

RING_PORT = 0x5C0
LENGTH_PORT = 0x5C4
PERIOD_PORT = 0x5C8
CONTROL_PORT = 0x5CC
LONGEST_RING = PAGE_SIZE
WORD = 4

DmaWrite = Callable[[Phys, bytes, str], None]
"""Stores bytes at a physical address in the name of a device."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A running transfer: the ring, where it is in it, and when it stores next (absolute tick)."""

    ring: Phys
    length: int
    period: int
    offset: int
    value: int
    due: int


@dataclass(frozen=True, slots=True)
class BusMasterState:
    """The registers as last written, and the transfer when one runs."""

    ring: int = 0
    length: int = 0
    period: int = 0
    transfer: Transfer | None = None


class BusMaster(StateDevice[BusMasterState]):
    """Stores an incrementing dword at successive offsets of a ring, every so many ticks."""

    name = "busmaster"
    sizes = frozenset({WORD})

    def __init__(self, clock: Clock, dma_write: DmaWrite) -> None:
        super().__init__(BusMasterState())
        self._clock = clock
        self._dma_write = dma_write

    @property
    def running(self) -> bool:
        """Whether it is storing into memory."""
        return self.state.transfer is not None

    def ports(self) -> Iterable[int]:
        """0x5c0 to 0x5cf."""
        return range(RING_PORT, CONTROL_PORT + WORD)

    def read(self, port: int, size: int) -> int:
        """A register as last written; the control register reads 1 while a transfer runs."""
        values = {
            RING_PORT: self.state.ring,
            LENGTH_PORT: self.state.length,
            PERIOD_PORT: self.state.period,
            CONTROL_PORT: int(self.running),
        }
        return values.get(port, all_ones(size))

    def write(self, port: int, size: int, value: int) -> None:
        """Set a register.  A start with an unusable ring or period leaves the device stopped."""
        if port == RING_PORT:
            self.state = replace(self.state, ring=value)
        elif port == LENGTH_PORT:
            self.state = replace(self.state, length=value)
        elif port == PERIOD_PORT:
            self.state = replace(self.state, period=value)
        elif port == CONTROL_PORT:
            self.state = replace(self.state, transfer=self._started() if value & 1 else None)

    def _started(self) -> Transfer | None:
        ring, length, period = self.state.ring, self.state.length, self.state.period
        if not 0 < length <= LONGEST_RING or length % WORD or period == 0:
            return None
        return Transfer(Phys(ring), length, period, offset=0, value=1, due=self._clock.now + period)

    def next_deadline(self) -> int | None:
        """The tick of the next store."""
        return None if self.state.transfer is None else self.state.transfer.due

    def advance(self, now: int) -> None:
        """Do every store due at or before ``now``."""
        while (transfer := self.state.transfer) is not None and transfer.due <= now:
            self.state = replace(
                self.state,
                transfer=replace(
                    transfer,
                    offset=(transfer.offset + WORD) % transfer.length,
                    value=transfer.value + 1 & all_ones(WORD),
                    due=transfer.due + transfer.period,
                ),
            )
            address = Phys(transfer.ring + transfer.offset)
            self._dma_write(address, transfer.value.to_bytes(WORD, "little"), self.name)

    def describe(self) -> list[tuple[str, str]]:
        """The ring and the progress in it."""
        transfer = self.state.transfer
        if transfer is None:
            return [("state", "stopped")]
        return [
            ("state", "running"),
            ("ring", f"{show_phys(transfer.ring)}, {transfer.length} bytes"),
            ("next store", f"{transfer.value:#x} at offset {transfer.offset:#x}, tick {transfer.due}"),
            ("period", f"{transfer.period} ticks"),
        ]
