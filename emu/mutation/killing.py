"""Running mutants against the trials that execute their line, the best killer first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from emu.errors import AssemblyError
from emu.mutation.coverage import Executed
from emu.mutation.equivalence import equivalent
from emu.mutation.flow import Flow
from emu.mutation.mutants import Mutant, StubUnderTest
from emu.trials.registry import all_trials
from emu.trials.stubs import StubSet
from emu.trials.trial import Trial, run_trial
from emu.workers import processes


class Fate(StrEnum):
    """What came of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    EQUIVALENT = "equivalent"
    NO_CODE = "no code"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The fate of a mutant: which trial killed it and what that said, or the rule by which it is equivalent."""

    mutant: Mutant
    fate: Fate
    by: str = ""
    says: str = ""
    runs: int = 0


class Killers:
    """Orders trials: those that killed mutants of the same line first, then those that kill much in little time."""

    def __init__(self, covering: Mapping[str, Executed]) -> None:
        self._covering = covering
        self._trials = all_trials()
        self._kills: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._runs: dict[str, int] = {}
        self._of_line: dict[tuple[str, int], list[str]] = {}

    def order(self, mutant: Mutant) -> list[Trial]:
        """The trials that execute the line of ``mutant``."""
        span = range(mutant.offset, mutant.offset + mutant.size)
        names = [
            name
            for name, executed in self._covering.items()
            if not executed.get(mutant.stub, frozenset()).isdisjoint(span)
        ]
        known = self._of_line.get((mutant.stub, mutant.line), [])
        names.sort(key=lambda name: (name not in known, self._cost(name)))
        return [self._trials[name] for name in names]

    def _cost(self, name: str) -> float:
        """Seconds a kill, as far as they were seen."""
        runs = self._runs.get(name, 0)
        seconds = self._seconds.get(name, 0.0) / runs if runs else 0.05
        return seconds * (runs + 2) / (self._kills.get(name, 0) + 1)

    def ran(self, name: str, mutant: Mutant, seconds: float, *, killed: bool) -> None:
        """Remember one run."""
        self._runs[name] = self._runs.get(name, 0) + 1
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        if killed:
            self._kills[name] = self._kills.get(name, 0) + 1
            self._of_line.setdefault((mutant.stub, mutant.line), []).append(name)


def run_mutant(mutant: Mutant, under_test: StubUnderTest, flow: Flow, killers: Killers) -> Outcome:
    """The fate of one mutant."""
    try:
        stubs = under_test.stubs_of(mutant)
    except AssemblyError as error:
        return Outcome(mutant, Fate.NO_CODE, says=str(error))
    rule = equivalent(mutant, under_test.image, stubs.assembled(mutant.stub, 0), flow)
    if rule:
        return Outcome(mutant, Fate.EQUIVALENT, rule)
    runs = 0
    for trial in killers.order(mutant):
        began = time.perf_counter()
        wrong = run_trial(trial, stubs)
        runs += 1
        killers.ran(trial.name, mutant, time.perf_counter() - began, killed=bool(wrong))
        if wrong:
            return Outcome(mutant, Fate.KILLED, trial.name, wrong[0], runs)
    return Outcome(mutant, Fate.SURVIVED, runs=runs)


class _Process:
    """What each process keeps: the stub, the flow of control in it, and what the trials execute of it."""

    def __init__(self, stubs: StubSet, name: str, covering: Mapping[str, Executed]) -> None:
        self.killers = Killers(covering)
        self.under_test = StubUnderTest(stubs, name)
        self.flow = Flow(name, self.under_test.image, self.under_test.lines)

    def run(self, chunk: Sequence[Mutant]) -> list[Outcome]:
        """The fates of the mutants of one line."""
        return [run_mutant(mutant, self.under_test, self.flow, self.killers) for mutant in chunk]


_STATE: list[_Process] = []


def _start(folder: str, texts: Mapping[str, str], name: str, covering: Mapping[str, Executed]) -> None:
    _STATE[:] = [_Process(StubSet(folder, texts), name, covering)]


def _run_chunk(chunk: Sequence[Mutant]) -> list[Outcome]:
    return _STATE[0].run(chunk)


def run_all(
    mutants: Sequence[Mutant], stubs: StubSet, covering: Mapping[str, Executed], jobs: int
) -> Iterator[Outcome]:
    """The fate of each of ``mutants`` (of one stub of ``stubs``) that is code, by line, from ``jobs`` processes."""
    chunks: dict[int, list[Mutant]] = {}
    for mutant in mutants:
        chunks.setdefault(mutant.line, []).append(mutant)
    if not chunks:
        return
    start = stubs.folder, dict(stubs.texts), mutants[0].stub, covering
    if jobs <= 1:
        _start(*start)
        yield from (one for chunk in chunks.values() for one in _run_chunk(chunk) if one.fate is not Fate.NO_CODE)
        return
    with processes(jobs, _start, start) as pool:
        for outcomes in pool.map(_run_chunk, chunks.values()):
            yield from (one for one in outcomes if one.fate is not Fate.NO_CODE)
