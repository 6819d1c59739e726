"""What a case came to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """The first four are as the design allows; the others are findings."""

    REFUSED = "refused"
    COMPLETED = "completed"
    DETECTED = "detected"
    WILD = "wild"
    SILENT = "silent"
    LOST = "lost"
    ACCEPTED = "accepted"
    OWNER = "owner"
    MODEL = "model"
    TOOL = "tool"

    @property
    def is_finding(self) -> bool:
        """Whether this is something to look at."""
        return self not in _ALLOWED

    @property
    def meaning(self) -> str:
        """In a sentence."""
        return _MEANING[self]


_ALLOWED = frozenset({Verdict.REFUSED, Verdict.COMPLETED, Verdict.DETECTED, Verdict.WILD})
_MEANING = {
    Verdict.REFUSED: "refused for a reason that was named, and nothing changed",
    Verdict.COMPLETED: "everything went its way, and all checks hold",
    Verdict.DETECTED: "the machine stopped, and A's memory is intact outside what was being moved",
    Verdict.WILD: "damage by code at an illegal entry that nobody checks by design",
    Verdict.SILENT: "A goes on after a legal input, and something of it is wrong",
    Verdict.LOST: "a legal input does not lead where it should",
    Verdict.ACCEPTED: "what must be refused was not",
    Verdict.OWNER: "a store to a page that the list and the phase do not allow",
    Verdict.MODEL: "the stub (or the guest) and the reference model disagree",
    Verdict.TOOL: "kjump itself failed",
}


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one case.

    ``row`` is the class of input that statistics count it under.  ``why`` is what ended it: a vector, a reason, the
    thing that is wrong.  ``place`` is symbol+offset, ``transition`` and ``mode`` where it happened; together with the
    verdict these make the key under which findings are the same.  ``past`` tells whether code ran behind the check.
    """

    verdict: Verdict
    row: str
    why: str = ""
    place: str = ""
    transition: str = ""
    mode: str = ""
    detail: str = ""
    past: bool = False

    @property
    def key(self) -> str:
        """Findings with equal keys are one finding."""
        return " | ".join((str(self.verdict), self.why, self.place, self.transition, self.mode))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "verdict": str(self.verdict),
            "row": self.row,
            "why": self.why,
            "place": self.place,
            "transition": self.transition,
            "mode": self.mode,
            "detail": self.detail,
        }
