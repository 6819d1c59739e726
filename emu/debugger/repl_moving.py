"""Commands that go somewhere else in the recorded run, forwards and backwards."""

from __future__ import annotations

import argparse
import re

from emu.debugger.address import integer
from emu.debugger.recording import Mark
from emu.debugger.repl_command import Commands, command, maybe, rest, some, text_of, words
from emu.errors import DebuggerError

_POSITION = re.compile(r"(\d[\d,_]*)\.(\d+)", re.ASCII)
_COUNT = rest("count", "how often (default: 1)")


class Forwards(Commands):
    """Forwards."""

    DEFAULT_CATEGORY = "Forwards"

    @command("stepi", _COUNT, moves=True)
    def stepi(self, args: argparse.Namespace) -> None:
        """One instruction forward (si, s); entering a handler is a step, and all of a rep is one."""
        self._cmd.stopped(self.session.step(self.count(args)))

    @command("nexti", _COUNT, moves=True)
    def nexti(self, args: argparse.Namespace) -> None:
        """One instruction forward, over a call (ni, n)."""
        self._cmd.stopped(self.session.next(self.count(args)))

    @command("iterate", _COUNT, moves=True)
    def iterate(self, args: argparse.Namespace) -> None:
        """One iteration of the repeated instruction at hand (iter)."""
        self._cmd.stopped(self.session.iterate(self.count(args)))

    @command("finish", moves=True)
    def finish(self, _args: argparse.Namespace) -> None:
        """Until the present routine has returned."""
        self._cmd.stopped(self.session.finish())

    @command("until", some("location", "symbol, file:line, seg:off, p:ADDRESS or *ADDRESS"), moves=True)
    def until(self, args: argparse.Namespace) -> None:
        """Until control is at a location, or at an earlier stop."""
        stops = self.session.stops
        stop = self.session.add_break(text_of(args, "location"), temporary=True)
        try:
            self._cmd.stopped(self.session.resume())
        finally:
            stops.stops.pop(stop.number, None)

    @command("continue", _COUNT, moves=True)
    def go_on(self, args: argparse.Namespace) -> None:
        """Until the next stop or the end of the recording (c); with a count, past count - 1 stops."""
        stopped = self.session.resume()
        for _ in range(self.count(args) - 1):
            if stopped.ended or self.session.interrupted:
                break
            stopped = self.session.resume()
        self._cmd.stopped(stopped)

    @command("transition", maybe("name", "load, suspend, return, ..."), moves=True)
    def transition(self, args: argparse.Namespace) -> None:
        """To where the next transition begins, or the next one of that name."""
        name = text_of(args, "name")
        now = self.session.timeline.now
        ahead = [mark for mark in self.session.marks() if mark.begins and mark.at.tick > now.tick]
        for mark in ahead:
            if name in ("", mark.name):
                self._cmd.stopped(self.session.goto_instant(mark.at))
                return
        raise DebuggerError(
            f"no transition {name} begins after here" if name else "no transition begins after here",
            hint=f"ahead: {_names(ahead)}; goto transition NAME also goes back",
        )


class Backwards(Commands):
    """Backwards."""

    DEFAULT_CATEGORY = "Backwards"

    @command("reverse-stepi", _COUNT, moves=True)
    def reverse_stepi(self, args: argparse.Namespace) -> None:
        """One instruction back (rsi, rs)."""
        self._cmd.stopped(self.session.step_back(self.count(args)))

    @command("reverse-nexti", _COUNT, moves=True)
    def reverse_nexti(self, args: argparse.Namespace) -> None:
        """One instruction back, over a call (rni, rn)."""
        self._cmd.stopped(self.session.next_back(self.count(args)))

    @command("reverse-continue", moves=True)
    def reverse_continue(self, _args: argparse.Namespace) -> None:
        """Back to the last stop before here, or to the beginning of the recording (rc)."""
        self._cmd.stopped(self.session.reverse_continue())

    @command(
        "goto",
        some("position", "N, N.k, start, end, or `transition NAME`", choices=("transition", "start", "end")),
        moves=True,
        repeats=False,
    )
    def goto(self, args: argparse.Namespace) -> None:
        """To a position of the run, before or behind this one: N instructions retired, k iterations of the next."""
        given = words(args, "position")
        session, text = self.session, " ".join(given)
        exact = _POSITION.fullmatch(text)
        if given[0] in ("transition", "tr") and len(given) > 1:
            self._cmd.stopped(session.goto_transition(" ".join(given[1:])))
        elif text in ("start", "end"):
            at = session.timeline.start if text == "start" else session.timeline.end
            self._cmd.stopped(session.goto_instant(at))
        elif exact is not None:
            self._cmd.stopped(session.goto(integer(exact.group(1)), integer(exact.group(2))))
        else:
            self._cmd.stopped(session.goto(self.number(text)))

    @command("undo", moves=True, repeats=True)
    def undo(self, _args: argparse.Namespace) -> None:
        """Back to where the last command that moved or changed something began."""
        self._cmd.stopped(self.session.undo())


def _names(marks: list[Mark]) -> str:
    return ", ".join(dict.fromkeys(mark.name for mark in marks)) or "none"
