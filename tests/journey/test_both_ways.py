"""String instructions done by the host and by the engine: a movement by our stub leaves the same, event by event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from emu.journey import movement
from emu.journey.journey import Journey
from emu.journey.scene import Scene
from emu.kexec.arch import Arch
from emu.machine import events as ev
from tests.machine_bench import guest_state

_TICKS = 60_003
"""A few dozen pages' worth, one iteration each: it ends amid a move, and the engine's own way takes a second."""


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
