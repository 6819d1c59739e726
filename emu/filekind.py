"""Kinds of files that kjump can tell about, each known by its first bytes.

A room that reads a kind of file has a :class:`FileKind` of it; ``kjump info`` asks each in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emu.errors import KjumpError

START_SIZE: Final = 4096
"""How many bytes of a file :attr:`FileKind.matches` is given, if there are so many."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """One kind: ``name`` with its article, ``matches`` by the first bytes, and what ``describe`` tells of the file.

    ``describe`` gives the plain data for JSON and the lines for people; it raises KjumpError for a file that only
    begins like one of its kind.
    """

    name: str
    matches: Callable[[bytes], bool]
    describe: Callable[[Path], tuple[Mapping[str, object], Sequence[str]]]


def kind_of(path: Path, kinds: Sequence[FileKind]) -> FileKind:
    """The first of ``kinds`` that the file at ``path`` is of; raises KjumpError when it is of none or unreadable."""
    try:
        with path.open("rb") as file:
            start = file.read(START_SIZE)
    except OSError as error:
        raise KjumpError(f"cannot be read: {error.strerror}", where=str(path)) from error
    for kind in kinds:
        if kind.matches(start):
            return kind
    names = ", ".join(kind.name for kind in kinds)
    raise KjumpError(f"is not a file that kjump knows by its first bytes: {names}", where=str(path))
