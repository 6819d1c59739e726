"""Moving a session for gdb, and the stop replies that tell how a move ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from emu.debugger.gdb.points import Points
from emu.debugger.gdb.registers import RBP, REGISTERS, RIP, RSP, encode
from emu.debugger.session import Session, Stopped
from emu.errors import KjumpError
from emu.machine import events as ev

ASK_EVERY: Final = 0.02
"""Seconds between two looks at whether gdb wants a move to end."""
_ALWAYS: Final = 0
"""A tick that is always over: the machine pauses before each call of the engine."""
_TRAP, _INT = 5, 2


class _Interrupted(Exception):  # noqa: N818 - nothing went wrong: gdb wants its turn
    """gdb wants a long move to end."""


class Motion:
    """Moves of one session, and the reply to each."""

    def __init__(self, session: Session, interrupted: Callable[[], bool]) -> None:
        self._session = session
        self._interrupted = interrupted
        self.points = Points(session)

    def stop_reply(self, extra: str = "", signal: int = _TRAP) -> bytes:
        """``T`` with the registers that gdb wants first, and why the target stands still."""
        cpu = self._session.machine.cpu
        values = {"pc": cpu.pc, "rsp": cpu.rsp, "rbp": cpu.engine.gpr(5)}
        registers = "".join(f"{number:02x}:{encode(REGISTERS[number], values).hex()};" for number in (RBP, RSP, RIP))
        return f"T{signal:02x}thread:1;{registers}{extra}".encode()

    def move(self, action: str, *, backwards: bool = False) -> list[bytes]:
        """``s`` (one instruction) or ``c`` (to the next stop); console output, if any, and a stop reply."""
        session = self._session
        here = session.timeline.now
        try:
            with self._listening(backwards=backwards):
                stopped = self._moved(action, backwards=backwards)
        except _Interrupted:
            session.timeline.goto(here)
            return [self.stop_reply(signal=_INT)]
        except KjumpError as error:
            return [_line(str(error)), self.stop_reply()]
        if session.interrupted:
            return [self.stop_reply(signal=_INT)]
        return self._told(stopped, backwards=backwards)

    def _moved(self, action: str, *, backwards: bool) -> Stopped:
        session = self._session
        if action == "s":
            return session.step_back() if backwards else session.step()
        return session.reverse_continue() if backwards else session.resume()

    def _told(self, stopped: Stopped, *, backwards: bool) -> list[bytes]:
        if stopped.ended and backwards:
            return [self.stop_reply("replaylog:begin;")]
        if stopped.ended:
            return [_line(stopped.why), self.stop_reply("replaylog:end;")]
        others = [hit.text for hit in stopped.hits if not self.points.owns(hit)]
        return [*map(_line, others), self.stop_reply(self.points.reason(stopped.hits))]

    @contextmanager
    def _listening(self, *, backwards: bool) -> Iterator[None]:
        """While the machine runs, ask between two calls of the engine whether gdb wants its turn.

        A search of the past is given up and leaves nothing behind; a run forwards stops where it is.
        """
        session, machine = self._session, self._session.machine
        pause_before, on_pause_before = machine.loop.pause_at, machine.loop.on_pause
        asked, ending = time.monotonic(), False

        def pause() -> None:
            nonlocal asked, ending
            if machine.loop.pause_at != _ALWAYS:
                on_pause_before()  # a branch is being recorded: this is when its next checkpoint is due
            if not ending and time.monotonic() - asked >= ASK_EVERY:
                asked = time.monotonic()
                ending = self._interrupted()
            if ending and backwards:
                raise _Interrupted
            if ending:
                session.interrupted = True
                machine.stop(ev.StopRequested())

        machine.loop.pause_at, machine.loop.on_pause = _ALWAYS, pause
        try:
            yield
        finally:
            machine.loop.pause_at, machine.loop.on_pause = pause_before, on_pause_before


def _line(text: str) -> bytes:
    return b"O" + f"{text}\n".encode(errors="replace").hex().encode()
