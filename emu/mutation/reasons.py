"""tests/mutants.toml: mutants that do the same as the stub for a reason that no rule knows, written down by hand.

A reason names its mutant by the text of the source line and the mutation.  It is checked to be there still, and to
be true as far as the tests can tell: a mutant that they kill has no reason to live.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emu.errors import KjumpError
from emu.mutation.mutants import Mutant

MOST_PERCENT = 5
_NEEDED = frozenset({"stub", "line", "kind", "why"})
_KEYS = _NEEDED | {"nth", "new"}
Key = tuple[str, str, int, str, str]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the mutant ``key`` does nothing that anybody could see."""

    key: Key
    why: str


def key_of(mutant: Mutant) -> Key:
    """What a reason names ``mutant`` by: stub, line, which of the equal lines, kind, new text."""
    return f"{mutant.folder}/{mutant.stub}", _tidy(mutant.text), mutant.nth, mutant.kind, _tidy(mutant.new)


def _tidy(text: str) -> str:
    return " ".join(text.split())


def read_reasons(path: Path) -> dict[Key, Reason]:
    """All reasons; none where there is no such file.  Raises KjumpError for one that is malformed or there twice."""
    if not path.is_file():
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("reason", [])
    except tomllib.TOMLDecodeError as error:
        raise KjumpError(f"is no TOML: {error}", where=str(path)) from error
    found: dict[Key, Reason] = {}
    for table in tables:
        reason = _reason(table, str(path))
        if reason.key in found:
            raise KjumpError(f"a reason is there twice: {' '.join(map(str, reason.key))}", where=str(path))
        found[reason.key] = reason
    return found


def _reason(table: Mapping[str, Any], where: str) -> Reason:
    if not _NEEDED <= set(table) <= _KEYS:
        raise KjumpError(
            f"a reason has {', '.join(sorted(_NEEDED))}, and perhaps nth and new",
            where=f"{where}, {table.get('stub', '?')}: {table.get('line', '?')}",
        )
    key = (table["stub"], _tidy(table["line"]), int(table.get("nth", 1)), table["kind"], _tidy(table.get("new", "")))
    return Reason(key, table["why"])


def stale(reasons: Iterable[Reason], mutants: Iterable[Mutant], stubs: Iterable[str]) -> list[Reason]:
    """The reasons for ``stubs`` (``folder/name``) that name no mutant."""
    there, wanted = {key_of(mutant) for mutant in mutants}, set(stubs)
    return [reason for reason in reasons if reason.key[0] in wanted and reason.key not in there]
