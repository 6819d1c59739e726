"""The two ways by which a PC is told to reset itself: the keyboard controller's pulse line, and port 0xcf9.

There is no keyboard controller behind port 0x64, only its reset line: the status says that a command can be
written at any time and that a byte waits which is never taken, so that nobody mistakes it for one that works.
Source: Intel 8042 (command 0xFE pulses output line 0), Intel ICH data sheet (Reset Control Register, CF9h).
"""

from __future__ import annotations

from collections.abc import Iterable

from emu.machine.devices.device import StateDevice
from emu.machine.devices.signals import ResetRequest, SignalSink

KEYBOARD_PORT = 0x64
CHIPSET_PORT = 0xCF9
PULSE_RESET = 0xFE
STATUS = 0xFD
RESET_CPU = 0x04


class ResetControl(StateDevice[int]):
    """Signals a reset; the state is what was last written to port 0xcf9."""

    name = "reset"

    def __init__(self, signal: SignalSink) -> None:
        super().__init__(0)
        self._signal = signal

    def ports(self) -> Iterable[int]:
        """0x64 and 0xcf9."""
        return (KEYBOARD_PORT, CHIPSET_PORT)

    def read(self, port: int, size: int) -> int:
        """The keyboard controller's status, or the reset control register."""
        return STATUS if port == KEYBOARD_PORT else self.state

    def write(self, port: int, size: int, value: int) -> None:
        """The command 0xfe, or a rise of bit 2 of the reset control register, resets the machine."""
        if port == KEYBOARD_PORT:
            if value == PULSE_RESET:
                self._signal(ResetRequest())
            return
        rises = value & ~self.state & RESET_CPU
        self.state = value
        if rises:
            self._signal(ResetRequest())

    def describe(self) -> list[tuple[str, str]]:
        """The reset control register."""
        return [("control", f"{self.state:#04x}")]
