"""A case in a file: the scene, the input, and what came of it when it was found."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emu.errors import FuzzError
from emu.fuzz.batch import Plan
from emu.fuzz.case import Case
from emu.fuzz.verdict import Result

MAGIC = "kjump case 1"


@dataclass(frozen=True, slots=True)
class CaseFile:
    """``key`` and ``verdict`` are empty where the case has not been judged."""

    plan: Plan
    case: Case
    key: str = ""
    verdict: str = ""
    note: str = ""


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, whenever this process ends; raises FuzzError."""
    draft = path.with_name(path.name + ".part")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise FuzzError(f"cannot be written: {error.strerror}", where=str(path)) from error


def case_json(plan: Plan, case: Case, result: Result | None = None, note: str = "") -> dict[str, Any]:
    """The document of a case file."""
    document: dict[str, Any] = {"kjump": MAGIC, "scene": dict(plan.scene), "seed": plan.seed, **case.to_json()}
    if result is not None:
        document |= {"key": result.key, **result.to_json()}
    if note:
        document["note"] = note
    return document


def write_case(path: Path, plan: Plan, case: Case, result: Result | None = None, note: str = "") -> None:
    """Write a case file; raises FuzzError."""
    write_whole(path, json.dumps(case_json(plan, case, result, note), indent=1) + "\n")


def case_of(document: Mapping[str, Any], where: str) -> CaseFile:
    """The case in a document; raises FuzzError."""
    try:
        if document["kjump"] != MAGIC:
            raise FuzzError("is no case that this kjump can read", where=where)
        case = Case.from_json(document)
        plan = Plan(case.target, document["scene"], int(document.get("seed", 1)))
        texts = (str(document.get(name, "")) for name in ("key", "verdict", "note"))
        return CaseFile(plan, case, *texts)
    except (KeyError, TypeError, ValueError) as error:
        raise FuzzError(f"is no case: {error}", where=where) from error


def is_case(path: Path) -> bool:
    """Tell whether the file looks like a case."""
    try:
        return MAGIC in path.read_bytes()[:200].decode("utf-8", "replace")
    except OSError:
        return False


def read_case(path: Path) -> CaseFile:
    """Read a case file; raises FuzzError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FuzzError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise FuzzError(f"is no case: {error}", where=str(path)) from error
    if not isinstance(document, dict):
        raise FuzzError("is no case", where=str(path))
    return case_of(document, str(path))
