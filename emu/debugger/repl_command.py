"""How a command of the debugger is declared: a name, arguments for argparse (which makes its help), a function.

Every argument is text; what it means is evaluated against the machine when the command runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from cmd2 import Choices, Cmd, Cmd2ArgumentParser, CommandSet, with_argparser

from emu.debugger.address import Address
from emu.debugger.session import Session
from emu.errors import DebuggerError

if TYPE_CHECKING:
    from emu.debugger.repl import Repl  # noqa: F401 - the class below names it in a string

_Set = TypeVar("_Set", bound="Commands")
MARK = "debugger_command"
"""Attribute of a command's function that holds what was :class:`Declared`."""


class CommandParser(Cmd2ArgumentParser):
    """Raises DebuggerError for a wrong line, with the usage as its hint."""

    def error(self, message: str) -> NoReturn:
        """One line; the REPL goes on."""
        raise DebuggerError(message, where=self.prog, hint=f"{self.usage}")


@dataclass(frozen=True, slots=True)
class Argument:
    """One positional argument; ``complete`` is symbols, files or nothing, ``choices`` are only offered."""

    name: str
    help: str
    nargs: str | None = None
    complete: str = ""
    choices: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """The argument as a usage line shows it."""
        name = self.name.upper()
        return {None: name, "?": f"[{name}]", "+": name, "*": f"[{name}]"}[self.nargs]


@dataclass(frozen=True, slots=True)
class Declared:
    """What the REPL knows of a command.  ``moves``: it runs the machine.  ``repeats``: Enter does it again."""

    name: str
    moves: bool = False
    repeats: bool = False


def one(name: str, text: str, *, complete: str = "", choices: Iterable[str] = ()) -> Argument:
    """An argument of one word that must be there."""
    return Argument(name, text, None, complete, tuple(choices))


def maybe(name: str, text: str, *, complete: str = "", choices: Iterable[str] = ()) -> Argument:
    """An argument of one word that may be left out."""
    return Argument(name, text, "?", complete, tuple(choices))


def some(name: str, text: str, *, complete: str = "symbols", choices: Iterable[str] = ()) -> Argument:
    """All words that are left, at least one: an expression, or an address with spaces in it."""
    return Argument(name, text, "+", complete, tuple(choices))


def rest(name: str, text: str, *, complete: str = "symbols", choices: Iterable[str] = ()) -> Argument:
    """All words that are left, or none."""
    return Argument(name, text, "*", complete, tuple(choices))


def words(args: argparse.Namespace, name: str) -> list[str]:
    """The words given for argument ``name``."""
    given = getattr(args, name)
    found: list[str] = given if isinstance(given, list) else [] if given is None else [given]
    return [word.strip() for word in found]


def text_of(args: argparse.Namespace, name: str) -> str:
    """The words given for argument ``name``, joined."""
    return " ".join(words(args, name))


def _symbols(repl: Cmd) -> Choices:
    session: Session = repl.session  # type: ignore[attr-defined] # only the debugger's own REPL has these commands
    registers = [f"${name}" for name in session.machine.cpu.registers()]
    return Choices.from_values([*session.symbols.names(), *registers])


def _offered(choices: tuple[str, ...]) -> Callable[[Cmd], Choices]:
    return lambda _repl: Choices.from_values(choices)


def _builder(name: str, description: str, arguments: tuple[Argument, ...]) -> Callable[[], Cmd2ArgumentParser]:
    def build() -> Cmd2ArgumentParser:
        usage = " ".join([name, *(argument.usage for argument in arguments)])
        parser = CommandParser(prog=name, usage=usage, description=description, add_help=False)
        for argument in arguments:
            extra: dict[str, Any] = {}
            if argument.choices:
                extra["choices_provider"] = _offered(argument.choices)
            elif argument.complete == "symbols":
                extra["choices_provider"] = _symbols
            elif argument.complete == "files":
                extra["completer"] = Cmd.path_complete
            parser.add_argument(argument.name, nargs=argument.nargs, help=argument.help, **extra)
        return parser

    return build


def command(
    name: str, *arguments: Argument, moves: bool = False, repeats: bool | None = None
) -> Callable[[Callable[[_Set, argparse.Namespace], bool | None]], Any]:
    """Declare a method of a :class:`Commands` as the command ``name``; its docstring is the help."""

    def declare(function: Callable[[_Set, argparse.Namespace], bool | None]) -> Any:  # noqa: ANN401 - cmd2's own type
        function.__name__ = f"do_{name}"
        declared = with_argparser(_builder(name, function.__doc__ or "", arguments))(function)
        setattr(declared, MARK, Declared(name, moves, moves if repeats is None else repeats))
        return declared

    return declare


def installed_name(name: str) -> str:
    """The attribute of the REPL for command ``name``: cmd2 has a few commands of the same name, which stay unused."""
    return f"do_debugger-{name}" if hasattr(Cmd, f"do_{name}") else f"do_{name}"


class Commands(CommandSet["Repl"]):
    """Commands of one topic.  A declared method is installed under its command's name, which may have hyphens."""

    def __init_subclass__(cls) -> None:
        for attribute, value in list(vars(cls).items()):
            declared = getattr(value, MARK, None)
            if isinstance(declared, Declared):
                delattr(cls, attribute)
                setattr(cls, installed_name(declared.name), value)

    @property
    def session(self) -> Session:
        """The session that the commands work on."""
        return self._cmd.session

    def number(self, text: str) -> int:
        """The value of an expression."""
        return self.session.evaluator.number(text)

    def address(self, text: str) -> Address:
        """An address as typed."""
        return self.session.evaluator.address(text)

    def count(self, args: argparse.Namespace, name: str = "count") -> int:
        """A number of repetitions, 1 when none is given; raises DebuggerError unless it is positive."""
        text = text_of(args, name)
        value = self.number(text) if text else 1
        if value < 1:
            raise DebuggerError(f"{value} is no number of times", hint="1 or more")
        return value

    def say(self, *lines: object) -> None:
        """Show lines."""
        for line in lines:
            self._cmd.poutput(line)
