"""From source text to statements: comments away, ``;`` split, positions kept.

A statement is what the GNU assembler calls one: a piece of a line between ``;`` outside quotes.  Comments
become blanks, so that a column counted in a statement is a column of the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from emu.errors import AssemblyError

_CPP_DIRECTIVE = re.compile(
    r"#(?:include\s*[<\"]|define\s+\w|(?:ifdef|ifndef|undef)\s+\w+\s*$|(?:if|elif)\s+[\w!(]|(?:else|endif)\s*(?:$|/))"
)

_SPECIAL = re.compile(r"[\"'#/]")
_KEPT_FILES = 256
"""Files whose statements are kept: the same few are included again and again."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a source file; lines and columns count from 1, ``source`` is the whole line as written."""

    file: str
    line: int
    column: int
    source: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement without its comments; ``calls`` are the macro calls that led here, outermost first."""

    text: str
    at: Position
    calls: tuple[Position, ...] = ()

    def error(self, what: str, *, offset: int = 0, hint: str = "") -> AssemblyError:
        """An error at ``offset`` characters into this statement."""
        column = self.at.column + (0 if self.calls else offset)
        notes = [hint] if hint else []
        notes += [f"expanded from {call.file}:{call.line}" for call in reversed(self.calls)]
        return AssemblyError(
            what,
            file=self.at.file,
            line=self.at.line,
            column=column,
            source=self.at.source,
            hint="; ".join(notes),
        )


def _quoted_end(text: str, start: int) -> int:
    """The index after the string that opens at ``start``; the length of the text where it never closes."""
    at = start + 1
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text[at] == '"':
            return at + 1
        elif text[at] == "\n":
            return at
        else:
            at += 1
    return len(text)


def _character_end(text: str, start: int) -> int:
    """The index after the character constant (``'a``, or ``'a'``) that opens at ``start``."""
    end = start + (3 if text[start + 1 : start + 2] == "\\" else 2)
    if text[end : end + 1] == "'":
        end += 1
    return min(end, len(text))


def _blank(text: str) -> str:
    return "".join("\n" if char == "\n" else " " for char in text)


def _comment_end(text: str, start: int) -> int | None:
    """The index after the comment that opens at ``start``, or None where none does."""
    if text.startswith("/*", start):
        end = text.find("*/", start + 2)
        return len(text) if end < 0 else end + 2
    opens_line = text[start] == "/" and not text[text.rfind("\n", 0, start) + 1 : start].strip()
    if text[start] == "#" or text.startswith("//", start) or opens_line:
        end = text.find("\n", start)
        return len(text) if end < 0 else end
    return None


def strip_comments(text: str) -> str:
    """``text`` with every comment (``#``, ``//``, ``/* */``) blanked; strings and character constants are kept."""
    out: list[str] = []
    at = 0
    while (special := _SPECIAL.search(text, at)) is not None:
        out.append(text[at : special.start()])
        at = special.start()
        char = text[at]
        end: int | None = None
        if char == '"':
            end = _quoted_end(text, at)
        elif char == "'" and text[at + 1 : at + 2].strip():
            end = _character_end(text, at)
        elif char in "#/":
            comment = _comment_end(text, at)
            if comment is not None:
                out.append(_blank(text[at:comment]))
                at = comment
                continue
        end = at + 1 if end is None else end
        out.append(text[at:end])
        at = end
    out.append(text[at:])
    return "".join(out)


def split_outside(text: str, separator: str, *, brackets: bool = False) -> list[tuple[int, str]]:
    """Pieces of ``text`` between ``separator`` outside quotes (and outside parentheses), with their offsets."""
    if separator not in text:
        return [(0, text)]
    pieces: list[tuple[int, str]] = []
    start = at = depth = 0
    if not ('"' in text or "'" in text or (brackets and "(" in text)):
        for piece in text.split(separator):
            pieces.append((start, piece))
            start += len(piece) + 1
        return pieces
    while at < len(text):
        char = text[at]
        if char == '"':
            at = _quoted_end(text, at)
            continue
        if char == "'" and text[at + 1 : at + 2].strip():
            at = _character_end(text, at)
            continue
        if brackets and char in "()":
            depth += 1 if char == "(" else -1
        elif char == separator and depth == 0:
            pieces.append((start, text[start:at]))
            start = at + 1
        at += 1
    pieces.append((start, text[start:]))
    return pieces


def strip_piece(offset: int, piece: str) -> tuple[int, str]:
    """``piece`` without surrounding blanks, and where it then begins."""
    return offset + len(piece) - len(piece.lstrip()), piece.strip()


def _refuse_cpp(line: str, position: Position) -> None:
    if line.startswith("#") and _CPP_DIRECTIVE.match(line):
        raise Statement(line, position).error(
            f"C preprocessor line {line.split(maxsplit=1)[0]!r}: GNU as would take it for a comment",
            hint="use .include and .if, or compile the file and pass the .o",
        )


@lru_cache(maxsize=_KEPT_FILES)
def read_statements(text: str, name: str) -> tuple[Statement, ...]:
    """The statements of a source file called ``name``.

    Raises:
        AssemblyError: a line that only the C preprocessor understands, or a NUL byte.
    """
    statements: list[Statement] = []
    originals = text.split("\n")
    for number, bare in enumerate(strip_comments(text).split("\n"), start=1):
        original = originals[number - 1]
        _refuse_cpp(original, Position(name, number, 1, original))
        for offset, piece in split_outside(bare, ";"):
            start, stripped = strip_piece(offset, piece)
            if stripped:
                statements.append(Statement(stripped, Position(name, number, start + 1, original)))
    return tuple(statements)
