"""Exception vectors, their classes, and what a fault during the delivery of another event becomes.

Sources: SDM 3A table 6-1 (vectors), 6.5 (fault, trap, abort), 6.13 (error codes), table 6-4 and 6-5 (double faults).
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from typing import Final


class Vector(IntEnum):
    """The vectors that the processor itself defines, by mnemonic."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    CSO = 9
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    MF = 16
    AC = 17
    MC = 18
    XM = 19
    VE = 20
    CP = 21


class PageFaultBit(IntEnum):
    """The error code of #PF, SDM 3A 4.7."""

    P = 1 << 0
    W = 1 << 1
    U = 1 << 2
    RSVD = 1 << 3
    I = 1 << 4  # noqa: E741 - the SDM's own name of the instruction-fetch bit


class ExceptionKind(Enum):
    """Where the saved instruction pointer points, SDM 3A 6.5."""

    FAULT = "fault"
    TRAP = "trap"
    FAULT_OR_TRAP = "fault or trap"
    ABORT = "abort"
    INTERRUPT = "interrupt"


class ExceptionClass(Enum):
    """What counts when two exceptions meet, SDM 3A table 6-4."""

    BENIGN = auto()
    CONTRIBUTORY = auto()
    PAGE_FAULT = auto()
    DOUBLE_FAULT = auto()


class Meeting(Enum):
    """What the processor does with an exception raised while it delivers another event, SDM 3A table 6-5."""

    SERIAL = "delivered in place of the first"
    DOUBLE_FAULT = "promoted to #DF"
    SHUTDOWN = "shutdown"


ERROR_CODE_VECTORS: Final = frozenset(
    {Vector.DF, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.PF, Vector.AC, Vector.CP}
)
_TITLES: Final[dict[int, str]] = {
    Vector.DE: "divide error",
    Vector.DB: "debug",
    Vector.NMI: "non-maskable interrupt",
    Vector.BP: "breakpoint",
    Vector.OF: "overflow",
    Vector.BR: "bound range exceeded",
    Vector.UD: "invalid opcode",
    Vector.NM: "device not available",
    Vector.DF: "double fault",
    Vector.CSO: "coprocessor segment overrun",
    Vector.TS: "invalid TSS",
    Vector.NP: "segment not present",
    Vector.SS: "stack fault",
    Vector.GP: "general protection",
    Vector.PF: "page fault",
    Vector.MF: "x87 floating point",
    Vector.AC: "alignment check",
    Vector.MC: "machine check",
    Vector.XM: "SIMD floating point",
    Vector.VE: "virtualization",
    Vector.CP: "control protection",
}
_NAMES: Final[dict[int, str]] = {vector: "NMI" if vector is Vector.NMI else f"#{vector.name}" for vector in Vector}
_KINDS: Final[dict[int, ExceptionKind]] = {
    Vector.DB: ExceptionKind.FAULT_OR_TRAP,
    Vector.NMI: ExceptionKind.INTERRUPT,
    Vector.BP: ExceptionKind.TRAP,
    Vector.OF: ExceptionKind.TRAP,
    Vector.DF: ExceptionKind.ABORT,
    Vector.CSO: ExceptionKind.ABORT,
    Vector.MC: ExceptionKind.ABORT,
}
_CLASSES: Final[dict[int, ExceptionClass]] = {
    Vector.DE: ExceptionClass.CONTRIBUTORY,
    Vector.TS: ExceptionClass.CONTRIBUTORY,
    Vector.NP: ExceptionClass.CONTRIBUTORY,
    Vector.SS: ExceptionClass.CONTRIBUTORY,
    Vector.GP: ExceptionClass.CONTRIBUTORY,
    Vector.CP: ExceptionClass.CONTRIBUTORY,
    Vector.PF: ExceptionClass.PAGE_FAULT,
    Vector.VE: ExceptionClass.PAGE_FAULT,
    Vector.DF: ExceptionClass.DOUBLE_FAULT,
}


def vector_name(vector: int) -> str:
    """``#PF`` for an exception of the processor, ``NMI``, or ``vector 0x20`` for every other number."""
    return _NAMES.get(vector) or f"vector {vector:#x}"


def vector_title(vector: int) -> str:
    """The exception in words: ``page fault``; ``interrupt`` for a vector that the processor does not define."""
    return _TITLES.get(vector, "interrupt")


def has_error_code(vector: int) -> bool:
    """Whether this exception pushes an error code in protected mode, SDM 3A table 6-1."""
    return vector in ERROR_CODE_VECTORS


def kind_of(vector: int) -> ExceptionKind:
    """Fault, trap or abort; vectors that the processor does not define are interrupts."""
    return _KINDS.get(vector, ExceptionKind.FAULT if vector in _TITLES else ExceptionKind.INTERRUPT)


def class_of(vector: int) -> ExceptionClass:
    """The class of an exception.  Interrupts and INT n are benign whatever their number: do not ask about those."""
    return _CLASSES.get(vector, ExceptionClass.BENIGN)


def meet(first: ExceptionClass, second: ExceptionClass) -> Meeting:
    """What becomes of an exception of class ``second`` raised while delivering ``first``, SDM 3A table 6-5."""
    contributory = second is ExceptionClass.CONTRIBUTORY
    if first is ExceptionClass.DOUBLE_FAULT and second is not ExceptionClass.BENIGN:
        return Meeting.SHUTDOWN
    if first is ExceptionClass.CONTRIBUTORY and contributory:
        return Meeting.DOUBLE_FAULT
    if first is ExceptionClass.PAGE_FAULT and (contributory or second is ExceptionClass.PAGE_FAULT):
        return Meeting.DOUBLE_FAULT
    return Meeting.SERIAL


def describe_page_fault(error_code: int) -> str:
    """A #PF error code in words: ``write by supervisor to a present page, reserved bit set``."""
    verb = "fetch" if error_code & PageFaultBit.I else "write" if error_code & PageFaultBit.W else "read"
    who = "user" if error_code & PageFaultBit.U else "supervisor"
    what = "a present page" if error_code & PageFaultBit.P else "a page that is not present"
    reserved = ", reserved bit set in an entry" if error_code & PageFaultBit.RSVD else ""
    return f"{verb} by {who} of {what}{reserved}"


def describe_selector_error(error_code: int) -> str:
    """An error code that names a descriptor, SDM 3A 6.13: ``IDT gate 14, external``, ``GDT selector 0x10``, ``0``."""
    external = ", external" if error_code & 1 else ""
    if error_code & 2:
        return f"IDT gate {error_code >> 3}{external}"
    if error_code & ~3 == 0:
        return f"null selector{external}" if error_code else "0"
    return f"{'LDT' if error_code & 4 else 'GDT'} selector {error_code & ~7:#x}{external}"
