"""The POST port 0x80: one byte that says how far a guest has come."""

from __future__ import annotations

from collections.abc import Iterable

from emu.machine.devices.device import StateDevice
from emu.machine.devices.signals import PostCode, SignalSink

POST_PORT = 0x80


class PostPort(StateDevice[int]):
    """Latches the last code, signals each one, and reads back what was written."""

    name = "post"

    def __init__(self, signal: SignalSink, port: int = POST_PORT) -> None:
        super().__init__(0)
        self._signal = signal
        self._port = port

    def ports(self) -> Iterable[int]:
        """0x80, or the one given."""
        return (self._port,)

    def read(self, port: int, size: int) -> int:
        """The last code."""
        return self.state

    def write(self, port: int, size: int, value: int) -> None:
        """Show a code."""
        self.state = value
        self._signal(PostCode(value))

    def describe(self) -> list[tuple[str, str]]:
        """The last code."""
        return [("code", f"{self.state:#04x}")]
