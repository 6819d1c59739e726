"""One counter of the 8254 as a pure function of time: its output, its count, and when the output changes next.

All times are in periods of the input clock since power-on.  Nothing is counted down: a counter knows when its
count was loaded, and everything follows.  Source: Intel 8254 data sheet (order number 231164), mode definitions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum


class Mode(IntEnum):
    """The six counter modes."""

    TERMINAL_COUNT = 0
    ONE_SHOT = 1
    RATE = 2
    SQUARE = 3
    SOFTWARE_STROBE = 4
    HARDWARE_STROBE = 5


PERIODIC = (Mode.RATE, Mode.SQUARE)
TRIGGERED = (Mode.ONE_SHOT, Mode.HARDWARE_STROBE)
SHORTEST_PERIOD = 2


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter: ``start`` is the time at which it held ``reload``, None while it has nothing to count.

    ``held`` is the time already counted when a low gate stopped it.  ``following`` is a new count of a
    periodic mode, written at ``written``, that waits for the period (in mode 3: half period) to end.
    ``modulus`` is what the count wraps at: 0x10000, or 10000 in BCD.
    """

    mode: Mode = Mode.TERMINAL_COUNT
    reload: int | None = None
    start: int | None = None
    held: int | None = None
    following: int | None = None
    written: int = 0
    gate: bool = True
    modulus: int = 0x10000

    def _elapsed(self, now: int) -> int:
        """Clocks counted since the load; negative before the load has happened."""
        if self.held is not None:
            return self.held
        return now - self.start if self.start is not None else -1

    def out(self, now: int) -> bool:
        """The level of OUT at ``now``."""
        if self.reload is None or self.start is None or self._elapsed(now) < 0:
            return self.mode != Mode.TERMINAL_COUNT
        elapsed, period = self._elapsed(now), self.reload
        match self.mode:
            case Mode.TERMINAL_COUNT | Mode.ONE_SHOT:
                return elapsed >= period
            case Mode.RATE:
                return elapsed % period != period - 1
            case Mode.SQUARE:
                return elapsed % period < (period + 1) // 2
            case _:
                return elapsed != period

    def count(self, now: int) -> int:
        """The counting element at ``now``, as a number; a mode 3 counter steps by two."""
        if self.reload is None:
            return 0
        elapsed = max(self._elapsed(now), 0)
        if self.mode == Mode.RATE:
            return (self.reload - elapsed % self.reload) % self.modulus
        if self.mode == Mode.SQUARE:
            position, half = elapsed % self.reload, (self.reload + 1) // 2
            return ((self.reload & ~1) - 2 * (position if position < half else position - half)) % self.modulus
        return (self.reload - elapsed) % self.modulus

    def null_count(self, now: int) -> bool:
        """Whether a count was written that is not being counted yet."""
        return self.reload is None or self.following is not None or (self.held is None and self._elapsed(now) < 0)

    def next_edge(self, now: int) -> int | None:
        """The first time after ``now`` at which OUT may change of itself, or None."""
        if self.reload is None or self.start is None or self.held is not None:
            return None
        period = self.reload
        match self.mode:
            case Mode.TERMINAL_COUNT:
                offsets = [period]
            case Mode.ONE_SHOT:
                offsets = [0, period]
            case Mode.RATE:
                offsets = [period - 1, period, 2 * period - 1]
            case Mode.SQUARE:
                offsets = [(period + 1) // 2, period, period + (period + 1) // 2]
            case _:
                offsets = [period, period + 1]
        origin = self.start
        if self.mode in PERIODIC:
            origin += max(now - self.start, 0) // period * period
        return min((origin + offset for offset in offsets if origin + offset > now), default=None)

    def settled(self, now: int) -> Counter:
        """The counter with a waiting count taken over, when its turn has come at or before ``now``."""
        if self.following is None or self.start is None or self.reload is None:
            return self
        if self.mode == Mode.RATE:
            boundary = self.start + (max(self.written - self.start, 0) // self.reload + 1) * self.reload
            begins = boundary
        else:
            edge = self.next_edge(self.written)
            boundary = self.start if edge is None else edge
            begins = boundary if self.out(boundary) else boundary - (self.following + 1) // 2
        if now < boundary:
            return self
        return replace(self, reload=self.following, start=begins, following=None)

    def loaded(self, count: int, now: int) -> Counter:
        """A count written at ``now``; 0 stands for the modulus.  It is loaded by the next input clock.

        A period of 1, illegal in modes 2 and 3, counts as 2.
        """
        count = count or self.modulus
        if self.mode in TRIGGERED:
            return replace(self, reload=count)
        if self.mode not in PERIODIC:
            return replace(self, reload=count, start=now + 1, held=None if self.gate else 0)
        count = max(count, SHORTEST_PERIOD)
        if self.start is not None:
            return replace(self, following=count, written=now)
        return replace(self, reload=count, start=now + 1 if self.gate else None)

    def stopped(self) -> Counter:
        """Mode 0 after the first byte of a two-byte count: OUT low, counting disabled."""
        return replace(self, start=None, held=None)

    def with_gate(self, gate: bool, now: int) -> Counter:
        """The gate input goes to a level at ``now``."""
        if gate == self.gate:
            return self
        changed = replace(self, gate=gate)
        if self.mode in TRIGGERED:
            return replace(changed, start=now + 1) if gate and self.reload is not None else changed
        if self.mode in PERIODIC:
            return replace(
                changed,
                reload=self.following or self.reload,
                following=None,
                start=now + 1 if gate and self.reload is not None else None,
            )
        if self.start is None:
            return changed
        if gate:
            return replace(changed, start=now + 1 - (self.held or 0), held=None)
        return replace(changed, held=max(self._elapsed(now), 0))
