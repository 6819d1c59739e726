"""The instructions of system calls, carried out on the machine's processor by the rules of emu.x86.system_calls."""

from __future__ import annotations

from collections.abc import Callable

from emu.machine.cpu import Cpu
from emu.machine.cpustate import RCX, RDX, RSP
from emu.x86 import system_calls as rules
from emu.x86.bits import Msr
from emu.x86.control import Refusal
from emu.x86.segments import Segment
from emu.x86.sensitive import Sensitive

_R11 = 11


def _registers(cpu: Cpu, insn: Sensitive, msr: Callable[[int], int]) -> rules.CallRegisters:
    engine = cpu.engine
    return rules.CallRegisters(
        next_rip=cpu.rip + insn.size,
        rflags=cpu.rflags,
        rcx=engine.gpr(RCX),
        rdx=engine.gpr(RDX),
        r11=engine.gpr(_R11),
        star=msr(Msr.STAR),
        lstar=msr(Msr.LSTAR),
        fmask=msr(Msr.FMASK),
        sysenter_cs=msr(Msr.SYSENTER_CS),
        sysenter_esp=msr(Msr.SYSENTER_ESP),
        sysenter_eip=msr(Msr.SYSENTER_EIP),
    )


def call(cpu: Cpu, insn: Sensitive, msr: Callable[[int], int]) -> Refusal | None:
    """Do SYSCALL, SYSRET, SYSENTER or SYSEXIT at RIP; the answer is why it was refused, with nothing changed.

    ``msr(number)`` reads an MSR.
    """
    state, regs, wide = cpu.control(), _registers(cpu, insn, msr), bool(insn.rex & 8)
    match insn.opcode:
        case 0x05:
            result = rules.syscall(state, regs)
        case 0x07:
            result = rules.sysret(state, regs, wide=wide)
        case 0x34:
            result = rules.sysenter(state, regs)
        case _:
            result = rules.sysexit(state, regs, wide=wide)
    if isinstance(result, Refusal):
        return result
    engine = cpu.engine
    engine.set_segment(Segment.SS, result.ss)
    engine.set_segment(Segment.CS, result.cs)
    for register, value in ((RSP, result.rsp), (RCX, result.rcx), (_R11, result.r11)):
        if value is not None:
            engine.set_gpr(register, value)
    cpu.rip, cpu.rflags = result.rip, result.rflags
    engine.settle()
    return None
