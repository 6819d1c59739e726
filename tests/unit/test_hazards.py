"""Hazards: what hardware may or may not do is reported where it happens, and legal code is left alone."""

from __future__ import annotations

import pytest

from emu.machine import events as ev
from emu.machine.modified_code import ALIAS, NO_BRANCH
from emu.units import Phys
from tests.machine_bench import MODES, TABLES, Bench

NEW = 0x28000
G, NX = 0x100, 1 << 63


def hazards(bench: Bench) -> list[tuple[str, int]]:
    return [(event.kind, event.pc) for event in bench.machine.events if isinstance(event, ev.Hazard)]


def second_tables(bench: Bench) -> None:
    """A copy of the 4-level tables at NEW."""
    ram = bench.machine.ram
    for offset in range(0, 0x6000, 0x1000):
        ram.write(NEW + offset, ram.read(TABLES + offset, 0x1000))
    for table in (0x0, 0x2000, 0x3000):
        ram.write(NEW + table, (ram.read_int(NEW + table, 8) + 0x8000).to_bytes(8, "little"))


def entry(bench: Bench, linear: int, value: int, *, new: bool = False) -> None:
    bench.machine.ram.write(bench.leaf(linear) + (0x8000 if new else 0), value.to_bytes(8, "little"))


# ---- global translations ---------------------------------------------------------------------------------------

SWITCH = f"""
    mov %cr4, %rax
    or $0x80, %rax
    mov %rax, %cr4
    movl ${NEW}, %eax
    mov %rax, %cr3
"""


@pytest.mark.parametrize(
    ("old", "new", "use"),
    [
        (0x40000 | 7 | G, 0x50000 | 7, "movl 0x40000, %ebx"),
        (0x40000 | 5 | G, 0x40000 | 7, "movl %ebx, 0x40000"),
        (0x40000 | 7 | G, 0x50000 | 7, "movl $0x40010, %esp\npushq %rbx\npushq %rbx\npushq %rbx"),
    ],
)
def test_a_global_translation_of_the_old_tables_is_reported_when_it_is_used(old: int, new: int, use: str) -> None:
    bench = Bench("4-level", f"{SWITCH}nop\n{use}\nhlt\n")
    second_tables(bench)
    entry(bench, 0x40000, old)
    entry(bench, 0x40000, new, new=True)
    bench.run()
    assert [kind for kind, _ in hazards(bench)] == ["stale global translation"]


@pytest.mark.parametrize(
    ("old", "new", "use"),
    [
        (0x40000 | 7 | G, 0x40000 | 7, "movl 0x40000, %ebx"),
        (0x40000 | 5 | G, 0x40000 | 7, "movl 0x40000, %ebx"),
        (0x40000 | 7, 0x50000 | 7, "movl 0x40000, %ebx"),
        (0x40000 | 7 | G, 0x50000 | 7, "movl 0x60000, %ebx"),
        (0x40000 | 7 | G, 0x50000 | 7, "mov %cr4, %rax\nbtr $7, %rax\nmov %rax, %cr4\nmovl 0x40000, %ebx"),
    ],
)
def test_what_is_no_stale_use_is_not_reported(old: int, new: int, use: str) -> None:
    bench = Bench("4-level", f"{SWITCH}nop\n{use}\nhlt\n")
    second_tables(bench)
    entry(bench, 0x40000, old)
    entry(bench, 0x40000, new, new=True)
    bench.run()
    assert hazards(bench) == []
    assert bench.vector is None


def test_a_fast_machine_reports_no_hazard() -> None:
    bench = Bench("4-level", f"{SWITCH}movl 0x40000, %ebx\nhlt\n", strict=False)
    second_tables(bench)
    entry(bench, 0x40000, 0x40000 | 7 | G)
    entry(bench, 0x40000, 0x50000 | 7, new=True)
    bench.run()
    assert hazards(bench) == []


# ---- code that was just stored ---------------------------------------------------------------------------------

COPY = """
    movl $0x15000, %esi
    movl ${to:#x}, %edi
    movl $16, %ecx
    {insn}
    {between}
    movl ${at:#x}, %eax
    call *%rax
    hlt
"""


def copier(at: int, to: int, between: str = "nop", insn: str = "rep movsb", *, plain: bool = False) -> Bench:
    text = COPY.format(at=at, to=to, between=between, insn=insn)
    bench = Bench("4-level", text, plain_strings=plain)
    entry(bench, 0x48000, 0x40000 | 7)
    bench.machine.ram.write(0x15000, b"\x90\x90\xc3" + bytes(13))
    return bench


@pytest.mark.parametrize("plain", [False, True])
def test_code_copied_through_another_address_needs_a_serialising_instruction(plain: bool) -> None:
    bench = copier(0x48000, 0x40000, plain=plain)
    assert isinstance(bench.run(), ev.Halted)
    assert hazards(bench) == [(ALIAS, 0x48000)]
    found = next(event for event in bench.machine.events if isinstance(event, ev.Hazard))
    assert "p:0x40000 at 0x48000 was stored through 0x40000" in found.detail


@pytest.mark.parametrize(
    "between", ["cpuid", "wbinvd", "mov %cr3, %rax\nmov %rax, %cr3", "mov %cr0, %rax\nmov %rax, %cr0", "invlpg 0x5000"]
)
def test_a_serialising_instruction_between_makes_it_legal(between: str) -> None:
    bench = copier(0x48000, 0x40000, between)
    assert isinstance(bench.run(), ev.Halted)
    assert hazards(bench) == []


@pytest.mark.parametrize("between", ["nop", "mov %rax, %cr8", "mov %cr3, %rbx"])
def test_other_instructions_do_not_serialise(between: str) -> None:
    bench = copier(0x48000, 0x40000, between)
    bench.run()
    assert [kind for kind, _ in hazards(bench)] == [ALIAS]


@pytest.mark.parametrize("plain", [False, True])
def test_code_copied_through_its_own_address_needs_only_the_branch(plain: bool) -> None:
    bench = copier(0x40000, 0x40000, plain=plain)
    assert isinstance(bench.run(), ev.Halted)
    assert hazards(bench) == []


def test_bytes_beside_the_code_do_not_matter() -> None:
    bench = copier(0x48800, 0x40000)
    bench.machine.ram.write(0x40800, b"\xc3")
    bench.run()
    assert hazards(bench) == []


def test_code_stored_by_a_device_needs_a_serialising_instruction() -> None:
    for between, expected in (("nop", [ALIAS]), ("cpuid", [])):
        bench = Bench("4-level", f"nop\n{between}\nmovl $0x40000, %eax\ncall *%rax\nhlt\n")
        bench.machine.step()
        bench.machine.board.busmaster._dma_write(Phys(0x40000), b"\x90\x90\xc3\x90", "busmaster")
        bench.run()
        assert [kind for kind, _ in hazards(bench)] == expected


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "real"])
def test_a_store_into_the_line_ahead_needs_a_branch(mode: str) -> None:
    bench = Bench(mode, "nop\nbad: movb $0x90, patch\nnop\npatch: nop\nhlt\n")
    bench.run()
    assert hazards(bench) == [(NO_BRANCH, bench.symbols["bad"])]


@pytest.mark.parametrize(
    "text",
    [
        "movb $0x90, patch\njmp patch\npatch: nop\nhlt\n",
        "nop\nhere: nop\nmovb $0x90, here\nnop\nhlt\n",
        "here: movb $0x90, here\nnop\nhlt\n",
    ],
)
def test_stores_with_a_branch_between_or_behind_are_legal(text: str) -> None:
    bench = Bench("4-level", text)
    assert isinstance(bench.run(), ev.Halted)
    assert hazards(bench) == []


def test_host_and_engine_agree_on_what_is_a_hazard() -> None:
    seen = [
        (bench.run(), hazards(bench)) for plain in (False, True) if (bench := copier(0x48000, 0x40000, plain=plain))
    ]
    assert seen[0] == seen[1]


def test_the_state_goes_with_a_snapshot() -> None:
    bench = copier(0x48000, 0x40000)
    bench.machine.break_at(0x48000)
    bench.machine.run(8)
    before = bench.machine.snapshot()
    bench.machine.run()
    first = hazards(bench)
    bench.machine.engine.flush_code()
    bench.machine.restore(before)
    bench.machine.run()
    assert hazards(bench) == first
    assert first
