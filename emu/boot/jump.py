"""One kexec jump of a kernel that runs in the machine: where it is, what it moves, what was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from emu.boot.control_page import ControlPage
from emu.journey.memory import RamImage
from emu.kexec.entry_list import Mode, StepKind, WalkStep, pairs_of
from emu.kexec.image import KexecImage
from emu.kexec.layout import LoadFlag
from emu.machine import events as ev
from emu.machine.ram import Ram
from emu.units import PAGE_SHIFT, Phys


class Stage(Enum):
    """Where a jump is: who runs, and what it waits for."""

    THERE = "there"
    PEER = "peer"
    BACK = "back"
    DONE = "done"


@dataclass(slots=True)
class Jump:
    """One jump; its places are (position, tick).

    ``at_call``: the caller's registers at the stub's first instruction, as far as the stub saved them.  ``home``: the
    page frames that the caller may use, where it is a peer itself; None for all.  ``is_return``: its peer is one that
    waits for the return of a jump of its own.
    """

    number: int
    control: ControlPage
    steps: tuple[WalkStep, ...]
    start: int
    preserve: bool
    at_call: dict[str, int]
    gdtr: tuple[int, int]
    before: RamImage | None
    home: frozenset[int] | None
    seen: tuple[ev.Position, int]
    is_return: bool = False
    stage: Stage = Stage.THERE
    waits_at: int = 0
    return_to: int = 0
    expected: RamImage | None = None
    at_entry: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    entered: tuple[ev.Position, int] | None = None
    returned: tuple[ev.Position, int] | None = None
    back: tuple[ev.Position, int] | None = None
    checks: dict[str, int] = field(default_factory=dict)
    violations: list[ev.OwnerViolation] = field(default_factory=list)

    @property
    def pages(self) -> int:
        """Pages that its list moves."""
        return sum(1 for step in self.steps if step.kind is StepKind.SOURCE)

    @property
    def listed(self) -> set[int]:
        """Page frames of its destinations and sources."""
        return {int(page) >> PAGE_SHIFT for pair in pairs_of(self.steps) for page in pair}

    @property
    def sources(self) -> set[int]:
        """Page frames that hold the peer's content while it does not run; a page can be its own source."""
        return {int(source) >> PAGE_SHIFT for _, source in pairs_of(self.steps)}

    @property
    def destinations(self) -> set[int]:
        """Page frames of the pages that the peer is given."""
        return {int(destination) >> PAGE_SHIFT for destination, _ in pairs_of(self.steps)}

    @property
    def own(self) -> set[int]:
        """Page frames of the swap page and the control page, which the stub writes besides those of the list."""
        return {self.control.swap_page >> PAGE_SHIFT, self.control.page >> PAGE_SHIFT}

    @property
    def places(self) -> dict[str, tuple[ev.Position, int]]:
        """Where it came to its places, as far as it did."""
        places = {"seen": self.seen, "entered": self.entered, "returned": self.returned, "back": self.back}
        return {name: at for name, at in places.items() if at is not None}

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {
            "number": self.number,
            "stub": str(self.control.form),
            "head": self.control.head,
            "start": self.start,
            "control_page": self.control.page,
            "preserve_context": self.preserve,
            "pages": self.pages,
            "positions": {name: at[0].n for name, at in self.places.items()},
            "complete": self.stage is Stage.DONE,
            "checks": dict(self.checks),
        }

    def image(self) -> KexecImage:
        """What it is about, as the debugger shows it; the segments are not known any more."""
        control = self.control
        return KexecImage(
            arch=control.arch,
            entry=Phys(self.start),
            flags=LoadFlag.PRESERVE_CONTEXT if self.preserve else LoadFlag(0),
            segments=(),
            head=control.head,
            pairs=pairs_of(self.steps),
            control_page=Phys(control.page),
            swap_page=Phys(control.swap_page),
            table_root=Phys(control.words["tables"]),
            list_pages=tuple(step.source for step in self.steps if step.kind is StepKind.INDIRECTION),
        )

    def moved(self, ram: Ram, mode: Mode) -> RamImage:
        """RAM as the reference model has it when the list has been carried out once from here."""
        image = RamImage(ram)
        image.move(self.steps, mode, self.control.swap_page)
        return image

    def line(self) -> str:
        """What became of it, for a person."""
        known = sum(wrong for name, wrong in self.checks.items() if name.startswith("known"))
        wrong = sum(self.checks.values()) - known
        how = "there and back" if self.stage is Stage.DONE and self.preserve else self.stage.value
        verdict = f"{wrong} wrong" if wrong else "ok"
        faults = f", {known} known faults" if known else ""
        return (
            f"jump {self.number}: {self.pages:,} page{'s' * (self.pages != 1)} swapped, {how}, "
            f"from N {self.seen[0]}: {len(self.checks)} checks {verdict}{faults}"
        )
