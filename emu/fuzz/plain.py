"""A world without a machine: what it runs is Python of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from emu.fuzz.case import Case
from emu.fuzz.fields import Field
from emu.fuzz.target import Cover, Script
from emu.fuzz.verdict import Result, Verdict


class PlainWorld:
    """Coverage is what a case says of itself, by :meth:`covers`."""

    spec: Sequence[Field]
    rows: Sequence[str]

    def __init__(self) -> None:
        self._seen: frozenset[Cover] = frozenset()
        self._now: set[Cover] = set()

    def covers(self, part: str, kind: str, number: int) -> None:
        """The case at hand covers this."""
        self._now.add((part, kind, number))

    def run(self, case: Case) -> Result:
        """Run one case."""
        raise NotImplementedError

    def seeds(self) -> Sequence[Case]:
        """Nothing to begin with but the defaults."""
        raise NotImplementedError

    def begin_batch(self, covered: frozenset[Cover] = frozenset()) -> None:
        """``covered`` is no news."""
        self._seen = covered
        self._now.clear()

    def news(self) -> frozenset[Cover]:
        """What the last case covered beyond what was covered when the batch began."""
        found = frozenset(self._now) - self._seen
        self._now.clear()
        return found

    def reset_fully(self) -> None:
        """Nothing is kept from case to case."""

    def unheard(self) -> bool:
        """No memory of a machine's is changed."""
        return False

    def strayed(self, case: Case, result: Result) -> Result:
        """Never asked."""
        del case
        return replace(result, verdict=Verdict.OWNER)

    def script(self, case: Case) -> Script | None:
        """No machine."""
        del case
        return None

    def close(self) -> None:
        """Nothing to give back."""
