"""The kernel command line: words as the kernel splits them, and the options that a kexec jump knows.

Guests parse the same options in assembly; :meth:`ParsedCommandLine.guest_results` is what they must come to.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from emu.errors import BadCommandLine
from emu.kexec.layout import COMMAND_LINE_SIZE, ParsedWord
from emu.kexec.memparse import memparse, parse_number
from emu.kexec.target import Preference, TargetSpec, parse_target

NOT_GIVEN: Final = (1 << 64) - 1
"""What a guest stores for a ``jump_buf_pfn`` that is not on its command line."""
_SPACES: Final = " \t\n\v\f\r"
TARGET: Final = "kexec_jump"
JUMP_BUF_PFN: Final = "jump_buf_pfn"
SEED: Final = "seed"
ROUNDS: Final = "rounds"
RELOADS: Final = "reloads"
RESUME: Final = "kexec_jump_resume"
SAVED: Final = "kexec_jump_saved"
SLOT: Final = "kexec_jump_slot"
BACK_ENTRY: Final = "kexec_jump_back_entry"
ELFCOREHDR: Final = "elfcorehdr"
_NUMBERS: Final = (JUMP_BUF_PFN, SEED, ROUNDS, RELOADS, RESUME, SAVED, SLOT, BACK_ENTRY)
_WORDS: Final = {"ret": ParsedWord.RET, "poweroff": ParsedWord.POWEROFF, "save": ParsedWord.SAVE}


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
    """What the parser of a guest stores at its symbol ``parsed``, qwords in this order (:class:`layout.Parsed`)."""

    jump_buf_pfn: int
    target_start: int
    target_size: int
    seed: int
    unknown_words: int
    resume: int = 0
    saved: int = 0
    slot: int = 0
    elfcorehdr: int = 0
    back_entry: int = 0
    rounds: int = 0
    reloads: int = 0
    words: int = 0

    def qwords(self) -> tuple[int, ...]:
        """The values in the order of memory."""
        return tuple(getattr(self, name) for name in self.__slots__)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """The results as they lie in a guest's memory."""
        return cls(*struct.unpack(f"<{len(cls.__slots__)}Q", raw))


@dataclass(frozen=True, slots=True)
class ParsedCommandLine:
    """A command line, understood: the last value of each option, what was not for us, and notes for the person.

    ``numbers`` are the options that take a number, by name.
    """

    words: tuple[Word, ...]
    target: TargetSpec | None
    numbers: Mapping[str, int]
    flags: ParsedWord
    unknown: tuple[Word, ...]
    notes: tuple[str, ...]

    @property
    def jump_buf_pfn(self) -> int | None:
        """The page frame of the jump page, None where the line names none."""
        return self.numbers.get(JUMP_BUF_PFN)

    @property
    def seed(self) -> int | None:
        """The seed, None where it is not given."""
        return self.numbers.get(SEED)

    @property
    def plain_return(self) -> bool:
        """Whether the word ``ret`` stands there."""
        return ParsedWord.RET in self.flags

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
        number = self.numbers
        return GuestResults(
            jump_buf_pfn=number.get(JUMP_BUF_PFN, NOT_GIVEN),
            target_start=start,
            target_size=size,
            seed=number.get(SEED, 0),
            unknown_words=len(self.unknown),
            resume=number.get(RESUME, 0),
            saved=number.get(SAVED, 0),
            slot=number.get(SLOT, 0),
            elfcorehdr=number.get(ELFCOREHDR, 0),
            back_entry=number.get(BACK_ENTRY, 0),
            rounds=number.get(ROUNDS, 0),
            reloads=number.get(RELOADS, 0),
            words=int(self.flags),
        )


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


def _core_header(word: Word) -> int:
    """The offset of ``elfcorehdr=[size[KMG]@]offset[KMG]``, in bytes (Linux kernel/crash_dump.c)."""
    text, at, value = word.value or "", 0, 0
    while True:
        value, end = memparse(text, at)
        if end == at:
            raise BadCommandLine("number expected", option=f"{word.param}=", column=word.value_column + at)
        if at or not text.startswith("@", end):
            break
        at = end + 1
    if end != len(text) or value >= 1 << 64:
        raise BadCommandLine(
            f"unrecognised {text[end:]!r} in the address", option=f"{word.param}=", column=word.value_column + end
        )
    return value


def _last_numbers(given: Mapping[str, list[Word]], notes: list[str]) -> dict[str, int]:
    numbers = {}
    for name, words in given.items():
        values = [_core_header(word) if name == ELFCOREHDR else _number(word) for word in words]
        notes.extend(_overridden(word, words[-1]) for word in words[:-1])
        if values:
            numbers[name] = values[-1]
    return numbers


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

    Our options are ``kexec_jump=``, ``elfcorehdr=``, those that take a number by C's rules (``jump_buf_pfn=``,
    ``seed=``, ``rounds=``, ``reloads=``, the addresses of the hand-offs) and the words ``ret``, ``poweroff``, ``save``;
    every other word is kept in ``unknown``.  Of an option that is repeated the last one counts, with a note; all of
    them are checked.  Raises :class:`BadCommandLine` naming option and column for a malformed value of one of ours and
    for a line that is too long.
    """
    words = split_words(line)
    ours: dict[str, list[Word]] = {name: [] for name in (TARGET, ELFCOREHDR, *_NUMBERS)}
    unknown: list[Word] = []
    flags = ParsedWord(0)
    for word in words:
        if word.param in ours:
            if word.value is None:
                raise BadCommandLine("needs a value", option=f"{word.param}=", column=word.column)
            ours[word.param].append(word)
        elif word.param in _WORDS and word.value is None:
            flags |= _WORDS[word.param]
        else:
            unknown.append(word)
    notes: list[str] = []
    targets = ours.pop(TARGET)
    return ParsedCommandLine(
        words=words,
        target=_target(targets, notes),
        numbers=_last_numbers(ours, notes),
        flags=flags,
        unknown=tuple(unknown),
        notes=tuple(notes),
    )
