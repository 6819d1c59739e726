"""Entry lists of every shape: the stub does to RAM what the reference model says, over all of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from emu.journey import movement, programs
from emu.journey.journey import Journey
from emu.journey.scene import find_journey, make_scene
from emu.kexec.allocator import PageOwner
from emu.kexec.arch import Arch
from emu.kexec.entry_list import ListBuilder, Pair
from emu.kexec.layout import Ind
from emu.machine import events as ev
from emu.machine.cpustate import RDI
from emu.machine.machine import MachineSnapshot
from emu.units import PAGE_SHIFT, PAGE_SIZE, Phys

Pages = Sequence[Phys]


@dataclass(frozen=True)
class AtStub:
    """A machine at the first instruction of relocate_new_kernel, and pages that lists may name."""

    journey: Journey
    state: MachineSnapshot
    free: list[Phys]


@pytest.fixture(scope="module", params=list(Arch))
def at_stub(request: pytest.FixtureRequest) -> AtStub:
    journey = Journey(make_scene(find_journey("jump"), arch=request.param, ram="24M", target="2M@16M"))
    assert journey.run("load").ok
    loaded, machine, scene = journey.require_loaded(), journey.machine, journey.scene
    entry = int(loaded.image.control_va) + programs.relocate_entry(loaded.stub) - loaded.stub.org
    machine.break_at(entry)
    assert machine.run(100_000_000) == ev.Breakpoint(entry)
    machine.clear_break(entry)
    owned = {pfn for owner, pfns in loaded.image.owners.items() if owner is not PageOwner.SOURCE for pfn in pfns}
    kept = owned | movement.b_pfns(journey)
    free = [Phys(pfn << PAGE_SHIFT) for pfn in scene.memory_map.ram_pages() if pfn not in kept]
    return AtStub(journey, machine.snapshot(), free)


def _segments(free: list[Phys], sizes: Sequence[int], sources: Callable[[Pages], Pages]) -> Iterator[Pair]:
    """Destinations in runs of ``sizes`` with a gap between; each gets one of the pages that ``sources`` arranges."""
    total = sum(sizes) + len(sizes)
    arranged = iter(sources(free[total:]))
    at = 0
    for size in sizes:
        for destination in free[at : at + size]:
            yield destination, next(arranged)
        at += size + 1


def _shuffled(pages: Pages) -> Pages:
    return random.Random("lists").sample(list(pages), len(pages))  # noqa: S311 - no secret


def _pairs(free: list[Phys], shape: str) -> list[Pair]:
    match shape:
        case "empty":
            return []
        case "self":
            return [(page, page) for page in free[40:43]]
        case "self among others":
            others = list(_segments(free[100:], (3, 2), _shuffled))
            return [*others[:2], (free[7], free[7]), *others[2:]]
        case "segments":
            return list(_segments(free, (1, 40, 2, 300, 17), _shuffled))
        case "descending sources":
            return list(_segments(free, (64,), lambda pages: pages[::-1]))
        case _:
            return list(_segments(free, (int(shape),), _shuffled))


def _write_list(at_stub: AtStub, pairs: Sequence[Pair]) -> int:
    """The list for ``pairs`` in free pages of RAM that it does not name; its head."""
    named = {page for pair in pairs for page in pair}
    spare = (page for page in reversed(at_stub.free) if page not in named)
    ram = at_stub.journey.machine.ram
    builder = ListBuilder(lambda: next(spare), at_stub.journey.scene.arch.word, ram.write)
    builder.add_pairs(pairs)
    return builder.terminate()


def _run(at_stub: AtStub, head: int) -> movement.Movement:
    """Let the stub carry out the list at ``head`` until it leaves for the peer; what the model expects of it."""
    journey = at_stub.journey
    machine, loaded, arch = journey.machine, journey.require_loaded(), journey.scene.arch
    if arch.bits == 64:
        machine.engine.set_gpr(RDI, head)
    else:
        machine.ram.write(machine.cpu.translate(machine.cpu.rsp + 4), head.to_bytes(4, "little"))
    journey.loaded = replace(loaded, image=replace(loaded.image, head=head))
    move = movement.begin(journey, "suspend")
    journey.loaded = loaded
    pages = movement.stub_pages(journey)
    machine.break_outside([*pages, *(int(arch.direct(page)) for page in pages)])
    outcome = machine.run(100_000_000)
    machine.clear_break_in()
    assert outcome == ev.Breakpoint(loaded.start)
    return move


SHAPES = (
    "empty", "1", "2", "511", "512", "2000", "self", "self among others", "segments", "descending sources",
)  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_model_and_stub_agree_over_all_of_ram(at_stub: AtStub, shape: str) -> None:
    machine = at_stub.journey.machine
    machine.restore(at_stub.state)
    pairs = _pairs(at_stub.free, shape)
    move = _run(at_stub, _write_list(at_stub, pairs))
    assert move.moved == len(pairs)
    assert list(move.expected.differences(machine.ram, move.volatile)) == []


def test_the_pages_really_changed_places(at_stub: AtStub) -> None:
    machine = at_stub.journey.machine
    machine.restore(at_stub.state)
    pairs = _pairs(at_stub.free, "segments")
    before = {page: machine.ram.read(page, PAGE_SIZE) for pair in pairs for page in pair}
    _run(at_stub, _write_list(at_stub, pairs))
    assert len(set(before.values())) > 600  # A sealed all but the sources of its own load
    for destination, source in pairs:
        assert machine.ram.read(destination, PAGE_SIZE) == before[source]
        assert machine.ram.read(source, PAGE_SIZE) == before[destination]


def test_entries_without_a_flag_are_passed_over_and_the_lowest_flag_counts(at_stub: AtStub) -> None:
    machine, word = at_stub.journey.machine, at_stub.journey.scene.arch.word
    machine.restore(at_stub.state)
    page, other, third, entries = at_stub.free[:4]
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
    move = _run(at_stub, entries | Ind.INDIRECTION)
    assert move.moved == 1
    assert list(move.expected.differences(machine.ram, move.volatile)) == []
    assert [machine.ram.read(one, PAGE_SIZE) for one in (third, other, page)] == before
