"""Delivery with all that may follow: faults during delivery, double fault, shutdown, SDM 3A 6.15."""

from __future__ import annotations

from typing import Final

from emu.x86.delivery.attempts import UnmodelledError, attempt
from emu.x86.delivery.target import (
    Attempt,
    Delivered,
    DeliveryTarget,
    Event,
    GuestFault,
    NotModelled,
    TripleFaulted,
    explain_raised,
)
from emu.x86.exceptions import ExceptionClass, Meeting, Vector, class_of, has_error_code, meet

_WITHOUT_EXT: Final = frozenset({Vector.PF, Vector.DF, Vector.CP})


def deliver(target: DeliveryTarget, event: Event) -> Delivered | TripleFaulted | NotModelled:
    """Enter the handler of ``event``, or of what its delivery turns into.

    A failed attempt leaves the registers as they were, apart from CR2; frames that it pushed stay in memory.  A page
    fault loads CR2 even where it ends in a double fault, as on hardware.
    """
    failed: list[Attempt] = []
    while True:
        if event.cr2 is not None:
            target.cr2 = event.cr2
        try:
            entry = attempt(target, event)
        except GuestFault as fault:
            code = _with_ext(fault, event)
            failed.append(_failure(event, fault, code))
            following = _following(event, fault, code)
            if following is None:
                return TripleFaulted(tuple(failed))
            if fault.cr2 is not None:
                target.cr2 = fault.cr2
            event = following
        except UnmodelledError as unmodelled:
            return NotModelled(event.vector, str(unmodelled), tuple(failed))
        else:
            return Delivered(event.vector, event.error_code, entry.cs.selector, entry.rip, entry.rsp, tuple(failed))


def _with_ext(fault: GuestFault, during: Event) -> int:
    """The error code with EXT, which says that the event being delivered was no INT instruction, SDM 3A 6.13."""
    return fault.error_code | (not during.kind.is_software and fault.vector not in _WITHOUT_EXT)


def _failure(event: Event, fault: GuestFault, code: int) -> Attempt:
    why = explain_raised(fault.vector, code, fault.cr2, fault.reason)
    return Attempt(event.vector, event.error_code, why, fault.vector, code, event.cr2)


def _following(event: Event, fault: GuestFault, code: int) -> Event | None:
    """The event that a fault during delivery leads to, or None for shutdown."""
    first = class_of(event.vector) if event.kind.is_exception else ExceptionClass.BENIGN
    meeting = meet(first, class_of(fault.vector))
    if meeting is Meeting.SHUTDOWN:
        return None
    if meeting is Meeting.DOUBLE_FAULT:
        return Event.fault(Vector.DF)
    return Event.fault(fault.vector, code if has_error_code(fault.vector) else 0, fault.cr2)
