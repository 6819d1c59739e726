"""gdb's breakpoints and watchpoints (``Z0`` to ``Z4``) as stops of the session, and which of them a stop was.

Addresses are linear.  A watched range is the physical memory behind them: gdb takes its points away at every stop and
sets them again at the next move, and where the page is not mapped any more (page tables were switched in between) it
means the memory that was there the last time.  They stand beside the stops that a person set by ``monitor``;
detaching removes gdb's only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from emu.debugger.address import Address
from emu.debugger.session import Session
from emu.debugger.stops import Hit, Stop
from emu.errors import DebuggerError
from emu.units import PAGE_MASK, PAGE_SIZE

KINDS: Final = {0: "break", 1: "break", 2: "watch", 3: "rwatch", 4: "awatch"}
"""The session's kind of stop for each type of ``Z`` packet."""
_REASONS: Final = {0: "swbreak", 1: "hwbreak", 2: "watch", 3: "rwatch", 4: "awatch"}
MOST_WATCHED: Final = 16 * PAGE_SIZE
"""The longest range in bytes that one watchpoint may have: more is a mistake, or hostile."""


@dataclass(frozen=True, slots=True)
class Point:
    """One ``Z`` packet: its type, linear address, and kind (the size in bytes of a watched range)."""

    type: int
    address: int
    size: int


class Points:
    """What gdb has inserted; ``reported`` says which of swbreak and hwbreak gdb announced that it understands."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._numbers: dict[Point, tuple[int, ...]] = {}
        self._behind: dict[int, int] = {}
        self.reported: frozenset[str] = frozenset()

    def insert(self, point: Point) -> None:
        """Add a stop for each page that ``point`` touches; again is no error.

        Raises DebuggerError where a watched page is not mapped, and was not when it was watched before.
        """
        if point in self._numbers:
            return
        if KINDS[point.type] == "break":
            places = [(Address(point.address), 1)]
        else:
            parts = _by_page(point.address, point.size)
            places = [(Address(self._memory_behind(start), physical=True), size) for start, size in parts]
        self._numbers[point] = tuple(self._add(point, where, size) for where, size in places)

    def _memory_behind(self, linear: int) -> int:
        """The physical address that a linear one means, now or the last time that it was mapped."""
        try:
            self._behind[linear] = self._session.physical(Address(linear))
        except DebuggerError:
            if linear not in self._behind:
                raise
        return self._behind[linear]

    def _add(self, point: Point, where: Address, size: int) -> int:
        kind, text = KINDS[point.type], f"{point.address:#x} (gdb)"
        return self._session.stops.add(lambda number: Stop(number, kind, where, size=size, text=text)).number

    def remove(self, point: Point) -> None:
        """Take a point away; one that is not there (a person deleted it by ``monitor``) is no error."""
        for number in self._numbers.pop(point, ()):
            self._session.stops.stops.pop(number, None)

    def clear(self) -> None:
        """Take all of gdb's points away."""
        for point in list(self._numbers):
            self.remove(point)
        self._behind.clear()

    def owns(self, hit: Hit) -> bool:
        """True for a stop that gdb inserted."""
        return any(hit.number in numbers for numbers in self._numbers.values())

    def reason(self, hits: tuple[Hit, ...]) -> str:
        """The field of a stop reply that says which point was met; empty where it was none of gdb's.

        A watchpoint goes first: gdb finds breakpoints by itself.
        """
        met = {hit.number for hit in hits}
        found = [point for point, numbers in self._numbers.items() if met.intersection(numbers)]
        for point in sorted(found, key=lambda one: -one.type):
            reason = _REASONS[point.type]
            if KINDS[point.type] != "break":
                return f"{reason}:{point.address:x};"
            if reason in self.reported:
                return f"{reason}:;"
        return ""


def _by_page(address: int, size: int) -> list[tuple[int, int]]:
    """Start and size of the part of a range in each page: neighbours in linear memory are none in physical memory."""
    parts = []
    while size > 0:
        step = min(size, PAGE_SIZE - (address & PAGE_MASK))
        parts.append((address, step))
        address, size = address + step, size - step
    return parts
