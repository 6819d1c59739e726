"""Guest code meets the rules that the engine does not check: each is refused as hardware refuses it."""

from __future__ import annotations

import struct

import pytest

from emu.machine import events as ev
from emu.x86.bits import Cr0, Cr4, Efer
from emu.x86.segments import SegmentCache
from tests.machine_bench import CODE32, DATA, HANDLERS, TABLES, TSS, USER_CODE, USER_DATA, Bench


def ring_3(mode: str, text: str, *, iopl: int = 0) -> str:
    push, ret = ("pushq", "iretq") if mode in ("4-level", "5-level") else ("pushl", "iret")
    flags = 2 | iopl << 12
    words = (USER_DATA, 0x8000, flags, USER_CODE)
    frame = "".join(f"{push} ${word}\n" for word in words)
    return f"movw $0x30, %ax\nltr %ax\n{frame}{push} $user\n{ret}\nuser:\n{text}"


def assert_refused(bench: Bench, reason: str, vector: int = 13) -> None:
    """The run ended in the handler of ``vector``, at ``bad``, with error code 0, for ``reason``; nothing retired."""
    assert isinstance(bench.run(), ev.Halted)
    assert bench.vector == vector
    assert bench.faults[-1][1:] == (0 if vector == 13 else None, bench.symbols["bad"])
    assert reason in bench.reasons


def set_bits(register: str, bits: int, *, wide: bool = False) -> str:
    a = "%rax" if wide else "%eax"
    return f"mov {register}, {a}\nor ${bits:#x}, {a}\nbad: mov {a}, {register}\nhlt\n"


def clear_bits(register: str, bits: int, *, wide: bool = False) -> str:
    a = "%rax" if wide else "%eax"
    return f"mov {register}, {a}\nbtr ${bits.bit_length() - 1}, {a}\nbad: mov {a}, {register}\nhlt\n"


# ---- CR0 -------------------------------------------------------------------------------------------------------


def test_paging_without_protection_is_refused() -> None:
    bench = Bench("real", "mov %cr0, %eax\nor $0x80000000, %eax\nbad: mov %eax, %cr0\nhlt\n")
    assert isinstance(bench.run(), ev.Halted)
    assert bench.vector == 13
    assert bench.reg("cr0") & Cr0.PG == 0
    assert "CR0.PG=1 with CR0.PE=0" in bench.reasons


def test_not_write_through_without_cache_disable_is_refused() -> None:
    assert_refused(Bench("protected", set_bits("%cr0", Cr0.NW)), "CR0.NW=1 with CR0.CD=0")


def test_the_upper_half_of_cr0_is_reserved() -> None:
    text = "mov %cr0, %rax\nmovabs $0x100000000, %rcx\nor %rcx, %rax\nbad: mov %rax, %cr0\nhlt\n"
    assert_refused(Bench("4-level", text), "reserved bits 0x100000000 of CR0")


def test_long_mode_paging_needs_pae() -> None:
    text = "movl $0xc0000080, %ecx\nrdmsr\nor $0x100, %eax\nwrmsr\n" + set_bits("%cr0", Cr0.PG)
    assert_refused(Bench("protected", text), "EFER.LME=1 and CR4.PAE=0")


def test_long_mode_paging_needs_a_code_segment_without_l() -> None:
    text = "movl $0xc0000080, %ecx\nrdmsr\nor $0x100, %eax\nwrmsr\nmovl $0x20, %eax\nmov %eax, %cr4\n"
    bench = Bench("protected", text + set_bits("%cr0", Cr0.PG))
    cs = bench.machine.engine.segment(1)
    bench.machine.break_at(bench.symbols["bad"])
    bench.run()
    bench.machine.engine.set_segment(1, SegmentCache(cs.selector, cs.base, cs.limit, cs.flags | 1 << 21))
    bench.run()
    assert "while CS.L=1" in bench.reasons


def test_long_mode_paging_needs_a_tss_that_is_not_of_16_bits() -> None:
    text = "movl $0xc0000080, %ecx\nrdmsr\nor $0x100, %eax\nwrmsr\nmovl $0x20, %eax\nmov %eax, %cr4\n"
    bench = Bench("protected", "movw $0x30, %ax\nltr %ax\n" + text + set_bits("%cr0", Cr0.PG))
    bench.machine.ram.write(0x1000 + 0x30 + 5, b"\x81")
    assert_refused(bench, "TR holds a 16-bit TSS")


def test_paging_cannot_be_left_from_64_bit_code() -> None:
    assert_refused(Bench("4-level", clear_bits("%cr0", Cr0.PG, wide=True)), "CR0.PG cleared in 64-bit mode")


def test_paging_can_be_left_from_compatibility_mode() -> None:
    bench = Bench("compatibility", clear_bits("%cr0", Cr0.PG))
    assert isinstance(bench.run(), ev.Halted)
    assert bench.vector is None
    assert bench.machine.cpu.mode() == "32-bit protected"
    assert bench.reg("efer") == Efer.LME
    assert [event.new for event in bench.machine.events if isinstance(event, ev.ModeChange)] == ["32-bit protected"]


def test_paging_cannot_be_left_with_pcids_on() -> None:
    text = "mov %cr4, %eax\nor $0x20000, %eax\nmov %eax, %cr4\n" + clear_bits("%cr0", Cr0.PG)
    bench = Bench("compatibility", text)
    assert_refused(bench, "CR4.PCIDE=1")


def test_write_protection_stays_while_cet_is_on() -> None:
    text = (
        f"mov %cr0, %rax\nor $0x10000, %rax\nmov %rax, %cr0\nmov %cr4, %rax\nor ${Cr4.CET:#x}, %rax\nmov %rax, %cr4\n"
    )
    assert_refused(Bench("4-level", text + clear_bits("%cr0", Cr0.WP, wide=True)), "CR0.WP cleared while CR4.CET=1")


def test_cet_needs_write_protection_first() -> None:
    assert_refused(Bench("4-level", set_bits("%cr4", Cr4.CET, wide=True)), "CR4.CET set while CR0.WP=0")


# ---- CR3, CR4 --------------------------------------------------------------------------------------------------


def test_cr3_bits_above_the_physical_width_are_refused() -> None:
    text = "mov %cr3, %rax\nbts $45, %rax\nbad: mov %rax, %cr3\nhlt\n"
    assert_refused(Bench("4-level", text), "of CR3 set, MAXPHYADDR is 40")


def test_the_no_flush_bit_needs_pcids() -> None:
    assert_refused(Bench("4-level", "mov %cr3, %rax\nbts $63, %rax\nbad: mov %rax, %cr3\nhlt\n"), "reserved bits")


def test_the_no_flush_bit_is_accepted_with_pcids_and_is_not_kept() -> None:
    text = "mov %cr4, %rax\nbts $17, %rax\nmov %rax, %cr4\n"
    text += "mov %cr3, %rax\nbts $63, %rax\nmov %rax, %cr3\nmov %cr3, %rbx\nhlt\n"
    bench = Bench("4-level", text)
    bench.run()
    assert bench.vector is None
    assert bench.reg("rbx") == bench.reg("cr3") == TABLES


def test_low_bits_of_cr3_are_no_error() -> None:
    bench = Bench("4-level", "mov %cr3, %rax\nor $0xf6f, %rax\nmov %rax, %cr3\nmov %cr3, %rbx\nhlt\n")
    bench.run()
    assert bench.vector is None


@pytest.mark.parametrize(
    ("mode", "bits", "reason"),
    [
        ("protected", Cr4.VMXE, "does not have: VMXE"),
        ("protected", 1 << 28, "does not have: +0x10000000"),
        ("protected", Cr4.PKE, "does not have: PKE"),
        ("protected", Cr4.PCIDE, "CR4.PCIDE set outside IA-32e mode"),
        ("4-level", Cr4.LA57, "CR4.LA57 changed in IA-32e mode"),
    ],
)
def test_cr4_bits_are_refused_where_hardware_refuses_them(mode: str, bits: int, reason: str) -> None:
    assert_refused(Bench(mode, set_bits("%cr4", bits, wide=mode == "4-level")), reason)


@pytest.mark.parametrize(
    ("mode", "bits", "reason"),
    [
        ("4-level", Cr4.PAE, "CR4.PAE cleared"),
        ("5-level", Cr4.LA57, "CR4.LA57 changed"),
        ("compatibility", Cr4.PAE, "PAE"),
    ],
)
def test_cr4_bits_that_long_mode_stands_on_stay(mode: str, bits: int, reason: str) -> None:
    assert_refused(Bench(mode, clear_bits("%cr4", bits, wide=mode != "compatibility")), reason)


def test_pcids_need_clear_low_bits_of_cr3() -> None:
    text = "mov %cr3, %rax\nor $0x18, %rax\nmov %rax, %cr3\n" + set_bits("%cr4", Cr4.PCIDE, wide=True)
    assert_refused(Bench("4-level", text), "CR3[11:0] is 0x18")


def test_reserved_bits_of_a_pdpte_are_refused_at_the_load() -> None:
    bench = Bench("pae", "mov %cr3, %eax\nbad: mov %eax, %cr3\nhlt\n")
    bench.machine.ram.write(TABLES + 16, struct.pack("<Q", 0x21000 | 3))
    assert_refused(bench, "PDPTE 2 has reserved bits 0x2")


# ---- registers that do not exist, privilege ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 5, 6, 7])
def test_control_registers_that_do_not_exist(number: int) -> None:
    bench = Bench("4-level", f"bad: .byte 0x0f, 0x22, {0xC0 | number << 3:#x}\nhlt\n")
    assert_refused(bench, f"there is no CR{number}", vector=6)


@pytest.mark.parametrize("mode", ["protected", "2-level", "pae", "4-level", "5-level", "compatibility"])
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("0x0f, 0x22, 0xc0", "MOV with CR0"),
        ("0x0f, 0x20, 0xd8", "MOV with CR3"),
        ("0x0f, 0x32", "RDMSR"),
        ("0x0f, 0x30", "WRMSR"),
        ("0xf4", "HLT"),
        ("0x0f, 0x21, 0xf8", "MOV with DR7"),
        ("0x0f, 0x23, 0xf8", "MOV with DR7"),
        ("0x0f, 0x06", ""),
        ("0xfa", ""),
        ("0xfb", ""),
        ("0x0f, 0x01, 0x38", ""),
    ],
)
def test_ring_3_may_not(mode: str, code: str, reason: str) -> None:
    bench = Bench(mode, ring_3(mode, f"bad: .byte {code}\nnop\n"))
    assert_refused(bench, reason)
    assert bench.machine.cpu.cpl == 0


def test_the_time_stamp_counter_can_be_closed_to_ring_3() -> None:
    text = "movl $4, %eax\nmov %eax, %cr4\n" + ring_3("protected", "bad: rdtsc\n")
    assert_refused(Bench("protected", text), "CR4.TSD=1")


# ---- MSRs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["rdmsr", "wrmsr"])
@pytest.mark.parametrize("number", [0x12345, 0x38F, 0xC0000FFF])
def test_an_unknown_msr_is_refused(code: str, number: int) -> None:
    assert_refused(Bench("4-level", f"movl ${number:#x}, %ecx\nbad: {code}\nhlt\n"), "this processor has no MSR")


@pytest.mark.parametrize(
    ("number", "low", "high", "reason"),
    [
        (0xC0000080, 0x2000, 0, "reserved bits 0x2000 of EFER"),
        (0xC0000080, 0x400, 0, "EFER.LME changed while CR0.PG=1"),
        (0xC0000100, 0, 0x80000000, "not canonical"),
        (0x277, 2, 0, "reserved memory type"),
        (0xFE, 0, 0, "read-only"),
    ],
)
def test_msr_values_are_refused(number: int, low: int, high: int, reason: str) -> None:
    text = f"movl ${number:#x}, %ecx\nmovl ${low:#x}, %eax\nmovl ${high:#x}, %edx\nbad: wrmsr\nhlt\n"
    assert_refused(Bench("4-level", text), reason)


def test_lma_is_not_written() -> None:
    text = "movl $0xc0000080, %ecx\nmovl $0x100, %eax\nxor %edx, %edx\nwrmsr\nrdmsr\nhlt\n"
    bench = Bench("4-level", text)
    bench.run()
    assert bench.vector is None
    assert bench.reg("rax") == bench.reg("efer") == Efer.LME | Efer.LMA


@pytest.mark.parametrize(
    "number", [0x174, 0x175, 0x277, 0xC0000081, 0xC0000082, 0xC0000100, 0xC0000101, 0xC0000102, 0x1B]
)
def test_an_msr_reads_what_was_written(number: int) -> None:
    value = 0x0006_0506 if number == 0x277 else 0xFEE00000 if number == 0x1B else 0x2340
    text = f"movl ${number:#x}, %ecx\nmovl ${value:#x}, %eax\nxor %edx, %edx\nwrmsr\nxor %eax, %eax\nrdmsr\nhlt\n"
    bench = Bench("4-level", text)
    bench.run()
    assert bench.vector is None
    assert bench.reg("rax") == value


def test_the_time_stamp_counter_can_be_set() -> None:
    text = "movl $0x10, %ecx\nmovl $1000, %eax\nxor %edx, %edx\nset: wrmsr\nnop\nrdtsc\nhlt\n"
    bench = Bench("4-level", text)
    bench.run()
    assert bench.reg("rax") == 1002


def test_cr8_keeps_its_value() -> None:
    bench = Bench("4-level", "movl $9, %eax\nmov %rax, %cr8\nmov %cr8, %rbx\nhlt\n")
    bench.run()
    assert bench.reg("rbx") == 9


# ---- I/O privilege ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["protected", "2-level", "pae", "4-level", "compatibility"])
def test_ports_are_closed_to_ring_3_without_a_permission_map(mode: str) -> None:
    bench = Bench(mode, ring_3(mode, "bad: outb %al, $0xe9\n"))
    bench.machine.ram.write(TSS + 0x66, b"\xff\xff")
    assert_refused(bench, "the TSS has no permission map")


@pytest.mark.parametrize("mode", ["protected", "2-level", "pae", "4-level", "compatibility"])
def test_iopl_opens_every_port(mode: str) -> None:
    bench = Bench(mode, ring_3(mode, "movb $0x41, %al\noutb %al, $0xe9\nint $0x42\n", iopl=3))
    bench.gate(0x42, 0x6000 + 4 * 0x42, attributes=0xEE)
    bench.run()
    assert bench.vector == 0x42
    assert [(e.port, e.value) for e in bench.machine.events if isinstance(e, ev.PortAccess)] == [(0xE9, 0x41)]


@pytest.mark.parametrize(
    ("text", "opened"), [("outb %al, $0x80", True), ("outb %al, $0x81", False), ("outw %ax, $0x80", False)]
)
def test_the_permission_map_counts_each_bit_of_the_access(text: str, opened: bool) -> None:
    bench = Bench("4-level", ring_3("4-level", f"bad: {text}\nint $0x42\n"))
    bench.store_tss(bitmap=b"\xff" * 16 + b"\xfe" + b"\xff" * 100)
    bench.gate(0x42, 0x6000 + 4 * 0x42, attributes=0xEE)
    if not opened:
        assert_refused(bench, "the permission map of the TSS forbids it")
        return
    bench.run()
    assert bench.vector == 0x42


def test_ring_0_needs_no_permission() -> None:
    bench = Bench("4-level", "movb $7, %al\noutb %al, $0x80\ninb $0x80, %al\nhlt\n")
    bench.run()
    events = [(e.port, e.value, e.write) for e in bench.machine.events if isinstance(e, ev.PortAccess)]
    assert events[0] == (0x80, 7, True)


# ---- debug registers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["mov %dr6, %rax", "mov %rax, %dr0"])
def test_general_detect_traps_before_an_access_to_a_debug_register(text: str) -> None:
    bench = Bench("4-level", f"movl $0x2400, %eax\nmov %rax, %dr7\nbad: {text}\nhlt\n")
    assert_refused(bench, "DR7.GD=1", vector=1)
    assert bench.reg("dr6") & 0x2000
    assert bench.reg("dr7") & 0x2000 == 0


def test_dr4_needs_cr4_de_clear() -> None:
    assert_refused(
        Bench("4-level", "movl $0x28, %eax\nmov %rax, %cr4\nbad: .byte 0x0f, 0x23, 0xe0\nhlt\n"), "no DR4", vector=6
    )


def test_the_upper_half_of_dr7_is_reserved() -> None:
    assert_refused(Bench("4-level", "bts $40, %rax\nbad: mov %rax, %dr7\nhlt\n"), "upper half of DR7")


def test_an_execution_breakpoint_faults_before_its_instruction() -> None:
    bench = Bench(
        "4-level", "movl $target, %eax\nmov %rax, %dr0\nmovl $1, %eax\nmov %rax, %dr7\nnop\ntarget: incq %rbx\nhlt\n"
    )
    bench.run()
    assert bench.vector == 1
    assert bench.reg("rbx") == 0
    assert bench.stack(1) == [bench.symbols["target"]]
    assert bench.reg("dr6") & 1


# ---- branches out of the canonical space --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["4-level", "5-level"])
@pytest.mark.parametrize(
    "text", ["bad: jmp *%rax", "bad: call *%rax", "pushq %rax\nbad: ret", "pushq %rax\nbad: ret $16"]
)
def test_a_branch_that_is_not_canonical_faults_where_it_stands(mode: str, text: str) -> None:
    bench = Bench(mode, f"movabs $0x4000000000000000, %rax\nnop\n{text}\nhlt\n")
    before = bench.machine.cpu.rsp - (8 if "push" in text else 0)
    bench.run()
    assert bench.vector == 13
    code, rip, _, _, rsp = bench.stack(5)
    assert (code, rip, rsp) == (0, bench.symbols["bad"], before)
    assert "not canonical" in bench.reasons
    assert bench.machine.count.instructions == 2 + ("push" in text) + 1


def test_an_iretq_that_is_not_canonical_faults_where_it_stands() -> None:
    text = (
        "pushq $0x18\npushq $0x8000\npushq $2\npushq $0x10\nmovabs $0x4000000000000000, %rax\npushq %rax\nbad: iretq\n"
    )
    assert_refused(Bench("4-level", text), "IRETQ to 0x4000000000000000")


def test_a_far_return_is_reported_at_its_target() -> None:
    text = "pushq $0x10\nmovabs $0x4000000000000000, %rax\npushq %rax\nlretq\n"
    bench = Bench("4-level", text)
    bench.run()
    assert bench.vector == 13


# ---- mode changes, by guest code ------------------------------------------------------------------------------------


def test_protected_to_long_and_back() -> None:
    text = f"""
        movl $0x20, %eax
        mov %eax, %cr4
        movl ${TABLES}, %eax
        mov %eax, %cr3
        movl $0xc0000080, %ecx
        rdmsr
        orl $0x100, %eax
        wrmsr
        mov %cr0, %eax
        orl $0x80000000, %eax
        mov %eax, %cr0
        ljmp $0x48, $long
    .code64
    long:
        movabs $0x1122334455667788, %rbx
        pushq ${CODE32}
        pushq $back
        lretq
    .code32
    back:
        mov %cr0, %eax
        andl $0x7fffffff, %eax
        mov %eax, %cr0
        hlt
    """
    bench = Bench("protected", text)
    from tests.machine_bench import gdt, store_tables

    store_tables(bench.machine.ram.write, "4-level")
    bench.machine.ram.write(0x1000, gdt(long=True, code64=False))
    assert isinstance(bench.run(), ev.Halted)
    assert bench.vector is None
    changes = [event.new for event in bench.machine.events if isinstance(event, ev.ModeChange)]
    assert changes == ["32-bit compatibility 4-level", "32-bit protected"]
    assert bench.reg("rbx") == 0x1122334455667788
    writes = [(e.register, e.old, e.new) for e in bench.machine.events if isinstance(e, ev.ControlWrite)]
    assert ("cr4", 0, 0x20) in writes
    assert ("cr3", 0, TABLES) in writes
    assert ("efer", 0, 0x100) in writes


def test_a_system_call_and_the_way_back() -> None:
    """SYSCALL masks flags and keeps RIP and RFLAGS; SYSRET gives both back, at CPL 3."""
    msr = "movl ${:#x}, %ecx\nmovl ${:#x}, %edx\nmovl ${}, %eax\nwrmsr\n"
    text = (
        msr.format(0xC0000081, 0x00100010, 0)
        + msr.format(0xC0000082, 0, "handler")
        + msr.format(0xC0000084, 0, 0x400)
        + "movl $0xc0000080, %ecx\nrdmsr\norl $1, %eax\nwrmsr\n"
        + ring_3("4-level", "std\nsyscall\nback: mov %cs, %edi\nint $0x42\n")
        + "handler: pushf\npopq %rsi\nmov %cs, %ebx\nmov %ss, %ebp\nsysretq\n"
    )
    bench = Bench("4-level", text)
    bench.gate(0x42, HANDLERS + 4 * 0x42, attributes=0xEE)
    bench.run()
    assert bench.vector == 0x42
    assert (bench.reg("rcx"), bench.reg("r11") & 0x400, bench.reg("rsi") & 0x400) == (bench.symbols["back"], 0x400, 0)
    assert (bench.reg("rbx"), bench.reg("rbp"), bench.reg("rdi")) == (0x10, 0x18, USER_CODE)
    assert bench.stack(5)[2] & 0x400, "the frame has the flags of ring 3"


def test_sysret_to_an_address_that_is_not_canonical_faults_in_ring_0() -> None:
    text = "movl $0xc0000080, %ecx\nrdmsr\nor $1, %eax\nwrmsr\nmovabs $0x4000000000000000, %rcx\nbad: sysretq\n"
    assert_refused(Bench("4-level", text), "not canonical")


def test_sysenter_needs_its_code_segment() -> None:
    assert_refused(Bench("protected", "bad: sysenter\n"), "SYSENTER_CS")
    assert_refused(Bench("protected", "bad: sysexit\n"), "SYSENTER_CS")


def test_syscall_without_sce_is_undefined() -> None:
    assert_refused(Bench("4-level", "bad: syscall\n"), "EFER.SCE=0", vector=6)


def test_the_trap_flag_traps_behind_instructions_that_the_host_does() -> None:
    """RDTSC never reaches the engine, CR writes do: both trap behind themselves."""
    for text in ("rdtsc", "mov %cr3, %rax", "mov %rdx, %cr2", "mov %rbx, %cr0", "cpuid"):
        code = f"mov %cr0, %rbx\npushf\norl $0x100, (%rsp)\npopf\n{text}\nbehind: nop\nhlt\n"
        bench = Bench("4-level", code)
        bench.run()
        assert bench.vector == 1, text
        assert bench.stack(1) == [bench.symbols["behind"]], text


def test_string_port_instructions_do_each_iteration() -> None:
    bench = Bench("4-level", f"movl ${DATA}, %esi\nmovl $3, %ecx\nmovw $0xe9, %dx\nrep outsb\nhlt\n")
    bench.machine.ram.write(DATA, b"abc")
    bench.run()
    assert [e.value for e in bench.machine.events if isinstance(e, ev.PortAccess)] == [0x61, 0x62, 0x63]
    assert bench.reg("rsi") == DATA + 3
    assert bench.machine.count.instructions == 5
