"""One boot from its first instruction to its end, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from emu.boot.console import Input, Output
from emu.boot.jumps import Jumps
from emu.machine import events as ev
from emu.machine.devices.clock import TICKS_PER_SECOND
from emu.machine.gated import GatedMachine

_SLICE = TICKS_PER_SECOND // 20
_A_DAY = 86_400 * TICKS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Limits:
    """When to end at the latest, in virtual seconds or instructions since power-on; and a text to wait for."""

    seconds: float | None = None
    instructions: int | None = None
    until: re.Pattern[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """How a boot ended.  ``end`` is a word of :data:`ENDS`; ``status`` the guest's exit status where it gave one."""

    end: str
    told: str
    ok: bool
    status: int | None
    instructions: int
    ticks: int
    matched: str
    console: bytes
    post: list[int] = field(default_factory=list)
    jumps: dict[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The document of ``boot --json``."""
        return {
            "ok": self.ok,
            "end": self.end,
            "told": self.told,
            "status": self.status,
            "instructions": self.instructions,
            "ticks": self.ticks,
            "virtual_seconds": round(self.ticks / TICKS_PER_SECOND, 6),
            "matched": self.matched,
            "post": self.post,
            "console": self.console.decode("utf-8", "backslashreplace"),
            **self.jumps,
        }


ENDS = ("matched", "exit", "halt", "reset", "limit", "left", "input", "triple fault", "not modelled")
_FAILED = frozenset({"limit", "input", "triple fault", "not modelled"})


class Boot:
    """Runs ``machine`` with a console.  ``post`` hears of each POST code; ``jumps`` checks kexec jumps.

    ``host_acted`` is called between two runs of the machine whenever something was done to it from outside.
    """

    def __init__(
        self,
        machine: GatedMachine,
        stream: IO[bytes] | None,
        limits: Limits,
        post: Callable[[int], None] | None = None,
        jumps: Jumps | None = None,
    ) -> None:
        self.machine = machine
        self.jumps = jumps
        self.host_acted: Callable[[], None] | None = None
        self._fed = False
        self._limits = limits
        self._post = post
        self._codes: list[int] = []
        self._end = ""
        self.outcome: ev.Outcome | None = None
        self.output = Output(stream, limits.until, lambda: self._stop("matched"))
        self._input: Input | None = None
        machine.board.serial.console.on_byte = self._printed
        machine.loop.on_wait = self._waits
        if post is not None:
            machine.listeners.append(self._heard)

    def _stop(self, end: str) -> None:
        self._end = self._end or end
        self.machine.stop(ev.StopRequested())

    def _printed(self, byte: int) -> None:
        self.output.put(byte)
        if self._input is not None:
            self._input.printed()

    def _waits(self, ticks: int) -> None:
        self.output.flush()
        if self.jumps is not None:
            self.jumps.sample()
        serial = self.machine.board.serial
        before = serial.state
        if self._input is not None and not self._input.waits(ticks):
            self._stop("input" if hasattr(self._input, "_lines") else "left")
        elif self.host_acted is not None and serial.state != before:
            self._fed = True
            self.machine.stop(ev.StopRequested())

    def _heard(self, event: ev.Event) -> None:
        if self._post is not None and isinstance(event, ev.ConsoleLine) and event.device == "post":
            code = int(event.text, 16)
            self._codes.append(code)
            self._post(code)

    def run(self, given: Input) -> Summary:
        """To the end, with ``given`` as what is typed."""
        self._input = given
        self.machine.loop.patience = _A_DAY  # input may be what the guest waits for; its end is told by _waits
        machine, limits = self.machine, self._limits
        last = None if limits.seconds is None else int(limits.seconds * TICKS_PER_SECOND)
        while True:
            ticks = _SLICE if last is None else min(_SLICE, last - machine.count.ticks)
            left = None if limits.instructions is None else limits.instructions - machine.count.instructions
            if ticks <= 0 or (left is not None and left <= 0):
                outcome: ev.Outcome = ev.StepLimit(0)
                self._end = self._end or "limit"
                break
            outcome = machine.run(ticks, instructions=left)
            self.output.flush()
            if not self._goes_on(outcome, given):
                break
        return self._summary(outcome)

    def _goes_on(self, outcome: ev.Outcome, given: Input) -> bool:
        """Whether the run ended for a reason of ours; ``host_acted`` hears of what was done about it."""
        fed, self._fed = self._fed, False
        acted = fed
        if self.jumps is not None and self.jumps.took(outcome):
            acted = True
        elif not isinstance(outcome, ev.StepLimit):
            if not fed or self._end:
                return False
        else:
            if self.jumps is not None:
                self.jumps.sample()
            before = self.machine.board.serial.state
            if not given.poll():
                self._end = "left"
                return False
            acted = self.machine.board.serial.state != before
        if acted and self.host_acted is not None:
            self.host_acted()
        return not self._end

    def detach(self) -> None:
        """The machine is somebody else's from here on: nothing of it is shown, checked or answered any more."""
        machine = self.machine
        machine.board.serial.console.on_byte = lambda _byte: None
        machine.loop.on_wait = lambda _ticks: None
        if self._heard in machine.listeners:
            machine.listeners.remove(self._heard)
        if self.jumps is not None:
            self.jumps.close()

    def _summary(self, outcome: ev.Outcome) -> Summary:
        self.outcome = outcome
        machine, status, end, told = self.machine, None, self._end, ""
        match outcome:
            case ev.Exited(value):
                status, end, told = value, "exit", f"the guest ended the run with status {value}"
            case ev.Halted(pc):
                end, told = "halt", f"the guest halted for good at {pc:#x}"
            case ev.ResetAsked():
                end, told = "reset", "the guest asked for a reset"
            case ev.TripleFault(pc, chain, mode):
                why = "; then ".join(one.why for one in chain)
                end, told = "triple fault", f"triple fault at {pc:#x} in {mode}: {why}"
            case ev.NotModelled(pc, what):
                end, told = "not modelled", f"{what} at {pc:#x} is not modelled"
            case _:
                told = {
                    "matched": f"the console matched: {self.output.match!r}",
                    "limit": "the limit is reached",
                    "left": "left by Ctrl-A x",
                    "input": "the guest waits for input, and there is no more",
                }.get(end, str(outcome))
        return Summary(
            end=end,
            told=told,
            ok=end not in _FAILED and not status and not (self.jumps is not None and self.jumps.findings),
            status=status,
            instructions=machine.count.instructions,
            ticks=machine.count.ticks,
            matched=self.output.match,
            console=machine.board.serial.output,
            post=self._codes,
            jumps=self.jumps.to_json() if self.jumps is not None else {},
        )
