"""Commands about what a run stops at."""

from __future__ import annotations

import argparse
from dataclasses import replace

from emu.debugger.repl_command import Commands, command, one, rest, some, text_of, words
from emu.debugger.stops import EVENT_KINDS, Stop
from emu.errors import DebuggerError
from emu.units import PAGE_SIZE

_LOCATION = "symbol, file:line, *ADDRESS, p:PHYSICAL or seg:off (default: here), then `if EXPR`"
_NUMBERS = rest("numbers", "of breakpoints (default: all)", complete="")
_RANGE = some("range", "an address, a size in bytes (default: a word of this mode), then `if EXPR`")
_WORD_SIZES = {16: 2, 32: 4, 64: 8}


def _split_if(given: list[str]) -> tuple[list[str], str]:
    """Words before ``if``, and the condition behind it."""
    if "if" not in given:
        return given, ""
    at = given.index("if")
    if at == len(given) - 1:
        raise DebuggerError("a condition is wanted behind `if`")
    return given[:at], " ".join(given[at + 1 :])


class Stops(Commands):
    """Breakpoints, watchpoints, catchpoints."""

    DEFAULT_CATEGORY = "Stops"

    def _break(self, args: argparse.Namespace, *, temporary: bool = False) -> None:
        given, condition = _split_if(words(args, "location"))
        self._checked(condition)
        self._made(
            self.session.add_break(" ".join(given) or f"{self.session.pc:#x}", temporary=temporary, condition=condition)
        )

    def _checked(self, condition: str) -> None:
        """A condition that cannot be evaluated here and now is refused at once."""
        if condition:
            self.number(condition)

    def _made(self, stop: Stop) -> None:
        where = "" if stop.where is None else f" at {stop.where}"
        self.say(f"{stop.describe()}{where}")

    @command("break", rest("location", _LOCATION))
    def break_here(self, args: argparse.Namespace) -> None:
        """Stop when control comes to a location (b)."""
        self._break(args)

    @command("tbreak", rest("location", _LOCATION))
    def tbreak(self, args: argparse.Namespace) -> None:
        """Stop there once (tb)."""
        self._break(args, temporary=True)

    @command("hbreak", rest("location", _LOCATION))
    def hbreak(self, args: argparse.Namespace) -> None:
        """The same as break: no breakpoint of this machine changes its memory (hb)."""
        self._break(args)

    def _watch(self, args: argparse.Namespace, kind: str) -> None:
        given, condition = _split_if(words(args, "range"))
        self._checked(condition)
        size = _WORD_SIZES[self.session.machine.cpu.bits]
        if kind == "xwatch":
            size = 1
        if len(given) > 1 and given[-1][:1].isdigit() and given[-2][-1:] not in "+-*/%&|^<>(~":
            size = self.number(given.pop())
        if not 1 <= size <= PAGE_SIZE:
            raise DebuggerError(f"{size:,} bytes cannot be watched", hint=f"1 to {PAGE_SIZE:,}")
        stop = self.session.add_watch(" ".join(given), size, kind)
        stop.condition = condition
        self._made(stop)

    @command("watch", _RANGE)
    def watch(self, args: argparse.Namespace) -> None:
        """Stop at a store to a range of memory, whoever makes it."""
        self._watch(args, "watch")

    @command("rwatch", _RANGE)
    def rwatch(self, args: argparse.Namespace) -> None:
        """Stop at a read of a range of memory."""
        self._watch(args, "rwatch")

    @command("awatch", _RANGE)
    def awatch(self, args: argparse.Namespace) -> None:
        """Stop at a read of a range of memory or a store to it."""
        self._watch(args, "awatch")

    @command("xwatch", _RANGE)
    def xwatch(self, args: argparse.Namespace) -> None:
        """Stop at the execution of anything in a range of memory."""
        self._watch(args, "xwatch")

    @command(
        "catch",
        one("kind", ", ".join(EVENT_KINDS), choices=EVENT_KINDS),
        rest("detail", "a register, vector, port or transition that it must be", complete=""),
    )
    def catch(self, args: argparse.Namespace) -> None:
        """Stop at an event: a change of CPU mode, a load of CR0, a fault, a store against the owner policy, ..."""
        kind = text_of(args, "kind")
        if kind not in EVENT_KINDS:
            raise DebuggerError(f"nothing to catch is called {kind}", hint=f"one of {', '.join(EVENT_KINDS)}")
        self._made(self.session.add_catch(kind, text_of(args, "detail")))

    def _numbered(self, args: argparse.Namespace) -> list[Stop]:
        table = self.session.stops
        given = [word for word in words(args, "numbers") if word not in ("breakpoints", "all")]
        return [table.get(self.number(word)) for word in given] or list(table.stops.values())

    @command("delete", _NUMBERS)
    def delete(self, args: argparse.Namespace) -> None:
        """Delete breakpoints, watchpoints and catchpoints (d)."""
        given = words(args, "numbers")
        if given[:1] == ["display"]:
            self._cmd.displays.remove(given[1:])
            return
        for stop in self._numbered(args):
            if stop.number in self.session.stops.stops:
                self.session.stops.remove(stop.number)

    @command("enable", _NUMBERS)
    def enable(self, args: argparse.Namespace) -> None:
        """Let stops count again (en)."""
        for stop in self._numbered(args):
            stop.enabled = True

    @command("disable", _NUMBERS)
    def disable(self, args: argparse.Namespace) -> None:
        """Keep stops, but let runs pass them (dis)."""
        for stop in self._numbered(args):
            stop.enabled = False

    @command("ignore", one("number", "of a breakpoint"), some("count", "hits to pass"))
    def ignore(self, args: argparse.Namespace) -> None:
        """Pass the next hits of a stop."""
        stop = self.session.stops.get(self.number(text_of(args, "number")))
        stop.ignore = max(self.number(text_of(args, "count")), 0)
        self.say(stop.describe())

    @command("condition", one("number", "of a breakpoint"), rest("expression", "nothing makes it unconditional"))
    def condition(self, args: argparse.Namespace) -> None:
        """Let a stop count only where an expression is not zero."""
        stop = self.session.stops.get(self.number(text_of(args, "number")))
        condition = text_of(args, "expression")
        self._checked(condition)
        stop.condition = condition
        self.say(replace(stop).describe())
