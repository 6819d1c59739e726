"""Where the run is: ticks of virtual time, instructions retired, iterations of the repeated instruction at hand.

The engine counts ticks.  A repeated instruction takes a tick per iteration (and one to leave); the iterations are
counted here, so that an instruction is ONE whatever it is, and ``N.k`` names a place inside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from emu.machine.events import Position


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
    """The state above with the rules by which it moves."""

    def __init__(self) -> None:
        self.state = CountState()

    @property
    def ticks(self) -> int:
        """Virtual time since power-on."""
        return self.state.ticks

    @property
    def instructions(self) -> int:
        """Instructions retired since power-on (one under way counts from its second iteration on)."""
        return self.state.ticks - self.state.iterations - self.state.idle

    @property
    def iterations(self) -> int:
        """Iterations of repeated instructions that were no instruction of their own."""
        return self.state.iterations

    def pass_time(self, ticks: int) -> None:
        """Time goes by: instructions retired, or nothing happened during HLT (see :meth:`idle`)."""
        self.state = replace(self.state, ticks=self.state.ticks + ticks)

    def idle(self, ticks: int) -> None:
        """Time goes by in which no instruction retires."""
        state = self.state
        self.state = replace(state, ticks=state.ticks + ticks, idle=state.idle + ticks)

    def before_iteration(self, address: int, tick: int, by_host: int, *, engine_next: bool) -> None:
        """A repeated instruction at ``address`` is about to iterate at ``tick``.

        The host has just done ``by_host`` iterations of it; the engine does the next if ``engine_next``.
        """
        state = self.state
        under_way = state.repeated == address and state.resumes_at == tick
        counted = by_host + (1 if under_way and state.executed else 0)
        self.state = replace(
            state,
            iterations=state.iterations + counted,
            repeated=address,
            resumes_at=tick + by_host + engine_next,
            executed=engine_next,
            done=(state.done if under_way else 0) + counted,
        )

    def interrupted(self, address: int) -> None:
        """Control leaves for a handler at ``address``: a repeated instruction under way there has not retired."""
        state = self.state
        if state.repeated == address and state.resumes_at == state.ticks and state.executed:
            self.state = replace(state, iterations=state.iterations + 1, repeated=-1)

    def position(self, address: int) -> Position:
        """Where the run is, with control at linear ``address``."""
        state = self.state
        under_way = state.repeated == address and state.resumes_at == state.ticks
        if not under_way:
            return Position(self.instructions)
        pending = 1 if state.executed else 0
        return Position(self.instructions - pending, state.done + pending)
