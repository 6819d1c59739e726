"""The exit port 0xf4: a guest ends the run and says how it went."""

from __future__ import annotations

from collections.abc import Iterable

from emu.machine.devices.device import StateDevice, all_ones
from emu.machine.devices.signals import ExitRequest, SignalSink

EXIT_PORT = 0xF4


class ExitPort(StateDevice[None]):
    """Signals the value written, of whatever width, as the guest's exit status: unlike QEMU's, not doubled."""

    name = "exit"
    sizes = frozenset({1, 2, 4})

    def __init__(self, signal: SignalSink) -> None:
        super().__init__(None)
        self._signal = signal

    def ports(self) -> Iterable[int]:
        """0xf4 alone."""
        return (EXIT_PORT,)

    def read(self, port: int, size: int) -> int:
        """All-ones: the port is write-only."""
        return all_ones(size)

    def write(self, port: int, size: int, value: int) -> None:
        """Ask for the end of the run with ``value`` as status."""
        self._signal(ExitRequest(value))

    def describe(self) -> list[tuple[str, str]]:
        """Nothing is kept."""
        return [("state", "none")]
