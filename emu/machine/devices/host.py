"""The host request port 0x5e0: where a guest kernel would enter its userspace, the harness takes over.

The request numbers are the harness's business; the port only carries them.
"""

from __future__ import annotations

from collections.abc import Iterable

from emu.machine.devices.device import StateDevice, all_ones
from emu.machine.devices.signals import HostRequest, SignalSink

HOST_PORT = 0x5E0


class HostPort(StateDevice[None]):
    """Signals each dword written; the machine stops there and goes on at the next instruction."""

    name = "host"
    sizes = frozenset({4})

    def __init__(self, signal: SignalSink) -> None:
        super().__init__(None)
        self._signal = signal

    def ports(self) -> Iterable[int]:
        """0x5e0 to 0x5e3."""
        return range(HOST_PORT, HOST_PORT + 4)

    def read(self, port: int, size: int) -> int:
        """All-ones: the port is write-only."""
        return all_ones(size)

    def write(self, port: int, size: int, value: int) -> None:
        """Pass a request on; a dword that does not begin at 0x5e0 is no request."""
        if port == HOST_PORT:
            self._signal(HostRequest(value))

    def describe(self) -> list[tuple[str, str]]:
        """Nothing is kept."""
        return [("state", "none")]
