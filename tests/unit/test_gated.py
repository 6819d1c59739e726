"""A gated machine does what any machine does: the tests of instructions and of the run loop, run on one.

What it does otherwise is listed here with its reason, and in docs/FAITHFULNESS.md.
"""

from __future__ import annotations

import inspect

import pytest

from emu.assembler.lengths import movable_size
from emu.errors import EngineError
from emu.kexec.e820 import MemoryMap
from emu.machine import blocks, start
from emu.machine import events as ev
from emu.machine.blocks import Blocks
from emu.machine.gated import GatedMachine
from emu.machine.gates import Gate, function_at
from emu.machine.hostcode import _loaded, protect
from emu.machine.machine import Machine
from emu.x86.cpuid import BRAND
from tests import machine_bench
from tests.machine_bench import CODE, DATA, Bench, guest_state
from tests.unit import test_instructions, test_machine
from tests.unit.test_instructions import ring_3

NO_REASON = "the engine refuses it itself, so there is no reason of ours"
ITERATIONS = "each iteration of a repeated string instruction is an instruction"
NO_SEARCH = "code is not searched for branches: #GP has RIP = target"
OTHERWISE = {
    "test_ring_3_may_not": NO_REASON,
    "test_control_registers_that_do_not_exist": NO_REASON,
    "test_a_branch_that_is_not_canonical_faults_where_it_stands": NO_SEARCH,
    "test_an_iretq_that_is_not_canonical_faults_where_it_stands": NO_SEARCH,
    "test_string_port_instructions_do_each_iteration": ITERATIONS,
    "test_an_interrupt_between_two_iterations_sees_the_registers_of_that_iteration": ITERATIONS,
    "test_a_step_retires_exactly_one_instruction_of_any_kind": ITERATIONS,
    "test_a_repeated_instruction_is_one_and_a_tick_for_each_iteration": ITERATIONS,
    "test_a_fault_in_an_iteration_has_its_position_and_is_not_counted": ITERATIONS,
}


class Recording(GatedMachine):
    """A gated machine that keeps its events, as the tests want them."""

    def __init__(self, memory_map: MemoryMap, *, strict: bool = True, plain_strings: bool = False) -> None:
        del strict, plain_strings
        super().__init__(memory_map)
        self.listeners.append(self.events.append)


@pytest.fixture(autouse=True)
def _gated(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.function.__module__ != __name__:
        monkeypatch.setattr(machine_bench, "Machine", Recording)


for module in (test_instructions, test_machine):
    for name, value in list(vars(module).items()):
        borrowed = name.startswith("test_") and inspect.isfunction(value) and value.__module__ == module.__name__
        if borrowed and name not in OTHERWISE:
            globals()[name] = value


def gated(monkeypatch: pytest.MonkeyPatch, mode: str, text: str) -> Bench:
    """A bench whose machine is a gated one."""
    monkeypatch.setattr(machine_bench, "Machine", Recording)
    return Bench(mode, text)


def wrmsr(number: int, high: int, low: str) -> str:
    return f"movl ${number:#x}, %ecx\nmovl ${high:#x}, %edx\nmovl ${low}, %eax\nwrmsr\n"


SYSCALLS = (
    wrmsr(0xC0000081, 0x00100010, "0")
    + wrmsr(0xC0000082, 0, "handler")
    + wrmsr(0xC0000084, 0, "0x200")
    + "movl $0xc0000080, %ecx\nrdmsr\norl $1, %eax\nwrmsr\nxorl %ebx, %ebx\n"
    + ring_3("4-level", "syscall\nback: syscall\nsyscall\nud2\n")
    + "handler: incl %ebx\ncmpl $3, %ebx\nje out\nsysretq\nout: movl %ecx, %esi\nmov %cs, %edi\nhlt\n"
)
SYSENTERS = (
    wrmsr(0x174, 0, "0x10")
    + wrmsr(0x175, 0, "0x9000")
    + wrmsr(0x176, 0, "handler")
    + "xorl %ebx, %ebx\n"
    + ring_3("protected", "movl $behind, %edx\nmovl $0x8f00, %ecx\nsysenter\nbehind: sysenter\nud2\n")
    + "handler: incl %ebx\ncmpl $2, %ebx\nje out\nmovl %esp, %esi\nsysexit\nout: hlt\n"
)
PROGRAMS = {
    "syscall and sysret": ("4-level", SYSCALLS),
    "sysenter and sysexit": ("protected", SYSENTERS),
    "int 0x42 from ring 3": ("4-level", ring_3("4-level", "int $0x42\n")),
    "time and identity": ("4-level", "rdtsc\nmov %rax, %rsi\nmovl $1, %eax\ncpuid\nrdtscp\nhlt\n"),
    "control registers": (
        "4-level",
        "mov %cr3, %rax\nmov %rax, %cr3\nmov %cr4, %rbx\nmov %cr0, %rdx\nmov %cr8, %rsi\nhlt\n",
    ),
    "a CR3 that is refused": ("4-level", "movabs $0x100000000000, %rax\nmov %rax, %cr3\n"),
    "an MSR that is not there": ("4-level", "movl $0x1234, %ecx\nrdmsr\n"),
    "ports": ("real", "movb $0x41, %al\noutb %al, $0xe9\ninb $0xe9, %al\nhlt\n"),
    "flags": ("protected", "sti\npushf\ncli\npopf\npushf\npopl %eax\ncli\nhlt\n"),
    "a page fault at a store": ("4-level", "movabs $0x700000000000, %rax\nmovl $1, (%rax)\n"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_both_machines_end_alike(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mode, text = PROGRAMS[program]
    benches = [Bench(mode, text), gated(monkeypatch, mode, text)]
    ends = [bench.run() for bench in benches]
    assert ends[0] == ends[1]
    assert guest_state(benches[0].machine) == guest_state(benches[1].machine)
    assert benches[0].faults == benches[1].faults


def test_three_system_calls_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = gated(monkeypatch, "4-level", SYSCALLS)
    assert isinstance(bench.run(), ev.Halted)
    assert (bench.reg("rbx"), bench.reg("rsi"), bench.reg("rdi")) == (3, bench.symbols["back"] + 4, 0x10)
    assert bench.faults == []
    bench = gated(monkeypatch, "protected", SYSENTERS)
    assert isinstance(bench.run(), ev.Halted)
    assert (bench.reg("rbx"), bench.reg("rsi"), bench.reg("rsp")) == (2, 0x9000, 0x9000)


@pytest.mark.parametrize("code", ["0xf4", "0x0f, 0x20, 0xd8", "0x0f, 0x32", "0x0f, 0x30", "0x0f, 0x22, 0xc0", "0xfa"])
@pytest.mark.parametrize("mode", ["protected", "2-level", "pae", "4-level", "5-level", "compatibility"])
def test_ring_3_may_not_either(mode: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = gated(monkeypatch, mode, ring_3(mode, f"bad: .byte {code}\nnop\n"))
    bench.run()
    assert (bench.vector, bench.faults) == (13, [(13, 0, bench.symbols["bad"])])


def test_the_library_is_as_it_was_behind_a_run() -> None:
    machine = GatedMachine(machine_bench.SMALL_MAP)
    library = machine.engine.library
    address = function_at(library, "helper_rdtsc_x86_64")
    before = machine_bytes(address)
    seen = []
    machine.board.bus.write = lambda *_: seen.append(machine_bytes(address))  # type: ignore[method-assign]
    machine.ram.write(CODE, b"\xe6\xe9\xf4")
    start.real_mode(machine, cs=CODE >> 4, ip=0)
    machine.run(100)
    assert seen, "the port was written"
    assert seen[0] != before
    assert machine_bytes(address) == before
    machine.close()


def machine_bytes(address: int) -> bytes:
    import ctypes

    return ctypes.string_at(address, 12)


def test_an_ordinary_machine_is_not_concerned(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "rdtsc\nmovl $0x80000002, %eax\ncpuid\nhlt\n"
    first = gated(monkeypatch, "4-level", text)
    monkeypatch.setattr(machine_bench, "Machine", Machine)
    second = Bench("4-level", text)
    for bench in (first, second, first, second):
        bench.machine.cpu.rip = CODE
        bench.run()
        assert bench.reg("rax").to_bytes(4, "little") == BRAND[:4]
        assert bench.reg("rdx").to_bytes(4, "little") == BRAND[12:16]


def test_a_gate_can_be_opened_and_closed() -> None:
    import ctypes

    machine = GatedMachine(machine_bench.SMALL_MAP)
    callback = ctypes.CFUNCTYPE(None)(lambda: None)
    record = machine.engine.blocks.record(ctypes.cast(callback, ctypes.c_void_p).value or 0, "gate")
    one = Gate(machine.engine.library, "helper_rdpmc_x86_64", record, callback)
    address = function_at(machine.engine.library, "helper_rdpmc_x86_64")
    original = machine_bytes(address)
    one.open()
    assert machine_bytes(address)[:2] == b"\x48\xb8"
    one.close()
    assert machine_bytes(address) == original
    machine.close()


def test_an_interrupt_that_waits_is_taken_where_interrupts_come_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for enable, taken in (("sti\nnop\n", "taken"), ("pushf\norl $0x200, (%rsp)\npopf\n", "taken")):
        bench = gated(monkeypatch, "4-level", f"nop\nnop\n{enable}taken: nop\nhlt\n")
        test_machine.unmask(bench)
        bench.run()
        assert test_machine.interrupted_at(bench) == bench.symbols[taken]


def test_a_deadline_that_moves_during_a_run_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest programs the timer inside one run of the engine: the run is cut short for it."""
    bench = gated(monkeypatch, "4-level", test_machine.PIT_ONE_SHOT + "sti\nspin: incq %rbx\njmp spin\n")
    test_machine.unmask(bench)
    bench.machine.board.pic.set_line(0, False)
    bench.run(1_000_000)
    assert bench.vector == 0x20
    assert bench.machine.count.ticks < 10_000


def test_a_halt_is_told_from_a_store_into_rom(monkeypatch: pytest.MonkeyPatch) -> None:
    """The byte before RIP is that of HLT in both."""
    bench = gated(monkeypatch, "4-level", f"movb $0xf4, {machine_bench.ROM:#x}\nmovl $7, {DATA}\nhlt\n")
    assert isinstance(bench.run(), ev.Halted)
    assert bench.machine.ram.read_int(DATA, 4) == 7


def test_a_breakpoint_that_has_gone_slows_nothing_down(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = gated(monkeypatch, "4-level", "nop\nhere: nop\nnop\nhlt\n")
    bench.machine.break_at(bench.symbols["here"])
    assert bench.run() == ev.Breakpoint(bench.symbols["here"])
    assert not bench.machine.engine.by_blocks
    bench.machine.clear_break(bench.symbols["here"])
    assert isinstance(bench.run(), ev.Halted)
    assert bench.machine.engine.by_blocks


# ---- engines and hosts on which it does not work -------------------------------------------------------------------


def test_an_engine_with_another_layout_counts_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is the same, as tests/property/test_blocks.py has it."""
    monkeypatch.setattr(Blocks, "fits", lambda _self: False)
    machine = GatedMachine(machine_bench.SMALL_MAP)
    assert not machine.by_blocks
    bench = gated(monkeypatch, "4-level", SYSCALLS)
    assert isinstance(bench.run(), ev.Halted)
    assert not bench.machine.engine.by_blocks
    assert (bench.reg("rbx"), bench.faults) == (3, [])
    machine.close()


@pytest.mark.parametrize(("name", "wrong"), [("_HOST_SIZE_AT", 4), ("_CPU_IN_UC", 0x1C0), ("_NEXT_IN_CPU", 0x1C)])
def test_fields_in_other_places_are_noticed(name: str, wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, name, wrong)
    assert not GatedMachine(machine_bench.SMALL_MAP).by_blocks


def test_blocks_that_are_not_where_they_were_expected_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = GatedMachine(machine_bench.SMALL_MAP)
    machine.ram.write(CODE, b"\x90\xf4")
    start.real_mode(machine, cs=CODE >> 4, ip=0)
    monkeypatch.setattr(Blocks, "lost", True)
    with pytest.raises(EngineError, match="a block of this Unicorn is not where"):
        machine.run(10)


def test_a_library_without_a_function_is_refused() -> None:
    with pytest.raises(EngineError, match="this Unicorn has no function helper_of_another_release"):
        function_at(GatedMachine(machine_bench.SMALL_MAP).engine.library, "helper_of_another_release")


def test_memory_that_may_not_be_changed_is_told() -> None:
    with pytest.raises(EngineError, match="the rights of host memory at 0x1000 cannot be changed: error 12"):
        protect(0x1000, 0x1000, 1)


@pytest.mark.parametrize(
    ("code", "size"),
    [
        ("4157 4156 4155 4989fd 4154 55 53", 12),
        ("90 90 488b0500000000 90 90 90 90", 0),
        ("90 7500 90 90 90 90 90 90 90 90 90 90", 0),
        ("90", 0),
    ],
    ids=["pushes", "by RIP", "a branch", "too short"],
)
def test_only_code_that_does_the_same_elsewhere_is_moved(code: str, size: int) -> None:
    assert movable_size(bytes.fromhex(code), 12) == size


def test_what_is_behind_a_gate_can_still_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store over the end of a page is the engine's own, its gate open."""
    bench = gated(monkeypatch, "4-level", f"movq $-2, {DATA} + 0xffc\nmovl {DATA} + 0xffe, %ebx\nhlt\n")
    assert isinstance(bench.run(), ev.Halted)
    assert bench.reg("rbx") == 0xFFFFFFFF
    assert bench.machine.ram.read_int(DATA + 0xFFC, 8) == (1 << 64) - 2


def test_another_kind_of_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(EngineError, match=r"this is a aarch64 host, and asm/host/edges\.S is x86_64 code"):
        _loaded.__wrapped__("edges")


def test_another_machine_cannot_run_inside_a_gated_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate would take its instructions for those of the first."""
    first, second = GatedMachine(machine_bench.SMALL_MAP), Machine(machine_bench.SMALL_MAP)
    for machine in (first, second):
        machine.ram.write(CODE, b"\xe6\xe9\xf4")
        start.real_mode(machine, cs=CODE >> 4, ip=0)

    def run_it(*_: int) -> None:
        second.run(10)

    monkeypatch.setattr(first.board.bus, "write", run_it)
    with pytest.raises(EngineError, match="another machine runs in this process"):
        first.run(10)
    monkeypatch.undo()
    assert isinstance(first.run(10), ev.Halted)
    assert isinstance(second.run(10), ev.Halted)


ALIAS, PAGE = 0x150000, 0x11000
"""A linear address, writable and not executable, of the physical page of code behind the program."""


@pytest.mark.parametrize("by_blocks", [True, False])
@pytest.mark.parametrize(
    ("stores", "answers"),
    [
        (f"call first\ncall second\nmovb $5, {ALIAS} + 1\nmovb $6, {ALIAS} + 0x41\n", (5, 6)),
        (f"movb $7, {ALIAS} + 1\nmovb $7, {ALIAS} + 0x41\ncall first\ncall second\nmovb $8, {ALIAS} + 0x41\n", (7, 8)),
    ],
    ids=["twice", "before and after"],
)
def test_a_store_into_code_through_another_address_is_noticed(
    stores: str, answers: tuple[int, int], by_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_execute = wrmsr(0xC0000080, 0, "0xd01")
    calls = "call first\nmovl %eax, %ebx\ncall second\nhlt\n"
    routines = ".balign 0x1000\nfirst: movl $1, %eax\nret\n.balign 0x40\nsecond: movl $2, %eax\nret\n"
    bench = gated(monkeypatch, "4-level", no_execute + stores + calls + routines)
    assert bench.symbols["first"] == PAGE
    machine = bench.machine
    assert isinstance(machine, GatedMachine)
    machine.by_blocks = by_blocks
    machine.ram.write(bench.leaf(ALIAS), (PAGE | 7 | 1 << 63).to_bytes(8, "little"))
    assert isinstance(bench.run(), ev.Halted)
    assert (bench.reg("rbx"), bench.reg("rax")) == answers
