"""The debug console at port 0xe9, as Bochs and QEMU have it: write a character, read 0xe9 when it is there."""

from __future__ import annotations

from collections.abc import Iterable

from emu.machine.devices.console import Console
from emu.machine.devices.device import StateDevice
from emu.machine.devices.signals import SignalSink

DEBUGCON_PORT = 0xE9


class DebugConsole(StateDevice[None]):
    """A one-port console: no status, no interrupt, always ready."""

    name = "debugcon"

    def __init__(self, signal: SignalSink) -> None:
        super().__init__(None)
        self.console = Console(self.name, signal)

    @property
    def output(self) -> bytes:
        """Every byte written so far."""
        return self.console.output

    def ports(self) -> Iterable[int]:
        """0xe9 alone."""
        return (DEBUGCON_PORT,)

    def read(self, port: int, size: int) -> int:
        """0xe9, by which a guest knows that the port is there."""
        return DEBUGCON_PORT

    def write(self, port: int, size: int, value: int) -> None:
        """Print one character."""
        self.console.put(value)

    def snapshot(self) -> object:
        """The output so far."""
        return self.console.snapshot()

    def restore(self, state: object) -> None:
        """Take the output back to a snapshot."""
        if not isinstance(state, bytes):
            message = f"{self.name}: {type(state).__name__} is not a state of this device"
            raise TypeError(message)
        self.console.restore(state)

    def describe(self) -> list[tuple[str, str]]:
        """How much was written."""
        return [("written", f"{len(self.output)} bytes"), ("unfinished line", self.console.unfinished)]
