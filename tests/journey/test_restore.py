"""Back from the image, or not: C beside A and over A, images that must be refused, unusual machines."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from emu.hibernate.marks import Mark
from emu.hibernate.reader import open_image
from emu.journey.faults import Fault
from emu.journey.journey import Journey
from emu.journey.scene import HANDOFFS, TRANSFERS, Scene, find_journey, make_scene
from emu.kexec.arch import Arch

MIB = 1 << 20
HIGH = ({"start": 16 * MIB, "end": 24 * MIB, "type": "ram"},)
USUAL = ({"start": 0, "end": 0x9FC00, "type": "ram"}, *HIGH)
PAIRINGS = [(transfer, handoff) for transfer in TRANSFERS for handoff in HANDOFFS]


def scene_for(
    *faults: Fault,
    name: str = "hibernate",
    transfer: str = "swap",
    handoff: str = "page",
    e820: tuple[dict[str, object], ...] = USUAL,
    base: int = 0,
    image: Path | None = None,
    checks: bool = True,
    arch: Arch = Arch.X86_64,
) -> Scene:
    journey = replace(find_journey(name), e820=e820, faults=faults, restore_base=base)
    return make_scene(
        journey, arch=arch, transfer=transfer, handoff=handoff, ram="24M", target="2M", image=image, checks=checks
    )


@pytest.mark.parametrize(("transfer", "handoff"), [("swap", "page"), ("copy", "cmdline"), ("reserved", "stack")])
def test_c_s_own_pages_and_a_s_may_overlap(transfer: str, handoff: str) -> None:
    base = 22 * MIB  # in the middle of A's memory
    journey = Journey(scene_for(transfer=transfer, handoff=handoff, base=base))
    result = journey.run()
    assert result.findings == []
    assert result.ok
    assert journey.kernel_c is not None
    own = (journey.kernel_c.symbols["image_end"] - base) >> 12
    restore = next(one for one in result.transitions if one.name == "restore")
    assert restore.pages_moved == own >= 8
    assert f"C| restored, {own} pages to move" in next(line for line in result.console if "C| restored" in line)


def test_c_is_another_build_than_a_and_b() -> None:
    journey = Journey(scene_for())
    assert journey.kernel_c is not None
    assert len({journey.kernel_a.sha256, journey.kernel_b.sha256, journey.kernel_c.sha256}) == 3
    names = [image.name for image in (journey.kernel_a, journey.kernel_b, journey.kernel_c)]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("return", "image_used"), "has been resumed from already"),
        (Fault("return", "image_invalid"), "is invalidated"),
        (Fault("return", "image_cut", {"size": 100_000}), "no commit record"),
        (Fault("return", "image_bit", {"offset": 300_000, "bit": 3}), "is not what was written"),
        (Fault("return", "e820", {"start": 20 * MIB, "size": 0x1000}), "under another e820 map"),
    ],
    ids=lambda value: value.what if isinstance(value, Fault) else "",
)
def test_an_image_that_cannot_be_trusted_is_refused_before_memory_is_touched(fault: Fault, says: str) -> None:
    result = Journey(scene_for(fault)).run()
    assert [finding.kind for finding in result.findings] == ["restore refused"]
    assert says in result.findings[0].actual
    assert (result.ok, result.exit_status) == (False, 1)
    assert result.console[-1] == "C| restore refused, errno 22"
    assert result.not_run == ["resume"]


def test_an_image_is_marked_used_before_the_jump_and_cannot_be_resumed_from_again(tmp_path: Path) -> None:
    path = tmp_path / "a.image"
    assert Journey(scene_for(image=path)).run().ok
    image = open_image(path, any_mark=True)
    assert image.mark is Mark.USED
    assert image.record.handoff == "page"
    assert image.record.jump_page


def test_an_image_is_invalidated_when_a_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.image"
    assert Journey(scene_for(name="checkpoint", image=path)).run().ok
    assert open_image(path, any_mark=True).mark is Mark.INVALID


def test_c_refuses_an_entry_without_its_cookie() -> None:
    first = Journey(scene_for())
    first.run("load")
    entry = first.require_loaded().jump_entry
    assert entry is not None
    cookie = {"address": entry.symbols["after_resume"] - 4, "bit": 5}
    # B, which goes to the other entry, does not look at this one; the image holds it as it is then
    result = Journey(scene_for(Fault("suspend", "memory", cookie), checks=False)).run()
    assert result.console[-1] == "C| cookie bad"
    assert (result.ok, result.exit_status) == (False, 2)


def test_b_refuses_to_save_for_entries_without_their_cookies() -> None:
    first = Journey(scene_for(handoff="cmdline"))
    first.run("load")
    entry = first.require_loaded().jump_entry
    assert entry is not None
    cookie = {"address": entry.symbols["after_resume"] - 4, "bit": 5}
    result = Journey(scene_for(Fault("load", "memory", cookie), handoff="cmdline", checks=False)).run()
    assert result.console[-1] == "B| entries bad: cookie"
    assert (result.ok, result.exit_status) == (False, 2)


@pytest.mark.parametrize(("transfer", "handoff"), PAIRINGS)
def test_a_flipped_bit_of_a_while_b_runs_is_named_by_a_alone(transfer: str, handoff: str) -> None:
    """Python's checks are off: A prints the address and ends with status 1, and does not power off."""
    choose = random.Random(f"flip {transfer} {handoff}")  # noqa: S311 - no secret
    own = 20 * MIB if transfer == "reserved" else 18 * MIB  # A's, and none of the load's
    low, high = choose.randrange(0x20000, 0x60000), own + choose.randrange(MIB // 2)
    for address in (low, high):
        fault = Fault("save", "memory", {"address": address, "bit": choose.randrange(8)})
        scene = scene_for(fault, transfer=transfer, handoff=handoff, checks=False)
        result = Journey(scene).run()
        assert f"A| damaged p:{address:#x}" in result.console
        assert "A| not intact" in result.console
        assert (result.ok, result.exit_status) == (False, 1)
        assert "boot" in result.not_run


@pytest.mark.parametrize(
    "low",
    [
        ((0x10000, 0x97000),),
        ((0, 0x70000),),
        ((0, 0x30000), (0x40000, 0x9FC00)),
        ((0x1000, 0x40800), (0x41800, 0x9F000)),
    ],
    ids=["begins late", "ends early", "a hole", "part pages"],
)
@pytest.mark.parametrize(("transfer", "handoff"), [("swap", "page"), ("copy", "stack"), ("reserved", "cmdline")])
def test_any_low_region_will_do(low: tuple[tuple[int, int], ...], transfer: str, handoff: str) -> None:
    """B-45: the first 640 KiB are not taken for granted."""
    e820 = (*({"start": start, "end": end, "type": "ram"} for start, end in low), *HIGH)
    result = Journey(scene_for(e820=e820, transfer=transfer, handoff=handoff)).run()
    assert result.findings == []
    assert (result.ok, result.not_run) == (True, [])
