"""Descriptors and stacks out of the tables, and the frame that a handler finds, SDM 3A 6.12 to 6.14."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from emu.units import PAGE_SHIFT
from emu.x86.bits import U16, U32, U64, Eflags
from emu.x86.delivery.target import DeliveryTarget, Event, EventKind, GuestFault
from emu.x86.exceptions import Vector
from emu.x86.paging import PagingMode
from emu.x86.segments import (
    ACCESSED,
    RPL_MASK,
    TABLE_INDICATOR,
    Descriptor,
    Segment,
    SegmentCache,
    SystemType,
    TableRegister,
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A descriptor with the selector that names it and the linear address that it was read from."""

    selector: int
    descriptor: Descriptor
    address: int

    @property
    def error_code(self) -> int:
        """The selector as error codes carry it, without RPL."""
        return self.selector & ~RPL_MASK

    def cache(self, selector: int) -> SegmentCache:
        """What a load of it as ``selector`` puts into a segment register, accessed as it is then."""
        loaded = self.descriptor
        return SegmentCache(selector, loaded.base, loaded.limit, loaded.flags | ACCESSED)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the processor loads in the end: nothing of it is loaded while anything can still fail."""

    cs: SegmentCache
    rip: int
    rsp: int
    rflags: int
    ss: SegmentCache | None = None


def read_named(target: DeliveryTarget, linear: int, size: int, what: str) -> bytes:
    """Read ``what`` at a linear address; a fault's reason then says what could not be read."""
    try:
        return target.read_linear(linear, size)
    except GuestFault as fault:
        raise fault.named(f"{what} at {linear:#x} cannot be read") from None


def write_named(target: DeliveryTarget, linear: int, data: bytes, what: str) -> None:
    """Write ``what`` at a linear address; a fault's reason then says what could not be written."""
    try:
        target.write_linear(linear, data)
    except GuestFault as fault:
        raise fault.named(f"{what} at {linear:#x} cannot be written") from None


def load_descriptor(target: DeliveryTarget, selector: int, vector: Vector, what: str) -> Loaded:
    """Fetch the 8-byte descriptor that ``selector`` names; ``vector`` is raised for one outside its table."""
    table: SegmentCache | TableRegister = target.ldtr if selector & TABLE_INDICATOR else target.gdtr
    name = "LDT" if selector & TABLE_INDICATOR else "GDT"
    index = selector & ~7
    if index + 7 > table.limit:
        reason = f"{what} {selector:#x} lies beyond the {name} limit {table.limit:#x}"
        raise GuestFault(vector, selector & ~RPL_MASK, reason=reason)
    address = table.base + index
    raw = read_named(target, address, 8, f"{name} entry {selector:#x} for {what}")
    return _loaded(selector, raw, address)


@lru_cache(maxsize=256)
def _loaded(selector: int, raw: bytes, address: int) -> Loaded:
    return Loaded(selector, Descriptor.decode(raw), address)


def mark_accessed(target: DeliveryTarget, loaded: Loaded) -> None:
    """Set the accessed bit of a descriptor in its table, as a load into a segment register does, SDM 3A 3.4.5.1."""
    flags = loaded.descriptor.flags
    if not flags & ACCESSED:
        accessed = bytes([(flags | ACCESSED) >> 8 & 0xFF])
        write_named(target, loaded.address + 5, accessed, f"accessed bit of descriptor {loaded.selector:#x}")


def stack_from_tss(target: DeliveryTarget, offset: int, size: int) -> bytes:
    """Read a stack pointer at ``offset`` of the current TSS; #TS(TR) if that lies beyond its limit."""
    tr = target.tr
    if offset + size - 1 > tr.limit:
        reason = f"stack at TSS offset {offset:#x} lies beyond the TSS limit {tr.limit:#x} (TR {tr.selector:#x})"
        raise GuestFault(Vector.TS, tr.selector & ~RPL_MASK, reason=reason)
    return read_named(target, tr.base + offset, size, f"stack at offset {offset:#x} of the TSS")


def inner_stack(target: DeliveryTarget, cpl: int) -> tuple[Loaded, int]:
    """SS descriptor and ESP for ``cpl`` out of a 16-bit or 32-bit TSS, with the checks of SDM 2A INT n."""
    if target.tr.type in {SystemType.TSS16_AVAILABLE, SystemType.TSS16_BUSY}:
        raw = stack_from_tss(target, cpl * 4 + 2, 4)
        esp, selector = int.from_bytes(raw[:2], "little"), int.from_bytes(raw[2:], "little")
    else:
        raw = stack_from_tss(target, cpl * 8 + 4, 6)
        esp, selector = int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:], "little")
    if selector & ~RPL_MASK == 0:
        raise GuestFault(Vector.TS, 0, reason=f"SS{cpl} of the TSS is null")
    loaded = load_descriptor(target, selector, Vector.TS, f"SS{cpl} of the TSS")
    stack = loaded.descriptor
    if selector & RPL_MASK != cpl or stack.dpl != cpl or not stack.writable:
        reason = f"SS{cpl} of the TSS, {selector:#x}, is no writable data segment of privilege {cpl}"
        raise GuestFault(Vector.TS, loaded.error_code, reason=reason)
    if not stack.present:
        raise GuestFault(Vector.SS, loaded.error_code, reason=f"SS{cpl} of the TSS, {selector:#x}, is not present")
    return loaded, esp


def pushed_flags(flags: int, event: Event) -> int:
    """RFLAGS as the frame gets it: with RF for faults and between iterations, SDM 3B 18.3.1.1."""
    if event.kind.is_software:
        return flags & ~Eflags.RF
    if event.mid_rep or (event.kind is EventKind.FAULT and event.vector != Vector.DB):
        return flags | Eflags.RF
    return flags


def pushed_rip(target: DeliveryTarget, event: Event) -> int:
    """The return address for the frame, see :class:`Event`."""
    return target.rip if event.next_rip is None or event.kind is EventKind.FAULT else event.next_rip


@dataclass(frozen=True, slots=True)
class LegacyStack:
    """A segmented stack that a frame of ``width``-byte values goes onto, from ``esp`` down."""

    segment: SegmentCache
    esp: int
    width: int

    @property
    def _mask(self) -> int:
        return U32 if self.segment.db else U16

    def slots(self, count: int, error_code: int) -> list[int]:
        """The offsets of ``count`` values; #SS(``error_code``) if the limit leaves too little room for all of them."""
        offsets = [(self.esp - self.width * (index + 1)) & self._mask for index in range(count)]
        for offset in offsets:
            if not self.segment.holds(offset, self.width):
                reason = f"no room for the frame: offset {offset:#x} is outside the stack limit {self.segment.limit:#x}"
                raise GuestFault(Vector.SS, error_code, reason=reason)
        return offsets

    def push(self, target: DeliveryTarget, slots: list[int], values: Iterable[int]) -> int:
        """Write one value into each of ``slots`` and return the new ESP."""
        value_mask = (1 << 8 * self.width) - 1
        for offset, value in zip(slots, values, strict=True):
            data = (value & value_mask).to_bytes(self.width, "little")
            write_named(target, (self.segment.base + offset) & U32, data, "exception frame")
        return self.esp & U32 & ~self._mask | slots[-1]


def push_long(target: DeliveryTarget, rsp: int, values: Iterable[int]) -> int:
    """Push quadwords from ``rsp`` down and return the new RSP; at once where they lie in one page."""
    words = [value & U64 for value in values]
    bottom = rsp - 8 * len(words)
    if bottom > 0 and bottom >> PAGE_SHIFT == rsp - 1 >> PAGE_SHIFT:
        frame = struct.pack(f"<{len(words)}Q", *reversed(words))
        try:
            target.write_linear(bottom, frame)
        except GuestFault as fault:  # the first push meets it, at its own address
            cr2 = None if fault.cr2 is None else rsp - 8
            first = GuestFault(fault.vector, fault.error_code, cr2, fault.reason)
            raise first.named(f"exception frame at {rsp - 8:#x} cannot be written") from None
        return bottom
    for value in words:
        rsp = (rsp - 8) & U64
        write_named(target, rsp, value.to_bytes(8, "little"), "exception frame")
    return rsp


def commit(target: DeliveryTarget, entry: Entry) -> None:
    """Load the registers; nothing can fail any more."""
    if entry.ss is not None:
        target.set_segment(Segment.SS, entry.ss)
    target.set_segment(Segment.CS, entry.cs)
    target.rflags = entry.rflags
    target.rsp = entry.rsp
    target.rip = entry.rip


def canonical_mode(la57: object) -> PagingMode:
    """The mode by which IA-32e addresses are judged."""
    return PagingMode.FIVE_LEVEL if la57 else PagingMode.FOUR_LEVEL
