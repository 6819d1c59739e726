"""Host code moves whole pages, and leaves to Python what it must not decide."""

from __future__ import annotations

import pytest

from emu.machine import events as ev
from emu.machine.cpu import GPR_NAMES, READ
from emu.machine.ram import ROM_RANGES
from emu.x86.bits import Cr0
from tests.machine_bench import CODE, DATA, GDT, RAM_END, TABLES, Bench, guest_state, store_tables

MOVE = f"movl ${DATA}, %esi\nmovl ${DATA + 0x4010}, %edi\nmovl $0x800, %ecx\nhere: rep movsl\nhlt\n"
TARGET_PAGES = [(DATA >> 12) + page for page in (4, 5, 6)]


def filled(bench: Bench) -> Bench:
    bench.machine.ram.write(DATA, bytes(index * 7 % 251 for index in range(0x2000)))
    return bench


def asked(bench: Bench) -> list[int]:
    """How often Python was asked at the move, from now on."""
    engine, here, seen = bench.machine.engine, bench.symbols["here"], list[int]()
    ask = engine.on_intercept

    def note(linear: int) -> bool:
        if linear == here:
            seen.append(linear)
        return ask(linear)

    engine.on_intercept = note
    return seen


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("mode", ["protected", "2-level", "pae", "4-level"])
def test_pages_are_moved_without_python_and_as_the_engine_moves_them(mode: str, strict: bool) -> None:
    bench, plain = (
        filled(Bench(mode, MOVE, strict=strict)),
        filled(Bench(mode, MOVE, strict=strict, plain_strings=True)),
    )
    seen = asked(bench)
    bench.run()
    plain.run()
    assert seen == []
    assert guest_state(bench.machine) == guest_state(plain.machine)
    assert bench.machine.count.state == plain.machine.count.state
    assert bench.machine.hazards.code.state == plain.machine.hazards.code.state
    assert bool(bench.machine.hazards.code.state) is strict
    assert bench.machine.count.iterations == 0x800


@pytest.mark.parametrize("mode", ["protected", "4-level"])
def test_pages_that_push_each_other_out_of_the_cache_of_translations_are_moved_whole(mode: str) -> None:
    target = DATA + 0x100000  # the cache begins with 256 places
    bench = filled(Bench(mode, MOVE.replace(f"{DATA + 0x4010}", f"{target}")))
    bench.run()
    assert bench.machine.ram.read(target, 0x2000) == bench.machine.ram.read(DATA, 0x2000)
    assert bench.machine.engine.meter.copied == 0x800 - 2, "the engine does the first of each page"


def test_what_is_stored_again_is_not_written_down_again() -> None:
    again = f"movl $9, %edx\nagain: {MOVE.replace('hlt', 'decl %edx')}jnz again\nhlt\n"
    bench, plain = (filled(Bench("4-level", again, plain_strings=by_engine)) for by_engine in (False, True))
    bench.run()
    plain.run()
    moves = bench.machine.engine.moves
    assert moves.meter.journal_count == len(TARGET_PAGES)
    assert [pfn for pfn in range(DATA >> 12, RAM_END >> 12) if moves.tells_of(pfn)] == TARGET_PAGES
    assert bench.machine.hazards.code.state == plain.machine.hazards.code.state
    assert not any(map(moves.tells_of, TARGET_PAGES))


@pytest.mark.parametrize("plain", [False, True])
def test_pages_that_are_stored_to_are_listed_once_whoever_stores(*, plain: bool) -> None:
    across = DATA + 0x8FFC
    text = f"{MOVE.replace('hlt', '')}movq $0, {across}\nmovb $1, {DATA + 0x4000}\nmovb $1, {DATA + 0x1000}\nhlt\n"
    bench = filled(Bench("4-level", text, plain_strings=plain))
    first, behind = DATA >> 12, (DATA >> 12) + 16
    moves, engine = bench.machine.engine.moves, bench.machine.engine
    moves.list_stores([(first, first + 1), (first + 2, behind)])
    engine.list_stores()
    bench.run()
    assert moves.touched() == [*TARGET_PAGES, first + 8, first + 9], "the second page is none of those to be listed"
    moves.touch(DATA + 0x2FFF, 1)
    assert moves.touched()[-1] == first + 2
    moves.list_again()
    moves.touch(DATA + 0x2FFF, 1)
    assert moves.touched() == [first + 2]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("move", ["movsl", "stosl"])
def test_a_store_that_faults_has_stored_nothing(move: str, plain: bool) -> None:
    bench = Bench("2-level", MOVE.replace("$0x800", "$1").replace("movsl", move), plain_strings=plain)
    machine = bench.machine
    machine.engine.set_cr(0, machine.engine.cr(0) | Cr0.WP)
    machine.engine.settle()
    machine.ram.write(bench.leaf(DATA + 0x4000), b"\5")
    bench.run()
    assert len(bench.of(ev.Fault)) == 1
    assert machine.hazards.code.state == {}


def test_a_forbidden_page_is_left_to_the_policy() -> None:
    bench = filled(Bench("4-level", MOVE))
    bench.machine.policy.forbid([TARGET_PAGES[1]], "A")
    seen = asked(bench)
    bench.run()
    assert seen
    reported = bench.of(ev.OwnerViolation)
    assert {event.address >> 12 for event in reported if isinstance(event, ev.OwnerViolation)} == {TARGET_PAGES[1]}
    bench.machine.policy.clear()


def test_a_watched_range_is_left_to_python() -> None:
    bench = filled(Bench("4-level", MOVE))
    stores: list[int] = []
    first = TARGET_PAGES[1] << 12
    bench.machine.watch(first, first + 7, lambda address, _size, _value, _write: stores.append(address))
    bench.run()
    assert stores == [first, first + 4]


def test_code_in_the_way_is_dropped_and_runs_as_it_is_now() -> None:
    text = f"call {DATA + 0x4100:#x}\nmovl %eax, %ebx\n" + MOVE.replace("hlt", f"call {DATA + 0x4100:#x}\nhlt")
    bench = filled(Bench("4-level", text, strict=False))
    bench.machine.ram.write(DATA + 0x4100, bytes.fromhex("b801000000c3"))
    bench.machine.ram.write(DATA + 0xF0, bytes.fromhex("b802000000c3"))
    bench.run()
    assert (bench.reg("rbx"), bench.reg("rax")) == (1, 2)


def test_rom_is_not_written() -> None:
    rom = ROM_RANGES[0][0]
    bench = filled(Bench("4-level", MOVE.replace(f"${DATA + 0x4010}", f"${rom}").replace("$0x800", "$0x40")))
    before = bench.machine.ram.read(rom, 0x100)
    bench.run()
    assert bench.machine.ram.read(rom, 0x100) == before
    assert len(bench.of(ev.BusError)) == 0x40


def test_a_breakpoint_on_the_move_stops_at_each_iteration_before_it() -> None:
    bench = filled(Bench("4-level", MOVE))
    here = bench.symbols["here"]
    bench.machine.break_at(here)
    assert bench.run() == ev.Breakpoint(here)
    assert bench.reg("rcx") == 0x800


@pytest.mark.parametrize("known", [False, True])
def test_a_range_of_breakpoints_that_begins_with_a_move_stops_before_it(known: bool) -> None:
    bench = filled(Bench("4-level", MOVE))
    here = bench.symbols["here"]
    if known:
        bench.run()
        bench.machine.engine.rip = CODE
    bench.machine.break_in([(here, here)])
    assert bench.run() == ev.Breakpoint(here)
    assert bench.reg("rcx") == 0x800
    bench.machine.clear_break_in()
    assert isinstance(bench.run(), ev.Halted)
    assert bench.machine.engine.meter.copied > 0x700


def test_an_overlapping_move_repeats_what_it_stored() -> None:
    text = MOVE.replace(f"${DATA + 0x4010}", f"${DATA + 4}").replace("$0x800", "$0x10")
    bench = filled(Bench("4-level", text))
    bench.run()
    assert bench.machine.ram.read(DATA, 0x44) == bench.machine.ram.read(DATA, 4) * 0x11


def test_the_time_that_is_left_bounds_a_move() -> None:
    bench = filled(Bench("4-level", MOVE))
    for ticks in (5, 100, 33, 1):
        before = bench.machine.count.ticks
        assert bench.run(ticks) == ev.StepLimit(ticks)
        assert bench.machine.count.ticks == before + ticks
    assert bench.machine.here()[0].k == 5 + 100 + 33 + 1 - 3
    assert bench.reg("rcx") == 0x800 - (5 + 100 + 33 + 1 - 3)


QUIET = f"""
    mov %cr0, %{{a}}
    mov %{{a}}, %cr0
    mov %cr4, %{{a}}
    mov %{{a}}, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    movl %eax, %ebx
    lgdt table
    lidt empty
    pushf
    popf
    movb $0x11, %al
    outb %al, $0xed
    inb $0xed, %al
    hlt
table: .word 0x5f
    .long {GDT}, 0
empty: .word 0
    .long 0, 0
"""


@pytest.mark.parametrize("mode", ["2-level", "4-level"])
@pytest.mark.parametrize("strict", [False, True])
def test_what_passes_without_python_leaves_what_it_leaves_with_it(mode: str, *, strict: bool) -> None:
    states, callbacks = [], []
    for tells_all in (True, False):
        bench = Bench(mode, QUIET.format(a="rax" if mode == "4-level" else "eax"), strict=strict)
        bench.machine.tells_all = tells_all
        asked: list[int] = []
        ask = bench.machine.engine.on_intercept
        bench.machine.engine.on_intercept = lambda linear, seen=asked, ask=ask: seen.append(linear) or ask(linear)  # type: ignore[misc]
        assert bench.run() == ev.Halted(bench.symbols["table"])
        states.append((guest_state(bench.machine), bench.machine.count.state, bench.reg("gdtr.base")))
        callbacks.append(len(asked))
        assert bool(bench.of(ev.ControlWrite)) is (tells_all or strict), "LIDT changes a base"
        assert bool(bench.of(ev.PortAccess)) is tells_all
    assert states[0] == states[1]
    assert callbacks == ([8, 8] if strict else [6, 3])


def writing(mode: str, text: str, *, tells_all: bool = False) -> tuple[Bench, list[int]]:
    """A fast machine about to run ``text``, {b} and {d} being EBX and EDX in full, and where Python will be asked."""
    names = {"b": "rbx", "d": "rdx"} if mode == "4-level" else {"b": "ebx", "d": "edx"}
    bench = Bench(mode, text.format(**names).replace("$TABLES", f"${TABLES}"), strict=False)
    engine, seen = bench.machine.engine, list[int]()
    bench.machine.tells_all = tells_all
    ask = engine.on_intercept

    def note(linear: int) -> bool:
        seen.append(linear)
        return ask(linear)

    engine.on_intercept = note
    return bench, seen


@pytest.mark.parametrize("mode", ["2-level", "4-level"])
def test_a_control_write_that_passed_once_passes_again_without_python(mode: str) -> None:
    text = """
    movl $20, %ecx
    movl $TABLES, %ebx
again:
    mov %{b}, %cr3
    mov %cr0, %{d}
    xorl $0x8, %edx                             # TS on, off
    mov %{d}, %cr0
    decl %ecx
    jnz again
    hlt
"""
    states = []
    for tells_all in (True, False):
        bench, seen = writing(mode, text, tells_all=tells_all)
        assert isinstance(bench.run(), ev.Halted)
        states.append((guest_state(bench.machine), bench.machine.count.state))
        assert len(seen) == (41 if tells_all else 5), "CR3 with TS on and off, CR0 likewise, HLT"
        assert len(bench.of(ev.ControlWrite)) == 20 * tells_all
    assert states[0] == states[1]


@pytest.mark.parametrize("mode", ["2-level", "4-level"])
def test_another_value_is_judged_though_one_passed(mode: str) -> None:
    text = """
    movl $9, %ecx
again:
    mov %cr4, %{d}
    cmpl $4, %ecx
    ja good
    orl $0x80000000, %edx
good:
    mov %{d}, %cr4
    decl %ecx
    jnz again
    hlt
"""
    bench, _ = writing(mode, text)
    bench.run()
    assert bench.faults == [(13, 0, bench.symbols["good"])]
    assert bench.machine.cpu.registers()["rcx"] == 4


def test_another_state_is_judged_though_the_value_passed() -> None:
    """CR4.PCIDE may be set only while the low bits of CR3 are zero (SDM 3A 5.10.1)."""
    text = """
    movl $9, %ecx
again:
    cmpl $4, %ecx
    ja zero
    mov %cr3, %rbx
    orl $0x8, %ebx                              # PWT
    mov %rbx, %cr3
zero:
    mov %cr4, %rdx
    orl $0x20000, %edx
set:
    mov %rdx, %cr4
    andl $~0x20000, %edx
    mov %rdx, %cr4
    decl %ecx
    jnz again
    hlt
"""
    bench, seen = writing("4-level", text)
    bench.run()
    assert bench.faults == [(13, 0, bench.symbols["set"])]
    assert bench.machine.cpu.registers()["rcx"] == 4
    assert seen.count(bench.symbols["set"]) == 2, "the first time, and in the other state"


@pytest.mark.parametrize("mode", ["2-level", "4-level"])
def test_python_s_own_translations_are_void_behind_a_write_that_it_did_not_see(mode: str) -> None:
    text = "movl $3, %ecx\nagain: mov %{b}, %cr3\nxchg %{b}, %{d}\ndecl %ecx\njnz again\nhlt\n"
    bench, seen = writing(mode, text)
    machine, other = bench.machine, TABLES + 0x8000
    store_tables(lambda at, data: machine.ram.write(at - TABLES + other, data), mode)
    size = 4 if mode == "2-level" else 8
    links = [(other, 0x1000)] if size == 4 else [(other, 0x2000), (other + 0x2000, 0x3000), (other + 0x3000, 0x4000)]
    machine.write_tables([(at, (other + to | 7).to_bytes(size, "little")) for at, to in links])
    entry = bench.leaf(DATA) - TABLES + other
    machine.write_tables([(entry, (DATA + 0x4000 | 7).to_bytes(size, "little"))])
    machine.engine.set_gpr(GPR_NAMES.index("rbx"), other)
    machine.engine.set_gpr(GPR_NAMES.index("rdx"), TABLES)
    for round_of_three, wanted in enumerate((DATA + 0x4000, DATA, DATA + 0x4000)):
        machine.cpu.rip = CODE
        assert isinstance(bench.run(), ev.Halted)
        assert machine.cpu.translate_cached(DATA, READ) == wanted, f"round {round_of_three}"
    assert seen.count(bench.symbols["again"]) <= 4
