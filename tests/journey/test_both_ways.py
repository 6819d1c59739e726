"""String instructions by the host and by the engine leave the same, event by event: movements, and a whole journey."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import pytest

from emu.journey import movement
from emu.journey.journey import Journey
from emu.journey.scene import Scene, find_journey, make_scene
from emu.kexec.arch import Arch
from emu.machine import events as ev
from emu.report.trace import write_trace
from tests.machine_bench import guest_state

_TICKS = 60_003
"""A few dozen pages' worth, one iteration each: it ends amid a move, and the engine's own way takes a second."""

# As little as the kernels fit into: the engine's own way is a callback of ours for each of 326,000 iterations.
_SMALLEST = (
    {"start": 0, "end": 96 << 10, "type": "ram"},
    {"start": 16 << 20, "end": (16 << 20) + (1472 << 10), "type": "ram"},
)


class _Begun(Exception):  # noqa: N818 - carries the journey out of its own run
    """The stub's first instruction is next."""


def _begin(scene: Scene) -> Journey:
    def observe(moment: str, _journey: Journey) -> None:
        if moment == "suspend begins":
            raise _Begun

    journey = Journey(scene, observe)
    with pytest.raises(_Begun):
        journey.run()
    return journey


def _move(journey: Journey) -> list[object]:
    machine, seen = journey.machine, len(journey.machine.events)
    assert machine.run(_TICKS) == ev.StepLimit(_TICKS)
    memory = [bytes(bank.view) for bank in machine.ram.banks]
    return [
        machine.here(),
        machine.count.state,
        guest_state(machine)[:3],
        machine.hazards.code.state,
        machine.events[seen:],
        *(hash(bank) for bank in memory),
    ]


@pytest.mark.parametrize("arch", list(Arch))
def test_a_movement_is_the_same_by_the_host_and_by_the_engine(arch: Arch, scene_of: Callable[..., Scene]) -> None:
    journey = _begin(replace(scene_of(arch), target="128K@16M"))
    machine = journey.machine
    before = machine.count.iterations
    machine.break_outside(movement.linear_pages(journey))
    begun = machine.snapshot()
    by_host = _move(journey)
    assert machine.count.iterations - before > _TICKS // 2
    machine.restore(begun)
    machine.plain_strings = True
    assert _move(journey) == by_host
    machine.close()


def _travel(*, plain: bool) -> tuple[str, list[object], int]:
    """The trace of a whole journey, what it leaves, and how many iterations the host did in pages."""
    scene = make_scene(replace(find_journey("jump"), e820=_SMALLEST), arch=Arch.X86_64, target="64K@16M")
    journey = Journey(replace(scene, plain_strings=plain))
    result = journey.run()
    assert result.ok
    machine, trace = journey.machine, StringIO()
    write_trace(trace, result, machine.events)
    left: list[object] = [
        machine.here(),
        machine.count.state,
        guest_state(machine),
        machine.hazards.state,
        machine.ram.dirty_pfns(),
        *(bytes(bank.view) for bank in machine.ram.banks),  # page tables too: accessed and dirty bits
    ]
    copied = machine.engine.meter.copied
    machine.close()
    return trace.getvalue(), left, copied


def test_a_whole_journey_is_the_same_by_the_host_and_by_the_engine() -> None:
    trace, left, copied = _travel(plain=False)
    plain_trace, plain_left, none = _travel(plain=True)
    assert copied > 100_000
    assert none == 0
    assert trace == plain_trace
    assert trace.count("\n") > 100
    assert left == plain_left
