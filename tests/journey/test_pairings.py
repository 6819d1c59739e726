"""Every transfer with every hand-off: hibernation from start to finish, and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from emu.errors import BadCommandLine
from emu.journey.journey import Journey
from emu.journey.page_checks import no_jump_page
from emu.journey.scene import HANDOFFS, TRANSFERS, Scene, find_journey, make_scene
from emu.kexec.arch import Arch
from emu.kexec.layout import Transfer

# Low memory, target area, room for its backups and for a reserved area beside A.
SPARSE = (
    {"start": 0, "end": 0x9FC00, "type": "ram"},
    {"start": 16 << 20, "end": 20 << 20, "type": "ram"},
)
EVERY = [
    pytest.param(arch, transfer, handoff, id=f"{arch}-{transfer}-{handoff}")
    for arch in Arch
    for transfer in TRANSFERS
    for handoff in HANDOFFS
]


def scene_for(name: str, arch: Arch, transfer: str, handoff: str, **changes: object) -> Scene:
    journey = replace(find_journey(name), e820=SPARSE)
    scene = make_scene(journey, arch=arch, transfer=transfer, handoff=handoff, ram="24M", target="1M")
    return replace(scene, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("arch", "transfer", "handoff"), EVERY)
def test_a_comes_back_from_its_image(arch: Arch, transfer: str, handoff: str) -> None:
    journey = Journey(scene_for("hibernate", arch, transfer, handoff))
    result = journey.run()
    assert result.findings == []
    assert (result.ok, result.not_run) == (True, [])
    assert "A| back: resumed" in result.console
    assert result.console[-2:] == ["A| all intact", "A| rejump refused: no slot"]
    assert (result.image_bytes or 0) > 2 << 20
    by_name = {one.name: one for one in result.transitions}
    assert by_name["restore"].restored_pages == (by_name["save"].saved_bytes or 0) >> 12
    assert by_name["restore"].pages_moved == 0  # C and what it needs lie where nothing is put back
    assert (by_name["resume"].entry_instructions is None) == (handoff == "stack")
    page = journey.progress.page
    assert (page is not None) == (handoff == "page")
    if page is not None:
        assert (page.sequence, page.resume_slot) == (4, 0)
        assert page.mode & 3 == Transfer[transfer.upper()]


@pytest.mark.parametrize(("arch", "transfer", "handoff"), EVERY)
def test_a_goes_on_and_jumps_again_with_no_new_load(arch: Arch, transfer: str, handoff: str) -> None:
    result = Journey(scene_for("checkpoint", arch, transfer, handoff)).run()
    assert result.findings == []
    assert (result.ok, result.not_run) == (True, [])
    assert sum(line == "A| all intact" for line in result.console) == 4
    assert sum(one.image_bytes is not None for one in result.transitions) == 4
    visits = [one.visit for one in result.transitions if one.visit is not None]
    if transfer == "copy":  # what B did is lost: it starts afresh from its kept sources
        assert visits == [1, 1, 1, 1]
        assert result.peer_state_kept is False
        assert sum(line.startswith("B| kernel B") for line in result.console) == 4
    else:
        assert visits == [1, 2, 3, 4]
        assert result.peer_state_kept is True
        assert sum("pages kept" in line for line in result.console) == 3


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_what_the_load_takes_is_counted_by_what_it_is_for(transfer: str) -> None:
    journey = Journey(scene_for("jump", Arch.X86_64, transfer, "page"))
    result = journey.run("load")
    assert result.findings == []
    counts = result.transitions[0].control_pages
    assert sum(counts.values()) == len(journey.require_loaded().image.pfns)
    assert counts["entry code"] == 2
    assert counts["low region"] >= 0x9F
    assert counts["target area"] >= {"reserved": 0, "copy": 256, "swap": 256}[transfer]
    assert counts["target area"] == 0 or transfer != "reserved"


@pytest.mark.parametrize("handoff", ["cmdline", "stack"])
def test_a_hand_off_without_a_page_has_none(handoff: str) -> None:
    journey = Journey(scene_for("jump", Arch.X86_64, "swap", handoff))
    result = journey.run()
    assert result.findings == []
    assert result.transitions[0].checks["no jump page"] == 0
    journey = Journey(scene_for("jump", Arch.X86_64, "swap", handoff))
    journey.run("load")
    journey.machine.ram.write(18 << 20, b"KJUMPPG1")
    assert [finding.kind for finding in no_jump_page(journey).findings] == ["no jump page"]


def test_a_reserved_area_where_a_runs_is_refused(scene_of: Callable[..., Scene]) -> None:
    with pytest.raises(BadCommandLine, match="meets kernel A"):
        scene_of(Arch.X86_64, transfer="reserved", target="2M@16M")
