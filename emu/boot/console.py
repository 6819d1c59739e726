"""The guest's console on our standard input and output: what it prints, what is typed, and when."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import tty
from collections.abc import Callable
from typing import IO

from emu.machine.devices.clock import TICKS_PER_SECOND
from emu.machine.devices.serial import IER_RX, Serial

_ESCAPE, _QUIT = 0x01, ord("x")
_MOST_SEARCHED = 4096
PATIENCE = 60 * TICKS_PER_SECOND
"""Ticks for which a guest may wait for input after the input has ended."""


class Output:
    """Bytes to a stream, a line at a time; ``until`` stops the run at the byte that completes a match."""

    def __init__(self, stream: IO[bytes] | None, until: re.Pattern[bytes] | None, matched: Callable[[], None]) -> None:
        self._stream = stream
        self._until = until
        self._matched = matched
        self._tail = bytearray()
        self._pending = bytearray()
        self.match = ""
        self.count = 0

    def put(self, byte: int) -> None:
        """The guest printed a byte."""
        self.count += 1
        self._pending.append(byte)
        if byte == ord("\n"):
            self.flush()
        if self._until is None or self.match:
            return
        self._tail.append(byte)
        del self._tail[:-_MOST_SEARCHED]
        found = self._until.search(self._tail)
        if found is not None:
            self.match = found.group().decode("utf-8", "backslashreplace")
            self._matched()

    def flush(self) -> None:
        """Show what was printed so far."""
        if self._stream is not None and self._pending:
            self._stream.write(self._pending)
            self._stream.flush()
        self._pending.clear()


class Piped:
    """Input that is there from the beginning: a line is typed whenever the guest listens and waits.

    No host time is in it, so the same input gives the same run.
    """

    def __init__(self, serial: Serial, data: bytes) -> None:
        self._serial = serial
        self._lines = data.splitlines(keepends=True)
        self._waited = 0

    def waits(self, ticks: int) -> bool:
        """The guest waits for so many ticks; false once it has done so in vain for too long."""
        if self._lines:
            state = self._serial.state
            if state.ier & IER_RX and not state.received and not state.waiting:
                self._serial.feed(self._lines.pop(0).replace(b"\n", b"\r"))
            return True
        self._waited += ticks
        return self._waited < PATIENCE

    def printed(self) -> None:
        """The guest is alive: it printed something."""
        self._waited = 0

    def poll(self) -> bool:
        """Nothing comes in while the guest works."""
        return True


class Terminal:
    """A person at a terminal, in raw mode: keys go to the guest, Ctrl-A x ends the run.

    Where the guest waits, so do we, as long as it would by its own clock, or until a key is pressed.
    """

    def __init__(self, serial: Serial, descriptor: int) -> None:
        self._serial = serial
        self._descriptor = descriptor
        self._saved = termios.tcgetattr(descriptor)
        self._escaped = False
        tty.setraw(descriptor)

    def close(self) -> None:
        """The terminal as it was."""
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if not ready:
            return True
        typed = bytearray()
        for key in os.read(self._descriptor, 1024):
            if self._escaped:
                self._escaped = False
                if key == _QUIT:
                    return False
                typed.append(key)
            elif key == _ESCAPE:
                self._escaped = True
            else:
                typed.append(key)
        self._serial.feed(bytes(typed))
        return True

    def waits(self, ticks: int) -> bool:
        """The guest waits; false when the person has had enough."""
        return self._read(ticks / TICKS_PER_SECOND)

    def printed(self) -> None:
        """Nothing hangs on it."""

    def poll(self) -> bool:
        """Take keys while the guest works; false when the person has had enough."""
        return self._read(0)


Input = Piped | Terminal


def open_input(serial: Serial) -> Input:
    """Standard input as it is: a terminal, or bytes."""
    if sys.stdin is not None and sys.stdin.isatty():
        return Terminal(serial, sys.stdin.fileno())
    return Piped(serial, sys.stdin.buffer.read() if sys.stdin is not None else b"")
