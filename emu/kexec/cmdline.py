"""The kernel command line: words as the kernel splits them, and the options that a kexec jump knows.

Guests parse the same options in assembly; :meth:`ParsedCommandLine.guest_results` is what they must come to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from emu.errors import BadCommandLine
from emu.kexec.layout import COMMAND_LINE_SIZE
from emu.kexec.memparse import parse_number
from emu.kexec.target import Preference, TargetSpec, parse_target

NOT_GIVEN: Final = (1 << 64) - 1
"""What a guest stores for a ``jump_buf_pfn`` that is not on its command line."""
_SPACES: Final = " \t\n\v\f\r"
TARGET: Final = "kexec_jump"
JUMP_BUF_PFN: Final = "jump_buf_pfn"
SEED: Final = "seed"
RET: Final = "ret"


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command line, quotes taken off.

    ``value`` is None where there is no ``=``.  Columns count from 1 within the line; ``value_column`` is that of the
    value's first character, or of the word where there is no value.
    """

    param: str
    value: str | None
    column: int
    value_column: int

    def __str__(self) -> str:
        return self.param if self.value is None else f"{self.param}={self.value}"


def _next_arg(line: str, at: int) -> tuple[Word, int]:
    """The word that begins at ``at`` and the position after it, by the rules of Linux lib/cmdline.c next_arg.

    Spaces inside double quotes do not end a word; quotes around a whole word or a whole value are taken off, others
    stay.  A ``=`` that is the first character of a word is no separator.
    """
    quoted = line.startswith('"', at)
    start = at + quoted
    in_quote = quoted
    equals: int | None = None
    end = start
    while end < len(line) and (in_quote or line[end] not in _SPACES):
        if line[end] == "=" and equals is None and end > start:
            equals = end
        if line[end] == '"':
            in_quote = not in_quote
        end += 1
    value_at = start if equals is None else equals + 1
    opens = equals is not None and line.startswith('"', value_at)
    value_at += opens
    stop = end - 1 if (quoted or opens) and end > value_at and line[end - 1] == '"' else end
    if equals is None:
        return Word(line[start:stop], None, at + 1, at + 1), end
    return Word(line[start:equals], line[value_at:stop], at + 1, value_at + 1), end


def split_words(line: str) -> tuple[Word, ...]:
    """The words of ``line`` in order.

    Raises :class:`BadCommandLine` for a line that does not fit its 2048-byte buffer with its NUL, or contains a NUL.
    """
    size = len(line.encode("utf-8", "surrogateescape"))
    if size >= COMMAND_LINE_SIZE:
        raise BadCommandLine(
            f"{size} bytes and a NUL do not fit {COMMAND_LINE_SIZE}", option="length", column=COMMAND_LINE_SIZE
        )
    if "\0" in line:
        raise BadCommandLine("a NUL ends the line early", option="NUL", column=line.index("\0") + 1)
    words: list[Word] = []
    at = 0
    while at < len(line):
        if line[at] in _SPACES:
            at += 1
            continue
        word, at = _next_arg(line, at)
        words.append(word)
    return tuple(words)


@dataclass(frozen=True, slots=True)
class GuestResults:
    """What the parser of a guest stores at its symbol ``parsed``, five qwords in this order."""

    jump_buf_pfn: int
    target_start: int
    target_size: int
    seed: int
    unknown_words: int

    def qwords(self) -> tuple[int, int, int, int, int]:
        """The values in the order of memory."""
        return (self.jump_buf_pfn, self.target_start, self.target_size, self.seed, self.unknown_words)


@dataclass(frozen=True, slots=True)
class ParsedCommandLine:
    """A command line, understood: the last value of each option, what was not for us, and notes for the person."""

    words: tuple[Word, ...]
    target: TargetSpec | None
    jump_buf_pfn: int | None
    seed: int | None
    plain_return: bool
    unknown: tuple[Word, ...]
    notes: tuple[str, ...]

    def guest_results(self, total_ram: int = 0) -> GuestResults:
        """What a guest's parser must come to on a machine with ``total_ram`` bytes of RAM (needed for ranges only).

        An option that is not given is all-ones for ``jump_buf_pfn`` and 0 otherwise, and so is the start of a target
        area whose place the loader chooses.  Raises :class:`BadCommandLine` as :meth:`TargetSpec.choose` does.
        """
        start, size = 0, 0
        if self.target is not None:
            ranged = self.target.choose(total_ram) if self.target.ranged else None
            size = self.target.sizes[0].size if not self.target.ranged else ranged.size if ranged else 0
            start = (self.target.offset or 0) if size else 0
        pfn = NOT_GIVEN if self.jump_buf_pfn is None else self.jump_buf_pfn
        return GuestResults(pfn, start, size, self.seed or 0, len(self.unknown))


def _number(word: Word) -> int:
    option = f"{word.param}="
    text = word.value or ""
    value, end = parse_number(text)
    if end == 0:
        raise BadCommandLine("number expected", option=option, column=word.value_column, hint="0x.. , 0.. or decimal")
    if end != len(text):
        raise BadCommandLine(f"unrecognised {text[end]!r} in the number", option=option, column=word.value_column + end)
    if value >= 1 << 64:
        raise BadCommandLine("the number does not fit 64 bits", option=option, column=word.value_column)
    return value


def _last_number(words: list[Word], notes: list[str]) -> int | None:
    values = [_number(word) for word in words]
    notes.extend(_overridden(word, words[-1]) for word in words[:-1])
    return values[-1] if values else None


def _overridden(word: Word, winner: Word) -> str:
    return f"column {word.column}: {word} is overridden by {winner} at column {winner.column}"


def _target(words: list[Word], notes: list[str]) -> TargetSpec | None:
    """The last option without ``,high`` or ``,low``; the last with one only where there is no other."""
    specs = [(word, parse_target(word.value or "", word.value_column)) for word in words]
    plain = [pair for pair in specs if pair[1].preference is Preference.KERNEL_BASE_FIRST]
    if not specs:
        return None
    winner, spec = (plain or specs)[-1]
    notes.extend(_overridden(word, winner) for word, _ in specs if word is not winner)
    return spec


def parse_command_line(line: str) -> ParsedCommandLine:
    """Read ``line``, without its NUL.

    Our options are ``kexec_jump=``, ``jump_buf_pfn=`` and ``seed=`` (numbers by C's rules) and the word ``ret``; every
    other word is kept in ``unknown``.  Of an option that is repeated the last one counts, with a note; every one of
    them is checked.  Raises :class:`BadCommandLine` naming option and column for a malformed value of one of ours and
    for a line that is too long.
    """
    words = split_words(line)
    ours: dict[str, list[Word]] = {TARGET: [], JUMP_BUF_PFN: [], SEED: []}
    unknown: list[Word] = []
    plain_return = False
    for word in words:
        if word.param in ours:
            if word.value is None:
                raise BadCommandLine("needs a value", option=f"{word.param}=", column=word.column)
            ours[word.param].append(word)
        elif word.param == RET and word.value is None:
            plain_return = True
        else:
            unknown.append(word)
    notes: list[str] = []
    return ParsedCommandLine(
        words=words,
        target=_target(ours[TARGET], notes),
        jump_buf_pfn=_last_number(ours[JUMP_BUF_PFN], notes),
        seed=_last_number(ours[SEED], notes),
        plain_return=plain_return,
        unknown=tuple(unknown),
        notes=tuple(notes),
    )
