"""What every device is: a few ports, perhaps a deadline, and one immutable state value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

State = TypeVar("State")

BYTE_PORTS = frozenset({1})


def all_ones(size: int) -> int:
    """What a read of ``size`` bytes gives where nothing drives the bus."""
    return (1 << (8 * size)) - 1


class Device(Protocol):
    """A device on the port bus.

    ``sizes`` are the access widths in bytes that the device takes whole; the bus splits wider accesses into
    bytes at consecutive ports, as the ISA bus does for 8-bit devices.
    """

    name: str
    sizes: frozenset[int]

    def ports(self) -> Iterable[int]:
        """The port addresses that the device answers."""
        ...

    def read(self, port: int, size: int) -> int:
        """The value of ``size`` bytes that an IN from ``port`` gives."""
        ...

    def write(self, port: int, size: int, value: int) -> None:
        """Take ``value`` of ``size`` bytes, from an OUT to ``port``."""
        ...

    def next_deadline(self) -> int | None:
        """The absolute tick of the device's next event of its own, or None when it waits for the guest."""
        ...

    def advance(self, now: int) -> None:
        """Do everything that is due at or before tick ``now``."""
        ...

    def snapshot(self) -> object:
        """The whole state as one immutable value."""
        ...

    def restore(self, state: object) -> None:
        """Go back to a state that :meth:`snapshot` gave; TypeError for any other object."""
        ...

    def describe(self) -> list[tuple[str, str]]:
        """Label and value pairs for a person."""
        ...


class StateDevice(Generic[State]):
    """Base of the devices here: all that can change is ``state``, a frozen value that is replaced, never edited.

    A snapshot is then the value itself, and a restore is an assignment.
    """

    name = ""
    sizes = BYTE_PORTS

    def __init__(self, state: State) -> None:
        self.state = state

    def next_deadline(self) -> int | None:
        """None: most devices do nothing of their own accord."""
        return None

    def advance(self, now: int) -> None:
        """Nothing is ever due in a device without a deadline."""

    def snapshot(self) -> object:
        """The state itself."""
        return self.state

    def restore(self, state: object) -> None:
        """Take back a state; raises TypeError when it belongs to another device."""
        if not isinstance(state, type(self.state)):
            message = f"{self.name}: {type(state).__name__} is not a state of this device"
            raise TypeError(message)
        self.state = state
