"""A run with its whole past: recorded once, walked in both directions afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from emu.assembler import Image
from emu.errors import DebuggerError
from emu.journey.findings import Finding
from emu.journey.journey import Journey
from emu.journey.result import RunResult
from emu.journey.scene import Scene
from emu.journey.symbols import Symbols
from emu.kexec.arch import Arch
from emu.kexec.image import KexecImage
from emu.machine import events as ev
from emu.machine.gated import GatedMachine
from emu.machine.history import History, Instant
from emu.machine.machine import Machine


@dataclass(frozen=True, slots=True)
class Mark:
    """A transition's begin or end on the time line."""

    name: str
    begins: bool
    at: Instant
    n: int


class Recorded(Protocol):
    """What a session wants of a recorded run; ``journey`` is None where kjump booted somebody's own kernel."""

    machine: Machine
    history: History
    symbols: Symbols

    @property
    def journey(self) -> Journey | None:
        """The journey that it is of."""

    @property
    def arch(self) -> Arch:
        """The kind of x86."""

    @property
    def findings(self) -> Sequence[Finding]:
        """What did not hold in the run."""

    @property
    def stubs(self) -> Sequence[Image]:
        """The programs that move pages."""

    def image_at(self, at: Instant) -> KexecImage | None:
        """The image whose jump is under way, or was last, at an instant."""

    def marks(self) -> list[Mark]:
        """Where transitions begin and end, in order."""

    def peers(self, name: str) -> str:
        """A transition's name with who goes to whom."""


class Recording:
    """A journey that was run to its end, with checkpoints all along."""

    def __init__(self, scene: Scene, progress: Callable[[str], None] | None = None) -> None:
        self.scene = replace(scene, strict=True)
        self.journey: Journey = Journey(self.scene)
        self.machine: Machine = self.journey.machine
        self.symbols: Symbols = self.journey.symbols
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

    @property
    def arch(self) -> Arch:
        """The scene's."""
        return self.scene.arch

    @property
    def findings(self) -> Sequence[Finding]:
        """Those of the run."""
        return self.result.findings

    @property
    def stubs(self) -> Sequence[Image]:
        """Both copies."""
        loaded = self.journey.loaded
        return () if loaded is None else [one for one in (loaded.stub, loaded.second) if one is not None]

    def image_at(self, _at: Instant) -> KexecImage | None:
        """The one that the journey loads."""
        return self.journey.loaded.image if self.journey.loaded is not None else None

    def marks(self) -> list[Mark]:
        """Where transitions begin and end, in order."""
        barriers = {one.at.tick: one.at for one in self.history.checkpoints if one.barrier}
        return [
            Mark(event.name, event.begins, barriers.get(event.tick, Instant(event.tick, 0)), event.position.n)
            for event in self.history.events
            if isinstance(event, ev.TransitionMark)
        ]

    def peers(self, name: str) -> str:
        """``return B->A``; else the name alone."""
        for one in self.result.transitions:
            if one.name == name and one.target != "-":
                return f"{name} {one.source}->{one.target}"
        return name


class BootRecording:
    """A boot, recorded from where its machine stands.  The one who runs it calls :meth:`acted` and :meth:`finish`."""

    journey = None

    def __init__(self, machine: GatedMachine, every: int) -> None:
        self.machine: Machine = machine
        self._loop = machine.loop
        self.symbols = Symbols()
        self.history = History(machine, every)
        self.findings: Sequence[Finding] = ()
        self.stubs: Sequence[Image] = ()
        self._images: Sequence[tuple[int, KexecImage]] = ()
        self._marks: list[Mark] = []
        self._events: list[ev.Event] = []
        machine.listeners.append(self._heard)
        self.history.start()

    def _heard(self, event: ev.Event) -> None:
        if isinstance(event, ev.ConsoleLine | ev.OwnerViolation | ev.BusError):
            self._events.append(event)

    def acted(self) -> None:
        """Something was done to the machine from outside, between two runs."""
        self.history.mark(barrier=True)

    def finish(self, outcome: ev.Outcome | None, places: Sequence[tuple[str, bool, ev.Position, int]]) -> None:
        """The run is over; ``places`` are begins and ends of transitions: name, begins, position, tick."""
        self.machine.listeners.remove(self._heard)
        self._loop.on_wait = self._waits
        self.history.stop(outcome)
        self.history.events = self._events
        barriers = {one.at.tick: one.at for one in self.history.checkpoints if one.barrier}
        self._marks = [
            Mark(name, begins, barriers.get(tick, Instant(tick, 0)), position.n)
            for name, begins, position, tick in places
        ]

    def _waits(self, _ticks: int) -> None:
        """A halted processor waits: no longer than until something was done to it, if that was here."""
        now = self.machine.count.ticks
        if any(one.barrier and one.at.tick == now for one in self.history.checkpoints):
            self.machine.stop(ev.StepLimit(0))

    def add_jumps(self, images: Sequence[tuple[int, KexecImage]], stubs: Sequence[Image]) -> None:
        """What jumps were about: each image from the tick of its jump on; the code in each control page."""
        self._images, self.stubs = images, stubs
        for stub in stubs:
            self.symbols.add(stub)

    def image_at(self, at: Instant) -> KexecImage | None:
        """That of the last jump that has begun."""
        return next((image for tick, image in reversed(self._images) if tick <= at.tick), None)

    def add_symbols(self, kernel: Image, slide: int = 0) -> None:
        """``kernel`` runs ``slide`` bytes above where it was linked."""
        self.symbols.add(kernel, kernel.org + slide)

    @property
    def arch(self) -> Arch:
        """By the mode that the machine is in."""
        cpu = self.machine.cpu
        if cpu.registers()["efer"] >> 10 & 1:
            return Arch.X86_64_LA57 if cpu.registers()["cr4"] >> 12 & 1 else Arch.X86_64
        return Arch.I386_PAE if cpu.registers()["cr4"] >> 5 & 1 else Arch.I386

    def marks(self) -> list[Mark]:
        """Where transitions begin and end, in order."""
        return self._marks

    def peers(self, name: str) -> str:
        """The name alone: it says all that is known."""
        return name
