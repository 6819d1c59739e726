"""The outcome of a check, and findings that know where the machine is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emu.journey.findings import Finding
from emu.machine import events as ev

if TYPE_CHECKING:
    from emu.journey.journey import Journey


class Ended(Exception):  # noqa: N818 - control flow between the stages of a journey
    """Raised when the guest did something that the journey has no next step for."""

    def __init__(self, outcome: ev.Outcome) -> None:
        self.outcome = outcome
        super().__init__(str(outcome))


@dataclass(frozen=True, slots=True)
class Outcome:
    """A check that was made; it holds if there are no findings."""

    name: str
    findings: tuple[Finding, ...] = ()


def finding_here(
    journey: Journey,
    kind: str,
    expected: str,
    actual: str,
    because: Sequence[str] = (),
    *,
    catalogue: str = "",
    address: int | None = None,
) -> Finding:
    """A finding at the machine's present place, in the transition under way."""
    position, tick, pc = journey.machine.here()
    place = str(journey.symbols.place(pc))
    return Finding(
        kind, journey.transition.name, tick, position, place, expected, actual, tuple(because), catalogue, (), address
    )


def finding_at(
    journey: Journey, event: ev.Event, kind: str, expected: str, actual: str, *, because: Sequence[str]
) -> Finding:
    """A finding at the place of ``event``."""
    place, name = str(journey.symbols.place(event.pc)), journey.transition.name
    address = event.address if isinstance(event, ev.OwnerViolation) else None
    return Finding(kind, name, event.tick, event.position, place, expected, actual, tuple(because), address=address)
