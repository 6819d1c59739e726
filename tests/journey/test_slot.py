"""A jumps through the slot only to where B has left its cookie."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.journey.faults import Fault
from emu.journey.journey import Journey
from emu.kexec.arch import Arch
from tests.journey.test_pairings import scene_for

AREA = 0x1000000  # of swap and copy: that of reserved lies above
CHECKED = "load", "suspend", "return", "rejump"


def run_with_slot(arch: Arch, transfer: str, slot: int) -> list[str]:
    """The console of a journey in which the jump page's slot is ``slot`` when A looks at it."""
    scene = scene_for("checkpoint", arch, transfer, "page")
    fault = Fault("return", "jump_page", {"value": slot}, "resume_slot")
    journey = Journey(replace(scene, journey=replace(scene.journey, transitions=CHECKED, faults=(fault,))))
    return [*journey.run().console, str(journey.result.exit_status)]


@pytest.mark.parametrize("arch", [Arch.I386, Arch.X86_64])
@pytest.mark.parametrize(
    ("transfer", "slot"),
    [
        ("swap", AREA + 0x800),  # B's own page, and nothing there
        ("swap", AREA + 4),  # a cookie would be in the page before
        ("swap", 0x80_0000),  # a hole
        ("swap", 0x138_0000),  # A's memory
        ("reserved", AREA),  # A's memory
        ("reserved", 0x138_0000),  # A's memory behind the area
    ],
)
def test_a_slot_without_a_cookie_is_refused(arch: Arch, transfer: str, slot: int) -> None:
    console = run_with_slot(arch, transfer, slot)
    assert "A| rejump refused: cookie" in console
    assert not any(line.startswith("A| jumping again") for line in console)


@pytest.mark.parametrize("arch", [Arch.I386, Arch.X86_64])
def test_an_empty_slot_is_refused(arch: Arch) -> None:
    assert "A| rejump refused: no slot" in run_with_slot(arch, "swap", 0)
