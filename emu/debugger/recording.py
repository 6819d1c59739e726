"""A run of a scene with its whole past: recorded once, walked in both directions afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from emu.errors import DebuggerError
from emu.journey.journey import Journey
from emu.journey.result import RunResult
from emu.journey.scene import Scene
from emu.machine import events as ev
from emu.machine.history import History, Instant


@dataclass(frozen=True, slots=True)
class Mark:
    """A transition's begin or end on the time line."""

    name: str
    begins: bool
    at: Instant
    n: int


class Recording:
    """A journey that was run to its end, with checkpoints all along."""

    def __init__(self, scene: Scene, progress: Callable[[str], None] | None = None) -> None:
        self.scene = replace(scene, strict=True)
        self.journey = Journey(self.scene)
        self.history = History(self.journey.machine)
        self._progress = progress or (lambda _text: None)
        self.result: RunResult = self._record()

    def _record(self) -> RunResult:
        journey, history = self.journey, self.history
        started = False

        def before_run() -> None:
            nonlocal started
            if not started:
                started = True
                history.start()
            else:
                history.mark(barrier=True)

        journey.before_run = before_run
        journey.observe = lambda name, _journey: self._progress(name)
        result = journey.run()
        history.stop(None if result.exit_status is None else ev.Exited(result.exit_status))
        if not started:
            raise DebuggerError("the journey ended before its first instruction")
        return result

    def marks(self) -> list[Mark]:
        """Where transitions begin and end, in order."""
        barriers = {one.at.tick: one.at for one in self.history.checkpoints if one.barrier}
        return [
            Mark(event.name, event.begins, barriers.get(event.tick, Instant(event.tick, 0)), event.position.n)
            for event in self.history.events
            if isinstance(event, ev.TransitionMark)
        ]
