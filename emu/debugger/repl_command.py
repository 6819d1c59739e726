"""How a command of the debugger is declared: a name, arguments for argparse (its help is the command's help), a function.

Every argument is text; what it means is evaluated against the machine when the command runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, TypeVar

from cmd2 import Choices, Cmd, Cmd2ArgumentParser, CommandSet, with_argparser

from emu.debugger.address import Address
from emu.debugger.session import Session
from emu.errors import DebuggerError

if TYPE_CHECKING:
    from emu.debugger.repl import Repl

_Set = TypeVar("_Set", bound="Commands")


class CommandParser(Cmd2ArgumentParser):
    """Raises DebuggerError for a wrong line, with the usage as its hint."""

    def error(self, message: str) -> NoReturn:
        """One line; the REPL goes on."""
        usage = " ".join(self.format_usage().split()).removeprefix("Usage: ")
        raise DebuggerError(message, where=self.prog, hint=usage)


@dataclass(frozen=True, slots=True)
class Argument:
    """One positional argument: its words are handed over as text."""

    name: str
    help: str
    nargs: str | None = None
    complete: str = ""
    choices: tuple[str, ...] = field(default=())


def one(name: str, text: str, *, complete: str = "", choices: Iterable[str] = ()) -> Argument:
    """An argument of one word that must be there."""
    return Argument(name, text, complete=complete, choices=tuple(choices))


def maybe(name: str, text: str, *, complete: str = "", choices: Iterable[str] = ()) -> Argument:
    """An argument of one word that may be left out."""
    return Argument(name, text, "?", complete, tuple(choices))


def some(name: str, text: str, *, complete: str = "symbols") -> Argument:
    """All words that are left, at least one: an expression, or an address with spaces in it."""
    return Argument(name, text, "+", complete)


def rest(name: str, text: str, *, complete: str = "symbols") -> Argument:
    """All words that are left, or none."""
    return Argument(name, text, "*", complete)


def words(args: argparse.Namespace, name: str) -> list[str]:
    """The words given for argument ``name``."""
    given = getattr(args, name)
    found: list[str] = given if isinstance(given, list) else [] if given is None else [given]
    return [word.strip() for word in found]


def text_of(args: argparse.Namespace, name: str) -> str:
    """The words given for argument ``name``, joined."""
    return " ".join(words(args, name))


def _builder(name: str, description: str, arguments: tuple[Argument, ...]) -> Callable[[], Cmd2ArgumentParser]:
    def build() -> Cmd2ArgumentParser:
        parser = CommandParser(prog=name, description=description, add_help=False, formatter_class=_formatter())
        for argument in arguments:
            action = parser.add_argument(argument.name, nargs=argument.nargs, help=argument.help)
            if argument.choices:
                known = argument.choices
                action.set_choices_provider(lambda _cmd, known=known: Choices.from_values(known))  # type: ignore[attr-defined]
            elif argument.complete == "symbols":
                action.set_choices_provider(_symbols)  # type: ignore[attr-defined]
            elif argument.complete == "files":
                action.set_completer(Cmd.path_complete)  # type: ignore[attr-defined]
        return parser

    return build
