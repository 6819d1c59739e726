"""Where a run stops, and who looks at each instruction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from emu.units import PAGE_SIZE

if TYPE_CHECKING:
    from emu.machine.engine import Engine


class Breakpoints:
    """Linear addresses and ranges before which a run stops; ``looks`` are called before every instruction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.addresses: set[int] = set()
        self._ranges: list[tuple[int, int, int]] = []
        self.looks: dict[int, Callable[[int], None]] = {}
        self._looking = 0
        self._next_look = 1

    @property
    def any(self) -> bool:
        """True if a run stops anywhere."""
        return bool(self.addresses or self._ranges)

    def at(self, linear: int) -> bool:
        """True where a run stops before the instruction at ``linear``."""
        if linear in self.addresses:
            return True
        return bool(self._ranges) and any(first <= linear <= last for first, last, _ in self._ranges)

    def break_at(self, linear: int) -> None:
        """Stop before the instruction at ``linear``."""
        self.addresses.add(linear)
        self._engine.moves.forget(linear)
        self._engine.intercept(linear)

    def clear_break(self, linear: int) -> None:
        """Forget a breakpoint."""
        self.addresses.discard(linear)

    def break_in(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Stop before the first instruction that begins in any linear range (first, last), both inclusive."""
        self.clear_break_in()
        self._ranges = [(first, last, self._engine.intercept_range(first, last)) for first, last in ranges]

    def break_outside(self, pages: Iterable[int]) -> None:
        """Stop before the first instruction that begins in none of the 4 KiB pages at linear ``pages``."""
        ranges, cursor = [], 0
        for page in sorted(set(pages)):
            if cursor < page:
                ranges.append((cursor, page - 1))
            cursor = page + PAGE_SIZE
        self.break_in([*ranges, (cursor, (1 << 64) - 1)])

    def clear_break_in(self) -> None:
        """Forget the ranges of :meth:`break_in` and :meth:`break_outside`."""
        for _, _, handle in self._ranges:
            self._engine.unwatch(handle)
        self._ranges = []

    def watch_instructions(self, look: Callable[[int], None]) -> int:
        """Call ``look(linear)`` before every instruction, at a cost per instruction; the answer ends it."""
        if not self.looks:
            self._looking = self._engine.intercept_range(0, (1 << 64) - 1)
        number, self._next_look = self._next_look, self._next_look + 1
        self.looks[number] = look
        self._engine.meter.enabled = 0
        return number

    def unwatch_instructions(self, number: int) -> None:
        """End :meth:`watch_instructions`."""
        del self.looks[number]
        if not self.looks:
            self._engine.unwatch(self._looking)
