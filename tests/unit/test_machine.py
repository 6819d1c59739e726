"""The run loop: exceptions and interrupts through the guest's own tables, time, devices, breakpoints, memory."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from emu.machine import events as ev
from emu.machine.loop import LONGEST_WAIT
from emu.x86.bits import Efer, Eflags
from emu.x86.segments import TableRegister
from tests.machine_bench import (
    CODE,
    DATA,
    HANDLERS,
    HOLE,
    IDT,
    LONG_MODES,
    MODES,
    ROM,
    STACK,
    TSS_STACK,
    USER_CODE,
    USER_DATA,
    Bench,
    guest_state,
)

PAGED = ("2-level", "pae", "4-level", "5-level", "compatibility")
TO_RING_3_32 = f"""
    movw $0x30, %ax
    ltr %ax
    pushl ${USER_DATA}
    pushl $0x8000
    pushl $0x202
    pushl ${USER_CODE}
    pushl $user
    iret
user:
"""
TO_RING_3_64 = f"""
    movw $0x30, %ax
    ltr %ax
    pushq ${USER_DATA}
    pushq $0x8000
    pushq $0x202
    pushq ${USER_CODE}
    pushq $user
    iretq
user:
"""


def to_ring_3(mode: str) -> str:
    return TO_RING_3_64 if mode in ("4-level", "5-level") else TO_RING_3_32


# ---- exceptions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_divide_error_arrives_at_its_handler_with_the_faulting_instruction_in_the_frame(mode: str) -> None:
    bench = Bench(mode, "xor %ecx, %ecx\nbad: div %ecx\nhlt\n")
    assert isinstance(bench.run(), ev.Halted)
    assert bench.vector == 0
    bad = bench.symbols["bad"] - (CODE if mode == "real" else 0)
    top, selector, flags = bench.stack(3, 8 if mode in LONG_MODES else None)
    assert (top, selector) == (bad, CODE >> 4 if mode == "real" else 0x10)
    assert flags & 2
    assert bench.faults == [(0, None, bench.symbols["bad"])]


@pytest.mark.parametrize("mode", MODES)
def test_an_undefined_instruction(mode: str) -> None:
    bench = Bench(mode, "nop\nbad: ud2\n")
    bench.run()
    assert bench.vector == 6
    assert bench.faults == [(6, None, bench.symbols["bad"])]


@pytest.mark.parametrize("mode", PAGED)
def test_a_page_fault_has_cr2_and_its_error_code(mode: str) -> None:
    bench = Bench(mode, "movl $1, 0x7008\n")
    bench.machine.ram.write(bench.leaf(0x7000), bytes(4))
    bench.run()
    assert bench.vector == 14
    assert bench.reg("cr2") == 0x7008
    assert bench.stack(1, 8 if mode in LONG_MODES else 4) == [2]


@pytest.mark.parametrize("mode", MODES)
def test_a_software_interrupt_returns_behind_itself(mode: str) -> None:
    bench = Bench(mode, "int $0x42\nback: movw $7, %bx\nhlt\n")
    bench.gate(0x42, 0x5000)
    bench.machine.ram.write(0x5000, {True: b"\x48\xcf"}.get(mode in LONG_MODES, b"\xcf"))
    assert isinstance(bench.run(), ev.Halted)
    assert bench.reg("rbx") & 0xFFFF == 7
    assert bench.machine.count.instructions == 4
    assert bench.machine.cpu.rsp == STACK


@pytest.mark.parametrize("mode", PAGED)
def test_ring_change_takes_the_stack_from_the_tss(mode: str) -> None:
    bench = Bench(mode, to_ring_3(mode) + "int $0x42\nback: nop\n")
    bench.gate(0x42, HANDLERS + 4 * 0x42, attributes=0xEE)
    bench.run()
    assert bench.vector == 0x42
    width = 8 if mode in LONG_MODES else 4
    rip, cs, _, rsp, ss = bench.stack(5, width)
    assert (rip, cs, rsp, ss) == (bench.symbols["back"], USER_CODE, 0x8000, USER_DATA)
    assert bench.machine.cpu.rsp == TSS_STACK - 5 * width
    assert bench.machine.cpu.cpl == 0


@pytest.mark.parametrize("mode", PAGED)
def test_a_gate_of_ring_0_refuses_a_software_interrupt_of_ring_3(mode: str) -> None:
    bench = Bench(mode, to_ring_3(mode) + "bad: int $0x42\n")
    bench.run()
    assert bench.vector == 13
    assert bench.stack(1, 8 if mode in LONG_MODES else 4) == [0x42 << 3 | 2]
    assert bench.stack(2, 8 if mode in LONG_MODES else 4)[1] == bench.symbols["bad"]


@pytest.mark.parametrize("mode", ["4-level", "5-level"])
def test_an_ist_gate_changes_the_stack_without_a_ring_change(mode: str) -> None:
    bench = Bench(mode, "movw $0x30, %ax\nltr %ax\nud2\n")
    bench.gate(6, HANDLERS + 24, ist=1)
    bench.run()
    assert bench.vector == 6
    assert bench.machine.cpu.rsp == TSS_STACK - 0x400 - 40
    assert bench.stack(4)[3] == STACK


@pytest.mark.parametrize("mode", PAGED)
def test_a_fault_while_a_page_fault_is_delivered_is_a_double_fault(mode: str) -> None:
    bench = Bench(mode, "movl 0x7000, %eax\n")
    bench.machine.ram.write(bench.leaf(0x7000), bytes(4))
    bench.gate(14, HANDLERS + 56, attributes=0x0E)
    bench.run()
    assert bench.vector == 8
    assert bench.stack(1, 8 if mode in LONG_MODES else 4) == [0]


@pytest.mark.parametrize("mode", MODES)
def test_no_idt_is_a_triple_fault_with_its_chain(mode: str) -> None:
    bench = Bench(mode, "nop\nbad: ud2\n")
    bench.machine.engine.idtr = TableRegister(0, 0)
    before = bench.reg("rsp")
    outcome = bench.run()
    assert isinstance(outcome, ev.TripleFault)
    assert outcome.pc == bench.symbols["bad"]
    assert [failure.vector for failure in outcome.chain] == [6, 13, 8]
    assert all("limit" in failure.why for failure in outcome.chain)
    assert bench.reg("rsp") == before


def test_the_tables_of_a_triple_fault_name_the_unmapped_idt() -> None:
    bench = Bench("4-level", "ud2\n")
    bench.machine.ram.write(bench.leaf(IDT), bytes(8))
    outcome = bench.run()
    assert isinstance(outcome, ev.TripleFault)
    assert [failure.vector for failure in outcome.chain] == [6, 14, 8]
    assert f"{IDT + 0x60:#x}" in outcome.chain[0].why


def test_three_faults_in_a_row_are_three_faults() -> None:
    """The engine pairs faults by itself unless it is told to forget each."""
    bench = Bench("4-level", "xor %ecx, %ecx\nagain: div %ecx\nhlt\n")
    bench.gate(0, bench.symbols["again"])
    bench.machine.run(6)
    assert [vector for vector, _, _ in bench.faults][:3] == [0, 0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_the_trap_flag_traps_behind_the_next_instruction(mode: str) -> None:
    flags = "pushf\npop %ax\nor $0x100, %ax\npush %ax\n" if mode == "real" else "pushf\norl $0x100, (%esp)\n"
    if mode in ("4-level", "5-level"):
        flags = "pushf\norl $0x100, (%rsp)\n"
    bench = Bench(mode, flags + "popf\nfirst: nop\nsecond: nop\nhlt\n")
    bench.run()
    assert bench.vector == 1
    where = bench.symbols["second"] - (CODE if mode == "real" else 0)
    assert bench.stack(1, 8 if mode in LONG_MODES else None) == [where]
    assert bench.reg("rflags") & 0x100 == 0
    assert bench.reg("dr6") & 0x4000
    assert bench.machine.count.instructions == bench_count(mode) + 2


def bench_count(mode: str) -> int:
    """Instructions up to and with POPF and the NOP behind it, less the HLT of the handler."""
    return {"real": 5}.get(mode, 3)


# ---- external interrupts and their shadows ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_an_injected_irq_is_delivered_between_two_instructions(mode: str) -> None:
    bench = Bench(mode, "nop\nhere: nop\nhlt\n")
    bench.machine.step()
    bench.machine.inject_irq(0x55)
    bench.run()
    assert bench.vector == 0x55
    where = bench.symbols["here"] - (CODE if mode == "real" else 0)
    assert bench.stack(1, 8 if mode in LONG_MODES else None) == [where]
    assert [event.vector for event in bench.machine.events if isinstance(event, ev.Interrupt)] == [0x55]


def unmask(bench: Bench) -> None:
    """Timer line up now, vector 0x20, as a remapped and unmasked PIC has it."""
    bus = bench.machine.board.bus
    for port, value in (
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0xA0, 0x11),
        (0xA1, 0x28),
        (0xA1, 2),
        (0xA1, 1),
    ):
        bus.write(port, 1, value)
    bus.write(0x21, 1, 0xFE)
    bus.write(0xA1, 1, 0xFF)
    bench.machine.board.pic.set_line(0, True)


def interrupted_at(bench: Bench) -> int:
    interrupt = next(event for event in bench.machine.events if isinstance(event, ev.Interrupt))
    return interrupt.pc


@pytest.mark.parametrize("mode", MODES)
def test_sti_holds_an_interrupt_back_for_one_instruction(mode: str) -> None:
    bench = Bench(mode, "nop\nsti\nshadow: nop\ntaken: nop\nhlt\n")
    unmask(bench)
    bench.run()
    assert interrupted_at(bench) == bench.symbols["taken"]
    assert bench.vector == 0x20


def test_an_sti_behind_an_sti_has_no_shadow() -> None:
    bench = Bench("4-level", "sti\nsti\ntaken: nop\nhlt\n")
    unmask(bench)
    bench.run()
    assert interrupted_at(bench) == bench.symbols["taken"]


@pytest.mark.parametrize("mode", MODES)
def test_mov_ss_holds_an_interrupt_back_for_one_instruction(mode: str) -> None:
    bench = Bench(mode, "mov %ss, %ax\nsti\nnop\nloads: mov %ax, %ss\nshadow: nop\ntaken: nop\nhlt\n")
    bench.machine.break_at(bench.symbols["loads"])
    bench.run()
    bench.machine.clear_break(bench.symbols["loads"])
    bench.machine.step()
    unmask(bench)
    bench.run()
    assert interrupted_at(bench) == bench.symbols["taken"]


def test_an_nmi_waits_behind_mov_ss_too() -> None:
    bench = Bench("4-level", "mov %ss, %ax\nmov %ax, %ss\nshadow: nop\ntaken: nop\nhlt\n")
    bench.machine.step()
    bench.machine.step()
    bench.machine.inject_nmi()
    bench.run()
    assert bench.vector == 2
    assert interrupted_at(bench) == bench.symbols["taken"]


@pytest.mark.parametrize("mode", MODES)
def test_an_nmi_is_blocked_until_iret(mode: str) -> None:
    bench = Bench(mode, "nop\nnop\nnop\nhlt\n")
    iret = b"\x48\xcf" if mode in LONG_MODES else b"\xcf"
    bench.gate(2, 0x5000)
    bench.machine.ram.write(0x5000, b"\x90\x90" + iret)
    bench.machine.inject_nmi()
    bench.machine.step()
    bench.machine.inject_nmi()
    assert bench.machine.cpu.nmi_blocked
    bench.run()
    assert [event.pc for event in bench.machine.events if isinstance(event, ev.Interrupt)] == [CODE, CODE]
    assert not bench.machine.cpu.nmi_blocked


def test_a_masked_interrupt_waits_for_sti() -> None:
    bench = Bench("4-level", "nop\nnop\nsti\nnop\ntaken: nop\nhlt\n")
    unmask(bench)
    bench.run()
    assert interrupted_at(bench) == bench.symbols["taken"]


@pytest.mark.parametrize("plain", [False, True])
def test_an_interrupt_between_two_iterations_sees_the_registers_of_that_iteration(plain: bool) -> None:
    text = f"movl ${DATA}, %edi\nmovl $1000, %ecx\nsti\nnop\ncopy: rep stosl\nafter: hlt\n"
    bench = Bench("4-level", text, plain_strings=plain)
    bench.gate(0x20, 0x5000)
    bench.machine.ram.write(0x5000, b"\x48\x89\xcb\xf4")  # mov %rcx,%rbx; hlt
    bench.machine.run(50)
    unmask(bench)
    bench.run()
    interrupt = next(event for event in bench.machine.events if isinstance(event, ev.Interrupt))
    assert interrupt.position == ev.Position(4, 46)
    assert bench.reg("rbx") == 1000 - 46
    assert interrupt.pc == bench.symbols["copy"]
    assert bench.stack(3)[2] & 0x10000, "RF is set in the frame of an interrupted string instruction"


@pytest.mark.parametrize("ticks", [1, 3, 100])
@pytest.mark.parametrize(
    "between", ["nop\n", "jmp on\non: nop\nnop\n", "mov %cr0, %rax\n", "cpuid\n", "outb %al, $0x80\n"]
)
def test_rf_is_for_one_instruction(between: str, ticks: int) -> None:
    """The handler's IRETQ loads it, and the instruction behind that drops it."""
    bench = Bench("4-level", f"bad: ud2\nbehind: {between}last: hlt\nhandler: addq $2, (%rsp)\niretq\n")
    bench.gate(6, bench.symbols["handler"])
    seen = {}
    while isinstance(bench.run(ticks), ev.StepLimit):
        seen[bench.machine.cpu.pc] = bench.reg("rflags") & Eflags.RF
    assert bench.reg("rflags") & Eflags.RF == 0
    if ticks == 1:
        assert seen[bench.symbols["behind"]]
        assert seen[bench.symbols["last"]] == 0


@pytest.mark.parametrize(
    ("arithmetic", "flags"),
    [
        ("movb $0xff, %al\naddb $1, %al\n", 0x55),
        ("movb $0x80, %al\nsubb $1, %al\n", 0x810),
        ("xorl %eax, %eax\ncmpl $1, %eax\n", 0x95),
        ("movl $0x80000001, %eax\nshll $1, %eax\ndecl %eax\n", 0x001),
        ("stc\n", 0x01),
    ],
)
@pytest.mark.parametrize(
    "fault", ["movl 0x400000, %ecx\n", "movl %ebx, %es\n", "movl $1, 0x400000\n"], ids=["load", "segment", "store"]
)
def test_the_frame_of_a_fault_has_the_flags_before_it(fault: str, arithmetic: str, flags: int) -> None:
    """The instruction before it is of the same block, and has left its flags to be computed."""
    affected = 0x8C5 if "shll" in arithmetic else 0x8D5
    bench = Bench("4-level", f"movl $0x7fff, %ebx\n{arithmetic}{fault}")
    bench.run()
    assert bench.vector in (13, 14)
    assert bench.stack(4)[3] & affected == flags & affected


# ---- time, HLT, devices ----------------------------------------------------------------------------------------

PIT_ONE_SHOT = """
    movb $0x30, %al
    outb %al, $0x43
    movb $100, %al
    outb %al, $0x40
    movb $0, %al
    outb %al, $0x40
"""


def test_hlt_waits_in_virtual_time_for_the_timer() -> None:
    bench = Bench("4-level", PIT_ONE_SHOT + "sti\nhlt\nwoken: nop\n")
    unmask(bench)
    bench.machine.board.pic.set_line(0, False)
    assert isinstance(bench.run(), ev.Halted)
    assert bench.vector == 0x20
    assert interrupted_at(bench) == bench.symbols["woken"]
    assert bench.machine.count.idle_ticks > 6000
    assert bench.machine.count.instructions == 9


def test_hlt_that_nothing_can_wake_ends_the_run_though_a_timer_goes_on() -> None:
    bench = Bench("4-level", PIT_ONE_SHOT.replace("$0x30", "$0x34").replace("$100", "$0") + "sti\nhlt\n")
    bench.machine.board.pic.set_line(0, False)
    assert isinstance(bench.run(), ev.Halted)
    assert 0 < bench.machine.count.idle_ticks <= LONGEST_WAIT
    assert bench.machine.board.bus.next_deadline() is not None


def test_hlt_without_interrupts_ends_the_run() -> None:
    bench = Bench("4-level", PIT_ONE_SHOT + "cli\nhlt\n")
    assert isinstance(bench.run(), ev.Halted)
    assert bench.machine.count.idle_ticks == 0


def test_a_device_acts_at_its_tick_whatever_the_slices() -> None:
    text = PIT_ONE_SHOT + "sti\nspin: incq %rbx\njmp spin\n"
    counts = []
    for size in (100_000, 777):
        bench = Bench("4-level", text)
        unmask(bench)
        bench.machine.board.pic.set_line(0, False)
        outcome: ev.Outcome = ev.StepLimit(0)
        while isinstance(outcome, ev.StepLimit):
            outcome = bench.machine.run(size)
        counts.append((bench.reg("rbx"), bench.machine.count.ticks, bench.vector))
    assert counts[0] == counts[1]
    assert counts[0][2] == 0x20


def test_the_step_limit_is_exact() -> None:
    bench = Bench("4-level", "spin: jmp spin\n")
    assert bench.machine.run(12345) == ev.StepLimit(12345)
    assert bench.machine.count.ticks == 12345


def test_the_same_run_twice_is_the_same_to_the_last_event() -> None:
    text = PIT_ONE_SHOT + f"sti\nmovl ${DATA}, %edi\nmovl $0x300, %ecx\nrep stosl\nrdtsc\nspin: incq %rbx\njmp spin\n"
    seen = []
    for _ in range(2):
        bench = Bench("4-level", text)
        unmask(bench)
        bench.run()
        seen.append((guest_state(bench.machine), bench.machine.events))
    assert seen[0] == seen[1]
    assert seen[0][1]


def test_the_time_stamp_counter_is_virtual() -> None:
    bench = Bench("4-level", "nop\nnop\nrdtsc\nmovl %eax, %ebx\nnop\nrdtsc\nhlt\n")
    bench.run()
    assert (bench.reg("rbx"), bench.reg("rax"), bench.reg("rdx")) == (2, 5, 0)


# ---- memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_hole_reads_all_ones_and_drops_stores_and_both_are_reported(mode: str) -> None:
    if mode == "real":
        text = "movw $0xa000, %ax\nmovw %ax, %ds\nmovb $1, 4\nmovw 8, %bx\nhlt\n"
    else:
        text = f"movb $1, {HOLE + 4}\nmovw {HOLE + 8}, %bx\nhlt\n"
    bench = Bench(mode, text)
    bench.run()
    assert bench.reg("rbx") & 0xFFFF == 0xFFFF
    errors = [(e.address, e.size, e.access) for e in bench.machine.events if isinstance(e, ev.BusError)]
    assert errors == [(HOLE + 4, 1, "store into a hole"), (HOLE + 8, 2, "read of a hole")]


def test_rom_drops_stores_and_says_so() -> None:
    bench = Bench("4-level", f"movl $1, {ROM + 0x10}\nmovl {ROM + 0x10}, %ebx\nhlt\n")
    bench.machine.ram.write_rom(ROM + 0x10, b"\x78\x56\x34\x12")
    assert isinstance(bench.run(), ev.Halted)
    assert bench.reg("rbx") == 0x12345678
    errors = [(e.address, e.size, e.access, e.pc) for e in bench.machine.events if isinstance(e, ev.BusError)]
    assert errors == [(ROM + 0x10, 4, "store into ROM", CODE)]


@pytest.mark.parametrize("mode", PAGED)
def test_a_page_table_in_a_hole_reads_all_ones(mode: str) -> None:
    bench = Bench(mode, "movl 0x200000, %eax\nhlt\n")
    if mode == "2-level":
        # All ones is a present 4 KiB page at the top of the space, which is a hole too: no bit of it is reserved.
        bench.machine.ram.write(0x20000 + 0, (0x21000 | 7).to_bytes(4, "little"))
        text = Bench(mode, "movl 0x400000, %eax\nhlt\n")
        text.machine.ram.write(0x20004, (HOLE | 7).to_bytes(4, "little"))
        text.run()
        assert text.reg("rax") == 0xFFFFFFFF
        assert text.vector is None
        return
    bench.machine.ram.write(0x23008, (HOLE | 7).to_bytes(8, "little"))
    bench.run()
    assert bench.vector == 14
    assert bench.stack(1, 8 if mode in LONG_MODES else 4)[0] & 9 == 9, "present, reserved bits set"
    assert bench.reg("cr2") == 0x200000


@pytest.mark.parametrize("mode", MODES)
def test_a_fetch_from_a_hole_is_undefined(mode: str) -> None:
    text = "ljmp $0xa000, $0\n" if mode == "real" else f"movl ${HOLE}, %eax\njmp *%eax\n"
    if mode in ("4-level", "5-level"):
        text = f"movl ${HOLE}, %eax\njmp *%rax\n"
    bench = Bench(mode, text)
    bench.run()
    assert bench.vector == 6
    assert [(e.address, e.access) for e in bench.machine.events if isinstance(e, ev.BusError)] == [
        (HOLE, "fetch from a hole")
    ]


@pytest.mark.parametrize("mode", PAGED)
@pytest.mark.parametrize("executable", [False, True])
@pytest.mark.parametrize(
    "text", ["nop\nmovl {page}, %eax\nhlt\n", "movl ${page}, %esi\nmovl $9, %ecx\nrep lodsb\nhlt\n"]
)
def test_a_read_from_the_page_behind_the_code_is_no_fetch(mode: str, text: str, *, executable: bool) -> None:
    page = CODE + 0x1000
    bench = Bench(mode, text.format(page=page))
    machine = bench.machine
    if mode != "2-level" and not executable:
        machine.engine.efer |= Efer.NXE
        machine.engine.settle()
    machine.write_tables([(bench.leaf(page), bytes(4))])
    outcome = bench.run()
    lines = [line.address for line in bench.image.lines if line.size]
    assert isinstance(outcome, ev.Halted)
    assert bench.faults == [(14, 0, lines[-2])]
    assert machine.count.instructions == len(lines) - 2 + 1, "those before it, and the handler's"
    assert bench.reg("cr2") == page


def test_a_host_write_over_executed_code_is_fetched_anew() -> None:
    bench = Bench("4-level", "movl $1, %eax\nhlt\n")
    bench.run()
    bench.machine.ram.write(CODE + 1, b"\x02")
    bench.machine.cpu.rip = CODE
    bench.run()
    assert bench.reg("rax") == 2


# ---- breakpoints, single steps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_breakpoint_stops_before_its_instruction_and_is_passed_on_the_next_run(mode: str) -> None:
    bench = Bench(mode, "nop\nhere: movw $1, %bx\nhlt\n")
    bench.machine.break_at(bench.symbols["here"])
    assert bench.run() == ev.Breakpoint(bench.symbols["here"])
    assert bench.reg("rbx") == 0
    assert isinstance(bench.run(), ev.Halted)
    assert bench.reg("rbx") & 0xFFFF == 1


def test_a_breakpoint_in_a_loop_stops_each_time() -> None:
    bench = Bench("4-level", "movl $3, %ecx\nagain: nop\nhere: decl %ecx\njnz again\nhlt\n")
    bench.machine.break_at(bench.symbols["here"])
    outcomes = [bench.run() for _ in range(4)]
    assert outcomes[:3] == [ev.Breakpoint(bench.symbols["here"])] * 3
    assert isinstance(outcomes[3], ev.Halted)


def test_a_breakpoint_on_a_jump_to_itself_stops_each_time() -> None:
    bench = Bench("4-level", "here: jmp here\n")
    bench.machine.break_at(bench.symbols["here"])
    assert [bench.run() for _ in range(2)] == [ev.Breakpoint(bench.symbols["here"])] * 2
    assert bench.machine.count.ticks == 2


def test_break_outside_stops_at_the_first_instruction_elsewhere() -> None:
    bench = Bench("4-level", "nop\ncall 0x30000\nhlt\n")
    bench.machine.ram.write(0x30000, b"\x90\xc3")
    bench.machine.break_outside([CODE])
    assert bench.run() == ev.Breakpoint(0x30000)
    bench.machine.clear_break_in()
    assert isinstance(bench.run(), ev.Halted)


STEPPED = {
    "mov ss": ("mov %ss, %ax\nmov %ax, %ss\nnop\nnop\nhlt\n", 5),
    "sti": ("sti\nnop\ncli\nhlt\n", 4),
    "rep": (f"movl ${DATA}, %edi\nmovl $600, %ecx\nrep stosb\nnop\nhlt\n", 5),
    "rep with count 0": (f"movl ${DATA}, %edi\nxor %ecx, %ecx\nrep stosb\nnop\nhlt\n", 5),
    "rep with count 1": (f"movl ${DATA}, %edi\nmovl $1, %ecx\nrep stosb\nnop\nhlt\n", 5),
    "jump to itself": ("movl $3, %ecx\nagain: loop again\nhlt\n", 5),
    "store into its own block": ("movb $0x90, patch\nnop\npatch: nop\nhlt\n", 4),
    "overwrites itself": ("again: movb $0x90, again\nnop\nhlt\n", 3),
    "overwrites the next instruction": ("movb $0xf4, next\nnext: nop\nnop\n", 2),
    "cpuid and port": ("cpuid\noutb %al, $0xed\ninb $0xed, %al\nhlt\n", 4),
}


@pytest.mark.parametrize("mode", ["protected", "2-level", "4-level", "compatibility"])
@pytest.mark.parametrize("name", STEPPED)
def test_a_step_retires_exactly_one_instruction_of_any_kind(name: str, mode: str) -> None:
    text, count = STEPPED[name]
    stepped, whole = Bench(mode, text), Bench(mode, text)
    retired = []
    for _ in range(count):
        before = stepped.machine.count.instructions
        stepped.machine.step()
        retired.append(stepped.machine.count.instructions - before)
    whole.run()
    assert retired == [1] * count
    assert guest_state(stepped.machine) == guest_state(whole.machine)


@pytest.mark.parametrize("mode", MODES)
def test_a_step_over_a_fault_ends_in_the_handler(mode: str) -> None:
    bench = Bench(mode, "xor %ecx, %ecx\ndiv %ecx\n")
    assert bench.steps() == [CODE, CODE + len(bench.image.code) - 2, HANDLERS] or bench.vector == 0
    assert bench.vector == 0


def test_code_that_overwrites_itself_runs_alike_stepped_and_whole() -> None:
    text = "movl $5, %ecx\nagain: nop\nmovb $0x42, patch\nnop\npatch: nop\ndecl %ecx\njnz again\nhlt\n"
    stepped, whole, sliced = (Bench("protected", text) for _ in range(3))
    stepped.steps()
    whole.run()
    while not isinstance(sliced.machine.run(3), ev.Halted):
        pass
    assert guest_state(stepped.machine) == guest_state(whole.machine) == guest_state(sliced.machine)
    assert whole.machine.count.instructions == 2 + 6 * 5
    assert whole.reg("rdx") == 5


# ---- two speeds, many machines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_fast_and_strict_machines_give_the_same_results(mode: str) -> None:
    string = "movw $0x3000, %di\nmovw $300, %cx\nrep stosw\n"
    if mode != "real":
        string = f"movl ${DATA}, %edi\nmovl $300, %ecx\nrep stosw\n"
    text = string + "pushf\npop %bx\nmov %cr0, %eax\nmov %eax, %cr0\nint3\n"
    if mode in ("4-level", "5-level"):
        text = string + "pushf\npop %rbx\nmov %cr0, %rax\nmov %rax, %cr0\nint3\n"
    elif mode != "real":
        text = string + "pushf\npop %ebx\nmov %cr0, %eax\nmov %eax, %cr0\nint3\n"
    states = []
    for strict in (True, False):
        bench = Bench(mode, text, strict=strict)
        bench.machine.policy.forbid([DATA >> 12], "B")
        bench.run()
        assert bench.vector == 3
        states.append(guest_state(bench.machine))
    assert states[0] == states[1]


def test_closing_gives_everything_back_and_may_be_repeated() -> None:
    bench = Bench("4-level", "hlt\n")
    bench.run()
    bench.machine.close()
    bench.machine.close()
    assert not bench.machine.ram.banks


def test_fifty_machines_leave_nothing_behind() -> None:
    def mappings() -> int:
        gc.collect()
        return len(Path("/proc/self/maps").read_text(encoding="ascii").splitlines())

    def one() -> None:
        bench = Bench("4-level", "hlt\n")
        bench.run()
        bench.machine.close()

    one()
    before = mappings()
    for _ in range(50):
        one()
    assert mappings() < before + 20


def test_a_machine_without_close_still_runs_after_another_was_closed() -> None:
    kept = Bench("4-level", "movl $5, %eax\nhlt\n")
    other = Bench("4-level", "hlt\n")
    other.machine.close()
    kept.run()
    assert kept.reg("rax") == 5


# ---- the end of a page -----------------------------------------------------------------------------------------


def end_of_page(mode: str, code: bytes, text: str = "") -> Bench:
    """``code`` at the end of page 0x40000, entered by a jump."""
    wide = "%rax" if mode in ("4-level", "5-level") else "%eax"
    bench = Bench(mode, f"{text}movl ${0x41000 - len(code):#x}, %eax\njmp *{wide}\n")
    bench.machine.ram.write(0x41000 - len(code), code)
    return bench


@pytest.mark.parametrize("mode", PAGED)
@pytest.mark.parametrize(
    ("code", "crossing"), [(b"\x90" * 16, 0), (b"\x90" * 14 + b"\xb8\x01", 2), (b"\x0f\xa2\x90", 0)]
)
def test_code_runs_up_to_a_page_that_is_not_there(mode: str, code: bytes, crossing: int) -> None:
    bench = end_of_page(mode, code)
    bench.machine.ram.write(bench.leaf(0x41000), bytes(4))
    bench.run()
    assert bench.vector == 14
    assert bench.reg("cr2") == 0x41000
    assert bench.faults == [(14, 0, 0x41000 - crossing)]
    retired = 14 if crossing else {16: 16, 3: 2}[len(code)]
    assert bench.machine.count.instructions == 2 + retired + 1


@pytest.mark.parametrize("mode", PAGED)
def test_code_is_stepped_up_to_a_page_that_is_not_there(mode: str) -> None:
    bench = end_of_page(mode, b"\x90" * 3)
    bench.machine.ram.write(bench.leaf(0x41000), bytes(4))
    assert bench.steps()[2:5] == [0x40FFD, 0x40FFE, 0x40FFF]
    assert bench.vector == 14


@pytest.mark.parametrize("mode", ["protected", "4-level"])
def test_code_runs_up_to_a_hole(mode: str) -> None:
    bench = Bench(mode, f"movl $0x9effc, %eax\njmp *{'%rax' if mode == '4-level' else '%eax'}\n")
    bench.machine.ram.write(0x9EFFC, b"\x90" * 4)
    bench.run()
    assert bench.vector == 6
    assert bench.faults == [(6, None, 0x9F000)]
    assert bench.machine.count.instructions == 2 + 4 + 1


def test_a_loop_at_the_end_of_a_page_before_one_that_is_not_there() -> None:
    bench = end_of_page("4-level", b"\xff\xc1\x83\xf9\x32\x75\xf9\x90", "xor %ecx, %ecx\n")
    bench.machine.ram.write(bench.leaf(0x41000), bytes(4))
    bench.run()
    assert (bench.vector, bench.reg("rcx")) == (14, 50)
    assert bench.machine.count.instructions == 3 + 150 + 1 + 1
