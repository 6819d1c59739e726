"""Delivering exceptions and interrupts as the processor does, SDM 3A chapter 6 and 2A INT n."""

from emu.x86.delivery.deliver import deliver
from emu.x86.delivery.target import (
    Attempt,
    Delivered,
    DeliveryTarget,
    Event,
    EventKind,
    GuestFault,
    NotModelled,
    TripleFaulted,
)

__all__ = [
    "Attempt",
    "Delivered",
    "DeliveryTarget",
    "Event",
    "EventKind",
    "GuestFault",
    "NotModelled",
    "TripleFaulted",
    "deliver",
]
