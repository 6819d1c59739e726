"""The instructions of a stub's source: which line each stands on, and its text without label and comment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from emu.assembler import Image

_LABELS = re.compile(r"^\s*(?:[A-Za-z_.$][\w.$]*:\s*|\d+:\s*)*")
_DIRECTIVE = re.compile(r"^\.(?!code)")


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One source line that is an instruction.

    ``number`` counts from 1; ``places`` are (offset in the image, bytes) of what it became: several, where it is in a
    macro.  ``label`` is what stands before the instruction on the line, ``text`` the instruction.
    """

    number: int
    label: str
    text: str
    places: tuple[tuple[int, int], ...]

    @property
    def offset(self) -> int:
        """Offset in the image of the first place."""
        return self.places[0][0]


def instruction_lines(image: Image, source: Sequence[str]) -> tuple[SourceLine, ...]:
    """Every line of ``source`` (the stub's own text) that became an instruction of ``image``, in order."""
    places: dict[int, list[tuple[int, int]]] = {}
    for line in image.lines:
        if line.file == image.name and line.size:
            places.setdefault(line.line, []).append((line.address - image.org, line.size))
    found = []
    for number in sorted(places):
        label, text = split_line(source[number - 1])
        if text and not _DIRECTIVE.match(text):
            found.append(SourceLine(number, label, text, tuple(places[number])))
    return tuple(found)


def split_line(line: str) -> tuple[str, str]:
    """(labels, statement) of a source line, comment taken off; the statement may be empty."""
    code = without_comment(line)
    match = _LABELS.match(code)
    label = match.group() if match else ""
    return label, code[len(label) :].strip()


def without_comment(line: str) -> str:
    """The line up to its ``#``, unless that is a character constant or in a string."""
    quote = ""
    for at, char in enumerate(line):
        if quote:
            quote = "" if char == quote and line[at - 1] != "\\" else quote
        elif char in "\"'":
            quote = char
        elif char == "#":
            return line[:at].rstrip()
    return line.rstrip()
