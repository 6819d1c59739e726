"""The text side of an output port: all bytes ever written, and an event for each finished line."""

from __future__ import annotations

from collections.abc import Callable

from emu.machine.devices.signals import ConsoleLine, SignalSink


class Console:
    """Collects what a guest writes to the port called ``name``; ``on_byte`` hears of each byte at once."""

    def __init__(self, name: str, signal: SignalSink) -> None:
        self.name = name
        self._signal = signal
        self._written = bytearray()
        self._line_start = 0
        self._copy = b""
        self.on_byte: Callable[[int], None] = lambda _byte: None

    @property
    def output(self) -> bytes:
        """Every byte written so far."""
        if len(self._copy) != len(self._written):
            self._copy = bytes(self._written)
        return self._copy

    @property
    def unfinished(self) -> str:
        """The text after the last line ending."""
        return _text(self._written[self._line_start :])

    def put(self, byte: int) -> None:
        """Take one byte; a line feed completes a line and signals it."""
        self._written.append(byte)
        self.on_byte(byte)
        if byte == ord("\n"):
            line = self.unfinished
            self._line_start = len(self._written)
            self._signal(ConsoleLine(self.name, line.rstrip("\r\n")))

    def snapshot(self) -> bytes:
        """Everything written so far; the same object as long as nothing more is written."""
        return self.output

    def restore(self, written: bytes) -> None:
        """Go back to a snapshot, without signalling its lines again."""
        self._written = bytearray(written)
        self._copy = written
        self._line_start = written.rfind(b"\n") + 1


def _text(line: bytes | bytearray) -> str:
    return bytes(line).decode("utf-8", "backslashreplace")
