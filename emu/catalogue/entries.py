"""tests/catalogue.toml: the known bugs of this code, how each is made again, and the test that catches it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emu.errors import KjumpError

_KEYS = frozenset({"id", "bug", "source", "why_not", "test", "setup", "patch", "seam", "finding", "says", "named"})
_PATCH_KEYS = frozenset({"file", "old", "new"})


@dataclass(frozen=True, slots=True)
class Patch:
    """Text of a source under asm/ or kernels/ that is replaced; ``old`` must occur exactly once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One known bug.

    With ``why_not`` it cannot show here.  Else ``test`` names what catches it: a scene (``jump ARCH HANDOFF ...``), a
    trial (``trial NAME``) or a test of the suite (``tests/...::name``).  ``setup`` are patches that make the machine
    or kernel in which it can show, ``patch`` and ``seam`` the bug itself.  ``finding`` is the kind of the finding,
    ``says`` what it must say; ``named``: the finding must name this entry of its own accord.
    """

    id: str
    bug: str
    source: str
    why_not: str = ""
    test: str = ""
    setup: tuple[Patch, ...] = ()
    patch: tuple[Patch, ...] = ()
    seam: str = ""
    finding: str = ""
    says: str = ""
    named: bool = False


def read_catalogue(path: Path) -> tuple[Entry, ...]:
    """All entries; raises KjumpError for a file that is not a catalogue."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("bug", [])
    except OSError as error:
        raise KjumpError(
            f"cannot be read: {error.strerror}", where=str(path), hint="the catalogue belongs to a checkout"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise KjumpError(f"is no TOML: {error}", where=str(path)) from error
    entries = tuple(_entry(table, str(path)) for table in tables)
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise KjumpError(f"{entry.id} is there twice", where=str(path))
        seen.add(entry.id)
    return entries


def _entry(table: Mapping[str, Any], where: str) -> Entry:
    name = str(table.get("id", "an entry without id"))
    unknown = sorted(set(table) - _KEYS)
    if unknown or not {"id", "bug", "source"} <= set(table):
        what = f"unknown key {unknown[0]}" if unknown else "id, bug and source are needed"
        raise KjumpError(what, where=f"{where}, {name}", hint=f"keys: {', '.join(sorted(_KEYS))}")
    if bool(table.get("why_not")) == bool(table.get("test")):
        raise KjumpError("either test or why_not", where=f"{where}, {name}")
    fields = dict(table)
    for key in ("setup", "patch"):
        fields[key] = tuple(_patch(one, f"{where}, {name}") for one in table.get(key, ()))
    return Entry(**fields)


def _patch(table: Mapping[str, Any], where: str) -> Patch:
    if set(table) != _PATCH_KEYS:
        raise KjumpError("a patch has file, old and new", where=where)
    return Patch(**table)
