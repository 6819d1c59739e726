"""Where the run is: ticks of virtual time, instructions retired, iterations of the repeated instruction at hand.

The engine counts ticks.  A repeated instruction takes a tick per iteration (and one to leave); the iterations are
counted here, so that an instruction is ONE whatever it is, and ``N.k`` names a place inside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.machine.events import Position
from emu.machine.moves import NOWHERE, Meter


@dataclass(frozen=True, slots=True)
class CountState:
    """``iterations`` are the ticks that were no instruction of their own.

    ``repeated`` is the linear address of the repeated instruction under way (-1: none), ``resumes_at`` the tick at
    which its next iteration begins, ``executed`` whether the engine itself ran the iteration before that.
    """

    ticks: int = 0
    iterations: int = 0
    idle: int = 0
    repeated: int = -1
    resumes_at: int = -1
    executed: bool = False
    done: int = 0


class Counting:
    """The fields of :class:`CountState`, and the rules by which they move."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.state = CountState()

    @property
    def iterations(self) -> int:
        """Ticks that were no instruction of their own, since power-on."""
        return self._meter.iterations

    @property
    def state(self) -> CountState:
        """All of it, as a value."""
        meter = self._meter
        return CountState(
            self.ticks, self.iterations, self.idle_ticks, -1 if meter.repeated == NOWHERE else meter.repeated,
            meter.resumes_at, bool(meter.executed), meter.done,
        )  # fmt: skip

    @state.setter
    def state(self, state: CountState) -> None:
        self.ticks = state.ticks
        meter = self._meter
        meter.iterations = state.iterations
        self.idle_ticks = state.idle
        meter.repeated, meter.resumes_at = state.repeated & NOWHERE, state.resumes_at
        meter.executed, meter.done = state.executed, state.done

    @property
    def instructions(self) -> int:
        """Instructions retired since power-on (one under way counts from its second iteration on)."""
        return self.ticks - self.iterations - self.idle_ticks

    def pass_time(self, ticks: int) -> None:
        """Instructions and iterations retired."""
        self.ticks += ticks

    def idle(self, ticks: int) -> None:
        """HLT waited: time in which no instruction retires."""
        self.ticks += ticks
        self.idle_ticks += ticks

    def before_iteration(self, address: int, tick: int, by_host: int, *, engine_next: bool) -> None:
        """A repeated instruction at ``address`` is about to iterate at ``tick``.

        The host has just done ``by_host`` iterations of it; the engine does the next if ``engine_next``.
        """
        under_way = self._meter.repeated == address and self._meter.resumes_at == tick
        counted = by_host + (1 if under_way and self._meter.executed else 0)
        self._meter.iterations += counted
        self._meter.repeated = address
        self._meter.resumes_at = tick + by_host + engine_next
        self._meter.executed = engine_next
        self._meter.done = (self._meter.done if under_way else 0) + counted

    def interrupted(self, address: int) -> bool:
        """Control leaves for a handler at ``address``: a repeated instruction under way there has not retired.

        True if there is one.
        """
        under_way = self._meter.repeated == address and self._meter.resumes_at == self.ticks
        if under_way and self._meter.executed:
            self._meter.iterations += 1
        if under_way:
            self._meter.repeated = NOWHERE
        return under_way

    def position(self, address: int) -> Position:
        """Where the run is, with control at linear ``address``."""
        under_way = self._meter.repeated == address and self._meter.resumes_at == self.ticks
        if self._meter.repeated == address and self._meter.executed and self._meter.resumes_at == self.ticks + 1:
            return Position(self.instructions, self._meter.done)  # in the iteration itself
        if not under_way:
            return Position(self.instructions)
        pending = 1 if self._meter.executed else 0
        return Position(self.instructions - pending, self._meter.done + pending)
