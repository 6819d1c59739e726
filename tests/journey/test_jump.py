"""The journey jump, whole, on every architecture: what it reports, and what each kernel really did."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from emu.errors import JourneyError
from emu.journey.journey import Journey
from emu.journey.memory import RamImage
from emu.journey.movement import b_pfns
from emu.journey.result import RunResult
from emu.journey.scene import Scene, find_journey, make_scene
from emu.kexec.arch import Arch
from emu.kexec.jump_page import JumpPage
from emu.machine import events as ev
from emu.units import PAGE_SIZE

PER_TRANSITION = {
    "name", "from", "to", "instructions", "rep_iterations", "pages_listed", "pages_moved", "moved_by", "pages_compared",
    "control_pages", "entry_instructions", "saved_bytes", "image_bytes", "restored_pages", "visit", "checks",
    "findings",
}  # fmt: skip
AT_THE_TOP = {
    "journey", "arch", "transfer", "handoff", "seed", "ram", "ok", "transitions", "not_run", "findings", "hazards",
    "volatile_bytes", "peer_state_kept", "image_bytes", "instructions", "rep_iterations", "exit_status", "console",
}  # fmt: skip


@dataclass
class Seen:
    """What an observer of one run kept."""

    result: RunResult | None = None
    moments: list[str] = field(default_factory=list)
    at_entry: RamImage | None = None
    at_awake: RamImage | None = None
    pages: dict[str, JumpPage] = field(default_factory=dict)
    journey: Journey | None = None


@pytest.fixture(scope="module", params=list(Arch))
def seen(request: pytest.FixtureRequest) -> Seen:
    """One run of the journey on each architecture, looked at at every moment."""
    kept = Seen()

    def look(moment: str, journey: Journey) -> None:
        kept.moments.append(moment)
        machine = journey.machine
        if moment == "suspend moved":
            kept.at_entry = RamImage(machine.ram)
        if moment == "awake":
            kept.at_awake = RamImage(machine.ram)
        if moment.startswith("after "):
            jump = journey.require_loaded().image.jump
            assert jump is not None
            kept.pages[moment.removeprefix("after ")] = JumpPage.unpack(machine.ram.read(jump.jump_page, PAGE_SIZE))

    scene = make_scene(find_journey("jump"), arch=request.param, ram="24M", target="2M@16M")
    kept.journey = Journey(scene, look)
    kept.result = kept.journey.run()
    return kept


def result_of(seen: Seen) -> RunResult:
    assert seen.result is not None
    return seen.result


def test_everything_holds(seen: Seen) -> None:
    result = result_of(seen)
    assert result.findings == []
    assert result.ok
    assert result.exit_status == 0
    assert result.not_run == []


def test_the_json_has_what_it_must(seen: Seen) -> None:
    document: dict[str, Any] = json.loads(json.dumps(result_of(seen).to_json()))
    assert set(document) == AT_THE_TOP
    assert (document["transfer"], document["handoff"], document["seed"]) == ("swap", "page", 1)
    assert [one["name"] for one in document["transitions"]] == ["load", "suspend", "return"]
    for transition in document["transitions"]:
        assert set(transition) == PER_TRANSITION
        assert transition["findings"] == 0
        assert set(transition["checks"].values()) <= {0}
    ways = [(one["from"], one["to"]) for one in document["transitions"]]
    assert ways == [("A", "-"), ("A", "B"), ("B", "A")]


def test_every_page_on_the_list_moves_and_all_of_ram_is_compared(seen: Seen) -> None:
    result = result_of(seen)
    load, suspend, back = result.transitions
    assert suspend.pages_moved == back.pages_moved == load.listed > 600
    assert seen.journey is not None
    everything = sum(bank.size for bank in seen.journey.machine.ram.banks if not bank.rom) // PAGE_SIZE
    assert suspend.pages_compared == back.pages_compared == everything >= 6047
    quantum = 512 if result.scene.arch.bits == 64 else 1024
    assert suspend.rep_iterations == 3 * quantum * load.listed


def test_less_than_16_kib_is_declared_volatile(seen: Seen) -> None:
    assert 0 < result_of(seen).volatile_bytes < 16 << 10


def test_the_jump_page_is_what_its_history_says(seen: Seen) -> None:
    loaded, awake, back = seen.pages["load"], seen.pages["suspend"], seen.pages["return"]
    arch = result_of(seen).scene.arch
    assert (loaded.sequence, awake.sequence, back.sequence) == (1, 2, 3)
    assert loaded.resume_slot == 0
    assert seen.journey is not None
    assert awake.resume_slot == back.resume_slot == seen.journey.kernel_b.symbols["resume_entry"]
    assert loaded.arch == (3 if arch.bits == 32 else 62)
    assert loaded.target_start == 16 << 20
    assert loaded.target_size == 2 << 20
    assert (loaded.low_start, loaded.low_size) == (0, 0x9F000)
    assert loaded.list_head == loaded.inverse_head == back.list_head
    assert loaded.after_image_save - loaded.entry_page < PAGE_SIZE


def test_b_dirties_nine_tenths_of_target_area_and_low_region(seen: Seen) -> None:
    assert seen.journey is not None
    assert seen.at_entry is not None
    assert seen.at_awake is not None
    pages = sorted(pfn for pfn in b_pfns(seen.journey) if pfn != 0x9F)
    dirty = [pfn for pfn in pages if seen.at_entry.page(pfn) != seen.at_awake.page(pfn)]
    assert len(dirty) >= 0.9 * len(pages)


def test_what_b_fills_with_is_not_computed_from_what_a_had_there(seen: Seen) -> None:
    assert seen.journey is not None
    assert seen.at_awake is not None
    result = result_of(seen)
    other = Journey(make_scene(find_journey("jump"), arch=result.scene.arch, ram="24M", target="2M@16M", seed=99))
    images: list[RamImage] = []

    def look(moment: str, journey: Journey) -> None:
        if moment == "awake":
            images.append(RamImage(journey.machine.ram))

    other.observe = look
    other.run("suspend")
    pages = sorted(pfn for pfn in b_pfns(seen.journey) if pfn != 0x9F)
    equal = [pfn for pfn in pages if seen.at_awake.page(pfn) == images[0].page(pfn)]
    assert len(equal) >= 0.9 * len(pages)  # A's seal has another seed, B's memory is the same


def test_the_consoles_say_what_is_written_down(seen: Seen) -> None:
    result = result_of(seen)
    lines = result.console
    arch = result.scene.arch
    assert lines[0] == f"A| kernel A, {arch}, 6047 pages of RAM"
    assert lines[1] == "A| target 0x200000 at 0x1000000, seed 0x1, 1 unknown words"
    assert "A| jumping" in lines
    assert f"B| kernel B, {arch}, 671 pages of RAM" in lines
    assert "B| awake, visit 1, sequence 2" in lines
    assert "A| back: image saved" in lines
    assert "A| jump page ok, sequence 3" in lines
    assert lines[-1] == "A| all intact"
    assert not [line for line in lines if "damaged" in line or "exception" in line]


def test_b_takes_at_least_ten_ticks(seen: Seen) -> None:
    result = result_of(seen)
    said = [line for line in result.console if line.startswith("B| ") and line.endswith(" ticks")]
    assert len(said) == 1
    assert int(said[0].split()[1]) >= 10
    assert seen.journey is not None
    start, end = result.transitions[1].end, result.transitions[2].start
    assert start is not None
    assert end is not None
    interrupts = [
        event
        for event in seen.journey.machine.events
        if isinstance(event, ev.Interrupt) and start < event.position < end
    ]
    assert len(interrupts) >= 10


def test_the_observer_hears_of_every_moment_in_order(seen: Seen) -> None:
    assert seen.moments == [
        "parsed", "load", "after load", "suspend begins", "suspend moved", "parsed", "awake", "save", "after suspend",
        "before return", "return begins", "return moved", "back", "after return", "intact",
    ]  # fmt: skip


@pytest.mark.parametrize(("until", "not_run"), [("load", ["suspend", "return"]), ("suspend", ["return"])])
def test_what_did_not_run_is_said_to_be_not_run(until: str, not_run: list[str], scene_of: Callable[..., Scene]) -> None:
    result = Journey(scene_of()).run(until)
    assert result.ok
    assert result.not_run == not_run
    assert result.exit_status is None
    assert len(result.transitions) == 3 - len(not_run)


def test_a_run_that_was_left_goes_on(scene_of: Callable[..., Scene]) -> None:
    whole = Journey(scene_of())
    at_once = whole.run()
    journey = Journey(scene_of())
    for until in ("load", "suspend", "return", None):
        result = journey.run(until)
    assert result.ok
    assert result.to_json() == at_once.to_json()
    assert journey.machine.events == whole.machine.events


def test_an_unknown_transition_is_refused(scene_of: Callable[..., Scene]) -> None:
    with pytest.raises(JourneyError, match="no transition rejump"):
        Journey(scene_of()).run("rejump")


@pytest.mark.parametrize("arch", [Arch.X86_64, Arch.I386_PAE])
def test_two_runs_are_equal_and_so_are_strict_and_fast(arch: Arch, scene_of: Callable[..., Scene]) -> None:
    one, two, fast = (Journey(scene_of(arch, strict=strict)) for strict in (True, True, False))
    results = [journey.run() for journey in (one, two, fast)]
    assert [result.ok for result in results] == [True] * 3
    assert one.machine.events == two.machine.events
    assert one.machine.events == fast.machine.events
    for journey in (two, fast):
        assert journey.machine.cpu.registers() == one.machine.cpu.registers()
        assert list(RamImage(one.machine.ram).differences(journey.machine.ram, [])) == []


def test_a_checkpoint_can_be_gone_back_to_again_and_again(scene_of: Callable[..., Scene]) -> None:
    journey = Journey(scene_of(Arch.I386))
    journey.run("suspend")
    point = journey.checkpoint()
    first = journey.run().to_json()
    events = list(journey.machine.events)
    for _ in range(2):
        journey.back_to(point)
        assert journey.run().to_json() == first
        assert journey.machine.events == events
    assert first["ok"] is True


def test_there_is_no_checkpoint_before_the_load(scene_of: Callable[..., Scene]) -> None:
    with pytest.raises(JourneyError, match="before its load"):
        Journey(scene_of()).checkpoint()
