"""Runs a campaign, round after round, on an executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from dataclasses import dataclass

from emu.fuzz.batch import Batch, BatchResult, Plan, judged, run_batch, world_of
from emu.fuzz.campaign import Totals, batches, merge
from emu.fuzz.case import Case
from emu.fuzz.folder import Folder
from emu.fuzz.verdict import Result, Verdict

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """When a campaign ends: at a number of cases in all, or at the end of the round in which ``seconds`` are over.

    ``stop_at_finding`` ends it with the first round that has one.
    """

    cases: int | None = None
    seconds: float | None = None
    stop_at_finding: bool = False


class Campaign:
    """One campaign; ``tell`` hears of the totals now and then, with what is done of the round under way."""

    def __init__(
        self,
        plan: Plan,
        make_executor: Callable[[], Executor],
        folder: Folder | None = None,
        tell: Callable[[Totals, int], None] = lambda _totals, _done: None,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.totals = folder.load() if folder is not None else Totals()
        self._make_executor = make_executor
        self._tell = tell

    def learn(self, cases: Sequence[Case]) -> None:
        """Run ``cases`` of other campaigns here, uncounted, and take those into the corpus that cover something new."""
        added = []
        for case in cases:
            world_of(self.plan).begin_batch(frozenset(self.totals.covered))
            judged(self.plan, case)
            fresh = world_of(self.plan).news()
            if fresh:
                self.totals.covered |= fresh
                added.append(case)
        self.totals.corpus += added
        if self.folder is not None and added:
            self.folder.commit(self.totals, added)

    def run(self, limits: Limits) -> Totals:
        """Run rounds until a limit is reached; Ctrl-C leaves the folder as it is, whole rounds and done batches."""
        began = time.monotonic()
        executor = self._make_executor()
        try:
            while not self._over(limits, time.monotonic() - began):
                executor = self._round(executor, limits)
        except KeyboardInterrupt:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        executor.shutdown(wait=True, cancel_futures=True)
        return self.totals

    def _over(self, limits: Limits, seconds: float) -> bool:
        if limits.stop_at_finding and self.totals.findings:
            return True
        if limits.cases is not None and self.totals.cases >= limits.cases:
            return True
        return limits.seconds is not None and seconds >= limits.seconds

    def _round(self, executor: Executor, limits: Limits) -> Executor:
        began = time.monotonic()
        most = None if limits.cases is None else limits.cases - self.totals.cases
        done: list[BatchResult] = []
        left: list[Batch] = []
        for batch in batches(self.plan, self.totals, most):
            kept = self.folder.kept(batch) if self.folder is not None else None
            if kept is not None:
                done.append(kept)
            else:
                left.append(batch)
        for batch in self._submit(executor, left, done):  # one may have taken the others with it: each by itself
            executor = self._alone(executor, batch, done)
        added = merge(self.totals, done)
        self.totals.seconds += time.monotonic() - began
        if self.folder is not None:
            self.folder.commit(self.totals, added)
        self._tell(self.totals, 0)
        return executor

    def _submit(self, executor: Executor, left: list[Batch], done: list[BatchResult]) -> list[Batch]:
        """Run batches; the answer is those that were lost with their worker."""
        futures: dict[Future[BatchResult], Batch] = {}
        lost: list[Batch] = []
        for batch in left:
            try:
                futures[executor.submit(run_batch, batch)] = batch
            except BrokenExecutor:
                lost.append(batch)
        for future in as_completed(futures):
            try:
                result = future.result()
            except Exception as error:
                if not _worker_died(error):
                    raise
                lost.append(futures[future])
                continue
            done.append(result)
            if self.folder is not None:
                self.folder.keep(result)
            self._tell(self.totals, sum(one.count for one in done))
        return sorted(lost, key=lambda batch: batch.first)

    def _alone(self, executor: Executor, batch: Batch, done: list[BatchResult]) -> Executor:
        """Run a lost batch again; one that kills every worker is a finding.  The answer is an executor that works."""
        for _ in range(_TRIES):
            executor.shutdown(wait=False, cancel_futures=True)
            executor = self._make_executor()
            if not self._submit(executor, [batch], done):
                return executor
        detail = f"cases {batch.first} to {batch.first + batch.count - 1} of round {batch.number}"
        result = Result(Verdict.TOOL, "any", "the process died", detail=detail)
        lost = BatchResult(batch.number, batch.first, batch.count)
        lost.tally["any", str(Verdict.TOOL)] = batch.count
        lost.findings.append((batch.first, Case(self.plan.target, ()), result))
        lost.keys[result.key] += 1
        done.append(lost)
        executor.shutdown(wait=False, cancel_futures=True)
        return self._make_executor()


def _worker_died(error: Exception) -> bool:
    """Whether a batch was lost with the process that ran it (Dask has a class of its own for that)."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"
