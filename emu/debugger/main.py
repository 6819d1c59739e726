"""``kjump debug``: a session, a prompt or a gdb server, and an exit status."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from emu.debugger.address import integer
from emu.debugger.gdb import parse_endpoint, serve
from emu.debugger.repl import Repl, history_file
from emu.debugger.save_file import is_session, load
from emu.debugger.session import Session, Stopped
from emu.errors import EXIT_BAD_INPUT, DebuggerError, KjumpError
from emu.journey.scene import Scene

_POSITION = re.compile(r"(\d[\d,_]*)(?:\.(\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class DebugOptions:
    """What the command line of ``kjump debug`` says besides the scene.

    ``at`` is a position (``N`` or ``N.k``), a transition, or empty for the beginning; ``at_finding`` begins at the
    first finding; ``stopped`` is where the session stands already, and why.  ``scripts`` run before ``commands``;
    ``batch`` ends behind them; ``gdb`` is ``[HOST:]PORT`` to serve gdb there in place of a prompt.
    """

    at: str = ""
    scripts: Sequence[str] = ()
    commands: Sequence[str] = ()
    batch: bool = False
    gdb: str = ""
    at_finding: bool = False
    stopped: Stopped | None = None


def open_session(what: Session | Scene | Path, progress: Callable[[str], None] | None = None) -> Session:
    """A session as it is, of a scene (which is run and recorded), or of a saved file; raises KjumpError."""
    if isinstance(what, Session):
        return what
    if isinstance(what, Scene):
        return Session(what, progress)
    if not is_session(what):
        raise DebuggerError("is no saved session", where=str(what), hint="`save FILE` at the prompt writes one")
    return load(what, progress)


def go_to(session: Session, at: str) -> Stopped:
    """To ``N``, ``N.k`` or the beginning of a transition; raises DebuggerError."""
    exact = _POSITION.fullmatch(at.strip())
    if exact is None:
        return session.goto_transition(at.strip())
    return session.goto(integer(exact.group(1)), integer(exact.group(2) or "0"))


def _first_finding(session: Session) -> Stopped | None:
    """To the first finding of the run that has a place in it."""
    for finding in session.recording.findings:
        if finding.position is not None:
            return session.goto(*finding.position)
    return None


def debug_main(
    what: Session | Scene | Path,
    options: DebugOptions | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> int:
    """Debug a session, scene or saved file; the answer is the exit status.  Raises KjumpError for what cannot begin.

    With ``batch`` the status is 2 when a command failed.  Standard input may be a pipe: its lines run as at the prompt.
    """
    options = options or DebugOptions()
    session = open_session(what, progress)
    stopped = options.stopped
    if options.at:
        stopped = go_to(session, options.at)
    elif options.at_finding:
        stopped = _first_finding(session)
    repl = Repl(session, history="" if options.batch or not sys.stdin.isatty() else history_file())
    if not options.batch or stopped is not None:
        repl.stopped(stopped or Stopped("at the beginning", session.position, session.timeline.now))
    left = _commanded(repl, options)
    if options.gdb and not left:
        return _serve(repl, options.gdb)
    if not left and not options.batch:
        repl.cmdloop()
    return EXIT_BAD_INPUT if options.batch and repl.failed else 0


def _commanded(repl: Repl, options: DebugOptions) -> bool:
    """Run scripts and commands; True when one of them was ``quit``."""
    for script in options.scripts:
        try:
            if repl.run_script(script):
                return True
        except KjumpError as error:
            repl.pexcept(error)
            if options.batch:
                return True
    return repl.runcmds_plus_hooks(list(options.commands), add_to_history=False)


def _serve(repl: Repl, endpoint: str) -> int:
    host, port = parse_endpoint(endpoint)
    with suppress(KeyboardInterrupt):
        serve(repl.session, host, port, repl.output_of, announce=lambda text: print(text, flush=True))
    return 0
