"""What an NMI that arrives now must lead to, judged from the tables and the stack in force."""

from __future__ import annotations

from enum import Enum

from emu.assembler import Image
from emu.machine.cpu import WRITE
from emu.machine.machine import Machine
from emu.x86.bits import Cr0
from emu.x86.exceptions import Vector

_FRAME = 64
"""Bytes of stack that a handler is given, more than any frame has."""


class Fate(Enum):
    """Of the claim, when an NMI arrives."""

    SURVIVED = "survived"
    REPORTED = "reported"
    FATAL = "fatal"


def fate_of_nmi(machine: Machine, program: Image) -> Fate:
    """SURVIVED where the gate is one of ``program``'s, REPORTED for another's, FATAL without a gate or a stack."""
    handler = _handler(machine)
    if handler is None or not _has_stack(machine):
        return Fate.FATAL
    return Fate.SURVIVED if program.org <= handler < program.end else Fate.REPORTED


def _handler(machine: Machine) -> int | None:
    """The linear address of the NMI handler; None where its gate cannot be read or is none."""
    cpu, wide = machine.cpu, machine.cpu.bits == 64
    size = 16 if wide else 8
    table, at = cpu.idtr, Vector.NMI * size
    if at + size - 1 > table.limit:
        return None
    gate = _peek(machine, table.base + at, size)
    if gate is None or not gate[5] & 0x80:
        return None
    handler = int.from_bytes(gate[0:2] + gate[6:8] + (gate[8:12] if wide else b""), "little")
    return handler if _peek(machine, handler, 1) is not None else None


def _has_stack(machine: Machine) -> bool:
    cpu = machine.cpu
    top = cpu.rsp if cpu.bits == 64 else (cpu.segment(2).base + cpu.rsp) & 0xFFFFFFFF
    for address in (top - 1, top - _FRAME):
        if not cpu.cr0 & Cr0.PG:
            if not machine.ram.is_ram(address & 0xFFFFFFFF):
                return False
            continue
        walked = cpu.walk(address, WRITE)
        if walked.physical is None or not machine.ram.is_ram(walked.physical):
            return False
    return True


def _peek(machine: Machine, linear: int, size: int) -> bytes | None:
    cpu = machine.cpu
    if not cpu.cr0 & Cr0.PG:
        return machine.ram.read(linear, size) if machine.ram.is_ram(linear) else None
    found = cpu.peek(linear, size)
    return found if found is not None and len(found) == size else None
