"""A that was resumed has lost B: it loads anew, jumps, is saved and resumed once more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.journey.journey import Journey
from emu.journey.scene import Scene, find_journey, make_scene
from emu.kexec.arch import Arch
from emu.machine.owners import Owner
from tests.journey.test_pairings import SPARSE

ONCE = ("load", "suspend", "save", "return", "boot", "restore", "resume")
TWICE = (*ONCE, *(f"{name} 2" for name in ONCE))


def scene_of(arch: Arch, transfer: str, handoff: str, transitions: tuple[str, ...]) -> Scene:
    journey = find_journey("hibernate")
    lines = {**journey.command_lines, "a": f"{journey.command_lines['a']} reloads=1"}
    journey = replace(journey, e820=SPARSE, transitions=transitions, command_lines=lines)
    return make_scene(journey, arch=arch, transfer=transfer, handoff=handoff, ram="24M", target="1M")


@pytest.mark.parametrize(
    ("arch", "transfer", "handoff"),
    [
        (Arch.X86_64, "swap", "page"),
        (Arch.I386, "copy", "cmdline"),
        (Arch.I386_PAE, "reserved", "stack"),
        (Arch.X86_64_LA57, "copy", "stack"),
    ],
)
def test_a_is_hibernated_twice_with_a_new_load_between(arch: Arch, transfer: str, handoff: str) -> None:
    journey = Journey(scene_of(arch, transfer, handoff, TWICE))
    result = journey.run(until="resume")
    first = journey.require_loaded()
    result = journey.run()
    assert result.findings == []
    assert (result.ok, result.not_run) == (True, [])
    assert journey.require_loaded() is not first
    assert result.console.count("A| back: resumed") == result.console.count("A| rejump refused: no slot") == 2
    assert {one.visit for one in result.transitions if one.visit is not None} == {1}
    pages = [one.control_pages for one in result.transitions if one.kind == "load"]
    assert pages[0] == pages[1] != {}


def test_a_journey_goes_back_to_before_the_new_load() -> None:
    journey = Journey(scene_of(Arch.I386, "swap", "page", (*ONCE, "load 2", "suspend 2")))
    journey.run(until="resume")
    point, first = journey.checkpoint(), journey.require_loaded()
    journey.run(until="load 2")
    owners = journey.machine.owners.snapshot()
    assert journey.require_loaded() is not first
    journey.back_to(point)
    assert journey.require_loaded() is first
    assert journey.machine.owners.at(first.image.control_page) is Owner.CONTROL
    journey.run(until="load 2")
    assert journey.machine.owners.snapshot() == owners
    assert journey.run(until="suspend 2").findings == []
