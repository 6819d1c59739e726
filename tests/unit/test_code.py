"""Which memory holds translated code, and the instructions in it that the machine must see."""

from __future__ import annotations

import pytest

from emu.machine import code as code_map
from emu.machine import events as ev
from emu.x86.sensitive import Kind
from tests.machine_bench import CODE, Bench


def with_a_full_table(bench: Bench) -> Bench:
    """No intercept finds room in the table: each needs a hook of its own."""
    bench.machine.engine.moves.intercept = lambda address: bool(address * 0)  # type: ignore[method-assign]
    return bench


def test_pages_with_code_are_known_once_it_ran() -> None:
    bench = Bench("4-level", "nop\nhlt\n")
    assert not bench.machine.code.covers(CODE, 1)
    bench.run()
    assert bench.machine.code.covers(CODE, 1)
    assert bench.machine.code.any_of([CODE >> 12])
    assert not bench.machine.code.covers(CODE + 0x1000, 0x100)


def test_code_in_a_page_of_the_users_is_known_under_smap() -> None:
    bench = Bench("4-level", "mov %cr4, %rax\nor $0x200000, %eax\nmov %rax, %cr4\njmp here\nhere: nop\nhlt\n")
    for step in bench.machine.cpu.walk(CODE).steps:
        bench.machine.ram.write(step.address, bytes([step.value & 0xFF | 4]))
    assert isinstance(bench.run(), ev.Halted)
    assert bench.machine.code.covers(bench.symbols["here"], 1)


def test_what_the_host_stores_over_is_no_code_any_more() -> None:
    bench = Bench("4-level", "nop\nhlt\n")
    bench.run()
    code, pfn = bench.machine.code, CODE >> 12
    ((first, behind),) = code.runs(pfn)
    code.overwritten(CODE + first + 1, 0x200)
    assert code.runs(pfn) == [(first, first + 1)], "what else began there is not known"
    code.overwritten(CODE + first - first % 4096, behind)
    assert code.runs(pfn) == []
    assert not code.covers(CODE, 1)


def test_sensitive_instructions_are_found_by_address() -> None:
    bench = Bench("4-level", "nop\nhere: cpuid\nhlt\n")
    bench.run()
    insn = bench.machine.code.at(bench.symbols["here"])
    assert insn is not None
    assert insn.kind is Kind.CPUID
    assert bench.machine.code.at(CODE) is None


def test_more_sensitive_instructions_than_intercepts_are_all_seen_again_and_again() -> None:
    ports = code_map.MAX_INTERCEPTS + 30
    body = "".join(f"outb %al, ${port % 0x10 + 0xE0:#x}\n" for port in range(ports))
    bench = with_a_full_table(Bench("4-level", f"movl $3, %ebx\nagain: {body}decl %ebx\njnz again\nhlt\n"))
    bench.run()
    assert len(bench.of(ev.PortAccess)) == 3 * ports
    assert len(bench.machine.engine.intercepts) <= ports


def test_intercepts_of_old_blocks_are_dropped() -> None:
    blocks = "".join(f"jmp l{index}\nl{index}: outb %al, $0xed\n" for index in range(3 * code_map.MAX_INTERCEPTS))
    text = f"movl $2, %ebx\nagain: {blocks}decl %ebx\njz out\njmp again\nout: hlt\n"
    bench = with_a_full_table(Bench("4-level", text))
    bench.run()
    assert len(bench.of(ev.PortAccess)) == 6 * code_map.MAX_INTERCEPTS
    assert len(bench.machine.engine.intercepts) <= code_map.MAX_INTERCEPTS


def test_a_breakpoint_survives_any_number_of_intercepts() -> None:
    ports = code_map.MAX_INTERCEPTS + 30
    body = "".join(f"outb %al, ${port % 0x10 + 0xE0:#x}\n" for port in range(ports))
    bench = with_a_full_table(Bench("4-level", f"{body}here: nop\nhlt\n"))
    bench.machine.break_at(bench.symbols["here"])
    assert bench.run() == ev.Breakpoint(bench.symbols["here"])


def test_an_instruction_that_becomes_sensitive_is_seen() -> None:
    text = "movl $2, %ebx\nagain: nop\npatch: nop\ndecl %ebx\njz out\nmovb $0xf4, patch\njmp again\nout: int3\n"
    bench = Bench("4-level", text)
    assert isinstance(bench.run(), ev.Halted)
    assert bench.machine.cpu.pc == bench.symbols["patch"] + 1


def test_an_instruction_that_is_sensitive_no_more_is_left_alone() -> None:
    patch = "movl $patch, %edx\nmovw $0x9090, (%rdx)\n"
    text = f"movl $2, %ebx\nagain: nop\npatch: rdtsc\ndecl %ebx\njz out\n{patch}movl $7, %eax\njmp again\nout: hlt\n"
    bench = Bench("4-level", text)
    bench.run()
    assert bench.reg("rax") == 7


def test_the_same_address_in_two_address_spaces_is_two_instructions() -> None:
    """Page 0x12000 is RDTSC through the first tables and NOPs through the second."""
    text = """
        call 0x12000
        movl %eax, %ebp
        movl $0x28000, %eax
        mov %rax, %cr3
        movl $7, %eax
        call 0x12000
        movl $0x20000, %ecx
        mov %rcx, %cr3
        movl %eax, %esi
        call 0x12000
        hlt
    """
    bench = Bench("4-level", text)
    ram = bench.machine.ram
    for offset in range(0, 0x6000, 0x1000):
        ram.write(0x28000 + offset, ram.read(0x20000 + offset, 0x1000))
    for table in (0x28000, 0x2A000, 0x2B000):
        entry = ram.read_int(table, 8)
        ram.write(table, (entry + 0x8000).to_bytes(8, "little"))
    ram.write(0x2C000 + 0x12 * 8, (0x13000 | 7).to_bytes(8, "little"))
    ram.write(0x12000, b"\x0f\x31\xc3")
    ram.write(0x13000, b"\x90\x90\xc3")
    assert isinstance(bench.run(), ev.Halted)
    assert (bench.reg("rbp"), bench.reg("rsi"), bench.reg("rax")) == (1, 7, 15)


@pytest.mark.parametrize("mode", ["2-level", "pae", "4-level"])
def test_what_is_looked_at_is_what_was_fetched_whatever_the_tables_say_by_now(mode: str) -> None:
    """The translation of 0x12000 is cached, its entry changed, and nothing invalidated: the old page runs."""
    size = 4 if mode == "2-level" else 8
    bench = Bench(
        mode, "movb 0x12000, %al\nmovl table, %edi\nmovl $0x13007, (%edi)\ncall 0x12000\nhlt\ntable: .long 0\n"
    )
    entry = next(step.address for step in bench.machine.cpu.walk(0x12000).steps if step.level == "PTE")
    assert entry & -0x1000 == bench.machine.cpu.walk(0).steps[-1].address & -0x1000
    bench.machine.ram.write(bench.symbols["table"], entry.to_bytes(4, "little"))
    bench.machine.ram.write(0x12000, b"\x0f\x31\xc3")  # rdtsc; ret
    bench.machine.ram.write(0x13000, b"\x90\x90\xc3")
    assert isinstance(bench.run(), ev.Halted)
    assert bench.machine.ram.read_int(entry, size) & ~0xFF == 0x13000
    assert (bench.reg("rax"), bench.reg("rdx")) == (4, 0)  # the machine's time


def test_a_store_that_ends_no_block_is_known_as_one() -> None:
    bench = Bench("4-level", "a: movb $1, 0x5000\nb: pushq %rax\nc: call a\nd: rep stosb\ne: movb 0x5000, %al\n")
    stores = bench.machine.code.stores
    assert [stores(bench.symbols[name]) for name in "abcde"] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("e800000000", True),
        ("ffd0", True),
        ("66ff18", True),
        ("ffe0", False),
        ("ff", False),
        ("66", False),
        ("", False),
    ],
)
def test_a_call_is_told_from_whatever_bytes_are_there(code: str, call: bool) -> None:
    assert code_map._is_call(bytes.fromhex(code)) is call


def test_intercepts_in_the_table_stay() -> None:
    blocks = "".join(f"jmp l{index}\nl{index}: outb %al, $0xed\n" for index in range(3 * code_map.MAX_INTERCEPTS))
    bench = Bench("4-level", f"movl $2, %ebx\nagain: {blocks}decl %ebx\njz out\njmp again\nout: hlt\n")
    bench.run()
    assert len(bench.of(ev.PortAccess)) == 6 * code_map.MAX_INTERCEPTS
    assert len(bench.machine.engine.intercepts) > 3 * code_map.MAX_INTERCEPTS
