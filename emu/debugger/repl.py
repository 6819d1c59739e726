"""The prompt: gdb's words over a :class:`Session`, on cmd2.

What cmd2 brings and gdb has not (its own ``set``, ``alias``, ``shell``, ``edit``, scripts in Python, redirections)
cannot be reached: a line means what :mod:`emu.debugger.repl_parsing` says, and only declared commands run.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from cmd2 import Cmd, Statement
from cmd2.types import BoundCommandFunc

from emu.debugger.panes import stop_pane
from emu.debugger.repl_changing import Changing
from emu.debugger.repl_command import MARK, Commands, Declared, installed_name
from emu.debugger.repl_display import Displays, Printing
from emu.debugger.repl_info import Info
from emu.debugger.repl_looking import Code, Looking
from emu.debugger.repl_moving import Backwards, Forwards
from emu.debugger.repl_parsing import LineParser, resolve, split_line
from emu.debugger.repl_shell import Shell
from emu.debugger.repl_stops import Stops
from emu.debugger.session import Session, Stopped
from emu.errors import DebuggerError, KjumpError

PROMPT = "(kjump) "
NARROWEST = 60
_END_OF_INPUT = "_eof"
_MOST_NESTED = 10


class _Interrupted(Exception):  # noqa: N818 - nothing went wrong: a person wants the prompt
    """Ctrl-C while the machine ran."""


class Repl(Cmd):
    """Reads lines and runs commands; ``failed`` counts the commands that could not be carried out."""

    _ready = False  # cmd2 wires its own commands to each other while it is made

    def __init__(
        self, session: Session, *, stdin: TextIO | None = None, stdout: TextIO | None = None, history: str = ""
    ) -> None:
        super().__init__(
            stdin=stdin,
            stdout=stdout,
            allow_cli_args=False,
            allow_clipboard=False,
            allow_redirection=False,
            persistent_history_file=history,
            shortcuts={},
            terminators=(),
        )
        self.session = session
        self.prompt = PROMPT
        self.echo = not (self.stdin.isatty() and self.stdout.isatty())
        self.displays = Displays(session)
        self.failed = 0
        self.repeat = ""
        self._nested = 0
        self._running = self._interrupted = False
        self._declared: dict[str, Declared] = {}
        self._categories: dict[str, str] = {}
        for commands in (Forwards(), Backwards(), Stops(), Printing(), Code(), Looking(), Info(), Changing(), Shell()):
            self._install(commands)
        self.hidden_commands.append(_END_OF_INPUT)
        self.statement_parser = LineParser([*self._declared, _END_OF_INPUT])
        self._ready = True

    def _install(self, commands: Commands) -> None:
        self.register_command_set(commands)
        for name in dir(commands):
            declared = getattr(getattr(commands, name), MARK, None) if name.startswith("do_") else None
            if isinstance(declared, Declared):
                self._declared[declared.name] = declared
                self._categories[declared.name] = commands.DEFAULT_CATEGORY

    # ---- which commands there are ------------------------------------------------------------------------------

    def get_all_commands(self) -> list[str]:
        """The declared commands."""
        return sorted(self._declared) if self._ready else super().get_all_commands()

    def get_command_func(self, command: str) -> BoundCommandFunc[...] | None:
        """The function of a declared command; cmd2's own are left out, but for the end of input."""
        if not self._ready or command == _END_OF_INPUT:
            return super().get_command_func(command)
        return (
            super().get_command_func(installed_name(command).removeprefix("do_")) if command in self._declared else None
        )

    def category_of(self, command: str) -> str:
        """The heading in ``help`` under which a declared command stands."""
        return self._categories[command]

    # ---- lines -------------------------------------------------------------------------------------------------

    def _read_command_line(self, prompt: str) -> str:
        """The next line; Ctrl-C while it is typed drops it, which to cmd2 is the same as an empty one."""
        try:
            return super()._read_command_line(prompt)
        except KeyboardInterrupt:
            self.repeat = ""
            raise

    def onecmd_plus_hooks(
        self,
        line: str,
        *,
        add_to_history: bool = True,
        raise_keyboard_interrupt: bool = False,
        py_bridge_call: bool = False,
    ) -> bool:
        """Run one line; an empty one repeats the last command, where that makes sense."""
        if not line.strip():
            line = self.repeat
        word = split_line(line)[0]
        if not word:
            return False
        self.repeat = ""
        stop = super().onecmd_plus_hooks(
            line,
            add_to_history=add_to_history,
            raise_keyboard_interrupt=raise_keyboard_interrupt,
            py_bridge_call=py_bridge_call,
        )
        declared = self._declared_of(word)
        if declared is not None and declared.repeats and not self.repeat:
            self.repeat = line
        return stop

    def _declared_of(self, word: str) -> Declared | None:
        try:
            return self._declared.get(resolve(word, self._declared))
        except DebuggerError:
            return None

    def pexcept(self, exception: BaseException, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - cmd2's signature
        """An error in one line: what, where, hint.  Anything else than a KjumpError is a fault of ours, and says so."""
        self.failed += 1
        self.stdout.flush()
        if isinstance(exception, KjumpError):
            self.perror(" ".join(str(exception).split()))
        else:
            self.perror(f"internal error, please report: {type(exception).__name__}: {exception}")

    def default(self, statement: Statement) -> bool | None:
        """There is no such command."""
        raise DebuggerError(f"no command is called {statement.command}", hint="help lists them")

    # ---- Ctrl-C ------------------------------------------------------------------------------------------------

    def onecmd(self, statement: Statement | str, *, add_to_history: bool = True) -> bool:
        """Run a parsed command; Ctrl-C ends one that runs the machine between two instructions."""
        name = statement.command if isinstance(statement, Statement) else ""
        declared = self._declared.get(name)
        if declared is None or not declared.moves:
            return super().onecmd(statement, add_to_history=add_to_history)
        here = self.session.timeline.now
        try:
            with self._listening():
                return super().onecmd(statement, add_to_history=add_to_history)
        except _Interrupted:
            if self._categories[name] != Forwards.DEFAULT_CATEGORY:
                self.session.timeline.goto(here)
            self.stopped(Stopped("interrupted", self.session.position, self.session.timeline.now))
            return False

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Between two calls of the engine, see whether Ctrl-C was pressed."""
        machine = self.session.machine
        before = machine.loop.pause_at, machine.loop.on_pause

        def pause() -> None:
            if self._interrupted:
                self._interrupted = False
                raise _Interrupted
            if machine.loop.pause_at:  # not ours: a branch of history takes its checkpoints here
                before[1]()

        machine.loop.pause_at, machine.loop.on_pause = 0, pause
        self._running, self._interrupted = True, False
        try:
            yield
        finally:
            self._running = self._interrupted = False
            machine.loop.pause_at, machine.loop.on_pause = before

    def sigint_handler(self, signum: int, frame: FrameType | None) -> None:
        """Ctrl-C: a run stops where it is, anything else is broken off.  The prompt comes back in either case."""
        if not self._running:
            super().sigint_handler(signum, frame)
            return
        self._interrupted = True

    # ---- what commands need ------------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """Columns for output: the terminal's, or 100."""
        if not self.stdout.isatty():
            return 100
        return max(shutil.get_terminal_size().columns, NARROWEST)

    def stopped(self, stopped: Stopped) -> None:
        """Show where a move ended."""
        for line in (*stop_pane(self.session, stopped, self.width), *self.displays.lines()):
            self.poutput(line)

    def run_lines(self, lines: Iterable[str], where: str) -> bool:
        """Run the lines of a script; the first that fails ends it.  True: quit.  Raises DebuggerError."""
        if self._nested >= _MOST_NESTED:
            raise DebuggerError("scripts within scripts too deep", where=where)
        self._nested += 1
        try:
            for number, line in enumerate(lines, 1):
                if not split_line(line)[0]:
                    continue
                before = self.failed
                if self.runcmds_plus_hooks([line.strip()], add_to_history=False):
                    return True
                if self.failed != before:
                    raise DebuggerError("the script ends here", where=f"{where}:{number}")
        finally:
            self._nested -= 1
        return False

    def run_script(self, name: str) -> bool:
        """Run the commands in file ``name``; True: quit.  Raises DebuggerError."""
        try:
            text = Path(name).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise DebuggerError(f"cannot be read: {reason}", where=name) from error
        return self.run_lines(text.splitlines(), name)

    def output_of(self, line: str) -> str:
        """What ``line`` prints, errors included (for a front end without a terminal)."""
        kept, errors, echo = self.stdout, sys.stderr, self.echo
        caught = io.StringIO()
        self.stdout, sys.stderr, self.echo = caught, caught, False
        try:
            self.onecmd_plus_hooks(line, add_to_history=False)
        finally:
            self.stdout, sys.stderr, self.echo = kept, errors, echo
        return caught.getvalue()


def history_file() -> str:
    """Where lines of earlier sessions are kept: ``$KJUMP_HISTORY``, or the user's state folder; empty keeps none."""
    if "KJUMP_HISTORY" in os.environ:
        return os.environ["KJUMP_HISTORY"]
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return str(Path(state).expanduser() / "kjump" / "history")
