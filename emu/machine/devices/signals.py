"""What devices tell the machine: small typed outcomes, compared by value in tests and traces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExitRequest:
    """The guest wrote ``status`` to the exit port: the run is over, 0 means success."""

    status: int


@dataclass(frozen=True, slots=True)
class HostRequest:
    """The guest wrote ``value`` to the host request port: the machine stops and the harness does the job."""

    value: int


@dataclass(frozen=True, slots=True)
class ResetRequest:
    """The guest asked the board to reset the processor."""


@dataclass(frozen=True, slots=True)
class PostCode:
    """The guest wrote ``value`` to the POST port."""

    value: int


@dataclass(frozen=True, slots=True)
class ConsoleLine:
    """A console named ``port`` completed a line; ``text`` is without its line ending."""

    port: str
    text: str


DeviceSignal = ExitRequest | HostRequest | ResetRequest | PostCode | ConsoleLine
SignalSink = Callable[[DeviceSignal], None]
IrqLine = Callable[[int, bool], None]
"""Sets interrupt request line ``number`` (0 to 15) to a level."""
