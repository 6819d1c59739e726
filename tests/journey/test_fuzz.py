"""Targets that run machines: what is legal completes, what is known by design is counted as that, and nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from emu.cli_fuzz import open_case
from emu.errors import FuzzError
from emu.fuzz.batch import Plan, close_worlds, world_of
from emu.fuzz.case import Case
from emu.fuzz.case_file import CaseFile
from emu.fuzz.fields import Word, fresh, mutated
from emu.fuzz.points import Atlas
from emu.fuzz.target import NMI, Cover, Signal, World
from emu.fuzz.targets.entry import EntryWorld
from emu.fuzz.targets.irq import IrqWorld
from emu.fuzz.targets.table import TARGETS, find_target
from emu.fuzz.verdict import Result, Verdict
from emu.journey.scene import find_journey, make_scene
from emu.journey.scene_data import scene_json
from emu.kexec.arch import Arch
from emu.kexec.layout import Ind
from emu.machine.history import Instant
from tests.journey.test_broken_stubs import B64

MACHINE_TARGETS = ("entry", "list", "jumpbuf", "cmdline", "regs", "irq")
CASES = 36


Open = Callable[[str, Arch], World]


@pytest.fixture(scope="module")
def opened() -> Iterator[Open]:
    """Opens each world once."""
    worlds: dict[tuple[str, Arch], World] = {}

    def open_one(name: str, arch: Arch) -> World:
        if (name, arch) not in worlds:
            scene = make_scene(find_journey("jump"), arch=arch, ram="24M", target="2M@16M", strict=False)
            worlds[name, arch] = find_target(name).open(scene)
        return worlds[name, arch]

    yield open_one
    for world in worlds.values():
        world.close()


@pytest.fixture(scope="module", params=[Arch.X86_64, Arch.I386_PAE], ids=str)
def arch(request: pytest.FixtureRequest) -> Arch:
    found: Arch = request.param
    return found


@pytest.fixture(scope="module", params=MACHINE_TARGETS)
def world(request: pytest.FixtureRequest, arch: Arch, opened: Open) -> tuple[str, World]:
    return request.param, opened(request.param, arch)


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


@pytest.mark.parametrize(
    ("arch", "transfer", "handoff"), [(Arch.I386_PAE, "swap", "page"), (Arch.X86_64, "copy", "stack")], ids=str
)
def test_an_nmi_before_any_instruction_of_a_movement_does_no_harm(arch: Arch, transfer: str, handoff: str) -> None:
    scene = make_scene(
        find_journey("jump"), arch=arch, transfer=transfer, handoff=handoff, ram="24M", target="2M@16M", strict=False
    )
    world = IrqWorld(scene)
    nmis = [case for case in world.seeds() if case.word("kind") == NMI]
    cases = [case.with_value("at", at) for case in nmis for at in world.begins[case.word("transition")]]
    results = [(case, world.run(case)) for case in cases]
    world.close()
    assert [f"{case}: {result.key}" for case, result in results if result.verdict.is_finding] == []
    assert {result.verdict for _, result in results} == {Verdict.COMPLETED, Verdict.DETECTED}


def test_a_case_does_not_depend_on_what_ran_before(world: tuple[str, World]) -> None:
    name, one = world
    cases = some(name, one, 16, "order")

    def ran(case: Case) -> tuple[Result, frozenset[Cover]]:
        one.begin_batch()
        return one.run(case), one.news()

    first = [ran(case) for case in cases]
    again = [ran(case) for case in reversed(cases)]
    assert first == list(reversed(again))


def test_words_of_lists_leave_nothing_behind(opened: Open) -> None:
    """A flag of the enum in an address made a new member of it, for ever."""
    world = opened("list", Arch.X86_64)
    before = len(Ind._value2member_map_)
    cases = some("list", world, 200, "members")
    assert sum(len(case.words("entries")) for case in cases) > 500
    assert len(Ind._value2member_map_) <= before + 64


def test_most_entry_cases_get_past_the_stub(opened: Open) -> None:
    world = opened("entry", Arch.X86_64)
    results = [world.run(case) for case in some("entry", world, 80, "past")]
    assert sum(result.past for result in results) >= 0.4 * len(results)


def classes(results: Sequence[Result]) -> Counter[Verdict]:
    return Counter(result.verdict for result in results)


def entry(world: World, door: str, address: int, cookie: str = "none") -> Result:
    registers = next(field.default for field in world.spec if field.name == "registers")
    return world.run(Case.of("entry", {"door": door, "address": address, "cookie": cookie, "registers": registers}))


@pytest.fixture(scope="module")
def entries(arch: Arch, opened: Open) -> EntryWorld:
    world = opened("entry", arch)
    assert isinstance(world, EntryWorld)
    return world


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


def test_known_by_design_a_page_with_a_right_checksum_chooses_where_b_goes(arch: Arch, opened: Open) -> None:
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


def test_a_refuses_a_slot_without_b_s_cookie_in_its_page(entries: EntryWorld) -> None:
    b = entries.trip("suspend").window.journey.kernel_b
    own = b.symbols["resume_entry"]
    assert entry(entries, "slot", own).verdict is Verdict.COMPLETED
    refused = [entry(entries, "slot", address, "slot") for address in (0, 4, own & -0x1000 | 7, 0x17FE000, 1 << 31)]
    refused += [entry(entries, "slot", own + 0x10, cookie) for cookie in ("none", "saved", "resumed", "magic only")]
    assert {result.verdict for result in refused} == {Verdict.REFUSED}


def test_known_by_design_who_writes_a_cookie_into_b_chooses_where_a_enters_it(entries: EntryWorld) -> None:
    own = entries.trip("suspend").window.journey.kernel_b.symbols["resume_entry"]
    forged = entry(entries, "slot", own + 0x10, "slot")
    assert (forged.verdict, forged.row) == (Verdict.COMPLETED, "forged slot")


CLASSES = (
    "instruction", "mid-instruction", "control page data", "swap page", "page table", "list page", "source page",
    "kernel A", "kernel B", "hole", "ROM", "above RAM", "wrap-around",
)  # fmt: skip
CLASSES_64 = ("not canonical", "A's linear map")


@pytest.fixture(scope="module")
def by_stack(arch: Arch) -> Iterator[EntryWorld]:
    scene = make_scene(find_journey("jump"), arch=arch, ram="24M", target="2M@16M", strict=False, handoff="stack")
    world = EntryWorld(scene)
    yield world
    world.close()


@pytest.mark.parametrize("place", [*CLASSES, *CLASSES_64])
def test_known_by_design_hand_off_stack_goes_back_to_any_class_of_address(place: str, by_stack: EntryWorld) -> None:
    """No cookie can be asked of a return address: each class is counted by what the code there does."""
    atlas = Atlas(by_stack.trip("return").window)
    rng = random.Random(place)  # noqa: S311 - no secret
    word = next(field for field in by_stack.spec if isinstance(field, Word))
    drawn = {word.draw(rng) for _ in range(5000)} - {*word.legal}
    found = sorted(value for value in drawn if isinstance(value, int) and atlas.name(value) == place)[:3]
    assert found or (place in CLASSES_64 and word.bits == 32)
    results = [entry(by_stack, "back", address) for address in found]
    assert {result.row for result in results} <= {place}
    assert {result.verdict for result in results} <= {Verdict.DETECTED, Verdict.WILD, Verdict.COMPLETED}


def test_replay_in_the_debugger_stops_at_the_first_bad_store(changed_stub: Callable[..., Path]) -> None:
    how = B64["one byte beyond the swap page"]
    stub = changed_stub(Arch.X86_64, how.file, (how.old, how.new))
    plan = Plan("regs", scene_json(make_scene(find_journey("jump"), ram="24M", target="2M@16M", stubs=(stub,))), 1)
    world = world_of(plan)
    case = world.seeds()[1]
    assert world.run(case).verdict is Verdict.SILENT
    script = world.script(case)
    assert script is not None
    session, stopped = open_case(CaseFile(plan, case), script)
    assert ["store of 0x55, 1 bytes" in hit.text for hit in stopped.hits] == [True]
    session.step_back()
    assert "movb $0x55, (%rdi)" in session.symbols.place(session.pc).source
    session.machine.close()
    close_worlds()


IRQS = (("suspend", "interrupt", 9), ("return", "nmi", 150))


@pytest.mark.parametrize("arch", [Arch.X86_64, Arch.I386_PAE], ids=str)
def test_replay_in_the_debugger_puts_the_interrupt_in_at_the_very_tick(arch: Arch, opened: Open) -> None:
    """Before the case, at its interrupt, at its end, however one goes there: memory and registers are the case's."""
    world = opened("irq", arch)
    noise = next(field for field in world.spec if field.name == "registers").draw(random.Random(5))  # noqa: S311
    scene = make_scene(find_journey("jump"), arch=arch, ram="24M", target="2M@16M")
    for transition, kind, at in IRQS:
        case = Case.of("irq", {"transition": transition, "kind": kind, "at": at, "registers": noise})
        script = world.script(case)
        assert script is not None
        assert script.signal == Signal(kind, at)
        machine = world.trip(transition).stage.machine  # type: ignore[attr-defined]
        session, stopped = open_case(CaseFile(Plan("irq", scene_json(scene), 1), case), script)
        came, begin = session.machine.tick, session.machine.tick - at
        assert (stopped.why, stopped.at.tick) == ("inject nmi" if kind == "nmi" else "inject line 0", came)
        for there in (came, begin, session.timeline.start.tick):
            session.timeline.goto(Instant(there, 0 if there == 0 else stopped.at.deliveries))
            session.timeline.forward(ticks=machine.tick - there)
            assert session.machine.deliveries == machine.deliveries
            assert session.machine.cpu.registers() == machine.cpu.registers()
            assert [pfn for pfn in machine.ram.pfns() if machine.ram.page(pfn) != session.machine.ram.page(pfn)] == []
        assert session.machine.deliveries == stopped.at.deliveries + (kind == "nmi")
        session.machine.close()


def test_every_target_says_what_it_promises() -> None:
    assert all(target.contract and target.summary for target in TARGETS.values())
    with pytest.raises(FuzzError, match="no target is called nothing"):
        find_target("nothing")
