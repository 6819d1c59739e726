"""Trials of the x86_64 stub's exception handlers: said on COM1, and only a breakpoint is returned from."""

from __future__ import annotations

from collections.abc import Callable

from emu.kexec.layout import Ind
from emu.machine import events as ev
from emu.machine.devices.serial import LSR
from emu.machine.machine import Machine
from emu.trials.bench import GENERAL, Bench
from emu.trials.leaving import PRESERVE
from emu.units import PAGE_SIZE

COM1 = 0x3F8
WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14})
BREAKPOINT_VECTOR = 3
CR2 = 0xFEDCBA9876543210
LONGEST_REPORT = 40_000


def report(**numbers: int) -> bytes:
    """The line that the stub prints."""
    text = " ".join(f"{name} {value:016x}" for name, value in numbers.items())
    return f"relocate_new_kernel: {text}\r\n".encode()


def slow_transmitter(machine: Machine) -> list[str]:
    """COM1 is busy each time that it is first asked after a byte; a byte written while it is busy is noted."""
    serial, lost = machine.board.serial, list[str]()
    read: Callable[[int, int], int] = type(serial).read.__get__(serial)
    write: Callable[[int, int, int], None] = type(serial).write.__get__(serial)
    polls = [0]

    def slow_read(port: int, size: int) -> int:
        if port != COM1 + LSR:
            return read(port, size)
        polls[0] += 1
        return read(port, size) if polls[0] > 1 else 0x01

    def slow_write(port: int, size: int, value: int) -> None:
        if polls[0] < 2:
            lost.append(f"byte {value:#x} written while the transmitter was busy")
        polls[0] = 0
        write(port, size, value)

    serial.read, serial.write = slow_read, slow_write  # type: ignore[method-assign]
    return lost


def normal_transmitter(machine: Machine) -> None:
    """Undo :func:`slow_transmitter`."""
    for name in ("read", "write"):
        vars(machine.board.serial).pop(name, None)


def breakpoint_returns(bench: Bench) -> None:
    """INT3 in the peer: one line, and the peer goes on with every register as it was, the direction flag set."""
    head, _ = bench.callee("std; int3; hlt")
    bench.call(head, bench.at.target, 0)
    # The plain path has no way back, so the peer halts: once more from the breakpoint, with registers that show.
    if not _halted(bench, bench.at.target + 3):
        return
    for number, name in enumerate(GENERAL[64]):
        bench.set(**{name: 0x1111_1111_0101_0101 * (number + 1)})
    machine = bench.machine
    lost = slow_transmitter(machine)
    before = machine.cpu.registers()
    printed = len(machine.board.serial.output)
    bench.run(bench.at.target + 1, LONGEST_REPORT)
    normal_transmitter(machine)
    bench.wrong.extend(lost[:1])
    if not _halted(bench, bench.at.target + 3):
        return
    state = machine.cpu.registers()
    for name in (*GENERAL[64], "rsp", "rflags", "cs", "ss"):
        bench.check(name, before[name], state[name])
    expected = report(vector=3, error=0, rip=bench.at.target + 2, cr2=before["cr2"])
    bench.check("console", expected, machine.board.serial.output[printed:])


def _halted(bench: Bench, address: int) -> bool:
    if bench.outcome != ev.Halted(address):
        bench.wrong.append(f"the run ended in {bench.outcome}, not at {address:#x}")
    return not bench.wrong


def every_exception(bench: Bench) -> None:
    """Each vector but #BP in the peer: one line with vector, error code, RIP and CR2, and the processor halts."""
    machine = bench.machine
    bench.call(int(Ind.DONE), bench.at.halt, PRESERVE)
    if not bench.check_halted(bench.at.halt + 1):
        return
    state = machine.snapshot()
    for vector in (one for one in range(16) if one != BREAKPOINT_VECTOR):
        machine.restore(state)
        error = 0xE0 + vector if vector in WITH_ERROR_CODE else None
        lost = slow_transmitter(machine)
        machine.engine.rflags |= 0x400
        machine.raise_fault(vector, error, cr2=CR2)
        if vector != 14:
            machine.cpu.cr2 = CR2
        with bench.port_writes() as written:
            bench.outcome = machine.run(LONGEST_REPORT)
        normal_transmitter(machine)
        bench.wrong.extend(lost[:1])
        bench.check("ports written", {(COM1, 1)}, {(port, size) for port, size, _ in written})
        if not _halted(bench, bench.symbols["halt"] + 1):
            return
        expected = report(vector=vector, error=error or 0, rip=bench.at.halt + 1, cr2=CR2)
        bench.check(f"console after vector {vector}", expected, machine.board.serial.output)
    # Something that is no exception (an SMI) may end a HLT: the processor halts again.
    printed = len(machine.board.serial.output)
    bench.outcome = machine.run(LONGEST_REPORT)
    _halted(bench, bench.symbols["halt"] + 1)
    bench.check("bytes printed once woken up", printed, len(machine.board.serial.output))


def late_exception(bench: Bench) -> None:
    """On the way back, too, before the pages move, when the peer has left no IDT."""
    at, machine = bench.at, bench.machine
    head, _ = bench.callee("lidt nothing(%rip); lgdt nothing(%rip); ret; nothing: .word 0; .quad 0")
    bench.call(head, at.target, PRESERVE)
    bench.check_back_in_a(at.target)
    bench.reset_memory()
    head, _ = bench.callee("lidt nothing(%rip); lgdt nothing(%rip); ret; nothing: .word 0; .quad 0")
    machine.break_at(at.target)
    bench.call(head, at.target, PRESERVE)
    machine.clear_break(at.target)
    if bench.outcome != ev.Breakpoint(at.target):
        bench.wrong.append(f"the run ended in {bench.outcome} before the peer ran")
        return
    machine.break_at(bench.symbols["swap_pages"])
    bench.outcome = machine.run(LONGEST_REPORT)
    machine.clear_break(bench.symbols["swap_pages"])
    _nmi_is_reported(bench)


def _nmi_is_reported(bench: Bench) -> None:
    """At swap_pages an NMI comes."""
    machine, top = bench.machine, bench.at.control + PAGE_SIZE
    if bench.outcome != ev.Breakpoint(bench.symbols["swap_pages"]):
        bench.wrong.append(f"the run ended in {bench.outcome} before the list was carried out")
        return
    machine.inject_nmi()
    bench.outcome = machine.run(LONGEST_REPORT)
    if _halted(bench, bench.symbols["halt"] + 1):
        bench.check("vector", b"vector 0000000000000002", machine.board.serial.output[21:44])
    bench.check("stack in the control page", True, bench.at.control < machine.cpu.rsp < top)


def early_exception(bench: Bench) -> None:
    """From the stub's own IDT on an exception is reported: one at each instruction of the exchange of a page."""
    at, machine = bench.at, bench.machine
    head = bench.write_list(at.target | Ind.DESTINATION, at.source | Ind.SOURCE, int(Ind.DONE))
    machine.break_at(bench.symbols["swap_pages"])
    bench.call(head, at.halt, PRESERVE)
    machine.clear_break(bench.symbols["swap_pages"])
    _nmi_is_reported(bench)
