"""Targets that run machines: what is legal completes, what is known by design is counted as that, and nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from emu.errors import FuzzError
from emu.fuzz.case import Case
from emu.fuzz.fields import fresh, mutated
from emu.fuzz.target import World
from emu.fuzz.targets.entry import EntryWorld
from emu.fuzz.targets.table import TARGETS, find_target
from emu.fuzz.verdict import Result, Verdict
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch

MACHINE_TARGETS = ("entry", "list", "jumpbuf", "cmdline", "regs", "irq")
CASES = 36


def opened(name: str, arch: Arch) -> World:
    scene = make_scene(find_journey("jump"), arch=arch, ram="24M", target="2M@16M", strict=False)
    return find_target(name).open(scene)


@pytest.fixture(scope="module", params=[Arch.X86_64, Arch.I386_PAE], ids=str)
def arch(request: pytest.FixtureRequest) -> Arch:
    found: Arch = request.param
    return found


@pytest.fixture(scope="module", params=MACHINE_TARGETS)
def world(request: pytest.FixtureRequest, arch: Arch) -> Iterator[tuple[str, World]]:
    one = opened(request.param, arch)
    yield request.param, one
    one.close()


def some(name: str, world: World, count: int, seed: str = "1") -> list[Case]:
    rng = random.Random(f"{name}/{seed}")  # noqa: S311 - no secret
    seeds = world.seeds()
    cases = [fresh(rng, name, world.spec) for _ in range(count // 2)]
    return cases + [mutated(rng, world.spec, rng.choice(seeds), rng.choice(cases)) for _ in range(count - len(cases))]


def test_the_journey_s_own_inputs_go_their_way(world: tuple[str, World]) -> None:
    _, one = world
    results = [one.run(case) for case in one.seeds()]
    allowed = {Verdict.COMPLETED, Verdict.REFUSED, Verdict.DETECTED}
    assert {result.verdict for result in results} <= allowed
    assert results[0].verdict is Verdict.COMPLETED


def test_the_unbroken_project_has_no_findings(world: tuple[str, World]) -> None:
    name, one = world
    cases = some(name, one, CASES)
    results = [one.run(case) for case in cases]
    bad = [f"{result.key}: {case} {result.detail}" for case, result in zip(cases, results, strict=True)
        if result.verdict.is_finding]  # fmt: skip
    assert bad == []
    assert {result.row for result in results} <= {*one.rows}


def test_a_case_does_not_depend_on_what_ran_before(world: tuple[str, World]) -> None:
    name, one = world
    cases = some(name, one, 10, "order")
    first = [one.run(case) for case in cases]
    again = [one.run(case) for case in reversed(cases)]
    assert first == list(reversed(again))


def test_most_entry_cases_get_past_the_stub() -> None:
    world = opened("entry", Arch.X86_64)
    results = [world.run(case) for case in some("entry", world, 80, "past")]
    world.close()
    assert sum(result.past for result in results) >= 0.4 * len(results)


def classes(results: Sequence[Result]) -> Counter[Verdict]:
    return Counter(result.verdict for result in results)


def entry(world: World, door: str, address: int, cookie: str = "none") -> Result:
    registers = next(field.default for field in world.spec if field.name == "registers")
    return world.run(Case.of("entry", {"door": door, "address": address, "cookie": cookie, "registers": registers}))


@pytest.fixture(scope="module")
def entries(arch: Arch) -> Iterator[EntryWorld]:
    world = opened("entry", arch)
    assert isinstance(world, EntryWorld)
    yield world
    world.close()


def test_known_by_design_the_way_back_on_the_stack_has_no_cookie(entries: EntryWorld) -> None:
    """Hand-off stack: whatever address is there is gone to; the machine stops, or what ran does damage."""
    stub = entries.trip("return").window.loaded.stub
    inside = [address for address in range(stub.org + 1, stub.org + 200) if address != stub.symbols["back_from_peer"]]
    found = classes([entry(entries, "back", address) for address in inside[::17]])
    assert set(found) <= {Verdict.DETECTED, Verdict.WILD, Verdict.COMPLETED}
    assert found[Verdict.DETECTED] + found[Verdict.WILD] > 3


def test_known_by_design_the_stub_goes_to_any_start(entries: EntryWorld) -> None:
    """relocate_new_kernel is told image->start and has nothing to check it by."""
    b = entries.trip("suspend").window.journey.kernel_b
    found = classes([entry(entries, "start", b.org + offset) for offset in range(1, 400, 57)])
    assert set(found) <= {Verdict.DETECTED, Verdict.WILD}


def test_known_by_design_a_page_with_a_right_checksum_chooses_where_b_goes(arch: Arch) -> None:
    world = opened("jumpbuf", arch)
    trip = world.trip("return")  # type: ignore[attr-defined]
    page = bytearray(trip.page.pack())
    page[0x800:0x808] = b"KJMP\2\0\0\0"
    case = world.seeds()[0].with_value("page", bytes(page))
    # Spare bytes are no business of B's; the entry page is what the page says that it is.
    assert world.run(case).verdict is Verdict.COMPLETED
    page[0x28:0x30] = (trip.jump_page + 0x808).to_bytes(8, "little")
    page[0x80:0x88] = trip.jump_page.to_bytes(8, "little")
    result = world.run(case.with_value("page", bytes(page)))
    world.close()
    assert result.row == "forged entry"
    assert not result.verdict.is_finding


def test_a_forged_cookie_of_the_wrong_kind_is_refused(entries: EntryWorld) -> None:
    page = entries.trip("return").window.loaded.jump_entry
    assert page is not None
    saved, resumed = page.symbols["after_image_save"], page.symbols["after_resume"]
    assert entry(entries, "saved", saved).verdict is Verdict.COMPLETED
    assert [entry(entries, "saved", address).why for address in (resumed, saved + 8)] == ["cookie", "cookie"]
    assert entry(entries, "saved", saved, "resumed").why == "cookie"
    assert entry(entries, "saved", saved + 0x1000).why == "entry"


def test_every_target_says_what_it_promises() -> None:
    assert all(target.contract and target.summary for target in TARGETS.values())
    with pytest.raises(FuzzError, match="no target is called nothing"):
        find_target("nothing")
