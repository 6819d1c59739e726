"""Laying out text: wrapped lines, columns, tables.  Plain ASCII, no terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 80
"""Columns that every view must make do with."""


def plain(text: str) -> str:
    """``text`` with everything that is not printable ASCII written as an escape."""
    return "".join(letter if " " <= letter <= "~" else f"\\x{ord(letter):02x}" for letter in text)


def wrap(text: str, width: int = WIDTH, indent: int = 4) -> list[str]:
    """``text`` in lines of at most ``width`` columns, all but the first indented; longer words (paths) stay whole."""
    if len(text) <= width:
        return [text.rstrip()]
    return textwrap.wrap(
        text,
        max(width, 20),
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        break_long_words=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )


def wrap_all(lines: Iterable[str], width: int = WIDTH, indent: int = 4) -> list[str]:
    """Each of ``lines`` wrapped."""
    return [part for line in lines for part in wrap(line, width, indent)]


def table(
    rows: Sequence[Sequence[str]], width: int = WIDTH, gap: int = 2, right: frozenset[int] = frozenset()
) -> list[str]:
    """``rows`` in aligned columns, those in ``right`` flush right; what the last column has too much is wrapped."""
    if not rows:
        return []
    columns = max(len(row) for row in rows)
    widths = [max((len(row[at]) for row in rows if at < len(row)), default=0) for at in range(columns - 1)]
    lines: list[str] = []
    for row in rows:
        front = enumerate(row[: columns - 1])
        cells = [cell.rjust(widths[at]) if at in right else cell.ljust(widths[at]) for at, cell in front]
        head = "".join(cell + " " * gap for cell in cells)
        last = row[columns - 1] if len(row) == columns else ""
        room = max(width - len(head), 20)
        parts = textwrap.wrap(last, room, break_on_hyphens=False, break_long_words=False) or [""]
        lines.append((head + parts[0]).rstrip())
        lines += [" " * len(head) + part for part in parts[1:]]
    return lines


def in_columns(cells: Sequence[str], width: int = WIDTH, gap: int = 2) -> list[str]:
    """Short ``cells`` row by row in as many equal columns as fit."""
    if not cells:
        return []
    size = max(len(cell) for cell in cells) + gap
    across = max((width + gap) // size, 1)
    return [
        "".join(cell.ljust(size) for cell in cells[start : start + across]).rstrip()
        for start in range(0, len(cells), across)
    ]


def shorten(text: str, width: int) -> str:
    """``text`` cut to ``width`` columns, two dots showing the cut."""
    return text if len(text) <= width else text[: max(width - 2, 0)] + ".."
