"""The fuzz benchmark: cases of target `entry` with everything checked, against the bare engine on the same work."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from emu.errors import EngineError
from emu.fuzz.case import Case
from emu.fuzz.fields import fresh, mutated
from emu.fuzz.targets.entry import EntryWorld
from emu.journey.scene import Scene, find_journey, make_scene
from emu.kexec.arch import Arch
from emu.oracle.arena import random_case
from emu.oracle.image import build_image
from emu.oracle.machines import Other, witness

_CASES = 600
_BOOTS = 3


def _scene() -> Scene:
    return make_scene(find_journey("jump"), ram="24M", target="2M@16M", strict=False)


def _cases(world: EntryWorld) -> list[Case]:
    """Half of them drawn from nothing, half changed seeds: as a campaign begins."""
    rng = random.Random("bench fuzz")  # noqa: S311 - no secret
    seeds = world.seeds()
    cases = [fresh(rng, "entry", world.spec) for _ in range(_CASES // 2)]
    return cases + [mutated(rng, world.spec, rng.choice(seeds), rng.choice(cases)) for _ in range(_CASES - len(cases))]


def bench_fuzz() -> Iterator[str]:
    """Cases per second on one processor: with all oracles, with none on the bare engine, and with a QEMU for each."""
    world = EntryWorld(_scene())
    cases = _cases(world)
    for case in cases:
        world.run(case)
    began = time.process_time()
    for case in cases:
        world.run(case)
        world.news()
    ours = _CASES / (time.process_time() - began)
    bare = _CASES / _bare(world, cases)
    world.close()
    yield (
        f"fuzz   entry        {ours:7,.0f} cases/s with all oracles, {bare:7,.0f} /s bare engine: ratio "
        f"{ours / bare:.2f}   ({_CASES} cases, seconds of the processor)"
    )
    yield _against_qemu(ours)


def _bare(world: EntryWorld, cases: list[Case]) -> float:
    """Seconds that the engine alone takes: pages and context put back, the same instructions, no hook, no check."""
    ticks: list[int] = []
    for case in cases:
        trip, _ = world.put(case)
        before = trip.stage.machine.count.ticks
        world.run(case)
        ticks.append(max(1, trip.stage.machine.count.ticks - before))
    for name in ("suspend", "return"):
        world.trip(name).stage.strip()
    began = time.process_time()
    for case, count in zip(cases, ticks, strict=True):
        trip, _ = world.put(case)
        trip.stage.machine.engine.run_bare_for(count)
    return time.process_time() - began


def _against_qemu(ours: float) -> str:
    one = witness(Other.QEMU)
    reason = one.refuses(Arch.X86_64)
    if reason:
        return f"fuzz   a QEMU for each case: {reason}"
    image = build_image([random_case(Arch.X86_64, 1, 0)], in_place=False)
    seconds = [one.run(image).seconds for _ in range(_BOOTS)]
    if not all(seconds):
        raise EngineError("QEMU took no time at all")
    boots = 1 / min(seconds)
    return f"fuzz   a QEMU for each case {boots:7.1f} cases/s: we are {ours / boots:,.0f} times as fast"
