"""One batch of a round: what a worker is sent, what it does with it, and what it sends back.

Everything here travels between processes and machines as plain values.  What comes back depends on what was sent and on
nothing else: not on the process, not on what it did before.
"""

from __future__ import annotations

import gc
import random
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any

from emu.errors import EXIT_TOOL, FuzzError, KjumpError
from emu.fuzz.case import Case
from emu.fuzz.fields import fresh, mutated
from emu.fuzz.target import Cover, World
from emu.fuzz.targets.table import find_target
from emu.fuzz.verdict import Result, Verdict
from emu.journey.scene_data import scene_from

_CHUNK = 256
"""Cases after which memory that nobody listens to is looked at."""
_COLLECT = (100_000, 50, 100)
"""Thresholds of Python's collector of cycles where cases run, which leave values behind and hardly a cycle."""
_FRESH = 0.3
"""Share of cases that are drawn from nothing once there is a corpus."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a campaign is of: with the seed and the number of a case, all that decides it but the corpus."""

    target: str
    scene: Mapping[str, Any]
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"target": self.target, "scene": dict(self.scene), "seed": self.seed}


@dataclass(frozen=True, slots=True)
class Batch:
    """Cases ``first`` to ``first + count - 1`` of round ``number``.

    ``corpus`` and ``covered`` are as they stood after the round before.
    """

    plan: Plan
    number: int
    first: int
    count: int
    corpus: tuple[Case, ...] = ()
    covered: frozenset[Cover] = frozenset()


@dataclass(slots=True)
class BatchResult:
    """What came of a batch: how often each (row, verdict), and the cases that are kept, by index.

    ``seconds`` are those of the processor.
    """

    number: int
    first: int
    count: int
    tally: Counter[tuple[str, str]] = field(default_factory=Counter)
    past: int = 0
    findings: list[tuple[int, Case, Result]] = field(default_factory=list)
    keys: Counter[str] = field(default_factory=Counter)
    news: list[tuple[int, Case, frozenset[Cover]]] = field(default_factory=list)
    seconds: float = 0.0
    covered: set[Cover] = field(default_factory=set)


def open_world(plan: Plan) -> World:
    """The world of a plan; raises KjumpError."""
    return find_target(plan.target).open(scene_from(plan.scene, strict=False))


def collect_seldom() -> None:
    """Let Python's collector of cycles leave alone what is there now, and look at the rest less often."""
    gc.freeze()
    gc.set_threshold(*_COLLECT)


_OPENED: dict[str, World] = {}
_AT_HAND: list[tuple[Plan, World]] = []  # the last that was asked for: a plan that is the same object names the same


def _key_of(plan: Plan) -> str:
    stamps = [Path(name).stat().st_mtime_ns for name in plan.scene["stubs"]]
    return repr((plan.target, sorted(plan.scene.items()), stamps))


def world_of(plan: Plan) -> World:
    """The world of ``plan`` in this process, opened once; worlds of other plans are closed."""
    if _AT_HAND and _AT_HAND[0][0] is plan:
        return _AT_HAND[0][1]
    key = _key_of(plan)
    if key not in _OPENED:
        close_worlds()
        _OPENED[key] = open_world(plan)
        collect_seldom()
    _AT_HAND[:] = [(plan, _OPENED[key])]
    return _OPENED[key]


def close_worlds() -> None:
    """Give back what :func:`world_of` opened."""
    for world in _OPENED.values():
        world.close()
    _OPENED.clear()
    _AT_HAND.clear()


def make_case(batch: Batch, index: int, world: World) -> Case:
    """Case ``index`` of the batch's round."""
    plan = batch.plan
    if batch.number == 0:
        seeds = world.seeds()
        if index < len(seeds):
            return seeds[index]
    rng = random.Random(f"{plan.seed}/{batch.number}/{index}")  # noqa: S311 - cases, not secrets
    if not batch.corpus or rng.random() < _FRESH:
        return fresh(rng, plan.target, world.spec)
    corpus = batch.corpus
    return mutated(rng, world.spec, rng.choice(corpus), rng.choice(corpus))


def judged(plan: Plan, case: Case) -> Result:
    """Run one case; an exception of ours is a verdict too, after which the world is opened anew."""
    try:
        return world_of(plan).run(case)
    except KjumpError as error:
        if error.exit_status != EXIT_TOOL:
            raise
        result = _tool_failed(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        result = _tool_failed(error)
    close_worlds()
    return result


def require_sound(plan: Plan) -> None:
    """Raises FuzzError where a hostile B makes findings of the journey's own inputs: changed ones tell nothing then."""
    hostile = plan.scene["hostile"]
    for case in world_of(plan).seeds() if hostile else ():
        result = judged(plan, case)
        if result.verdict.is_finding:
            raise FuzzError(
                f"{plan.target} cannot judge what this B leaves behind: {result.verdict} {result.why}",
                where=f"--hostile {hostile}",
                hint="kjump run --hostile can; kjump fuzz regs leaves the processor in any state",
            )


def _tool_failed(error: Exception) -> Result:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.name}"
    return Result(Verdict.TOOL, "any", type(error).__name__, place, detail=str(error))


def run_batch(batch: Batch) -> BatchResult:
    """Run every case of ``batch``."""
    began = process_time()
    out = BatchResult(batch.number, batch.first, batch.count)
    world = world_of(batch.plan)
    world.begin_batch(batch.covered)
    behind = batch.first + batch.count
    for first in range(batch.first, behind, _CHUNK):
        _chunk(batch, range(first, min(first + _CHUNK, behind)), out)
    out.seconds = process_time() - began
    return out


def _chunk(batch: Batch, indices: range, out: BatchResult) -> None:
    plan = batch.plan
    results = []
    for index in indices:
        case = make_case(batch, index, world_of(plan))
        result = judged(plan, case)
        results.append((index, case, result))
        fresh = world_of(plan).news() - out.covered
        if fresh:
            out.covered |= fresh
            out.news.append((index, case, fresh))
    unheard = world_of(plan).unheard()
    for index, case, result in results:
        # A finding is looked at once more: what it stumbled over may be another case's.
        doubted = unheard or (result.verdict.is_finding and result.key not in out.keys)
        _count(out, index, case, _alone(plan, case) if doubted else result)


def _alone(plan: Plan, case: Case) -> Result:
    """A case again, from a reset of all memory, and with a look at all memory behind it."""
    world_of(plan).reset_fully()
    result = judged(plan, case)
    if world_of(plan).unheard() and not result.verdict.is_finding:
        result = world_of(plan).strayed(case, result)
    return result


def _count(out: BatchResult, index: int, case: Case, result: Result) -> None:
    out.tally[result.row, str(result.verdict)] += 1
    out.past += result.past
    if result.verdict.is_finding:
        if result.key not in out.keys:
            out.findings.append((index, case, result))
        out.keys[result.key] += 1
