"""The MC146818 clock and its CMOS RAM at 0x70 and 0x71, with a date that only virtual time moves.

Power-on is at 2007-07-12 00:00:00 UTC, always.  The time registers can be read in BCD or binary, 12 or 24
hours, as register B says; writes to them are dropped, update-in-progress never shows, and the clock does
not interrupt.  Everything else is RAM.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from emu.machine.devices.clock import TICKS_PER_SECOND, Clock
from emu.machine.devices.device import StateDevice

INDEX_PORT = 0x70
DATA_PORT = 0x71
NMI_DISABLE = 0x80
INDEX_MASK = 0x7F
POWER_ON_DATE = datetime(2007, 7, 12, tzinfo=UTC)

SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR = 0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09
CENTURY = 0x32
STATUS_A, STATUS_B, STATUS_C, STATUS_D = 0x0A, 0x0B, 0x0C, 0x0D
STATUS_A_DIVIDERS = 0x26
STATUS_B_24_HOURS = 0x02
STATUS_B_BINARY = 0x04
STATUS_D_VALID = 0x80
UPDATE_IN_PROGRESS = 0x80
AFTERNOON = 0x80
NOON = 12
NO_WRITE = frozenset({SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY, STATUS_C, STATUS_D})
RAM_SIZE = 128


def _power_on_ram() -> bytes:
    ram = bytearray(RAM_SIZE)
    ram[STATUS_A] = STATUS_A_DIVIDERS
    ram[STATUS_B] = STATUS_B_24_HOURS
    ram[STATUS_D] = STATUS_D_VALID
    return bytes(ram)


@dataclass(frozen=True, slots=True)
class CmosState:
    """The index register, NMI-disable bit included, and the RAM."""

    index: int = 0
    ram: bytes = _power_on_ram()


class Cmos(StateDevice[CmosState]):
    """Clock, CMOS RAM, and the gate in front of the processor's NMI input."""

    name = "cmos"

    def __init__(self, clock: Clock) -> None:
        super().__init__(CmosState())
        self._clock = clock

    @property
    def nmi_disabled(self) -> bool:
        """Bit 7 of the last write to the index port: the chipset then keeps NMI from the processor."""
        return bool(self.state.index & NMI_DISABLE)

    @property
    def date(self) -> datetime:
        """The virtual date and time of this tick, whole seconds."""
        return POWER_ON_DATE + timedelta(seconds=self._clock.now // TICKS_PER_SECOND)

    def ports(self) -> Iterable[int]:
        """0x70 and 0x71."""
        return (INDEX_PORT, DATA_PORT)

    def read(self, port: int, size: int) -> int:
        """The selected register; the index port is write-only and reads all-ones."""
        if port == INDEX_PORT:
            return 0xFF
        index = self.state.index & INDEX_MASK
        value = self._time_register(index)
        return self.state.ram[index] if value is None else value

    def write(self, port: int, size: int, value: int) -> None:
        """Select a register, or write the selected one."""
        if port == INDEX_PORT:
            self.state = replace(self.state, index=value)
            return
        index = self.state.index & INDEX_MASK
        if index in NO_WRITE:
            return
        ram = bytearray(self.state.ram)
        ram[index] = value & ~UPDATE_IN_PROGRESS if index == STATUS_A else value
        self.state = replace(self.state, ram=bytes(ram))

    def _time_register(self, index: int) -> int | None:
        """A time register in the format that register B chose, or None when ``index`` is not one."""
        date = self.date
        values = {
            SECONDS: date.second,
            MINUTES: date.minute,
            HOURS: date.hour,
            WEEKDAY: date.isoweekday() % 7 + 1,
            DAY: date.day,
            MONTH: date.month,
            YEAR: date.year % 100,
            CENTURY: date.year // 100,
        }
        value = values.get(index)
        if value is None:
            return None
        mode, afternoon = self.state.ram[STATUS_B], 0
        if index == HOURS and not mode & STATUS_B_24_HOURS:
            afternoon = AFTERNOON if value >= NOON else 0
            value = value % NOON or NOON
        return afternoon | (value if mode & STATUS_B_BINARY else int(str(value), 16))

    def describe(self) -> list[tuple[str, str]]:
        """The virtual date, the selected register and the NMI gate."""
        return [
            ("date", self.date.strftime("%Y-%m-%d %H:%M:%S")),
            ("index", f"{self.state.index & INDEX_MASK:#04x}"),
            ("nmi", "disabled" if self.nmi_disabled else "enabled"),
        ]
