"""Moving through a recorded run: both directions, over calls, to the next stop.  A move gives a :class:`Stopped`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emu.assembler import Image
from emu.debugger.address import Address, Evaluator
from emu.debugger.recording import Mark, Recorded, Recording
from emu.debugger.stops import Hit, StopTable
from emu.debugger.timeline import EndOfRun, StartOfRun, Timeline
from emu.debugger.watch import MAGIC, Watcher
from emu.errors import DebuggerError
from emu.journey.journey import Journey
from emu.journey.loader import Loaded
from emu.journey.scene import Scene
from emu.machine import events as ev
from emu.machine.events import Position
from emu.machine.history import Instant, Tail

_START = Instant(0, 0)

MOST_UNDO = 10_000
"""Moves that can be undone; changes by hand always can."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why a move ended; ``hits`` are the stops that matched there."""

    why: str
    position: Position
    at: Instant
    hits: tuple[Hit, ...] = ()
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """A change by hand, so that it can be made again: what was done with which arguments, at which instant."""

    what: str
    arguments: tuple[object, ...] = ()
    at: Instant = _START


@dataclass(slots=True)
class Past:
    """An entry of the undo list; ``tail`` is the past that a change replaced."""

    at: Instant
    what: str
    tail: Tail | None = None
    change: Change | None = None


class Moves:
    """One recorded run and a place in it.  Raises DebuggerError for what cannot be done as asked."""

    def __init__(self, what: Scene | Recorded, progress: Callable[[str], None] | None = None) -> None:
        self.recording: Recorded = Recording(what, progress) if isinstance(what, Scene) else what
        self.machine = self.recording.machine
        self.symbols = self.recording.symbols
        self.timeline = Timeline(self.machine, self.recording.history)
        self.evaluator = Evaluator(self.machine.cpu, self.symbols)
        self.stops = StopTable()
        self.watcher = Watcher(self)
        self._undo: list[Past] = []
        self.before: dict[str, int] = {}
        self.interrupted = False
        self.timeline.goto(self.timeline.start)

    # ---- what is recorded --------------------------------------------------------------------------------------

    @property
    def journey(self) -> Journey:
        """The journey that was recorded; DebuggerError where it was a boot."""
        if self.recording.journey is None:
            raise DebuggerError("this is a boot of your own: there is no scene and no journey behind it")
        return self.recording.journey

    @property
    def scene(self) -> Scene:
        """The scene of the journey; DebuggerError where it was a boot."""
        return self.journey.scene

    @property
    def loaded(self) -> Loaded | None:
        """What the journey loaded, if it has come so far."""
        return self.recording.journey.loaded if self.recording.journey is not None else None

    @property
    def kernels(self) -> tuple[Image, ...]:
        """The journey's kernels B and A."""
        journey = self.recording.journey
        return (journey.kernel_b, journey.kernel_a) if journey is not None else ()

    # ---- where we are ------------------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """The present position."""
        return self.timeline.position

    @property
    def pc(self) -> int:
        """Linear address of the next instruction."""
        return self.machine.cpu.pc

    def marks(self) -> list[Mark]:
        """Begins and ends of transitions."""
        return self.recording.marks()

    def transition(self) -> str:
        """The transition that the present instant lies in, or the one that came last."""
        now, name = self.timeline.now, "boot"
        for mark in self.marks():
            if mark.at.tick <= now.tick:
                name = mark.name if mark.begins else f"after {mark.name}"
        return name

    def read(self, address: Address, size: int) -> bytes | None:
        """Memory at an address, with no trace in the machine; None where it is not mapped."""
        if address.physical:
            return self.machine.ram.read(address.value, size)
        return self.machine.cpu.peek(address.value, size)

    def physical(self, address: Address) -> int:
        """The physical address behind ``address``."""
        if address.physical:
            return address.value
        walked = self.machine.cpu.walk(address.value)
        if walked.physical is None:
            raise DebuggerError(f"{address} is not mapped here", hint="walk shows why")
        return walked.physical

    # ---- moving ------------------------------------------------------------------------------------------------

    def _moving(self, what: str) -> None:
        self._undo.append(Past(self.timeline.now, what))
        if len(self._undo) > MOST_UNDO and self._undo[0].change is None:
            del self._undo[0]
        self.before = self.machine.cpu.registers()
        self.interrupted = False

    def _stopped(self, why: str, hits: tuple[Hit, ...] = (), *, ended: bool = False) -> Stopped:
        return Stopped(why, self.position, self.timeline.now, hits, ended)

    def _end(self, outcome: ev.Outcome) -> Stopped:
        if isinstance(outcome, StartOfRun):
            return self._stopped("at the beginning of the recording", ended=True)
        inner = outcome.outcome if isinstance(outcome, EndOfRun) else outcome
        text = "at the end of the recording"
        return self._stopped(f"{text}: {inner}" if inner is not None else text, ended=True)

    def goto(self, n: int, k: int = 0) -> Stopped:
        """To position ``n.k``."""
        self._moving("goto")
        self.timeline.goto_position(n, k)
        return self._stopped("goto")

    def goto_instant(self, at: Instant) -> Stopped:
        """To an instant."""
        self._moving("goto")
        self.timeline.goto(at)
        return self._stopped("goto")

    def goto_transition(self, name: str) -> Stopped:
        """To the first instruction of a transition's stub (``load``: to the power-on)."""
        for mark in self.marks():
            if mark.name == name and mark.begins:
                return self.goto_instant(mark.at)
        known = ", ".join(dict.fromkeys(mark.name for mark in self.marks()))
        raise DebuggerError(f"no transition {name} was reached", hint=f"one of {known}")

    def step(self, count: int = 1) -> Stopped:
        """``count`` instructions forward; entering a handler is a step."""
        self._moving("step")
        for _ in range(count):
            ended = self.timeline.step()
            if ended is not None:
                return self._end(ended)
            if self.interrupted:
                return self._stopped("interrupted")
        return self._stopped("step")

    def step_back(self, count: int = 1) -> Stopped:
        """``count`` instructions back."""
        self._moving("reverse-step")
        for _ in range(count):
            ended = self.timeline.step_back()
            if ended is not None:
                return self._end(ended)
            if self.interrupted:
                return self._stopped("interrupted")
        return self._stopped("reverse-step")

    def wait(self, ticks: int) -> Stopped:
        """``ticks`` of virtual time forward: an instruction, or an iteration of a repeated one, is one of them."""
        self._moving("wait")
        outcome = self.timeline.forward(ticks=ticks)
        return self._end(outcome) if isinstance(outcome, EndOfRun) else self._stopped("wait")

    def iterate(self, count: int = 1) -> Stopped:
        """``count`` iterations of the repeated instruction at hand (or one instruction, if it is none)."""
        self._moving("iter")
        outcome = self.timeline.forward(ticks=count, until_delivery=True)
        if isinstance(outcome, EndOfRun):
            return self._end(outcome)
        return self._stopped("iter")

    def undo(self) -> Stopped:
        """Back to where the last move began."""
        if not self._undo:
            raise DebuggerError("nothing to undo")
        past = self._undo.pop()
        self.before = self.machine.cpu.registers()
        if past.tail is not None:
            self.recording.history.rejoin(past.tail)
        self.timeline.goto(past.at)
        return self._stopped(f"undid {past.what}")

    # ---- over calls --------------------------------------------------------------------------------------------

    def next(self, count: int = 1) -> Stopped:
        """``count`` instructions forward, calls and software interrupts in one go."""
        stopped = self._stopped("next")
        for _ in range(count):
            after = self._return_of_call()
            stopped = self.step() if after is None else self.run_to(after, depth=self.machine.cpu.rsp)
            if stopped.ended or stopped.hits:
                break
        return stopped

    def next_back(self, count: int = 1) -> Stopped:
        """The reverse of :meth:`next`: one instruction back, and out of a call that lies behind."""
        stopped = self._stopped("reverse-next")
        for _ in range(count):
            depth, after = self.machine.cpu.rsp, self.pc
            stopped = self.step_back()
            if self.machine.cpu.rsp < depth and self._is_return():
                found = self.timeline.last_match(self.watcher.for_call(after, depth))
                if found is not None:
                    self.timeline.goto(found)
                    stopped = self._stopped("reverse-next")
            if stopped.ended:
                break
        return stopped

    def _decoded(self) -> str:
        text = self.watcher.disassembly(self.pc)
        return text.split()[0] if text else ""

    def _is_return(self) -> bool:
        return self._decoded().startswith(("ret", "iret", "lret"))

    def _return_of_call(self) -> int | None:
        if not self._decoded().startswith(("call", "lcall", "int")):
            return None
        return self.pc + self.watcher.length(self.pc)

    def run_to(self, linear: int, depth: int | None = None) -> Stopped:
        """Forward to linear ``linear`` (with the stack no deeper than ``depth``), or an earlier stop."""
        return self.resume(until=linear, depth=depth)

    def finish(self) -> Stopped:
        """Forward until the present routine has returned: the first RET that leaves the stack above here."""
        self._moving("finish")
        depth = self.machine.cpu.rsp
        while True:
            leaving = self._is_return()
            ended = self.timeline.step()
            if ended is not None:
                return self._end(ended)
            if leaving and self.machine.cpu.rsp > depth:
                return self._stopped("finish")
            if self.interrupted:
                return self._stopped("interrupted")

    # ---- running to a stop -------------------------------------------------------------------------------------

    def resume(self, until: int | None = None, depth: int | None = None) -> Stopped:
        """Forward to the next stop, to ``until``, or to the end."""
        self._moving("continue")
        while True:
            hits = self.watcher.run_forward(until, depth)
            if hits is None:
                return self._end(EndOfRun(self.recording.history.outcome))
            if self.interrupted:
                return self._stopped("interrupted")
            real = tuple(hit for hit in hits if self._counts(hit))
            reached = any(hit.number == 0 for hit in hits)
            if real or reached:
                for hit in real:
                    self._drop_if_temporary(hit)
                return self._stopped("; ".join(hit.text for hit in real) or "reached", real)

    def reverse_continue(self) -> Stopped:
        """Back to the last stop before here, or to the beginning."""
        self._moving("reverse-continue")
        seen: list[Hit] = []
        found = self.timeline.last_match(self.watcher.for_stops(seen))
        if found is None:
            self.timeline.goto(self.timeline.start)
            return self._end(StartOfRun())
        self.timeline.goto(found)
        hits = tuple(dict.fromkeys(hit for hit in seen if hit.at == found))
        return self._stopped("; ".join(hit.text for hit in hits) or "reverse-continue", hits)

    def _counts(self, hit: Hit) -> bool:
        """Does this hit stop the run?  Conditions, ignore counts and hit counts are settled here."""
        if hit.number in (0, MAGIC):
            return hit.number == MAGIC
        stop = self.stops.stops.get(hit.number)
        if stop is None or (stop.condition and not self.evaluator.number(stop.condition)):
            return False
        stop.hits += 1
        if stop.ignore:
            stop.ignore -= 1
            return False
        return True

    def _drop_if_temporary(self, hit: Hit) -> None:
        stop = self.stops.stops.get(hit.number)
        if stop is not None and stop.temporary:
            self.stops.remove(hit.number)
