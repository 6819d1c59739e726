"""One attempt to enter a handler in each mode: checks in the order of the SDM, then the frame, then the registers.

The order of checks is that of the pseudo-code in SDM 2A, INT n/INTO/INT3/INT1.  Each function raises GuestFault
with the registers untouched (what was pushed by then stays in memory, as on hardware), or returns what it loaded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from emu.x86.bits import U64, Cr0, Cr4, Efer, Eflags
from emu.x86.delivery.frames import (
    Entry,
    LegacyStack,
    Loaded,
    canonical_mode,
    commit,
    inner_stack,
    load_descriptor,
    mark_accessed,
    push_long,
    pushed_flags,
    pushed_rip,
    read_named,
    stack_from_tss,
)
from emu.x86.delivery.target import DeliveryTarget, Event, GuestFault
from emu.x86.exceptions import Vector
from emu.x86.paging import is_canonical
from emu.x86.segments import DPL_SHIFT, RPL_MASK, Gate, Segment, SegmentCache, SystemType

_CLEARED: Final = Eflags.TF | Eflags.NT | Eflags.RF | Eflags.VM
_CLEARED_IN_REAL_MODE: Final = Eflags.IF | Eflags.TF | Eflags.AC | Eflags.RF
_LEGACY_GATES = frozenset(
    {
        SystemType.TASK_GATE,
        SystemType.INTERRUPT_GATE16,
        SystemType.TRAP_GATE16,
        SystemType.INTERRUPT_GATE,
        SystemType.TRAP_GATE,
    }
)
_LONG_GATES = frozenset({SystemType.INTERRUPT_GATE, SystemType.TRAP_GATE})
_IST_OFFSET = 0x24
_gate_of = lru_cache(maxsize=512)(Gate.decode)


class UnmodelledError(Exception):
    """Raised by an attempt that needs a part of the processor that is not modelled; ``deliver`` turns it into data."""

    def __init__(self, part: str) -> None:
        super().__init__(f"{part} is not modelled")


def attempt(target: DeliveryTarget, event: Event) -> Entry:
    """Enter the handler of ``event`` in the mode that the processor is in."""
    if not target.cr0 & Cr0.PE:
        entry = _real(target, event)
    elif target.efer & Efer.LMA:
        entry = _long(target, event)
    elif target.rflags & Eflags.VM:
        part = "delivery out of virtual-8086 mode"
        raise UnmodelledError(part)
    else:
        entry = _legacy(target, event)
    commit(target, entry)
    return entry


def _real(target: DeliveryTarget, event: Event) -> Entry:
    """Real-address mode, SDM 3A 21.1.4: no error code, no privilege, the vector's 4 bytes are CS:IP."""
    if not target.idtr.holds(event.vector * 4, 4):
        reason = f"vector {event.vector:#x} lies beyond the limit {target.idtr.limit:#x} of the interrupt table"
        raise GuestFault(Vector.GP, reason=reason)
    address = target.idtr.base + event.vector * 4
    raw = read_named(target, address, 4, f"vector {event.vector:#x} of the interrupt table")
    ip, selector = int.from_bytes(raw[:2], "little"), int.from_bytes(raw[2:], "little")
    cs = target.segment(Segment.CS)
    stack = LegacyStack(target.segment(Segment.SS), target.rsp, 2)
    slots = stack.slots(3, 0)
    if ip > cs.limit:
        raise GuestFault(Vector.GP, reason=f"handler offset {ip:#x} is outside the CS limit {cs.limit:#x}")
    flags = target.rflags
    frame = (pushed_flags(flags, event), cs.selector, pushed_rip(target, event))
    rsp = stack.push(target, slots, frame)
    loaded = SegmentCache(selector, selector << 4, cs.limit, cs.flags)
    return Entry(loaded, ip, rsp, flags & ~_CLEARED_IN_REAL_MODE)


def _legacy(target: DeliveryTarget, event: Event) -> Entry:
    """Protected mode without IA-32e mode: 16-bit and 32-bit gates, SDM 3A 6.12."""
    gate = _gate(target, event, long=False)
    cpl, flags = target.cpl, target.rflags
    loaded = _code(target, gate, cpl, long=False)
    code = loaded.descriptor
    new_cpl = cpl if code.conforming else code.dpl
    frame = [pushed_flags(flags, event), target.segment(Segment.CS).selector, pushed_rip(target, event)]
    if event.error_code is not None:
        frame.append(event.error_code)
    inner: Loaded | None = None
    ss, esp = target.segment(Segment.SS), target.rsp
    if new_cpl < cpl:
        frame = [ss.selector, esp, *frame]
        inner, esp = inner_stack(target, new_cpl)
        ss = inner.cache(inner.selector)
    stack = LegacyStack(ss, esp, 4 if gate.is_wide else 2)
    slots = stack.slots(len(frame), inner.error_code if inner else 0)
    if gate.offset > code.limit:
        raise GuestFault(Vector.GP, reason=f"handler offset {gate.offset:#x} is outside the CS limit {code.limit:#x}")
    rsp = stack.push(target, slots, frame)
    if inner:
        mark_accessed(target, inner)
    mark_accessed(target, loaded)
    return Entry(_cs(loaded, new_cpl), gate.offset, rsp, flags & ~_cleared(gate), ss if inner else None)


def _long(target: DeliveryTarget, event: Event) -> Entry:
    """IA-32e mode: 64-bit gates, IST, an aligned frame that always has SS:RSP, SDM 3A 6.14."""
    gate = _gate(target, event, long=True)
    cpl, flags = target.cpl, target.rflags
    loaded = _code(target, gate, cpl, long=True)
    code = loaded.descriptor
    new_cpl = cpl if code.conforming else code.dpl
    if gate.ist:
        rsp = int.from_bytes(stack_from_tss(target, _IST_OFFSET + 8 * (gate.ist - 1), 8), "little")
    elif new_cpl < cpl:
        rsp = int.from_bytes(stack_from_tss(target, 4 + 8 * new_cpl, 8), "little")
    else:
        rsp = target.rsp
    judged_by = canonical_mode(target.cr4 & Cr4.LA57)
    frame = [
        target.segment(Segment.SS).selector,
        target.rsp,
        pushed_flags(flags, event),
        target.segment(Segment.CS).selector,
        pushed_rip(target, event),
    ]
    if event.error_code is not None:
        frame.append(event.error_code)
    rsp &= ~0xF
    if not (is_canonical(rsp - 8, judged_by) and is_canonical((rsp - 8 * len(frame)) & U64, judged_by)):
        raise GuestFault(Vector.SS, reason=f"the frame's stack {rsp:#x} is not canonical")
    if not is_canonical(gate.offset, judged_by):
        raise GuestFault(Vector.GP, reason=f"handler address {gate.offset:#x} is not canonical")
    rsp = push_long(target, rsp, frame)
    mark_accessed(target, loaded)
    null = SegmentCache(new_cpl, 0, 0, new_cpl << DPL_SHIFT) if new_cpl < cpl else None
    return Entry(_cs(loaded, new_cpl), gate.offset, rsp, flags & ~_cleared(gate), null)


def _gate(target: DeliveryTarget, event: Event, *, long: bool) -> Gate:
    size = 16 if long else 8
    idtr = target.idtr
    code = event.vector * 8 + 2
    name = f"IDT gate {event.vector:#x}"
    if not idtr.holds(event.vector * size, size):
        raise GuestFault(Vector.GP, code, reason=f"{name} lies beyond the IDT limit {idtr.limit:#x}")
    gate = _gate_of(read_named(target, idtr.base + event.vector * size, size, name))
    if gate.type not in (_LONG_GATES if long else _LEGACY_GATES):
        raise GuestFault(Vector.GP, code, reason=f"{name} is no interrupt or trap gate: {gate.describe(long=long)}")
    if event.kind.is_software and gate.dpl < target.cpl:
        raise GuestFault(Vector.GP, code, reason=f"{name} has DPL {gate.dpl}, CPL is {target.cpl}")
    if not gate.present:
        raise GuestFault(Vector.NP, code, reason=f"{name} is not present")
    if gate.type == SystemType.TASK_GATE:
        part = f"the task gate at {name}"
        raise UnmodelledError(part)
    return gate


def _code(target: DeliveryTarget, gate: Gate, cpl: int, *, long: bool) -> Loaded:
    if gate.selector & ~RPL_MASK == 0:
        raise GuestFault(Vector.GP, reason="the gate's code selector is null")
    loaded = load_descriptor(target, gate.selector, Vector.GP, "the gate's code selector")
    code = loaded.descriptor
    if not code.is_code or code.dpl > cpl:
        reason = f"the gate's code selector names: {code.describe(long=long)}, CPL is {cpl}"
        raise GuestFault(Vector.GP, loaded.error_code, reason=reason)
    if long and (not code.long or code.db):
        reason = f"the gate's code selector {gate.selector:#x} is no 64-bit code segment"
        raise GuestFault(Vector.GP, loaded.error_code, reason=reason)
    if not code.present:
        reason = f"the gate's code segment {gate.selector:#x} is not present"
        raise GuestFault(Vector.NP, loaded.error_code, reason=reason)
    return loaded


def _cs(loaded: Loaded, cpl: int) -> SegmentCache:
    return loaded.cache(loaded.selector & ~RPL_MASK | cpl)


def _cleared(gate: Gate) -> int:
    return _CLEARED | (Eflags.IF if gate.is_interrupt else 0)
