"""The processor's own view of memory: latched PDPTEs, translations with their A and D bits, registers by name."""

from __future__ import annotations

import struct

import pytest

from emu.machine import events as ev
from emu.machine.cpu import PDPT_PAGE, READ, WRITE
from emu.x86.delivery import GuestFault
from emu.x86.paging import Access
from tests.machine_bench import CODE, DATA, MODES, STACK, TABLES, Bench

PAGED = ("2-level", "pae", "4-level", "5-level", "compatibility")


def test_a_pdpte_edited_in_memory_is_not_seen_until_cr3_is_loaded() -> None:
    text = f"""
        movl $0, {TABLES}
        movl 0x5000, %eax
    still: mov %cr3, %eax
        mov %eax, %cr3
        nop
    """
    bench = Bench("pae", text)
    bench.gate(14, 0x6000)
    outcome = bench.run()
    assert isinstance(outcome, ev.TripleFault), "nothing is mapped any more, not even the handler"
    fault = bench.faults[0]
    assert fault[0] == 14
    assert fault[2] > bench.symbols["still"]


def test_a_page_fault_through_a_latched_pdpte_does_not_read_the_table_again() -> None:
    bench = Bench("pae", f"movl $0, {TABLES}\ninvlpg 0x5000\nmovl 0x5000, %eax\nhlt\n")
    assert isinstance(bench.run(), ev.Halted)
    assert bench.vector is None


def test_no_accessed_bit_appears_in_the_guests_pdpt() -> None:
    bench = Bench("pae", "movl 0x5000, %eax\nmov %cr3, %eax\nmov %eax, %cr3\nmovl %eax, 0x5000\nhlt\n")
    bench.run()
    assert bench.machine.ram.read_int(TABLES, 8) == 0x23001
    assert bench.machine.ram.read_int(0x23000, 8) & 0x20, "the page directory entry has one"


def test_the_guest_reads_the_cr3_that_it_wrote() -> None:
    bench = Bench("pae", "mov %cr3, %ebx\nmov %ebx, %cr3\nmov %cr3, %ecx\nhlt\n")
    bench.run()
    assert bench.reg("rbx") == bench.reg("rcx") == bench.reg("cr3") == TABLES
    assert bench.machine.engine.cr(3) & ~0xFFF == PDPT_PAGE


def test_pdptes_are_read_from_a_table_that_is_only_32_byte_aligned() -> None:
    bench = Bench("pae", "movl $0x26020, %eax\nmov %eax, %cr3\nmovl 0x5000, %eax\nmov %cr3, %ebx\nhlt\n")
    bench.machine.ram.write(0x26020, struct.pack("<4Q", 0x23001, 0, 0, 0))
    bench.run()
    assert bench.vector is None
    assert bench.reg("rbx") == 0x26020


def test_leaving_pae_paging_gives_the_guest_its_cr3_back() -> None:
    bench = Bench("pae", "mov %cr0, %eax\nand $0x7fffffff, %eax\nmov %eax, %cr0\nmov %cr3, %ebx\nhlt\n")
    bench.run()
    assert bench.machine.engine.cr(3) == bench.reg("rbx") == TABLES


def test_a_toggle_of_pge_latches_the_pdptes_again() -> None:
    text = f"movl $0, {TABLES}\nmov %cr4, %eax\nor $0x80, %eax\nmov %eax, %cr4\nnop\n"
    bench = Bench("pae", text)
    assert isinstance(bench.run(), ev.TripleFault)


@pytest.mark.parametrize("mode", PAGED)
def test_a_translation_of_the_processors_own_sets_accessed_and_dirty(mode: str) -> None:
    bench = Bench(mode, "hlt\n")
    cpu, ram = bench.machine.cpu, bench.machine.ram
    assert cpu.translate(0x5123, READ) == 0x5123
    assert ram.read_int(bench.leaf(0x5000), 4) & 0x60 == 0x20
    assert cpu.translate(0x5123, WRITE) == 0x5123
    assert ram.read_int(bench.leaf(0x5000), 4) & 0x60 == 0x60


@pytest.mark.parametrize("mode", PAGED)
def test_peek_leaves_no_trace(mode: str) -> None:
    bench = Bench(mode, "hlt\n")
    before = bench.machine.ram.read(TABLES, 0x6000)
    assert bench.machine.cpu.peek(0x4FF0, 0x20) == bytes(0x20)
    assert bench.machine.ram.read(TABLES, 0x6000) == before
    assert bench.machine.cpu.peek(0x7F000000, 4) is None


@pytest.mark.parametrize("mode", PAGED)
def test_a_store_over_two_pages_happens_whole_or_not_at_all(mode: str) -> None:
    bench = Bench(mode, "hlt\n")
    bench.machine.ram.write(bench.leaf(0x6000), bytes(4))
    with pytest.raises(GuestFault) as caught:
        bench.machine.cpu.write_linear(0x5FFC, b"12345678")
    assert (caught.value.vector, caught.value.cr2) == (14, 0x6000)
    assert bench.machine.ram.read(0x5FFC, 4) == bytes(4)


def test_an_address_that_is_not_canonical_is_a_general_protection_fault() -> None:
    bench = Bench("4-level", "hlt\n")
    with pytest.raises(GuestFault) as caught:
        bench.machine.cpu.read_linear(1 << 60, 8)
    assert caught.value.vector == 13


@pytest.mark.parametrize("mode", PAGED)
def test_cached_translations_agree_with_walks_and_are_forgotten_by_invlpg(mode: str) -> None:
    bench = Bench(mode, "invlpg 0x30000\nhlt\n")
    cpu, access = bench.machine.cpu, Access(write=True)
    for page in range(DATA, DATA + 0x8000, 0x1000):
        assert cpu.translate_cached(page + 5, access) == cpu.translate(page + 5, access) == page + 5
    entry = bench.leaf(DATA)
    moved = (0x50000 | 0x67).to_bytes(8, "little")[: 4 if mode == "2-level" else 8]
    bench.machine.ram.write(entry, moved)
    assert cpu.translate_cached(DATA, access) == DATA, "stale until flushed, like a TLB"
    bench.run()
    assert cpu.translate_cached(DATA, access) == 0x50000


@pytest.mark.parametrize("mode", MODES)
def test_registers_are_all_there_by_name(mode: str) -> None:
    bench = Bench(mode, "hlt\n")
    state = bench.machine.cpu.registers()
    assert state["rsp"] == STACK
    assert state["cs.base"] + state["rip"] == CODE
    assert {"rax", "r15", "cr3", "efer", "gdtr.base", "tr.limit", "dr7", "xmm15", "mxcsr", "st0", "lstar"} <= set(state)
    assert state["dr6"] == 0xFFFF0FF0
    assert state["dr7"] == 0x400


def test_the_16_bit_tss_is_part_of_the_control_state() -> None:
    bench = Bench("protected", "movw $0x30, %ax\nltr %ax\nhlt\n")
    assert not bench.machine.cpu.control().tss16
    bench.machine.ram.write(0x1000 + 0x30 + 5, b"\x81")
    bench.run()
    assert bench.machine.cpu.control().tss16
