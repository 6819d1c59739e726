"""What happens in a machine, as data.  One stream of these feeds checks, reports, history and coverage.

A *position* is ``n`` instructions retired since power-on and ``k`` iterations of the repeated instruction at
hand; a *tick* is virtual time (one per instruction and one per iteration).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Position(NamedTuple):
    """Instructions retired since power-on, and iterations done of the one that is under way."""

    n: int
    k: int = 0

    def __str__(self) -> str:
        return f"{self.n:,}.{self.k}" if self.k else f"{self.n:,}"


@dataclass(frozen=True, slots=True)
class Event:
    """Base: where in the run (``position``, ``tick``) and at which linear address (``pc``)."""

    position: Position
    tick: int
    pc: int


@dataclass(frozen=True, slots=True)
class Fault(Event):
    """An exception was delivered (or could not be); ``cr2`` only means something for vector 14."""

    vector: int
    error_code: int | None
    cr2: int
    mode: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Interrupt(Event):
    """An external interrupt or NMI was delivered."""

    vector: int
    nmi: bool


@dataclass(frozen=True, slots=True)
class ControlWrite(Event):
    """A control register, descriptor-table register or MSR changed."""

    register: str
    old: int
    new: int


@dataclass(frozen=True, slots=True)
class ModeChange(Event):
    """The processor mode changed (its short name)."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class PortAccess(Event):
    """IN or OUT; ``value`` was read or written."""

    port: int
    size: int
    value: int
    write: bool


@dataclass(frozen=True, slots=True)
class BusError(Event):
    """An access to physical ``address`` that nothing answers (a hole), or a store into ROM, which is dropped."""

    address: int
    size: int
    access: str


@dataclass(frozen=True, slots=True)
class OwnerViolation(Event):
    """A store to a page that the policy of this phase does not allow; ``writer`` is a kernel or a device."""

    address: int
    size: int
    value: int
    owner: str
    writer: str


@dataclass(frozen=True, slots=True)
class Hazard(Event):
    """Something that hardware may or may not do and that code must not lean on."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class ConsoleLine(Event):
    """A device said a line."""

    device: str
    text: str


@dataclass(frozen=True, slots=True)
class MagicBreakpoint(Event):
    """``xchg %bx, %bx`` was executed: a guest asks whoever watches to stop here (a habit from Bochs)."""


@dataclass(frozen=True, slots=True)
class TransitionMark(Event):
    """A transition of a journey began or ended."""

    name: str
    begins: bool


# ---- outcomes: why a run ended ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """Base of everything that ends :meth:`Machine.run`."""


@dataclass(frozen=True, slots=True)
class Breakpoint(Outcome):
    """Control is at linear ``address``, which the caller asked to stop at."""

    address: int


@dataclass(frozen=True, slots=True)
class HandlerEntered(Outcome):
    """An exception or interrupt was delivered; the first instruction of its handler, at linear ``pc``, is next."""

    pc: int


@dataclass(frozen=True, slots=True)
class HostCall(Outcome):
    """A kernel asks the harness for something; it goes on behind the OUT."""

    request: int


@dataclass(frozen=True, slots=True)
class Exited(Outcome):
    """A guest wrote ``status`` to the exit port."""

    status: int


@dataclass(frozen=True, slots=True)
class ResetAsked(Outcome):
    """A guest asked the board for a reset (as Linux does to reboot)."""


@dataclass(frozen=True, slots=True)
class Halted(Outcome):
    """HLT with nothing that could ever wake the processor."""

    pc: int


@dataclass(frozen=True, slots=True)
class StopRequested(Outcome):
    """Somebody who listens or watches asked the run to end here."""


@dataclass(frozen=True, slots=True)
class StepLimit(Outcome):
    """The tick budget was used up."""

    ticks: int


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed delivery on the way to a triple fault."""

    vector: int
    error_code: int | None
    why: str


@dataclass(frozen=True, slots=True)
class TripleFault(Outcome):
    """The processor shut down.  ``chain`` is each fault and why its delivery failed, first to last."""

    pc: int
    chain: tuple[Failure, ...]
    mode: str


@dataclass(frozen=True, slots=True)
class NotModelled(Outcome):
    """The guest did something this machine does not model (a task gate, say)."""

    pc: int
    what: str
