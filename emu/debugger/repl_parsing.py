"""From a line as gdb takes it to a command and its words.

cmd2 would read ``;`` as the end of a command, ``>`` and ``|`` as redirections, and ``x/8gx`` as one unknown word; here
they are what they are in gdb.  Names may be shortened as in gdb: to any unambiguous beginning, and a few to less.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cmd2.parsing import PartialStatement, Statement, StatementParser

from emu.errors import DebuggerError

SHORT = {
    "?": "help", "aw": "awatch", "b": "break", "br": "break", "bre": "break", "brea": "break", "bt": "backtrace",
    "where": "backtrace", "c": "continue", "cont": "continue", "fg": "continue", "cond": "condition", "d": "delete",
    "dis": "disable", "disas": "disassemble", "en": "enable", "exit": "quit", "fin": "finish", "h": "help",
    "hb": "hbreak", "i": "info", "inf": "info", "iter": "iterate", "l": "list", "n": "nexti", "ni": "nexti",
    "next": "nexti", "p": "print", "inspect": "print", "output": "print", "q": "quit", "rc": "reverse-continue",
    "reverse-next": "reverse-nexti", "reverse-step": "reverse-stepi", "rn": "reverse-nexti", "rni": "reverse-nexti",
    "rs": "reverse-stepi", "rsi": "reverse-stepi", "rw": "rwatch", "s": "stepi", "si": "stepi", "step": "stepi",
    "src": "source", "tb": "tbreak", "tbr": "tbreak", "u": "until", "advance": "until", "thbreak": "tbreak",
    "hi": "history", "ls": "list", "wa": "watch", "ww": "who-wrote", "tr": "transition", "in": "info",
    "page": "walk", "pagewalk": "walk", "ptdump": "maps",
}  # fmt: skip
"""Words that are not the beginning of one name, or of several; also Bochs's and pwndbg's names for the same things."""

_WORD = re.compile(r"\s*(\?|[^\s/?\"'][^\s/\"']*)(.*)", re.DOTALL)
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'|([\"'])|([^\s\"']+)")
_COMMENT = re.compile(r"(?:^|\s)#")


def uncommented(line: str) -> str:
    """``line`` without a comment: a ``#`` at its beginning or behind white space, outside of quotes."""
    quote = ""
    for at, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and char in line[at + 1 :]:
            quote = char
        elif char == "#" and _COMMENT.match(line, max(at - 1, 0)):
            return line[:at]
    return line


def split_line(line: str) -> tuple[str, str]:
    """The first word (a command, perhaps shortened) and the rest of the line; a ``/format`` belongs to the rest."""
    match = _WORD.fullmatch(uncommented(line).strip())
    return ("", "") if match is None else (match.group(1), match.group(2).strip())


def words_of(text: str) -> list[str]:
    """White space parts words, quotes hold them together and are dropped; raises DebuggerError for an open quote."""
    words: list[str] = []
    end = -1
    for match in _QUOTED.finditer(text):
        if match.group(3):
            raise DebuggerError(f"a {match.group(3)} is not closed in {text!r}")
        part = next(group for group in match.groups() if group is not None)
        if match.start() == end:
            words[-1] += part
        else:
            words.append(part)
        end = match.end()
    return words


def resolve(word: str, names: Iterable[str]) -> str:
    """The command that ``word`` means; raises DebuggerError when there is none or more than one."""
    known = set(names)
    if word in known:
        return word
    if word in SHORT and SHORT[word] in known:
        return SHORT[word]
    found = sorted(name for name in known if name.startswith(word))
    if len(found) == 1:
        return found[0]
    if found:
        raise DebuggerError(f"{word} is ambiguous: {', '.join(found)}")
    raise DebuggerError(f"no command is called {word}", hint="help lists them")


class LineParser(StatementParser):
    """cmd2's parser with the grammar of this module in its place: no terminators, no redirections, no shortcuts."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(terminators=(), multiline_commands=(), shortcuts={})
        self.names = names

    def _resolved(self, line: str) -> tuple[str, str]:
        word, rest = split_line(line)
        met: set[str] = set()
        while word in self.aliases and word not in met:
            met.add(word)
            word, more = split_line(self.aliases[word])
            rest = f"{more} {rest}".strip()
        return (resolve(word, self.names) if word else "", rest)

    def parse(self, line: str) -> Statement:
        """A command and its arguments; raises DebuggerError for a command that there is not."""
        command, rest = self._resolved(line)
        return Statement(rest, raw=line, command=command) if command else Statement("", raw=line)

    def parse_command_only(self, rawinput: str) -> PartialStatement:
        """The same for completion, which keeps silent about unknown commands."""
        try:
            command, rest = self._resolved(rawinput)
        except DebuggerError:
            command, rest = "", ""
        return PartialStatement(command=command, args=rest, raw=rawinput, multiline_command=False)

    def get_command_arg_list(
        self,
        command_name: str,
        to_parse: Statement | str,
        preserve_quotes: bool,
    ) -> tuple[Statement, list[str]]:
        """The words behind a command, in a form that argparse does not take for options unless they are."""
        del preserve_quotes
        statement = to_parse if isinstance(to_parse, Statement) else self.parse(f"{command_name} {to_parse}")
        return statement, [f" {word}" if word.startswith("-") else word for word in words_of(statement)]
