"""SYSCALL, SYSRET, SYSENTER and SYSEXIT on paper: what they check and what they load (SDM 2B).

Each function looks at the registers and answers with a :class:`Refusal` or the :class:`Transfer` to carry out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from emu.x86.bits import EFLAGS_FIXED, U32, U64, Cr0, Cr4, Efer, Eflags
from emu.x86.control import ControlState, Refusal
from emu.x86.delivery.frames import canonical_mode
from emu.x86.exceptions import Vector
from emu.x86.paging import is_canonical
from emu.x86.segments import SegmentCache

_FLAT: Final = 0xFFFFFFFF
_CODE: Final = 0x809B00  # granular, present, execute and read, accessed
_DATA: Final = 0xC09300
_LONG: Final = 1 << 21
_DB: Final = 1 << 22
_RING3: Final = 3 << 13
_SYSRET_FLAGS: Final = 0x3C7FD7


@dataclass(frozen=True, slots=True)
class Transfer:
    """Where control goes: None leaves a register as it is."""

    cs: SegmentCache
    ss: SegmentCache
    rip: int
    rflags: int
    rsp: int | None = None
    rcx: int | None = None
    r11: int | None = None


@dataclass(frozen=True, slots=True)
class CallRegisters:
    """Registers and MSRs that the four instructions read; ``next_rip`` is behind the instruction."""

    next_rip: int = 0
    rflags: int = EFLAGS_FIXED
    rcx: int = 0
    rdx: int = 0
    r11: int = 0
    star: int = 0
    lstar: int = 0
    fmask: int = 0
    sysenter_cs: int = 0
    sysenter_esp: int = 0
    sysenter_eip: int = 0


def _code(selector: int, *, long: bool, user: bool) -> SegmentCache:
    flags = _CODE | (_LONG if long else _DB) | (_RING3 if user else 0)
    return SegmentCache(selector & 0xFFFF, 0, _FLAT, flags)


def _data(selector: int, *, user: bool) -> SegmentCache:
    return SegmentCache(selector & 0xFFFF, 0, _FLAT, _DATA | (_RING3 if user else 0))


def _canonical(state: ControlState, address: int) -> bool:
    return is_canonical(address, canonical_mode(state.cr4 & Cr4.LA57))


def _not_there(state: ControlState, name: str) -> Refusal | None:
    if not state.efer & Efer.SCE:
        return Refusal(Vector.UD, None, f"{name} with EFER.SCE=0 (SDM 2B {name})")
    if not state.in_64bit:
        return Refusal(Vector.UD, None, f"{name} outside 64-bit mode (SDM 2B {name})")
    return None


def syscall(state: ControlState, regs: CallRegisters) -> Refusal | Transfer:
    """SYSCALL."""
    refused = _not_there(state, "SYSCALL")
    if refused is not None:
        return refused
    selector = regs.star >> 32 & 0xFFFC
    return Transfer(
        cs=_code(selector, long=True, user=False),
        ss=_data(selector + 8, user=False),
        rip=regs.lstar,
        rflags=regs.rflags & ~(regs.fmask | Eflags.RF) | EFLAGS_FIXED,
        rcx=regs.next_rip,
        r11=regs.rflags,
    )


def sysret(state: ControlState, regs: CallRegisters, *, wide: bool) -> Refusal | Transfer:
    """SYSRET; ``wide`` with REX.W, back to 64-bit code."""
    refused = _not_there(state, "SYSRET")
    if refused is not None:
        return refused
    if state.cpl:
        return Refusal(Vector.GP, 0, f"SYSRET at CPL {state.cpl} (SDM 2B SYSRET)")
    if wide and not _canonical(state, regs.rcx):
        return Refusal(Vector.GP, 0, f"SYSRET to {regs.rcx:#x}, which is not canonical (SDM 2B SYSRET)")
    selector = regs.star >> 48
    return Transfer(
        cs=_code(selector + (16 if wide else 0) | 3, long=wide, user=True),
        ss=_data(selector + 8 | 3, user=True),
        rip=regs.rcx if wide else regs.rcx & U32,
        rflags=regs.r11 & _SYSRET_FLAGS | EFLAGS_FIXED,
    )


def sysenter(state: ControlState, regs: CallRegisters) -> Refusal | Transfer:
    """SYSENTER."""
    if not state.cr0 & Cr0.PE:
        return Refusal(Vector.GP, 0, "SYSENTER in real mode (SDM 2B SYSENTER)")
    if not regs.sysenter_cs & 0xFFFC:
        return Refusal(Vector.GP, 0, "SYSENTER with a null SYSENTER_CS (SDM 2B SYSENTER)")
    selector, long = regs.sysenter_cs & 0xFFFC, state.long_active
    mask = U64 if long else U32
    return Transfer(
        cs=_code(selector, long=long, user=False),
        ss=_data(selector + 8, user=False),
        rip=regs.sysenter_eip & mask,
        rsp=regs.sysenter_esp & mask,
        rflags=regs.rflags & ~(Eflags.VM | Eflags.IF | Eflags.RF),
    )


def sysexit(state: ControlState, regs: CallRegisters, *, wide: bool) -> Refusal | Transfer:
    """SYSEXIT; ``wide`` with REX.W, back to 64-bit code."""
    if not state.cr0 & Cr0.PE:
        return Refusal(Vector.GP, 0, "SYSEXIT in real mode (SDM 2B SYSEXIT)")
    if not regs.sysenter_cs & 0xFFFC:
        return Refusal(Vector.GP, 0, "SYSEXIT with a null SYSENTER_CS (SDM 2B SYSEXIT)")
    if state.cpl:
        return Refusal(Vector.GP, 0, f"SYSEXIT at CPL {state.cpl} (SDM 2B SYSEXIT)")
    if wide and not (_canonical(state, regs.rdx) and _canonical(state, regs.rcx)):
        return Refusal(Vector.GP, 0, "SYSEXIT to an address that is not canonical (SDM 2B SYSEXIT)")
    selector = regs.sysenter_cs & 0xFFFC
    mask = U64 if wide else U32
    return Transfer(
        cs=_code(selector + (32 if wide else 16) | 3, long=wide, user=True),
        ss=_data(selector + (40 if wide else 24) | 3, user=True),
        rip=regs.rdx & mask,
        rsp=regs.rcx & mask,
        rflags=regs.rflags,
    )
