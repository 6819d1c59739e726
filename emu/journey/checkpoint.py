"""A journey held between two transitions, so that what follows can be run again and again from there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from emu.hibernate.reader import SavedImage
from emu.journey.findings import Finding
from emu.journey.loader import Loaded, Loader
from emu.journey.memory import RamImage
from emu.journey.restore import Restored
from emu.journey.result import RunResult, Transition
from emu.kexec.jump_page import JumpPage
from emu.machine.events import Event, Position
from emu.machine.machine import MachineSnapshot
from emu.machine.owners import Owner

if TYPE_CHECKING:
    from emu.journey.journey import Journey


@dataclass(frozen=True, slots=True)
class Forbidden:
    """A policy of the machine: pages that ``writer`` may not store to."""

    pfns: tuple[int, ...]
    writer: str


@dataclass(slots=True)
class Progress:
    """How far a journey is, apart from its machine and its result.

    ``next`` counts transitions, ``suspended`` and ``called`` are A's registers at suspend_begin and at the stub's first
    instruction, ``before_jump`` is RAM at the former, ``collected`` the number of events that were looked at.
    ``page`` is the jump page as it must be now, ``page_saved`` as it is in the image, ``back_entry`` the return address
    that B was given, ``peer_entry`` where B wants to be entered next (physical), ``visits`` how often it was entered
    again with its memory kept.
    ``saved`` is the last image, ``at_save`` RAM when it was complete; ``restored`` what C made of it.
    """

    next: int = 0
    ended: bool = False
    suspended: dict[str, int] | None = None
    called: dict[str, int] | None = None
    before_jump: RamImage | None = None
    peer_notes: tuple[str, ...] = ()
    collected: int = 0
    forbidden: Forbidden | None = None
    page: JumpPage | None = None
    page_saved: JumpPage | None = None
    back_entry: int = 0
    peer_entry: int = 0
    visits: int = 0
    saved: SavedImage | None = None
    at_save: RamImage | None = None
    owners: dict[int, Owner] | None = None
    restored: Restored | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that :meth:`Journey.back_to` needs."""

    machine: MachineSnapshot
    loader: Loader
    loaded: Loaded | None
    events: tuple[Event, ...]
    serial: tuple[int, int, Position]
    last_string: tuple[int, int] | None
    progress: Progress
    findings: tuple[Finding, ...]
    transitions: tuple[Transition, ...]
    volatile: tuple[tuple[int, int], ...]
    hazards: int


def take(journey: Journey, progress: Progress) -> Checkpoint:
    """The journey as it stands."""
    machine, result = journey.machine, journey.result
    hazards = machine.hazards
    return Checkpoint(
        machine=machine.snapshot(),
        loader=journey.loader,
        loaded=journey.loaded,
        events=tuple(machine.events),
        serial=(hazards.serial, hazards.serial_pc, hazards.serial_position),
        last_string=machine.loop.last_string,
        progress=replace(progress),
        findings=tuple(journey.findings),
        transitions=_copies(result.transitions),
        volatile=tuple(result.volatile),
        hazards=result.hazards,
    )


def put_back(journey: Journey, point: Checkpoint) -> RunResult:
    """Restore the machine and the findings; the answer is the result as it was."""
    machine = journey.machine
    machine.restore(point.machine)
    journey.loader, journey.loaded = point.loader, point.loaded
    machine.events[:] = point.events
    hazards = machine.hazards
    hazards.serial, hazards.serial_pc, hazards.serial_position = point.serial
    machine.loop.last_string = point.last_string
    journey.findings = list(point.findings)
    return RunResult(
        journey.scene,
        transitions=list(_copies(point.transitions)),
        volatile=list(point.volatile),
        hazards=point.hazards,
    )


def _copies(transitions: list[Transition] | tuple[Transition, ...]) -> tuple[Transition, ...]:
    return tuple(replace(one, checks=dict(one.checks)) for one in transitions)
