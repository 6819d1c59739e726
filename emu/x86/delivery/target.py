"""What is delivered, what it is delivered into, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

from emu.x86.exceptions import describe_page_fault, has_error_code, vector_name
from emu.x86.segments import SegmentCache, TableRegister


class GuestFault(Exception):  # noqa: N818 - named as what it is to the guest
    """Raised by a linear access, or a check, that fails while the processor delivers an event; it never leaves.

    ``error_code`` has no EXT bit yet; ``cr2`` is the linear address of a page fault.
    """

    def __init__(self, vector: int, error_code: int = 0, cr2: int | None = None, reason: str = "") -> None:
        super().__init__(vector, error_code, cr2, reason)
        self.vector = vector
        self.error_code = error_code
        self.cr2 = cr2
        self.reason = reason

    def __str__(self) -> str:
        """The exception and why, as ``#GP(0x10) why``."""
        return f"{vector_name(self.vector)}({self.error_code:#x}) {self.reason}".rstrip()

    def named(self, failure: str) -> GuestFault:
        """The same fault, whose reason begins with what it made impossible."""
        reason = f"{failure}: {self.reason}" if self.reason else failure
        return GuestFault(self.vector, self.error_code, self.cr2, reason)


class EventKind(Enum):
    """Where an event comes from; this decides DPL checks, the EXT bit, RF and whether it counts as an exception."""

    FAULT = auto()
    TRAP = auto()
    EXTERNAL = auto()
    NMI = auto()
    SOFTWARE_INT = auto()
    INT3 = auto()
    INTO = auto()
    INT1 = auto()

    @property
    def is_software(self) -> bool:
        """INT n, INT3 or INTO: the gate's DPL is checked and EXT stays 0; not INT1, SDM 2A INT n."""
        return self in _SOFTWARE

    @property
    def is_exception(self) -> bool:
        """An exception that the processor raised, whose class counts for double faults, SDM 3A table 6-4."""
        return self in _EXCEPTIONS


_SOFTWARE: Final = (EventKind.SOFTWARE_INT, EventKind.INT3, EventKind.INTO)
_EXCEPTIONS: Final = (EventKind.FAULT, EventKind.TRAP)


@dataclass(frozen=True, slots=True)
class Event:
    """One exception or interrupt to deliver.

    ``error_code`` is None for events that push none.  ``next_rip`` is what the frame gets as return address; None, and
    every FAULT, means the target's RIP as it stands, which must be that of the instruction that faults or, for an
    interrupt between two instructions, of the next one.  For INT n, INT3 and INTO the target's RIP is the instruction
    itself and ``next_rip`` the one after it.  ``cr2`` is the linear address of a page fault.  ``mid_rep``: a repeated
    string instruction has iterations left, so that RF is set in the frame (SDM 3B 18.3.1.1).
    """

    vector: int
    error_code: int | None = None
    kind: EventKind = EventKind.FAULT
    next_rip: int | None = None
    cr2: int | None = None
    mid_rep: bool = False

    @classmethod
    def fault(cls, vector: int, error_code: int = 0, cr2: int | None = None) -> Event:
        """A fault at the target's RIP; the error code is left out for vectors that have none."""
        return cls(vector, error_code if has_error_code(vector) else None, EventKind.FAULT, None, cr2)

    def __str__(self) -> str:
        """The event for people, as ``#PF(0x2) cr2=0x1000`` or ``INT 0x80``."""
        if self.kind is EventKind.EXTERNAL:
            return f"IRQ {self.vector:#x}"
        if self.kind is EventKind.SOFTWARE_INT:
            return f"INT {self.vector:#x}"
        code = "" if self.error_code is None else f"({self.error_code:#x})"
        cr2 = "" if self.cr2 is None else f" cr2={self.cr2:#x}"
        return f"{vector_name(self.vector)}{code}{cr2}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One delivery that failed: the event, the exception that it raised, and why in a sentence."""

    vector: int
    error_code: int | None
    why: str
    raised: int
    raised_code: int
    cr2: int | None = None

    def __str__(self) -> str:
        """One line of a post-mortem."""
        code = "" if self.error_code is None else f"({self.error_code:#x})"
        return f"{vector_name(self.vector)}{code} not delivered: {self.why}"


@dataclass(frozen=True, slots=True)
class Delivered:
    """A handler is entered.

    ``vector`` is what arrived in the end: not the event's own where ``attempts`` is not empty.  ``rip`` is the
    handler's offset in ``cs``, ``rsp`` the stack pointer that it starts with.
    """

    vector: int
    error_code: int | None
    cs: int
    rip: int
    rsp: int
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class TripleFaulted:
    """The processor shuts down, SDM 3A 6.15: ``chain`` is every delivery that it tried, in order."""

    chain: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class NotModelled:
    """The event needs a part of the processor that kjump does not have: task gates, virtual-8086 mode."""

    vector: int
    reason: str
    attempts: tuple[Attempt, ...] = ()


class DeliveryTarget(Protocol):
    """The processor that events are delivered into.

    Linear accesses have supervisor rights and raise :class:`GuestFault`.  The privilege level follows from a load of SS
    (its DPL), so SS is always loaded before CS.
    """

    rip: int
    rsp: int
    rflags: int
    cr2: int

    @property
    def cr0(self) -> int:
        """CR0."""

    @property
    def cr4(self) -> int:
        """CR4."""

    @property
    def efer(self) -> int:
        """EFER."""

    @property
    def cpl(self) -> int:
        """The current privilege level."""

    @property
    def gdtr(self) -> TableRegister:
        """GDTR."""

    @property
    def idtr(self) -> TableRegister:
        """IDTR."""

    @property
    def ldtr(self) -> SegmentCache:
        """LDTR with its hidden part."""

    @property
    def tr(self) -> SegmentCache:
        """TR with its hidden part."""

    def segment(self, index: int, /) -> SegmentCache:
        """A segment register by its number, :class:`emu.x86.segments.Segment`."""

    def set_segment(self, index: int, cache: SegmentCache, /) -> None:
        """Load a segment register with its hidden part."""

    def read_linear(self, linear: int, size: int, /) -> bytes:
        """Read ``size`` bytes at a linear address."""

    def write_linear(self, linear: int, data: bytes, /) -> None:
        """Write bytes at a linear address."""


def explain_raised(vector: int, error_code: int, cr2: int | None, reason: str) -> str:
    """The exception that ended a delivery, with its cause, in a sentence."""
    text = f"{vector_name(vector)}({error_code:#x})"
    if cr2 is not None:
        text += f" at {cr2:#x}, {describe_page_fault(error_code)}"
    return f"{text}: {reason}" if reason else text
