"""Segment descriptors, gates, hidden segment parts and descriptor-table registers, SDM 3A chapter 3 and 6.11.

Bases are linear addresses; limits are the offset of the last valid byte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from emu.x86.bits import U16, U32

ACCESSED: Final = 1 << 8
READ_WRITE: Final = 1 << 9
CONFORMING_OR_EXPAND_DOWN: Final = 1 << 10
CODE: Final = 1 << 11
NOT_SYSTEM: Final = 1 << 12
DPL_SHIFT: Final = 13
PRESENT: Final = 1 << 15
AVAILABLE: Final = 1 << 20
LONG: Final = 1 << 21
DB: Final = 1 << 22
GRANULARITY: Final = 1 << 23
FLAGS_MASK: Final = 0x00F0_FF00
"""The bits of a descriptor's upper doubleword that are neither base nor limit."""

RPL_MASK: Final = 3
TABLE_INDICATOR: Final = 4
"""Set in a selector that names an entry of the LDT."""

CODE_64: Final = PRESENT | NOT_SYSTEM | CODE | READ_WRITE | ACCESSED | LONG | GRANULARITY
CODE_32: Final = PRESENT | NOT_SYSTEM | CODE | READ_WRITE | ACCESSED | DB | GRANULARITY
CODE_16: Final = PRESENT | NOT_SYSTEM | CODE | READ_WRITE | ACCESSED
DATA_32: Final = PRESENT | NOT_SYSTEM | READ_WRITE | ACCESSED | DB | GRANULARITY
DATA_16: Final = PRESENT | NOT_SYSTEM | READ_WRITE | ACCESSED


class Segment(IntEnum):
    """The six segment registers by the number that instructions encode, SDM 2B appendix B table B-8."""

    ES = 0
    CS = 1
    SS = 2
    DS = 3
    FS = 4
    GS = 5


class SystemType(IntEnum):
    """The type field of descriptors with S=0, SDM 3A table 3-2; in IA-32e mode 9, B, C, E and F are 64 bits wide."""

    TSS16_AVAILABLE = 1
    LDT = 2
    TSS16_BUSY = 3
    CALL_GATE16 = 4
    TASK_GATE = 5
    INTERRUPT_GATE16 = 6
    TRAP_GATE16 = 7
    TSS_AVAILABLE = 9
    TSS_BUSY = 11
    CALL_GATE = 12
    INTERRUPT_GATE = 14
    TRAP_GATE = 15


_INTERRUPT_GATES: Final = frozenset({SystemType.INTERRUPT_GATE16, SystemType.INTERRUPT_GATE})
_WIDE_GATES: Final = frozenset({SystemType.INTERRUPT_GATE, SystemType.TRAP_GATE})


def system_type_name(number: int, *, long: bool = False) -> str:
    """A system type in words: ``TSS32 busy``, ``interrupt gate 64``, ``reserved type 0xd``."""
    wide = "64" if long else "32"
    names = {
        SystemType.TSS16_AVAILABLE: "TSS16 available",
        SystemType.LDT: "LDT",
        SystemType.TSS16_BUSY: "TSS16 busy",
        SystemType.CALL_GATE16: "call gate 16",
        SystemType.TASK_GATE: "task gate",
        SystemType.INTERRUPT_GATE16: "interrupt gate 16",
        SystemType.TRAP_GATE16: "trap gate 16",
        SystemType.TSS_AVAILABLE: f"TSS{wide} available",
        SystemType.TSS_BUSY: f"TSS{wide} busy",
        SystemType.CALL_GATE: f"call gate {wide}",
        SystemType.INTERRUPT_GATE: f"interrupt gate {wide}",
        SystemType.TRAP_GATE: f"trap gate {wide}",
    }
    legacy_only = long and number in {1, 3, 4, 5, 6, 7}
    known = None if legacy_only else names.get(SystemType(number)) if number in set(SystemType) else None
    return known or f"reserved type {number:#x}"


class _Flags:
    """What the flag bits of a descriptor say; shared by descriptors and the hidden parts loaded from them."""

    __slots__ = ()

    flags: int

    @property
    def type(self) -> int:
        """The 4-bit type field, SDM 3A 3.4.5.1."""
        return self.flags >> 8 & 0xF

    @property
    def dpl(self) -> int:
        """Descriptor privilege level, 0 to 3."""
        return self.flags >> DPL_SHIFT & 3

    @property
    def present(self) -> bool:
        """The P bit."""
        return bool(self.flags & PRESENT)

    @property
    def is_system(self) -> bool:
        """A TSS, an LDT or a gate rather than code or data (S=0)."""
        return not self.flags & NOT_SYSTEM

    @property
    def is_code(self) -> bool:
        """A code segment."""
        return self.flags & (NOT_SYSTEM | CODE) == NOT_SYSTEM | CODE

    @property
    def conforming(self) -> bool:
        """A code segment that runs at its caller's privilege."""
        return self.is_code and bool(self.flags & CONFORMING_OR_EXPAND_DOWN)

    @property
    def writable(self) -> bool:
        """A data segment that may be stored to."""
        return self.flags & (NOT_SYSTEM | CODE | READ_WRITE) == NOT_SYSTEM | READ_WRITE

    @property
    def expand_down(self) -> bool:
        """A data segment whose valid offsets lie above its limit."""
        return self.flags & (NOT_SYSTEM | CODE) == NOT_SYSTEM and bool(self.flags & CONFORMING_OR_EXPAND_DOWN)

    @property
    def long(self) -> bool:
        """A 64-bit code segment (L=1)."""
        return bool(self.flags & LONG)

    @property
    def db(self) -> bool:
        """The D/B bit: 32-bit default operands, or a 32-bit stack pointer."""
        return bool(self.flags & DB)


@dataclass(frozen=True, slots=True)
class SegmentCache(_Flags):
    """A segment register with its hidden part; ``flags`` is the descriptor's upper doubleword under FLAGS_MASK.

    ``limit`` is in bytes, with granularity already applied.
    """

    selector: int
    base: int
    limit: int
    flags: int

    @classmethod
    def real(cls, selector: int, *, limit: int = U16, flags: int = DATA_16) -> Self:
        """The state that a load in real-address mode gives: base is selector times 16, SDM 3A 21.1.1."""
        return cls(selector, selector << 4, limit, flags)

    @property
    def null(self) -> bool:
        """A null selector of any RPL."""
        return self.selector & ~RPL_MASK == 0

    def holds(self, offset: int, size: int) -> bool:
        """Whether bytes ``offset .. offset+size-1`` are all inside the limit, SDM 3A 5.3."""
        last = offset + size - 1
        if self.expand_down:
            return offset > self.limit and last <= (U32 if self.db else U16)
        return last <= self.limit

    def describe(self) -> str:
        """One line for people, as ``0x10 base 0x0 limit 0xffffffff code 64-bit DPL0``."""
        return f"{self.selector:#x} base {self.base:#x} limit {self.limit:#x} {_describe_flags(self)}"


@dataclass(frozen=True, slots=True)
class TableRegister:
    """GDTR or IDTR: linear base address and the offset of the last byte."""

    base: int
    limit: int

    def holds(self, offset: int, size: int) -> bool:
        """Whether ``size`` bytes at ``offset`` are all inside the table."""
        return offset + size - 1 <= self.limit


@dataclass(frozen=True, slots=True)
class Descriptor(_Flags):
    """A segment or system-segment descriptor, SDM 3A 3.4.5 and 3.5; ``raw_limit`` is the 20-bit field as it stands."""

    base: int
    raw_limit: int
    flags: int

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read 8 bytes, or the 16 bytes of an IA-32e system descriptor (SDM 3A figure 7-4).

        Raises ``ValueError`` for any other length.
        """
        if len(raw) not in {8, 16}:
            msg = f"a descriptor has 8 or 16 bytes, not {len(raw)}"
            raise ValueError(msg)
        low, high = struct.unpack_from("<II", raw)
        base = low >> 16 | (high & 0xFF) << 16 | (high >> 24) << 24
        if len(raw) == 16:
            base |= struct.unpack_from("<I", raw, 8)[0] << 32
        return cls(base, (low & U16) | (high & 0xF0000), high & FLAGS_MASK)

    @classmethod
    def of(cls, *, base: int = 0, limit: int, flags: int) -> Self:
        """Build one from a limit in bytes; with G set the limit must end a 4-KiB page, or ``ValueError`` is raised."""
        raw_limit = limit >> 12 if flags & GRANULARITY else limit
        made = cls(base, raw_limit, flags)
        if raw_limit >> 20 or made.limit != limit or flags & ~FLAGS_MASK:
            msg = f"no descriptor has limit {limit:#x} with flags {flags:#x}"
            raise ValueError(msg)
        return made

    @property
    def limit(self) -> int:
        """The offset of the last byte, granularity applied."""
        return (self.raw_limit << 12 | 0xFFF) if self.flags & GRANULARITY else self.raw_limit

    def encode(self) -> bytes:
        """The 8-byte form; base bits above 31 are not in it."""
        low = (self.raw_limit & U16) | (self.base & U16) << 16
        high = (self.base >> 16 & 0xFF) | (self.raw_limit & 0xF0000) | self.flags | (self.base >> 24 & 0xFF) << 24
        return struct.pack("<II", low, high)

    def encode_wide(self) -> bytes:
        """The 16-byte form of TSS and LDT descriptors in IA-32e mode."""
        return self.encode() + struct.pack("<II", self.base >> 32, 0)

    def cache(self, selector: int) -> SegmentCache:
        """What a load of ``selector`` puts into the hidden part of a segment register."""
        return SegmentCache(selector, self.base, self.limit, self.flags)

    def describe(self, *, long: bool = False) -> str:
        """One line for people, as ``base 0x0 limit 0xffffffff code 32-bit DPL0 read``."""
        return f"base {self.base:#x} limit {self.limit:#x} {_describe_flags(self, long=long)}"


@dataclass(frozen=True, slots=True)
class Gate:
    """An IDT gate, SDM 3A figures 6-2 and 6-8; ``type`` keeps the S bit as its bit 4, so only 0 to 15 are gates."""

    type: int
    selector: int
    offset: int
    dpl: int = 0
    present: bool = True
    ist: int = 0

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read an 8-byte gate, or a 16-byte gate of IA-32e mode; raises ``ValueError`` for any other length."""
        if len(raw) not in {8, 16}:
            msg = f"a gate has 8 or 16 bytes, not {len(raw)}"
            raise ValueError(msg)
        low, selector, ist, attributes, high = struct.unpack_from("<HHBBH", raw)
        kind = attributes & 0x1F
        if len(raw) == 16:
            offset = low | high << 16 | struct.unpack_from("<I", raw, 8)[0] << 32
            return cls(kind, selector, offset, attributes >> 5 & 3, bool(attributes & 0x80), ist & 7)
        narrow = kind in {SystemType.INTERRUPT_GATE16, SystemType.TRAP_GATE16}
        return cls(kind, selector, low if narrow else low | high << 16, attributes >> 5 & 3, bool(attributes & 0x80))

    def encode(self) -> bytes:
        """The 8-byte form."""
        return self._head()

    def encode_wide(self) -> bytes:
        """The 16-byte form of IA-32e mode."""
        return self._head() + struct.pack("<II", self.offset >> 32, 0)

    def _head(self) -> bytes:
        attributes = self.type | self.dpl << 5 | self.present << 7
        return struct.pack("<HHBBH", self.offset & U16, self.selector, self.ist, attributes, self.offset >> 16 & U16)

    @property
    def is_interrupt(self) -> bool:
        """An interrupt gate, which clears IF on the way in; a trap gate leaves it."""
        return self.type in _INTERRUPT_GATES

    @property
    def is_wide(self) -> bool:
        """A 32-bit gate, or a 64-bit one in IA-32e mode."""
        return self.type in _WIDE_GATES

    def describe(self, *, long: bool = False) -> str:
        """One line for people, as ``interrupt gate 64 -> 0x10:0x1234 DPL0 IST1``."""
        kind = system_type_name(self.type, long=long) if self.type < 16 else f"no gate (type {self.type:#x}, S=1)"
        target = f"{self.selector:#x}" if self.type == SystemType.TASK_GATE else f"{self.selector:#x}:{self.offset:#x}"
        ist = f" IST{self.ist}" if long and self.ist else ""
        return f"{kind} -> {target} DPL{self.dpl}{ist}{'' if self.present else ' not present'}"


def _describe_flags(flags: _Flags, *, long: bool = False) -> str:
    absent = "" if flags.present else " not present"
    if flags.is_system:
        return f"{system_type_name(flags.type, long=long)} DPL{flags.dpl}{absent}"
    if flags.is_code:
        width = "64-bit" if flags.long else "32-bit" if flags.db else "16-bit"
        kind = f"code {width}{' conforming' if flags.conforming else ''}"
        right = "read" if flags.flags & READ_WRITE else "execute only"
    else:
        kind = f"data {'32-bit' if flags.db else '16-bit'}{' expand-down' if flags.expand_down else ''}"
        right = "write" if flags.writable else "read only"
    return f"{kind} DPL{flags.dpl} {right}{absent}"
