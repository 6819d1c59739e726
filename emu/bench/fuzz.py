"""The fuzz benchmark: cases of target `entry` with everything checked, against the bare engine on the same work."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from emu.errors import EngineError
from emu.fuzz.batch import Plan, collect_seldom
from emu.fuzz.campaign import Totals
from emu.fuzz.case import Case
from emu.fuzz.fields import fresh, mutated
from emu.fuzz.runner import Campaign, Limits
from emu.fuzz.target import Cover
from emu.fuzz.targets.entry import EntryWorld
from emu.fuzz.window import RETURN, SUSPEND
from emu.journey.scene import Scene, find_journey, make_scene
from emu.journey.scene_data import scene_json
from emu.kexec.arch import Arch
from emu.oracle.image import build_image
from emu.oracle.machines import Other, witness
from emu.oracle.outcome import Ended
from emu.oracle.record import take
from emu.workers import processes

_CASES = 600
_PASSES = 3
"""Of each side the fastest counts: what else runs on the host only ever adds."""
_BOOTS = 3
_CAMPAIGN, _BOOT_ROUNDS = 1984, 3


def _scene() -> Scene:
    return make_scene(find_journey("jump"), ram="24M", target="2M@16M", strict=False)


def _cases(world: EntryWorld, number: int) -> list[Case]:
    """One of many sets of cases: half of them drawn from nothing, half changed seeds, as a campaign begins."""
    rng = random.Random(f"bench fuzz {number}")  # noqa: S311 - no secret
    seeds = world.seeds()
    cases = [fresh(rng, "entry", world.spec) for _ in range(_CASES // 2)]
    return cases + [mutated(rng, world.spec, rng.choice(seeds), rng.choice(cases)) for _ in range(_CASES - len(cases))]


def bench_fuzz() -> Iterator[str]:
    """Cases per second on one processor: with all oracles, with none on the bare engine, and with a QEMU for each.

    A campaign runs no case twice, so each set of cases runs for the first time, behind one that warms up.  The last
    is run again too: the engine alone is faster then, for it has translated all code that the cases lead to.
    """
    world = EntryWorld(_scene())
    warm, *sets = (_cases(world, number) for number in range(1 + _PASSES))
    covered: set[Cover] = set()
    for case in warm:
        world.run(case)
        covered |= world.news()
    world.begin_batch(frozenset(covered))
    collect_seldom()
    ours = [_CASES / _checked(world, cases) for cases in sets]
    again = [_CASES / _checked(world, sets[-1]) for _ in range(_PASSES)]
    against = _against_qemu(world, max(ours))
    bare, bare_again = _bare(world, warm, sets)
    world.close()
    how = f"{_CASES} cases, seconds of the processor, fastest of {_PASSES}"
    for name, mine, theirs, note in (
        ("entry     ", max(ours), bare, f"new cases; {how}"),
        ("once more ", max(again), bare_again, "the same cases again"),
    ):
        yield (
            f"fuzz   {name}   {mine:7,.0f} cases/s with all oracles, {theirs:7,.0f} /s bare engine: ratio "
            f"{mine / theirs:.2f}   ({note})"
        )
    yield against
    yield _two_jobs()


def _checked(world: EntryWorld, cases: list[Case]) -> float:
    """Seconds of the processor that the cases take with all oracles."""
    began = time.process_time()
    for case in cases:
        world.run(case)
        world.news()
    return time.process_time() - began


def _two_jobs() -> str:
    """A campaign in two processes against the same in one; its first rounds, in which workers boot, are left out."""
    one, two = _paced(1), _paced(2)
    same = "the same" if one.essence == two.essence else "OTHER"
    return (
        f"fuzz   2 jobs       {two.rate:7,.0f} cases/s, 1 job {one.rate:,.0f} /s: {two.rate / one.rate:.2f} times as "
        f"fast, {two.cost / one.cost:.2f} of the processor's time a case; verdicts, corpus, findings {same}"
    )


@dataclass(frozen=True, slots=True)
class _Pace:
    """Cases a second, seconds of the processor a case, and what the campaign came to."""

    rate: float
    cost: float
    essence: tuple[object, ...]


def _paced(jobs: int) -> _Pace:
    rounds: list[tuple[float, int, float]] = []

    def tell(totals: Totals, done: int) -> None:
        if not done:
            rounds.append((time.perf_counter(), totals.cases, totals.worker_seconds))

    plan = Plan("entry", scene_json(_scene()), 1)
    totals = Campaign(plan, lambda: processes(jobs), tell=tell).run(Limits(_CAMPAIGN))
    (began, before, used), (ended, cases, all_used) = rounds[_BOOT_ROUNDS - 1], rounds[-1]
    return _Pace(
        (cases - before) / (ended - began),
        (all_used - used) / (cases - before),
        (totals.tally, totals.corpus, totals.covered, totals.keys),
    )


def _bare(world: EntryWorld, warm: list[Case], sets: list[list[Case]]) -> tuple[float, float]:
    """Cases a second of the engine alone, new ones and the last set once more, the fastest of each.

    Pages and context are put back, the same instructions run, and there is no hook and no check.
    """
    counted = [[(case, _ticks(world, case)) for case in cases] for cases in (warm, *sets)]
    for name in (SUSPEND, RETURN):
        world.trip(name).stage.strip()
    _, *new = (_CASES / _run_bare(world, cases) for cases in counted)
    return max(new), max(_CASES / _run_bare(world, counted[-1]) for _ in range(_PASSES))


def _ticks(world: EntryWorld, case: Case) -> int:
    """Instructions and iterations of a case."""
    trip, _ = world.put(case)
    before = trip.stage.machine.count.ticks
    world.run(case)
    return max(1, trip.stage.machine.count.ticks - before)


def _run_bare(world: EntryWorld, cases: list[tuple[Case, int]]) -> float:
    began = time.process_time()
    for case, count in cases:
        trip, _ = world.put(case)
        trip.stage.machine.engine.run_bare_for(count)
    return time.process_time() - began


def _against_qemu(world: EntryWorld, ours: float) -> str:
    """Cases per second of a QEMU microvm that boots the machine as each begins and runs the movement, or why not.

    Of the machine as it leaves A, with the same short list: the processor's seconds that QEMU takes, what it takes to
    make the image left out, and those that pass until what it left can be looked at.
    """
    one = witness(Other.QEMU)
    reason = one.refuses(Arch.X86_64)
    if reason:
        return f"fuzz   a QEMU for each case: {reason}"
    window = world.trip(SUSPEND).window
    window.stage.reset()
    moved = {int(to): int(page) for pair in window.kept for to, page in (pair, pair[::-1])}
    case = replace(take(window.journey, SUSPEND, window.journey.machine.cpu.cr3), moved=moved)
    image = build_image([case], in_place=True)
    used, passed = [], []
    for _ in range(_BOOTS):
        began, at = _children(), time.perf_counter()
        run = one.run(image)
        used.append(_children() - began)
        passed.append(time.perf_counter() - at)
        if run.ended is not Ended.DONE:
            raise EngineError(f"QEMU did not come to the end of a movement: {run.ended.value} {run.why}")
    cpu, clock = min(used), min(passed)
    return (
        f"fuzz   a QEMU a case {1 / cpu:7,.1f} cases/s of the processor with no check: we are {ours * cpu:,.0f} times "
        f"as fast ({1 / clock:,.1f} /s by the clock: {ours * clock:,.0f} times)"
    )


def _children() -> float:
    """Seconds of the processor that ended processes of ours took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
