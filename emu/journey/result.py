"""What a run came to: transitions, findings, consoles; as data for tables, JSON and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from emu.journey.findings import Finding
from emu.journey.scene import Scene, kind_of
from emu.machine import events as ev
from emu.machine.machine import Machine


@dataclass
class Transition:
    """One transition; counts are of the movement itself, from the stub's first instruction to the peer's.

    ``name`` is unique in a run: the second return is called ``return 2``.  ``control_pages`` are what a load takes, by
    what it takes them for; ``entry_instructions`` what an entry point of A executes before it calls the stub;
    ``visit`` is B's own count, when it is awake.
    """

    name: str
    source: str
    target: str
    instructions: int | None = None
    rep_iterations: int = 0
    pages_moved: int = 0
    pages_compared: int = 0
    moved_how: str = "swap"
    listed: int = 0
    control_pages: dict[str, int] = field(default_factory=dict)
    entry_instructions: int | None = None
    saved_bytes: int | None = None
    image_bytes: int | None = None
    restored_pages: int | None = None
    visit: int | None = None
    jump_page: str = ""
    start: ev.Position | None = None
    end: ev.Position | None = None
    findings: int = 0
    checks: dict[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What it is, whatever round of it."""
        return kind_of(self.name)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "from": self.source,
            "to": self.target,
            "instructions": self.instructions,
            "rep_iterations": self.rep_iterations,
            "pages_listed": self.listed,
            "pages_moved": self.pages_moved,
            "pages_compared": self.pages_compared,
            "moved_by": self.moved_how if self.instructions is not None else None,
            "control_pages": dict(self.control_pages),
            "entry_instructions": self.entry_instructions,
            "saved_bytes": self.saved_bytes,
            "image_bytes": self.image_bytes,
            "restored_pages": self.restored_pages,
            "visit": self.visit,
            "checks": dict(self.checks),
            "findings": self.findings,
        }


@dataclass
class RunResult:
    """The outcome of one scene."""

    scene: Scene
    transitions: list[Transition] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    all_findings: list[Finding] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    volatile: list[tuple[int, int]] = field(default_factory=list)
    hazards: int = 0
    interrupts: int = 0
    exit_status: int | None = None
    instructions: int = 0
    iterations: int = 0
    ticks: int = 0

    @property
    def ok(self) -> bool:
        """Everything that was checked held, and the guests ended well (where they were let run to the end)."""
        return not self.findings and self.exit_status in (None, 0)

    @property
    def not_run(self) -> list[str]:
        """Transitions of the journey that were not reached."""
        done = {transition.name for transition in self.transitions}
        return [name for name in self.scene.journey.transitions if name not in done]

    @property
    def peer_state_kept(self) -> bool | None:
        """Whether B still had its counter on a later visit; None where there was none."""
        visits = [transition.visit for transition in self.transitions if transition.visit is not None]
        return visits[-1] > 1 if len(visits) > 1 else None

    @property
    def image_bytes(self) -> int | None:
        """The size of the last image's file; None where nothing was saved."""
        sizes = [one.image_bytes for one in self.transitions if one.image_bytes is not None]
        return sizes[-1] if sizes else None

    @property
    def volatile_bytes(self) -> int:
        """Bytes of RAM that were declared volatile in one movement."""
        return sum(end - start for start, end in self.volatile)

    def finish(self, machine: Machine, findings: Sequence[Finding], everything: Sequence[Finding]) -> None:
        """Take the totals from the machine at the end of the run."""
        self.findings = list(findings)
        self.all_findings = list(everything)
        self.console = [event.text for event in machine.events if isinstance(event, ev.ConsoleLine)]
        self.interrupts = sum(isinstance(event, ev.Interrupt) for event in machine.events)
        self.instructions, self.iterations = machine.count.instructions, machine.count.iterations
        self.ticks = machine.count.ticks

    def to_json(self) -> dict[str, Any]:
        """Plain data, the document of ``--json``."""
        scene = self.scene
        return {
            "journey": scene.journey.name,
            "arch": str(scene.arch),
            "transfer": scene.transfer,
            "handoff": scene.handoff,
            "seed": scene.seed,
            "ram": scene.ram,
            "ok": self.ok,
            "transitions": [transition.to_json() for transition in self.transitions],
            "not_run": self.not_run,
            "findings": [finding_json(finding) for finding in self.findings],
            "hazards": self.hazards,
            "volatile_bytes": self.volatile_bytes,
            "peer_state_kept": self.peer_state_kept,
            "image_bytes": self.image_bytes,
            "instructions": self.instructions,
            "rep_iterations": self.iterations,
            "exit_status": self.exit_status,
            "console": self.console,
        }


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding as plain data."""
    return {
        "kind": finding.kind,
        "transition": finding.transition,
        "position": str(finding.position) if finding.position is not None else None,
        "where": finding.where,
        "expected": finding.expected,
        "actual": finding.actual,
        "because": list(finding.because),
        "catalogue": finding.catalogue,
        "follows": list(finding.follows),
    }
