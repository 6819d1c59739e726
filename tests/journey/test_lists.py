"""Entry lists of every shape: the stub does to RAM what the reference model says, over all of it, there and back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.errors import JourneyError
from emu.journey.list_runs import ListBench
from emu.journey.list_shapes import SHAPES, pairs_of
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch
from emu.kexec.layout import Ind
from emu.machine import events as ev
from emu.units import PAGE_SIZE, Phys


@pytest.fixture(scope="module", params=list(Arch))
def bench(request: pytest.FixtureRequest) -> ListBench:
    scene = make_scene(find_journey("jump"), arch=request.param, handoff="stack", ram="24M", target="2M@16M")
    return ListBench(scene)


@pytest.mark.parametrize("shape", SHAPES)
def test_model_and_stub_agree_over_all_of_ram_there_and_back(bench: ListBench, shape: str) -> None:
    run = bench.run(shape)
    assert run.findings == ()
    assert run.pages == len(pairs_of(shape, bench.free))
    assert run.there is not None
    assert run.back is not None
    assert min(run.there, run.back) > 5 * run.pages


def test_the_pages_really_changed_places(bench: ListBench) -> None:
    machine = bench.journey.machine
    bench.restore()
    pairs = pairs_of("segments", bench.free)
    before = {page: machine.ram.read(page, PAGE_SIZE) for pair in pairs for page in pair}
    bench.begin(bench.write_list(pairs))
    assert bench.leave() == ev.Breakpoint(bench.loaded.start)
    assert len(set(before.values())) > 600  # A sealed all but the sources of its own load
    for destination, source in pairs:
        assert machine.ram.read(destination, PAGE_SIZE) == before[source]
        assert machine.ram.read(source, PAGE_SIZE) == before[destination]


def test_entries_without_a_flag_are_passed_over_and_the_lowest_flag_counts(bench: ListBench) -> None:
    machine, word = bench.journey.machine, bench.journey.scene.arch.word
    bench.restore()
    page, other, third, entries = bench.free[:4]
    words = (
        page | Ind.DESTINATION | Ind.SOURCE,  # a destination: SOURCE is the higher flag
        0,
        other,  # no flag
        third | Ind.SOURCE,
        int(Ind.DONE | Ind.SOURCE),  # the end
        other | Ind.SOURCE,
    )
    machine.ram.write(entries, b"".join(entry.to_bytes(word, "little") for entry in words))
    before = [machine.ram.read(one, PAGE_SIZE) for one in (page, other, third)]
    move = bench.begin(entries | Ind.INDIRECTION)
    assert bench.leave() == ev.Breakpoint(bench.loaded.start)
    assert move.moved == 1
    assert list(move.expected.differences(machine.ram, move.volatile)) == []
    assert [machine.ram.read(one, PAGE_SIZE) for one in (third, other, page)] == before


def test_a_stub_that_skips_a_page_has_a_finding(bench: ListBench) -> None:
    """The word of one entry changes behind the model's back."""
    bench.restore()
    pairs = pairs_of("2", bench.free)
    head = bench.write_list(pairs)
    move = bench.begin(head)
    machine, word = bench.journey.machine, bench.journey.scene.arch.word
    slot = Phys((head & -PAGE_SIZE) + word)
    assert machine.ram.read_int(slot, word) == pairs[0][1] | Ind.SOURCE
    machine.ram.write(slot, bytes(word))
    assert bench.leave() == ev.Breakpoint(bench.loaded.start)
    pages = {difference.pfn << 12 for difference in move.expected.differences(machine.ram, move.volatile)}
    assert {int(pairs[0][0]), int(pairs[0][1])} <= pages


def test_too_little_ram_is_refused() -> None:
    scene = make_scene(find_journey("jump"), handoff="stack", ram="24M", target="2M@16M")
    low = {"start": 0, "end": 0x9FC00, "type": "ram"}
    small = replace(scene.journey, e820=(low, {"start": 16 << 20, "end": 22 << 20, "type": "ram"}))
    with pytest.raises(JourneyError, match="do not fit"):
        ListBench(replace(scene, journey=small))
