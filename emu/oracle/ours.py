"""Our own machine runs an oracle's image."""

from __future__ import annotations

import time

from emu.kexec.e820 import default_map
from emu.machine import events as ev
from emu.machine import start
from emu.machine.machine import Machine
from emu.oracle.image import OracleImage
from emu.oracle.outcome import Ended, Run
from emu.x86.segments import TableRegister

TICK_LIMIT = 4_000_000_000


def run_ours(image: OracleImage, *, ticks: int = TICK_LIMIT) -> Run:
    """Run ``image`` from the state that the Multiboot Specification gives a kernel."""
    machine = Machine(default_map(image.size), strict=False)
    machine.ram.write(image.base, bytes(image.memory))
    start.protected_mode(machine, eip=image.entry, gdt=TableRegister(0, 0))
    machine.ram.rebase()
    began = time.perf_counter()
    outcome = _run(machine, image, ticks)
    seconds = time.perf_counter() - began
    console = machine.board.serial.output.decode("latin-1").replace("\r\n", "\n")
    match outcome:
        case ev.Exited(status=0):
            ended, why = Ended.DONE, ""
        case ev.TripleFault(pc=pc, chain=chain):
            ended, why = Ended.RESET, f"at {pc:#x}: " + "; ".join(f"vector {one.vector}: {one.why}" for one in chain)
        case ev.Halted(pc=pc) | ev.StepLimit(ticks=pc):
            ended, why = Ended.HUNG, f"at {machine.cpu.pc:#x}"
        case _:
            ended, why = Ended.FAILED, str(outcome)
    return Run("kjump", ended, machine.ram.read, console, seconds, why)


def _run(machine: Machine, image: OracleImage, ticks: int) -> ev.Outcome:
    """Run to the end; between cases, forget the code of the last, which is about to be overwritten."""
    if len(image.cases) > 1:
        machine.break_at(image.next_case)
    while (outcome := machine.run(ticks)) == ev.Breakpoint(image.next_case):
        machine.engine.flush_code()
        machine.code.dropped()
    return outcome
