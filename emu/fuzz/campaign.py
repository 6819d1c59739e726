"""A campaign: rounds of cases, the corpus that grows from round to round, and what was found.

Case (round, i) depends on the seed, the round, i, and the corpus after the round before, whatever the number of jobs:
a round is cut into the same batches always, and what comes back is merged in the order of indices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from emu.fuzz.batch import Batch, BatchResult, Plan
from emu.fuzz.case import Case
from emu.fuzz.target import Cover
from emu.fuzz.verdict import Result, Verdict

_FIRST_ROUND = 64
_LAST_ROUND = 16_384
_BATCHES = 16
_LEAST_BATCH = 16
_MOST_CORPUS = 2000


@dataclass(frozen=True, slots=True)
class Found:
    """One finding: the first case that had its key, by (round, index)."""

    key: str
    number: int
    index: int
    case: Case
    result: Result


@dataclass(slots=True)
class Totals:
    """Everything that a campaign has come to after a whole number of rounds."""

    rounds: int = 0
    cases: int = 0
    past: int = 0
    tally: Counter[tuple[str, str]] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    corpus: list[Case] = field(default_factory=list)
    covered: set[Cover] = field(default_factory=set)
    findings: dict[str, Found] = field(default_factory=dict)
    seconds: float = 0.0
    worker_seconds: float = 0.0
    last_new: int = 0

    def verdicts(self) -> Counter[str]:
        """How often each verdict was given."""
        found: Counter[str] = Counter()
        for (_, verdict), count in self.tally.items():
            found[verdict] += count
        return found

    @property
    def blocks(self) -> int:
        """Blocks of known code that were covered, however they were reached."""
        return len({kind.split(">")[1] for _, kind, _ in self.covered if ">" in kind})

    def to_json(self) -> dict[str, Any]:
        """The statistics, as ``--json`` prints them."""
        rows: dict[str, dict[str, int]] = {}
        for (row, verdict), count in sorted(self.tally.items()):
            rows.setdefault(row, {})[verdict] = count
        return {
            "rounds": self.rounds,
            "cases": self.cases,
            "verdicts": {str(verdict): self.verdicts()[str(verdict)] for verdict in Verdict},
            "rows": rows,
            "past_the_check": self.past,
            "cases_per_second": round(self.cases / self.seconds, 1) if self.seconds else 0.0,
            "blocks": self.blocks,
            "covered": len(self.covered),
            "corpus": len(self.corpus),
            "findings": [
                {"key": found.key, "cases": self.keys[found.key], **found.result.to_json()}
                for found in self.findings.values()
            ],
            "seconds": round(self.seconds, 2),
            "worker_seconds": round(self.worker_seconds, 2),
        }


def round_size(number: int) -> int:
    """Cases of a round: small ones first, so that what is new is built upon soon."""
    return min(_FIRST_ROUND << number, _LAST_ROUND)


def batches(plan: Plan, totals: Totals, most: int | None) -> Iterator[Batch]:
    """The batches of the next round, at most ``most`` cases in all."""
    size = round_size(totals.rounds)
    if most is not None:
        size = min(size, most)
    step = max(_LEAST_BATCH, round_size(totals.rounds) // _BATCHES)
    corpus, covered = tuple(totals.corpus), frozenset(totals.covered)
    for first in range(0, size, step):
        yield Batch(plan, totals.rounds, first, min(step, size - first), corpus, covered)


def merge(totals: Totals, results: Sequence[BatchResult]) -> list[Case]:
    """Add a whole round to ``totals``, in the order of its cases; the answer is what is new in the corpus."""
    added: list[Case] = []
    for result in sorted(results, key=lambda one: one.first):
        totals.cases += result.count
        totals.past += result.past
        totals.tally.update(result.tally)
        totals.keys.update(result.keys)
        totals.worker_seconds += result.seconds
        for _, case, cover in result.news:
            if cover - totals.covered:
                totals.covered |= cover
                totals.last_new = totals.cases
                if len(totals.corpus) < _MOST_CORPUS:
                    totals.corpus.append(case)
                    added.append(case)
        for index, case, outcome in result.findings:
            if outcome.key not in totals.findings:
                totals.findings[outcome.key] = Found(outcome.key, result.number, index, case, outcome)
    totals.rounds += 1
    return added
