"""Going to any instant of a recorded run, and one instruction at a time in both directions.

All of it is exact: the state at an instant is the same byte for byte however one came there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emu.errors import DebuggerError
from emu.machine import events as ev
from emu.machine.events import Position
from emu.machine.history import History, Instant
from emu.machine.machine import Machine


@dataclass(frozen=True, slots=True)
class EndOfRun(ev.Outcome):
    """There is nothing recorded behind this instant."""

    outcome: ev.Outcome | None


@dataclass(frozen=True, slots=True)
class StartOfRun(ev.Outcome):
    """There is nothing recorded before this instant."""


class Timeline:
    """One machine on its recorded past.  ``reached`` hears of each move that is done."""

    def __init__(self, machine: Machine, history: History) -> None:
        self.machine = machine
        self.history = history
        self.on_host_call: Callable[[int], None] = lambda _request: None
        self.on_outcome: Callable[[ev.Outcome], object] | None = None

    @property
    def now(self) -> Instant:
        """The present instant."""
        return self.history.now()

    @property
    def position(self) -> Position:
        """The present position, ``N.k``."""
        return self.machine.count.position(self.machine.cpu.pc)

    @property
    def start(self) -> Instant:
        """The first instant of the recording."""
        return self.history.checkpoints[0].at

    @property
    def end(self) -> Instant:
        """The last instant of the recording."""
        return self.history.end

    # ---- going -------------------------------------------------------------------------------------------------

    def goto(self, at: Instant) -> None:
        """Be at ``at``; raises DebuggerError outside the recording."""
        if not self.start <= at <= self.end:
            raise DebuggerError(
                f"tick {at.tick:,} is outside the recording", hint=f"ticks {self.start.tick:,} to {self.end.tick:,}"
            )
        index = self.history.before(at)
        if not (self.history.checkpoints[index].at <= self.now <= at and self.history.before(self.now) == index):
            self.history.restore(index)
        self._forward_to(at)
        index = self.history.before(self.now)
        here = self.history.checkpoints[index]
        if here.barrier and here.at == self.now and index != self.history.based_on:
            self.history.restore(index)  # what the harness did at this instant is done

    def _forward_to(self, at: Instant) -> None:
        machine = self.machine
        while machine.count.ticks < at.tick:
            machine.run(at.tick - machine.count.ticks)
        while machine.deliveries < at.deliveries:
            outcome = machine.run(until_delivery=True, ticks=1)
            if not isinstance(outcome, ev.HandlerEntered | ev.TripleFault | ev.NotModelled):
                raise DebuggerError(f"the recording does not repeat itself at tick {at.tick:,}")

    def goto_position(self, n: int, k: int = 0) -> None:
        """Be before instruction ``n`` + 1, ``k`` iterations into it; the first such instant."""
        last = max(self.history.checkpoints[-1].instructions, self.position.n)  # a branch goes on behind them
        if n < 0 or n > last:
            raise DebuggerError(f"N {n:,} is outside the recording", hint=f"N 0 to {last:,}")
        self.history.restore(self.history.before_instruction(n))
        while (left := n - self.position.n) > 0:
            if isinstance(self.forward(instructions=left), EndOfRun):
                break
        if k:
            self.machine.run(k)
            if self.position.n != n:
                raise DebuggerError(f"the instruction at N {n:,} has no iteration {k}")

    # ---- forwards ----------------------------------------------------------------------------------------------

    def _next_barrier(self) -> tuple[int, Instant] | None:
        now = self.now
        for index, one in enumerate(self.history.checkpoints):
            if one.barrier and one.at.tick > now.tick:
                return index, one.at
        return None

    def forward(
        self, *, instructions: int | None = None, ticks: int | None = None, until_delivery: bool = False
    ) -> ev.Outcome:
        """Run forward along the recording; what the harness did is done again on the way."""
        machine = self.machine
        limit = None if ticks is None else machine.count.ticks + ticks
        last = None if instructions is None else self.position.n + instructions
        while True:
            if self.now >= self.end:
                if not self.history.live:
                    return EndOfRun(self.history.outcome)
                return self._onward(limit, last, until_delivery=until_delivery)
            barrier = self._next_barrier()
            stop_at = min(
                self.end.tick if barrier is None else barrier[1].tick, self.end.tick if limit is None else limit
            )
            room = stop_at - machine.count.ticks
            left = None if last is None else last - self.position.n
            if (left is not None and left <= 0) or (limit is not None and room <= 0 and machine.count.ticks >= limit):
                return ev.StepLimit(0)
            if room <= 0 and stop_at == self.end.tick:  # the recording ends in a delivery, which takes no tick
                return machine.run(1, until_delivery=True)
            outcome = machine.run(max(room, 0), instructions=left, until_delivery=until_delivery)
            if barrier is not None and machine.count.ticks >= barrier[1].tick:
                self.history.restore(barrier[0])
                if isinstance(outcome, ev.StepLimit | ev.HostCall) and machine.breaks.at(machine.cpu.pc):
                    return ev.Breakpoint(machine.cpu.pc)  # the next run would take it for where it was resumed
                if isinstance(outcome, ev.HostCall):
                    continue
            if not isinstance(outcome, ev.StepLimit | ev.HostCall):
                return outcome

    def _onward(self, limit: int | None, last: int | None, *, until_delivery: bool) -> ev.Outcome:
        """Beyond what is recorded, in a branch: run on, and record."""
        machine, history = self.machine, self.history
        machine.loop.pause_at = machine.count.ticks + history.every
        try:
            while True:
                room = None if limit is None else limit - machine.count.ticks
                left = None if last is None else last - self.position.n
                outcome = machine.run(room, instructions=left, until_delivery=until_delivery)
                history.end = history.now()
                if isinstance(outcome, ev.HostCall):
                    self.on_host_call(outcome.request)
                    history.mark(barrier=True)
                    continue
                if isinstance(outcome, ev.Exited | ev.TripleFault | ev.Halted | ev.NotModelled):
                    history.outcome = outcome
                    history.mark(barrier=False)
                    history.live = False
                    return EndOfRun(outcome)
                return outcome
        finally:
            machine.loop.pause_at = None

    def step(self) -> ev.Outcome | None:
        """One instruction forward, or into one handler; None, or what ended the recording."""
        outcome = self.forward(instructions=1, until_delivery=True)
        return None if isinstance(outcome, ev.StepLimit | ev.HandlerEntered) else outcome

    # ---- backwards ---------------------------------------------------------------------------------------------

    def step_back(self) -> ev.Outcome | None:
        """To the instant before the last step; StartOfRun at the beginning."""
        here, n = self.now, self.position.n
        if here <= self.start:
            return StartOfRun()
        if self.position.k:
            self.goto_position(n)
            return None
        self.goto_position(max(n - 1, 0))
        if self.now < here and self.position.n == n - 1 and self.machine.deliveries == here.deliveries:
            return None  # one instruction lies between, and nothing else
        if self.now >= here:
            # Only deliveries lie between: this position began with them.
            self.history.restore(self.history.before_instruction(max(n - 1, 0)))
        self._walk_to_last_before(here)
        return None

    def _walk_to_last_before(self, here: Instant) -> None:
        """From an instant before ``here`` step by step to the last boundary before it."""
        previous = self.now
        while True:
            last = previous
            if self.step() is not None or self.now >= here:
                break
            previous = self.now
        if self.now != last:
            self.goto(last)

    def last_match(self, watch: Callable[[Callable[[Instant], None]], Callable[[], None]]) -> Instant | None:
        """The last instant before now at which something happened, or None.

        ``watch(hit)`` installs a watch that calls ``hit(instant)`` as the machine runs, and gives its removal.
        """
        here = self.now
        bound = here
        index = self.history.before(here)
        while index >= 0:
            found: list[Instant] = []
            self.history.restore(index)
            if self.now < bound:
                remove = watch(_sink(found, bound))
                try:
                    self._quiet_run(bound)
                finally:
                    remove()
            if found:
                self.goto(here)
                return max(found)
            bound = self.history.checkpoints[index].at
            index -= 1
        self.goto(here)
        return None

    def _quiet_run(self, bound: Instant) -> None:
        pc = self.machine.cpu.pc
        if self.on_outcome is not None and not self.position.k and self.machine.breaks.at(pc):
            self.on_outcome(ev.Breakpoint(pc))  # a run does not stop where it begins
        while self.now < bound and self.machine.count.ticks < bound.tick:
            before = self.now
            outcome = self.forward(ticks=bound.tick - self.machine.count.ticks)
            if self.on_outcome is not None and self.now < bound:
                self.on_outcome(outcome)
            if self.now == before and not isinstance(outcome, ev.Breakpoint):
                return


def _sink(found: list[Instant], bound: Instant) -> Callable[[Instant], None]:
    """Keep each instant before ``bound``."""

    def take(instant: Instant) -> None:
        if instant < bound:
            found.append(instant)

    return take
