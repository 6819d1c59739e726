"""The descriptor tables that the processor uses now: GDT, LDT, IDT and TSS, SDM 3A chapters 3, 6 and 7."""

from __future__ import annotations

from itertools import groupby

from emu.debugger.address import Address
from emu.debugger.lines import WIDTH, wrap_all
from emu.debugger.places import symbol
from emu.debugger.session import Session
from emu.x86.bits import Cr0, Efer
from emu.x86.exceptions import vector_name
from emu.x86.segments import Gate
from emu.x86.tables import explain_gdt

_TSS64 = (
    *((f"rsp{level}", 4 + 8 * level, 8) for level in range(3)),
    *((f"ist{number}", 0x1C + 8 * number, 8) for number in range(1, 8)),
    ("iopb", 0x66, 2),
)
_TSS32 = (
    ("link", 0x00, 2), ("esp0", 0x04, 4), ("ss0", 0x08, 2), ("esp1", 0x0C, 4), ("ss1", 0x10, 2), ("esp2", 0x14, 4),
    ("ss2", 0x18, 2), ("cr3", 0x1C, 4), ("eip", 0x20, 4), ("eflags", 0x24, 4), ("esp", 0x38, 4), ("ldt", 0x60, 2),
    ("iopb", 0x66, 2),
)  # fmt: skip


def _table(session: Session, base: int, limit: int) -> bytes:
    """What can be read of a table; ``base`` is linear."""
    return session.read(Address(base), limit + 1) or b""


def _at(session: Session, base: int) -> str:
    name = symbol(session, base)
    physical = session.machine.cpu.walk(base).physical
    where = f"p:{physical:#x}" if physical is not None else "not mapped"
    owner = f", a page of {session.machine.owners.at(physical)}" if physical is not None else ""
    return f"{base:#x}{f' <{name}>' if name else ''} ({where}{owner})"


def _short(raw: bytes, limit: int) -> list[str]:
    return [] if len(raw) > limit else [f"only {len(raw)} of its {limit + 1} bytes can be read"]


def gdt(session: Session, width: int = WIDTH) -> list[str]:
    """``info gdt``: every descriptor of the global table."""
    cpu = session.machine.cpu
    raw = _table(session, cpu.gdtr.base, cpu.gdtr.limit)
    lines = [f"gdt at {_at(session, cpu.gdtr.base)}, limit {cpu.gdtr.limit:#x}", *_short(raw, cpu.gdtr.limit)]
    lines += _collapsed(list(explain_gdt(raw, long=bool(cpu.efer & Efer.LMA))))
    return wrap_all(lines, width, 8)


def ldt(session: Session, width: int = WIDTH) -> list[str]:
    """``info ldt``: every descriptor of the local table, if LDTR names one."""
    cpu = session.machine.cpu
    if cpu.ldtr.null or not cpu.ldtr.present:
        return ["ldtr is null: there is no local descriptor table"]
    raw = _table(session, cpu.ldtr.base, cpu.ldtr.limit)
    lines = [f"ldt at {_at(session, cpu.ldtr.base)}, limit {cpu.ldtr.limit:#x}", *_short(raw, cpu.ldtr.limit)]
    lines += _collapsed(list(explain_gdt(raw, long=bool(cpu.efer & Efer.LMA))))
    return wrap_all(lines, width, 8)


def _collapsed(lines: list[str]) -> list[str]:
    """Runs of lines that say the same behind their number, as first and last."""
    shown: list[str] = []
    for _, group in groupby(lines, key=lambda line: line.split(maxsplit=1)[-1]):
        run = list(group)
        number = run[0].split(maxsplit=1)[0]
        if len(run) > 2:
            last = run[-1].split(maxsplit=1)[0]
            shown.append(f"{number} to {last}  {run[0].split(maxsplit=1)[-1]}")
        else:
            shown += run
    return shown


def idt(session: Session, width: int = WIDTH) -> list[str]:
    """``info idt``: every gate with the handler that it leads to; real mode: the vectors."""
    cpu = session.machine.cpu
    long, real = bool(cpu.efer & Efer.LMA), not cpu.cr0 & Cr0.PE
    size = 4 if real else 16 if long else 8
    raw = _table(session, cpu.idtr.base, cpu.idtr.limit)
    lines = []
    for vector in range(len(raw) // size):
        slot = raw[vector * size : (vector + 1) * size]
        lines.append(f"{vector:#04x}  {_gate(session, vector, slot, long=long, real=real)}")
    head = [f"idt at {_at(session, cpu.idtr.base)}, limit {cpu.idtr.limit:#x}", *_short(raw, cpu.idtr.limit)]
    return wrap_all(head + _collapsed(lines), width, 8)


def _gate(session: Session, vector: int, slot: bytes, *, long: bool, real: bool) -> str:
    if real:
        offset, selector = int.from_bytes(slot[:2], "little"), int.from_bytes(slot[2:], "little")
        return f"{selector:#06x}:{offset:#06x}"
    if not any(slot):
        return "empty"
    gate = Gate.decode(slot)
    name = symbol(session, gate.offset)
    what = f"{vector_name(vector):<4} " if vector < 32 else ""
    return f"{what}{gate.describe(long=long)}{f' <{name}>' if name else ''}"


def tss(session: Session, width: int = WIDTH) -> list[str]:
    """``info tss``: the stacks that the task state segment gives; addresses are linear."""
    cpu = session.machine.cpu
    if cpu.tr.null:
        return ["tr is null: there is no task state segment, so no stack switch can work"]
    long = bool(cpu.efer & Efer.LMA)
    raw = _table(session, cpu.tr.base, cpu.tr.limit)
    lines = [f"tss {cpu.tr.selector:#x} at {_at(session, cpu.tr.base)}, limit {cpu.tr.limit:#x}"]
    for name, offset, size in _TSS64 if long else _TSS32:
        if offset + size <= len(raw):
            value = int.from_bytes(raw[offset : offset + size], "little")
            at = symbol(session, value) if value else ""
            lines.append(f"  {name:<6} {value:#x}{f' <{at}>' if at else ''}")
        else:
            lines.append(f"  {name:<6} beyond the limit")
    return wrap_all(lines, width, 8)
