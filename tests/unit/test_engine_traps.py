"""What the pinned engine does otherwise than hardware, one test each: a newer engine that changes it is noticed here.

The engine runs bare in these tests, with none of the machine's corrections.  A failure is news, not a fault of ours:
look at the correction that leans on it.
"""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from unicorn import UC_ARCH_X86, UC_HOOK_CODE, UC_HOOK_EDGE_GENERATED, UC_MODE_64, Uc, UcError, x86_const

from emu.machine.engine import Engine
from emu.machine.stops import StopKind
from tests.machine_bench import CODE, DATA, HOLE, ROM, TABLES, Bench


def bare(mode: str, text: str) -> tuple[Bench, Engine]:
    """A bench whose engine runs without the machine around it."""
    bench = Bench(mode, text)
    engine = bench.machine.engine
    engine.on_new_code = lambda _linear, _size: False
    engine.on_intercept = lambda _linear: False
    engine.on_own_block = lambda _linear: None
    engine.stores = lambda _linear: False
    return bench, engine


def code_only(code: bytes, at: int = 0x1000) -> Uc:
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.mem_map(0, 0x10000)
    uc.mem_write(at, code)
    return uc


# ---- start state, counting, blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "code"), [("shlx", "c44269f7c0"), ("adcx", "660f38f6c1")])
def test_shlx_wants_osfxsr(name: str, code: str) -> None:
    """Hardware executes it whatever CR4.OSFXSR is: CPUID does not claim it."""
    for cr4, works in ((0x50200, True), (0x50000, False)):
        uc = Uc(UC_ARCH_X86, UC_MODE_64)
        uc.ctl_set_cpu_model(x86_const.UC_CPU_X86_ICELAKE_SERVER)
        uc.mem_map(0, 0x10000)
        uc.mem_write(0x1000, bytes.fromhex(code) + b"\x90")
        uc.reg_write(x86_const.UC_X86_REG_CR4, cr4)
        done = False
        with suppress(UcError):
            uc.emu_start(0x1000, 0x1000 + len(code) // 2)
            done = True
        assert done is works, name


def test_the_start_state_exists_on_no_hardware() -> None:
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    assert uc.reg_read(x86_const.UC_X86_REG_CR0) == 0x11
    assert uc.msr_read(0xC0000080) == 0x500


def test_a_count_is_ignored_for_blocks_translated_without_one() -> None:
    uc = code_only(b"\x48\xff\xc0" * 4 + b"\xf4")
    uc.emu_start(0x1000, 0x9000)
    uc.reg_write(x86_const.UC_X86_REG_RAX, 0)
    uc.emu_start(0x1000, 0x9000, count=2)
    assert uc.reg_read(x86_const.UC_X86_REG_RAX) == 4


def test_new_blocks_are_reported_only_once_one_has_run_to_its_end() -> None:
    uc = code_only(b"\x90\x90\xeb\x00\x90\x90")
    seen: list[int] = []
    uc.hook_add(UC_HOOK_EDGE_GENERATED, lambda _uc, block, _previous, _data: seen.append(block.pc))
    uc.emu_start(0x1000, 0, count=1)
    uc.emu_start(0x1001, 0, count=1)
    assert seen == []
    uc.emu_start(0x1002, 0, count=2)
    uc.emu_start(0x1005, 0, count=1)
    assert seen[-1] == 0x1005


def test_an_instruction_that_stores_into_its_own_block_counts_twice() -> None:
    bench, engine = bare("protected", "movb $0x42, patch\nnop\npatch: nop\nnop\nnop\n")
    assert engine.run(1).executed == 1
    assert engine.rip == CODE, "a count of one is used up by the first try"
    bench.machine.close()


def test_each_iteration_is_a_count_and_so_is_leaving() -> None:
    _, engine = bare("protected", f"movl ${DATA}, %edi\nmovl $3, %ecx\nrep stosb\nnop\nnop\n")
    engine.run(5)
    assert (engine.gpr(1), engine.rip) == (0, CODE + 10)
    engine.run(1)
    assert engine.rip == CODE + 12


def test_a_host_write_leaves_stale_blocks_until_they_are_flushed() -> None:
    uc = code_only(b"\xb8\x01\x00\x00\x00\xf4")
    uc.emu_start(0x1000, 0x9000)
    uc.mem_write(0x1001, b"\x02")
    uc.emu_start(0x1000, 0x9000)
    assert uc.reg_read(x86_const.UC_X86_REG_RAX) == 1
    uc.ctl_flush_tb()
    uc.emu_start(0x1000, 0x9000)
    assert uc.reg_read(x86_const.UC_X86_REG_RAX) == 2


def test_python_exceptions_in_hooks_leave_the_run() -> None:
    uc = code_only(b"\x90" * 8)

    def hook(*_: object) -> None:
        raise KeyError("from a hook")

    uc.hook_add(UC_HOOK_CODE, hook)
    with pytest.raises(KeyError):
        uc.emu_start(0x1000, 0x1008)


# ---- exceptions --------------------------------------------------------------------------------------------------


def test_nothing_is_delivered_through_the_guests_tables() -> None:
    _, engine = bare("protected", "xor %ecx, %ecx\ndiv %ecx\n")
    stop = engine.run(10)
    assert (stop.kind, stop.vector, engine.rip) == (StopKind.FAULT, 0, CODE + 2)
    assert engine.gpr(4) == 0x9000


def test_a_second_exception_becomes_a_double_fault_unless_the_first_is_forgotten() -> None:
    _, engine = bare("protected", "xor %ecx, %ecx\ndiv %ecx\n")
    assert engine.run(10).vector == 0
    assert engine.run(10).vector == 8
    engine.clear_exception()
    assert engine.run(10).vector == 0


def test_a_software_interrupt_leaves_rip_behind_itself() -> None:
    _, engine = bare("protected", "int $0x42\n")
    stop = engine.run(10)
    assert (stop.software, stop.vector, engine.rip, stop.next_rip) == (True, 0x42, CODE + 2, CODE + 2)


def test_hlt_comes_back_with_rip_behind_it() -> None:
    _, engine = bare("protected", "hlt\nnop\n")
    stop = engine.run(10)
    assert (stop.kind, engine.rip) == (StopKind.COUNT, CODE + 1)


def test_a_branch_that_is_not_canonical_faults_at_its_target() -> None:
    _, engine = bare("4-level", "movabs $0x4000000000000000, %rax\njmp *%rax\n")
    stop = engine.run(10)
    assert (stop.vector, engine.rip) == (13, 0x4000000000000000)


def test_a_fault_at_a_fetch_is_not_counted_like_one_at_an_access() -> None:
    _, fetch = bare("4-level", "movl $0x500000, %eax\njmp *%rax\n")
    _, access = bare("4-level", "movl $0x500000, %eax\nmovl (%rax), %eax\n")
    assert fetch.run(10).executed == 1, "MOV and JMP retired"
    assert access.run(10).executed == 1, "MOV retired"


@pytest.mark.parametrize(
    "code", ["0xf1", "0x0f, 0x01, 0xc1", "0x0f, 0x01, 0xc8", "0x0f, 0x33", "0x66, 0x0f, 0x38, 0x82, 0x00"]
)
def test_instructions_that_the_engine_does_not_have(code: str) -> None:
    """ICEBP, VMCALL, MONITOR, RDPMC, INVPCID."""
    _, engine = bare("4-level", f".byte {code}\nnop\n")
    assert engine.run(1).vector == 6


# ---- rules that are not checked -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "text", "register", "value"),
    [
        ("real", "mov %cr0, %eax\nor $0x80000000, %eax\nmov %eax, %cr0\nnop\n", 0, 0x80000000),
        ("4-level", "mov %cr3, %rax\nbts $45, %rax\nmov %rax, %cr3\nnop\n", 3, 1 << 45),
        ("protected", "movl $0x10000000, %eax\nmov %eax, %cr4\nnop\n", 4, 0x10000000),
        ("4-level", "mov %cr4, %rax\nbts $12, %rax\nmov %rax, %cr4\nnop\n", 4, 0x1000),
    ],
)
def test_bad_values_of_control_registers_are_taken(mode: str, text: str, register: int, value: int) -> None:
    _, engine = bare(mode, text)
    assert engine.run(3).vector != 13
    assert engine.cr(register) & value


def test_pg_with_lme_and_no_pae_is_ignored() -> None:
    text = "movl $0xc0000080, %ecx\nrdmsr\nor $0x100, %eax\nwrmsr\n"
    text += "mov %cr0, %eax\nor $0x80000000, %eax\nmov %eax, %cr0\nnop\n"
    _, engine = bare("protected", text)
    assert engine.run(7).kind is StopKind.COUNT
    assert engine.cr(0) >> 31 == 0


def test_unknown_msrs_read_zero() -> None:
    _, engine = bare("4-level", "movl $0x12345, %ecx\nrdmsr\nnop\n")
    assert engine.run(2).kind is StopKind.COUNT
    assert engine.gpr(0) == 0


@pytest.mark.parametrize("number", [0x1B, 0x10])
def test_msrs_that_forget_what_is_written(number: int) -> None:
    _, engine = bare("4-level", f"movl ${number}, %ecx\nmovl $0x1000, %eax\nwrmsr\nmovl $1, %eax\nrdmsr\nnop\n")
    engine.run(5)
    assert engine.gpr(0) != 0x1000


def test_writes_to_cr8_are_lost() -> None:
    _, engine = bare("4-level", "movl $9, %eax\nmov %rax, %cr8\nmov %cr8, %rbx\nnop\n")
    engine.run(3)
    assert engine.gpr(3) == 0


def test_syscall_is_a_no_op() -> None:
    _, engine = bare("4-level", "syscall\nnop\nnop\n")
    assert engine.run(2).kind is StopKind.COUNT
    assert engine.rip == CODE + 3


def test_ports_are_open_to_ring_3() -> None:
    bench, engine = bare(
        "4-level", "pushq $0x2b\npushq $0x8000\npushq $2\npushq $0x23\npushq $user\niretq\nuser: outb %al, $0xe9\nnop\n"
    )
    heard: list[int] = []
    bench.machine.listeners.append(lambda _event: heard.append(1))
    assert engine.run(8).kind is StopKind.COUNT
    assert heard == [1]


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_the_tlb_is_real() -> None:
    bench, engine = bare(
        "4-level", "movl 0x40000, %eax\nnop\nmovl 0x40000, %ebx\ninvlpg 0x40000\nmovl 0x40000, %edx\nnop\n"
    )
    bench.machine.ram.write(0x50000, b"\x55")
    engine.run(1)
    bench.machine.ram.write(bench.leaf(0x40000), struct.pack("<Q", 0x50007))
    engine.run(4)
    assert (engine.gpr(3), engine.gpr(2)) == (0, 0x55)


def test_a_restored_context_keeps_the_tlb() -> None:
    bench, engine = bare("4-level", "movl 0x40000, %eax\nnop\n")
    bench.machine.ram.write(0x50000, b"\x55")
    context = engine._uc.context_save()
    engine.run(1)
    bench.machine.ram.write(bench.leaf(0x40000), struct.pack("<Q", 0x50007))
    engine._uc.context_restore(context)
    engine.run(1)
    assert engine.gpr(0) == 0
    engine.restore(context)
    engine.run(1)
    assert engine.gpr(0) == 0x55


def test_a_cr3_load_drops_global_translations_too() -> None:
    bench, engine = bare("4-level", "movl 0x40000, %eax\nmov %cr3, %rcx\nmov %rcx, %cr3\nmovl 0x40000, %ebx\nnop\n")
    bench.machine.ram.write(0x50000, b"\x55")
    engine.set_cr(4, engine.cr(4) | 0x80)
    engine.settle()
    bench.machine.ram.write(bench.leaf(0x40000), struct.pack("<Q", 0x40107))
    engine.run(1)
    bench.machine.ram.write(bench.leaf(0x40000), struct.pack("<Q", 0x50107))
    engine.run(3)
    assert engine.gpr(3) == 0x55


def test_pdptes_are_read_at_each_walk() -> None:
    bench, engine = bare("pae", "movl 0x40000, %eax\nmovl 0x50000, %eax\nnop\n")
    engine.set_cr(3, TABLES)
    engine.flush_tlb()
    assert engine.run(1).kind is StopKind.COUNT
    bench.machine.ram.write(TABLES, bytes(8))
    assert engine.run(1).vector == 14


def test_a_store_into_rom_happens_although_the_hook_was_told() -> None:
    bench, engine = bare("4-level", f"movl $1, {ROM}\nnop\n")
    bench.machine.loop.undo = []
    engine.run(1)
    assert bench.machine.ram.read_int(ROM, 4) == 1


def test_a_store_that_spans_two_pages_is_told_once_where_it_begins() -> None:
    """Neither of its last byte's page, nor to who asked for addresses amid it: `straddling.py`, `watches.py`."""
    bench, engine = bare("4-level", "movl $0x44332211, 0x30ffe\nmovl $0x88776655, 0x30100\nhlt\n")
    bench.machine.write_tables([(TABLES + 0x4000 + 8 * 0x31, (0x35007).to_bytes(8, "little"))])
    told: list[tuple[int, int]] = []
    amid: list[int] = []
    engine.watch_writes(0, 0x100000, lambda at, size, _value: told.append((at, size)))
    engine.watch_writes(0x30102, 0x30102, lambda at, _size, _value: amid.append(at))
    engine.watch_writes(0x35000, 0x35FFF, lambda at, _size, _value: amid.append(at))
    engine.run(2)
    assert told == [(0x30FFE, 4), (0x30100, 4)]
    assert amid == []
    assert bench.machine.ram.read_int(0x35000, 2) == 0x4433


def test_a_fetch_from_a_hole_is_an_error_of_the_engine() -> None:
    _, engine = bare("4-level", f"movl ${HOLE}, %eax\njmp *%rax\n")
    stop = engine.run(5)
    assert (stop.kind, stop.executed) == (StopKind.BUS, 2)


def test_remove_cache_refuses_or_ignores_what_is_not_mapped() -> None:
    uc = code_only(b"\xb8\x01\x00\x00\x00\xf4")
    uc.emu_start(0x1000, 0x9000)
    with suppress(UcError):
        uc.ctl_remove_cache(0x900000, 0x901000)
    uc.mem_write(0x1001, b"\x02")
    uc.emu_start(0x1000, 0x9000)
    assert uc.reg_read(x86_const.UC_X86_REG_RAX) == 1
