"""What a run over mutants came to, stub by stub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from emu.mutation.equivalence import RULES
from emu.mutation.killing import Fate, Outcome
from emu.mutation.reasons import MOST_PERCENT, Key, Reason, key_of


@dataclass
class Score:
    """The mutants of one stub.

    ``rules`` counts the equivalents by rule; ``reasoned`` those with a hand-written reason.  ``survivors`` have
    neither.  ``untrue`` are reasons whose mutant the tests kill, or a rule covers; ``stale`` those that name none.
    """

    stub: str
    killed: int = 0
    rules: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RULES, 0))
    reasoned: int = 0
    survivors: list[Outcome] = field(default_factory=list)
    untrue: list[Outcome] = field(default_factory=list)
    stale: list[Reason] = field(default_factory=list)
    killers: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """All mutants."""
        return self.killed + sum(self.rules.values()) + self.reasoned + len(self.survivors)

    @property
    def equivalent(self) -> int:
        """Those that are known to do the same as the stub, by rule or reason."""
        return sum(self.rules.values()) + self.reasoned

    @property
    def ok(self) -> bool:
        """Every mutant that does something is killed, and every reason holds."""
        return not (self.survivors or self.untrue or self.stale)

    def take(self, outcome: Outcome, reasons: Mapping[Key, Reason]) -> None:
        """Count one mutant."""
        self.runs += outcome.runs
        has_reason = key_of(outcome.mutant) in reasons
        if outcome.fate is Fate.KILLED:
            self.killed += 1
            self.killers[outcome.by] = self.killers.get(outcome.by, 0) + 1
        elif outcome.fate is Fate.EQUIVALENT:
            self.rules[outcome.by] += 1
        elif outcome.fate is Fate.SURVIVED and has_reason:
            self.reasoned += 1
        elif outcome.fate is Fate.SURVIVED:
            self.survivors.append(outcome)
        if has_reason and outcome.fate is not Fate.SURVIVED:
            self.untrue.append(outcome)

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {
            "stub": self.stub,
            "mutants": self.total,
            "killed": self.killed,
            "survived": len(self.survivors),
            "equivalent": self.equivalent,
            "by_rule": dict(self.rules),
            "by_hand": self.reasoned,
            "runs": self.runs,
            "seconds": round(self.seconds, 1),
            "killers": dict(sorted(self.killers.items(), key=lambda pair: -pair[1])),
            "survivors": [str(outcome.mutant) for outcome in self.survivors],
            "untrue_reasons": [f"{one.mutant}: {one.fate} by {one.by}" for one in self.untrue],
            "stale_reasons": [" ".join(map(str, reason.key)) for reason in self.stale],
        }


def too_many_by_hand(scores: Iterable[Score]) -> bool:
    """Whether more mutants have hand-written reasons than may."""
    listed = list(scores)
    return sum(one.reasoned for one in listed) * 100 > MOST_PERCENT * sum(one.total for one in listed)
