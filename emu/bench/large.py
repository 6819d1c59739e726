"""The size benchmark: the whole round trip on a small machine and on one of four times its size, all checks on."""

from __future__ import annotations

import time
from collections.abc import Iterator

from emu.errors import EngineError
from emu.journey.journey import Journey
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch

SIZES = (("64M", "16M@16M"), ("256M", "64M@16M"))


def _round_trip(arch: Arch, ram: str, target: str) -> tuple[float, int]:
    """Processor seconds of the journey from power-on to its end, and pages moved."""
    journey = Journey(make_scene(find_journey("jump"), arch=arch, ram=ram, target=target))
    begin = time.process_time()
    result = journey.run()
    seconds = time.process_time() - begin
    journey.machine.close()
    if not result.ok:
        raise EngineError("the round trip that was to be measured has findings")
    return seconds, sum(transition.pages_moved for transition in result.transitions)


def bench_large() -> Iterator[str]:
    """What a moved page costs in a large machine, against a small one: at most 1 where cost follows the pages."""
    for arch in (Arch.I386, Arch.X86_64):
        (small, few), (large, many) = (_round_trip(arch, ram, target) for ram, target in SIZES)
        yield (
            f"large  {arch:<12} {few:,} pages in {SIZES[0][0]}: {small:.2f} s, {many:,} pages in {SIZES[1][0]}: "
            f"{large:.2f} s: a page costs {large / many / (small / few):.2f} of the small machine's"
        )
