"""The processor at a stop: general, control and segment registers, every bit by name, and what changed."""

from __future__ import annotations

from enum import IntEnum

from emu.debugger.lines import WIDTH, in_columns, table, wrap
from emu.debugger.places import symbol
from emu.debugger.session import Session
from emu.machine.cpu import GPR_NAMES, SEGMENT_NAMES
from emu.x86.bits import Cr0, Cr4, Dr6, Dr7, Efer, Eflags, decode, decode_cr3, decode_eflags
from emu.x86.paging import PagingMode
from emu.x86.segments import SegmentCache

_NARROW = {name: f"e{name[1:]}" for name in GPR_NAMES[:8]}
_MSR_NAMES = (
    "star", "lstar", "cstar", "sfmask", "fs_base", "gs_base", "kernel_gs_base", "sysenter_cs", "sysenter_esp",
    "sysenter_eip", "pat",
)  # fmt: skip


def changed(session: Session, name: str) -> bool:
    """Whether register ``name`` (as :meth:`Cpu.registers` calls it) differs from before the last move."""
    return bool(session.before) and session.before.get(name) != session.machine.cpu.registers()[name]


def changed_names(session: Session) -> frozenset[str]:
    """Every register that the last move changed."""
    if not session.before:
        return frozenset()
    now = session.machine.cpu.registers()
    return frozenset(name for name, value in now.items() if session.before.get(name) != value)


def general_cells(session: Session) -> list[tuple[str, bool]]:
    """``rax 1ff *`` for each general register of the present mode, and whether it changed."""
    now, moved = session.machine.cpu.registers(), changed_names(session)
    wide = session.machine.cpu.bits == 64
    cells = []
    for name in GPR_NAMES if wide else GPR_NAMES[:8]:
        value = now[name] if wide else now[name] & 0xFFFFFFFF
        star = name in moved
        cells.append((f"{name if wide else _NARROW[name]:<3} {value:x}{' *' if star else ''}", star))
    return cells


def regs(session: Session, width: int = WIDTH) -> list[str]:
    """``regs``: general and control registers, flags, instruction pointer; ``*``: changed by the last move."""
    now, moved = session.machine.cpu.registers(), changed_names(session)
    star = {name: " *" if name in moved else "" for name in now}
    pointer = "rip" if session.machine.cpu.bits == 64 else "eip"
    name = symbol(session, session.pc)
    lines = in_columns([text for text, _ in general_cells(session)], width, gap=3)
    lines.append(f"{pointer} {now['rip']:x}{f' <{name}>' if name else ''}")
    lines.append(f"rflags {now['rflags']:x}{star['rflags']}  {decode_eflags(now['rflags'])}")
    for cr, table_ in (("cr0", Cr0), ("cr4", Cr4), ("efer", Efer)):
        lines.append(f"{cr} {now[cr]:x}{star[cr]}  {decode(now[cr], table_)}")
    lines.append(f"cr2 {now['cr2']:x}{star['cr2']}  cr3 {now['cr3']:x}{star['cr3']}")
    selectors = [f"{one} {now[one]:x}{star[one]}" for one in ("cs", "ss", "ds", "es", "fs", "gs", "tr", "ldtr")]
    return lines + in_columns(selectors, width, gap=2)


def fpu(session: Session, width: int = WIDTH) -> list[str]:
    """The x87 and SSE registers, raw."""
    known = set(GPR_NAMES) | set(_MSR_NAMES) | {"rip", "rflags", "efer"}
    rows = []
    for name, value in session.machine.cpu.registers().items():
        if name in known or "." in name or name in (*SEGMENT_NAMES, "ldtr", "tr") or name[:2] in ("cr", "dr"):
            continue
        rows.append(f"{name} {value:x}")
    return in_columns(rows, width, gap=3)


# ---- control registers -----------------------------------------------------------------------------------------


def every_bit(value: int, bits: type[IntEnum]) -> str:
    """Each named bit from the highest down: ``PG`` in capitals where it is set, ``pg`` where it is clear."""
    return " ".join(bit.name if value & bit else bit.name.lower() for bit in sorted(bits, reverse=True))


def creg(session: Session, width: int = WIDTH) -> list[str]:
    """``creg``: control, flag and debug registers, every bit by name: capitals are set, small letters clear."""
    cpu, now = session.machine.cpu, session.machine.cpu.registers()
    moved = changed_names(session)
    lines = [f"mode {cpu.mode()}, CPL {cpu.cpl}"]
    tables: tuple[tuple[str, type[IntEnum]], ...] = (("cr0", Cr0), ("cr4", Cr4), ("efer", Efer))
    for name, bits in tables:
        lines += _bits_line(name, now[name], bits, width, star=name in moved)
    paging = cpu.paging()
    top = "" if paging.mode is PagingMode.NONE else f", {paging.mode.value} tables begin at p:{paging.root:#x}"
    lines.append(f"CR2 {now['cr2']:#x}{' *' if 'cr2' in moved else ''}")
    lines.append(f"CR3 {now['cr3']:#x}{' *' if 'cr3' in moved else ''}: {decode_cr3(now['cr3'])}{top}")
    if paging.pdptes is not None:
        lines.append("PDPTEs latched at the last load of CR3: " + " ".join(f"{entry:#x}" for entry in paging.pdptes))
    iopl = now["rflags"] >> 12 & 3
    lines += _bits_line("rflags", now["rflags"], Eflags, width, star="rflags" in moved)
    lines[-1] += f" IOPL={iopl}"
    tables = (("dr6", Dr6), ("dr7", Dr7))
    for name, bits in tables:
        lines += _bits_line(name, now[name], bits, width, star=name in moved)
    lines += in_columns([f"DR{index} {now[f'dr{index}']:#x}" for index in range(4)], width)
    return lines


def _bits_line(name: str, value: int, bits: type[IntEnum], width: int, *, star: bool) -> list[str]:
    return wrap(f"{name.upper()} {value:#x}{' *' if star else ''}: {every_bit(value, bits)}", width, len(name) + 1)


def msrs(session: Session, width: int = WIDTH) -> list[str]:
    """The model-specific registers that kernels care about."""
    now = session.machine.cpu.registers()
    rows = [f"{name} {now[name]:#x}" for name in _MSR_NAMES]
    return in_columns([f"efer {now['efer']:#x}", *rows], width)


# ---- segments --------------------------------------------------------------------------------------------------


def sreg(session: Session, width: int = WIDTH) -> list[str]:
    """``sreg``: segment and table registers with their hidden parts; bases are linear."""
    cpu, moved = session.machine.cpu, changed_names(session)
    segments = [(name, cpu.segment(index)) for index, name in enumerate(SEGMENT_NAMES)]
    rows = []
    for name, cache in [*segments, ("ldtr", cpu.ldtr), ("tr", cpu.tr)]:
        star = " *" if {name, f"{name}.base", f"{name}.limit", f"{name}.flags"} & moved else ""
        rows.append((name, f"{cache.selector:#06x}", _hidden(cache, real=not cpu.cr0 & Cr0.PE) + star))
    for name, register in (("gdtr", cpu.gdtr), ("idtr", cpu.idtr)):
        at = symbol(session, register.base)
        star = " *" if {f"{name}.base", f"{name}.limit"} & moved else ""
        rows.append((name, "", f"base {register.base:#x}{f' <{at}>' if at else ''} limit {register.limit:#x}{star}"))
    return table(rows, width)


def _hidden(cache: SegmentCache, *, real: bool) -> str:
    if not cache.flags and cache.null:
        return "null"
    text = cache.describe().split(" ", 1)[1]
    return f"{text} (as left by real mode)" if real and cache.base == cache.selector << 4 else text
