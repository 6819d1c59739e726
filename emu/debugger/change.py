"""Changing the machine by hand: which register can be set and how, and the jump page with one field changed."""

from __future__ import annotations

from collections.abc import Callable

from emu.errors import DebuggerError
from emu.kexec.jump_page import FIELDS, dword_sum
from emu.machine.cpu import GPR_NAMES, SEGMENT_NAMES
from emu.machine.machine import Machine
from emu.x86.segments import SegmentCache, TableRegister

_LOW = {f"e{name[1:]}": name for name in GPR_NAMES[:8]}
_ALIASES = {"pc": "rip", "eip": "rip", "sp": "rsp", "eflags": "rflags"}


def setter_for(machine: Machine, name: str) -> Callable[[int], None]:
    """A function that sets register ``name``; raises DebuggerError for one that does not exist or cannot be set."""
    wanted = name.lower().removeprefix("$")
    wanted = _ALIASES.get(wanted, wanted)
    low = wanted in _LOW
    wanted = _LOW.get(wanted, wanted)
    engine, cpu = machine.engine, machine.cpu
    if wanted in GPR_NAMES:
        index = GPR_NAMES.index(wanted)
        return lambda value: engine.set_gpr(index, value & (0xFFFFFFFF if low else (1 << 64) - 1))
    if wanted == "rip":
        return lambda value: setattr(cpu, "rip", value & (1 << 64) - 1)
    if wanted == "rflags":
        return lambda value: setattr(cpu, "rflags", value & 0x3FFFFF | 2)
    if wanted == "cr3":
        return lambda value: _control(machine, 3, value)
    if wanted in ("cr0", "cr2", "cr4"):
        return lambda value: _control(machine, int(wanted[2]), value)
    if wanted == "efer":
        return lambda value: _efer(machine, value)
    if wanted in ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7"):
        return lambda value: engine.set_dr(int(wanted[2]), value)
    if wanted in SEGMENT_NAMES:
        index = SEGMENT_NAMES.index(wanted)
        return lambda value: _selector(machine, index, value)
    if wanted in ("gdtr.base", "idtr.base", "gdtr.limit", "idtr.limit"):
        return lambda value: _table(machine, wanted, value)
    raise DebuggerError(
        f"no register is called {name}, or it cannot be set", hint="general, rip, rflags, cr, dr, efer, segments"
    )


def _control(machine: Machine, number: int, value: int) -> None:
    if number == 3:
        machine.engine.set_cr(3, value)
        machine.cpu.guest_cr3_loaded(value)
    else:
        machine.engine.set_cr(number, value)
    machine.engine.settle()
    machine.cpu.settle_pdptes()
    machine.flush_translations()
    machine.code.forget()


def _efer(machine: Machine, value: int) -> None:
    machine.engine.efer = value
    machine.engine.settle()
    machine.flush_translations()
    machine.code.forget()


def _selector(machine: Machine, index: int, value: int) -> None:
    """Load a selector as a MOV would, from the descriptor table; in real mode the base follows."""
    cpu = machine.cpu
    if not cpu.cr0 & 1:
        old = cpu.segment(index)
        cpu.set_segment(index, SegmentCache(value & 0xFFFF, (value & 0xFFFF) << 4, old.limit, old.flags))
        return
    raw = cpu.peek(cpu.gdtr.base + (value & 0xFFF8), 8)
    if raw is None or value & 4:
        raise DebuggerError(f"selector {value:#x} has no descriptor that can be read")
    low = int.from_bytes(raw, "little")
    flags = low >> 32 & 0xF0FF00
    limit = low & 0xFFFF | low >> 32 & 0xF0000
    if flags >> 23 & 1:
        limit = limit << 12 | 0xFFF
    base = low >> 16 & 0xFFFFFF | low >> 56 << 24
    cpu.set_segment(index, SegmentCache(value & 0xFFFF, base, limit, flags))


def _table(machine: Machine, name: str, value: int) -> None:
    register, field = name.split(".")
    table: TableRegister = getattr(machine.cpu, register)
    changed = TableRegister(value, table.limit) if field == "base" else TableRegister(table.base, value & 0xFFFF)
    setattr(machine.engine, register, changed)


def poked(page: bytes, field: str, value: int) -> bytes:
    """A jump page with ``field`` set to ``value``; the checksum is made right unless it is the field."""
    known = {one.name: one for one in FIELDS}
    if field not in known:
        raise DebuggerError(f"the jump page has no field {field}", hint=", ".join(known))
    changed = bytearray(page)
    where = known[field]
    if not 0 <= value < 1 << 8 * where.size:
        raise DebuggerError(f"{value:#x} does not fit the {where.size} bytes of {field}")
    changed[where.offset : where.offset + where.size] = value.to_bytes(where.size, "little")
    if field != "checksum":
        spot = known["checksum"]
        changed[spot.offset : spot.offset + spot.size] = bytes(spot.size)
        total = -dword_sum(changed) & 0xFFFFFFFF
        changed[spot.offset : spot.offset + spot.size] = total.to_bytes(spot.size, "little")
    return bytes(changed)
