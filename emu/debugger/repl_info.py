"""``info``: tables about the machine, the run and the session."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator

from emu.debugger import look
from emu.debugger.places import place
from emu.debugger.repl_command import Commands, command, one, rest, text_of, words
from emu.debugger.repl_parsing import resolve
from emu.errors import DebuggerError

_SHORT = {"b": "breakpoints", "br": "breakpoints", "r": "registers", "reg": "registers", "watchpoints": "breakpoints",
          "frame": "where", "f": "where", "s": "symbol", "sym": "symbol", "d": "devices"}  # fmt: skip
_SUBJECTS = (
    "registers", "breakpoints", "display", "gdt", "idt", "ldt", "tss", "fpu", "msrs", "e820", "owners", "devices",
    "events", "transitions", "findings", "symbol", "line", "where",
)  # fmt: skip


class Info(Commands):
    """Tables."""

    DEFAULT_CATEGORY = "Look"

    def _subjects(self) -> dict[str, Callable[[list[str]], Iterable[str]]]:
        session, width = self.session, self._cmd.width
        return {
            "registers": self._registers,
            "breakpoints": self._breakpoints,
            "display": self._display,
            "transitions": lambda _more: look.transitions(session, width),
            "findings": self._findings,
            "symbol": self._symbol,
            "line": self._line,
            "where": lambda _more: look.where(session, width),
            "events": self._events,
            "gdt": lambda _more: look.gdt(session, width),
            "idt": lambda _more: look.idt(session, width),
            "ldt": lambda _more: look.ldt(session, width),
            "tss": lambda _more: look.tss(session, width),
            "fpu": lambda _more: look.fpu(session, width),
            "msrs": lambda _more: look.msrs(session, width),
            "e820": lambda _more: look.e820(session, width),
            "owners": lambda more: look.owners(session, " ".join(more), width),
            "devices": lambda _more: look.devices(session, width),
        }

    @command(
        "info",
        one(
            "subject",
            ", ".join(_SUBJECTS),
            choices=_SUBJECTS,
        ),
        rest("more", "of registers: their names; of events: how many; of symbol and line: an address"),
    )
    def info(self, args: argparse.Namespace) -> None:
        """Tables about the machine, the run and this session (i)."""
        subjects = self._subjects()
        word = text_of(args, "subject")
        try:
            subject = resolve(_SHORT.get(word, word), subjects)
        except DebuggerError:
            raise DebuggerError(f"no table is called {word}", hint=f"one of {', '.join(subjects)}") from None
        self.say(*subjects[subject](words(args, "more")))

    def _events(self, more: list[str]) -> Iterable[str]:
        counts = [word for word in more if word[:1].isdigit()]
        kinds = [word for word in more if word not in counts]
        count = self.number(counts[0]) if counts else 20
        if count < 1 or len(counts) > 1 or len(kinds) > 1:
            raise DebuggerError("events are shown by number and kind", hint="info events 50 port")
        return look.events(self.session, count, " ".join(kinds), self._cmd.width)

    def _registers(self, more: list[str]) -> Iterator[str]:
        if not more:
            yield from look.regs(self.session, self._cmd.width)
        for name in more:
            value = self.session.evaluator.register(name)
            yield f"{name.removeprefix('$'):<12} {value:#x}  {value:,}"

    def _breakpoints(self, _more: list[str]) -> Iterator[str]:
        stops = self.session.stops.stops.values()
        yield from (stop.describe() for stop in stops)
        if not stops:
            yield "no breakpoints, watchpoints or catchpoints"

    def _display(self, _more: list[str]) -> Iterator[str]:
        for display in self._cmd.displays.all:
            yield f"{display.number}: {display.text}"
        if not self._cmd.displays.all:
            yield "nothing is displayed"

    def _findings(self, _more: list[str]) -> Iterator[str]:
        findings = self.session.recording.findings
        for number, finding in enumerate(findings, 1):
            at = f"N {finding.position}" if finding.position is not None else "no position"
            yield f"{number}: {finding.kind} in {finding.transition}, {at}: {finding.where}"
            yield f"   expected {finding.expected}"
            yield f"   actual   {finding.actual}"
            if finding.address is not None:
                yield f"   look     who-wrote p:{finding.address:#x}"
        if not findings:
            yield "no findings: everything that was checked held"

    def _place(self, more: list[str]) -> int:
        return self.address(" ".join(more)).value if more else self.session.pc

    def _symbol(self, more: list[str]) -> Iterator[str]:
        yield place(self.session, self._place(more)).symbol

    def _line(self, more: list[str]) -> Iterator[str]:
        yield str(place(self.session, self._place(more)))
