"""Carrying out a plan: memory is filled and the processor brought to its start state."""

from __future__ import annotations

from emu.boot.image import Plan, StartMode
from emu.machine import start
from emu.machine.machine import Machine
from emu.x86.segments import TableRegister

_GDT_LIMIT = 4 * 8 - 1


def load(machine: Machine, plan: Plan) -> None:
    """Put ``plan`` into ``machine``, which then stands before its first instruction."""
    for address, data in plan.pieces:
        machine.ram.write(address, data)
    for address, data in plan.rom:
        machine.ram.write_rom(address, data)
    gdt = TableRegister(plan.gdt, _GDT_LIMIT)
    match plan.mode:
        case StartMode.LONG:
            start.long_mode(machine, rip=plan.entry, gdt=gdt, cr3=plan.tables)
        case StartMode.PROTECTED:
            start.protected_mode(machine, eip=plan.entry, gdt=gdt)
        case StartMode.REAL:
            start.real_mode(machine, cs=(plan.entry & 0xF0000) >> 4, ip=plan.entry & 0xFFFF)
        case StartMode.RESET:
            start.reset(machine)
    for number, value in plan.registers:
        machine.engine.set_gpr(number, value)
