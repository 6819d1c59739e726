"""Commands about the prompt itself: help, history, aliases, scripts, saving, leaving."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from emu.debugger.core_file import write_core
from emu.debugger.lines import in_columns
from emu.debugger.repl_command import Commands, command, maybe, one, rest, text_of, words
from emu.debugger.repl_parsing import SHORT, resolve
from emu.debugger.save_file import save
from emu.errors import DebuggerError
from emu.units import show_size

_NAME = re.compile(r"[A-Za-z][\w-]*")
_CATEGORIES = ("Forwards", "Backwards", "Stops", "Look", "Change", "Session")


class Shell(Commands):
    """The session and its prompt."""

    DEFAULT_CATEGORY = "Session"

    @command("help", maybe("command", "or nothing, for a list"))
    def help(self, args: argparse.Namespace) -> None:
        """What a command does and takes (?)."""
        name = text_of(args, "command")
        if not name:
            self._overview()
            return
        if name in self._cmd.aliases:
            self.say(f"{name} is an alias of: {self._cmd.aliases[name]}")
            return
        found = resolve(name, self._cmd.get_all_commands())
        function = self._cmd.get_command_func(found)
        parser = None if function is None else self._cmd.command_parsers.get(function)
        if parser is None:
            raise DebuggerError(f"there is no help for {name}")
        self.say(parser.format_help().rstrip())
        short = sorted(word for word, meant in SHORT.items() if meant == found)
        if short:
            self.say(f"\nAlso: {', '.join(short)}")

    def _overview(self) -> None:
        for category in _CATEGORIES:
            names = [name for name in self._cmd.get_all_commands() if self._cmd.category_of(name) == category]
            self.say(f"{category}:", *(f"  {line}" for line in in_columns(names, self._cmd.width - 2)))
        self.say("help COMMAND tells more; names can be shortened. Enter repeats, Ctrl-C stops a run, # is a comment.")

    @command("quit", rest("status", "ignored", complete=""))
    def quit(self, _args: argparse.Namespace) -> bool:
        """Leave (q, Ctrl-D)."""
        return True

    @command("history", maybe("count", "of lines (default: 20)"))
    def history(self, args: argparse.Namespace) -> None:
        """The last lines."""
        count = self.count(args) if text_of(args, "count") else 20
        everything = list(self._cmd.history)
        for number, item in list(enumerate(everything, 1))[-count:]:
            self.say(f"{number:5}  {item.raw}")

    @command("alias", rest("definition", "NAME = COMMAND ...", complete=""))
    def alias(self, args: argparse.Namespace) -> None:
        """Define a command of your own from another; without arguments, list them."""
        text = text_of(args, "definition")
        if not text:
            self.say(*(f"{name} = {meaning}" for name, meaning in sorted(self._cmd.aliases.items())))
            return
        name, equals, meaning = (part.strip() for part in text.partition("="))
        if not equals or not meaning or not _NAME.fullmatch(name):
            raise DebuggerError("an alias is NAME = COMMAND ...", hint="alias stack = x/8gx $rsp")
        if name in self._cmd.get_all_commands():
            raise DebuggerError(f"{name} is a command already")
        self._cmd.aliases[name] = meaning

    @command("unalias", one("name", "of an alias"))
    def unalias(self, args: argparse.Namespace) -> None:
        """Forget an alias."""
        if self._cmd.aliases.pop(text_of(args, "name"), None) is None:
            raise DebuggerError(f"no alias is called {text_of(args, 'name')}", hint="alias lists them")

    @command("source", one("file", "with commands, one a line; # begins a comment", complete="files"))
    def source(self, args: argparse.Namespace) -> bool:
        """Run the commands in a file; the first that fails ends it."""
        return self._cmd.run_script(text_of(args, "file"))

    @command("echo", rest("text", "to print", complete=""))
    def echo(self, args: argparse.Namespace) -> None:
        """Print a line, for scripts."""
        self.say(" ".join(words(args, "text")))

    @command("save", one("file", "to write", complete="files"))
    def save(self, args: argparse.Namespace) -> None:
        """Write the session (scene, changes, place) to a file that `kjump debug FILE` opens."""
        path = Path(text_of(args, "file")).expanduser()
        save(self.session, path)
        self.say(f"saved: kjump debug {path}")

    @command("core", one("file", "to write", complete="files"))
    def core(self, args: argparse.Namespace) -> None:
        """Write an ELF core of the machine at this instant, for gdb and readelf."""
        path = Path(text_of(args, "file")).expanduser()
        size = write_core(self.session.machine, path)
        self.say(f"{path}: {show_size(size)}")
