"""The paging modes and the format of their entries, SDM 3A 4.1 to 4.5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from functools import cache
from typing import Final

from emu.x86.bits import PHYS_MASK, U32, U64, Cr0, Cr4, Efer, Eflags, decode

ReadEntry = Callable[[int, int], int]
"""Reads one table entry: physical address, size in bytes (4 or 8) -> value."""


class PagingMode(Enum):
    """The four paging modes of SDM 3A table 4-1, and paging off; the value is the short label for people."""

    NONE = "paging off"
    TWO_LEVEL = "2-level"
    PAE = "PAE"
    FOUR_LEVEL = "4-level"
    FIVE_LEVEL = "5-level"

    @property
    def is_long(self) -> bool:
        """A mode of IA-32e: linear addresses have 48 or 57 bits and must be canonical."""
        return self is PagingMode.FOUR_LEVEL or self is PagingMode.FIVE_LEVEL


class Entry(IntEnum):
    """The flag bits of table entries, SDM 3A tables 4-5 to 4-20."""

    P = 1 << 0
    W = 1 << 1
    U = 1 << 2
    PWT = 1 << 3
    PCD = 1 << 4
    A = 1 << 5
    D = 1 << 6
    PS = 1 << 7
    G = 1 << 8
    XD = 1 << 63


def mode_of(cr0: int, cr4: int, efer: int) -> PagingMode:
    """The paging mode that is in force; EFER.LMA decides, not LME, SDM 3A 4.1.1."""
    if not cr0 & Cr0.PG:
        return PagingMode.NONE
    if efer & Efer.LMA:
        return PagingMode.FIVE_LEVEL if cr4 & Cr4.LA57 else PagingMode.FOUR_LEVEL
    return PagingMode.PAE if cr4 & Cr4.PAE else PagingMode.TWO_LEVEL


def is_canonical(linear: int, mode: PagingMode) -> bool:
    """Whether a 64-bit linear address is canonical under ``mode``, SDM 1 3.3.7.1; always true outside IA-32e mode."""
    if mode is PagingMode.FOUR_LEVEL:
        return _sign_extended(linear, 48)
    return mode is not PagingMode.FIVE_LEVEL or _sign_extended(linear, 57)


def is_canonical_base(linear: int) -> bool:
    """Whether an MSR or a hidden segment base takes this linear address.

    A processor with LA57 accepts 57 bits there whatever CR4.LA57 is (SDM 1 3.3.7.1; Linux arch/x86/kvm/mmu.h relies
    on the same).
    """
    return _sign_extended(linear, 57)


def _sign_extended(linear: int, width: int) -> bool:
    half = 1 << width - 1
    return (linear + half & U64) < half << 1


@dataclass(frozen=True, slots=True)
class PagingState:
    """The registers that paging depends on.

    ``ac`` is EFLAGS.AC, which lifts SMAP.  ``pdptes`` are the four values that the processor latched when CR3 was last
    loaded under PAE paging (SDM 3A 4.4.1); None reads them from memory.

    From these follow ``mode``, the paging mode in force, ``root``, the physical address of the top table (CR3 without
    its flags and PCID), and ``levels``, the levels from there down, none when paging is off.
    """

    cr0: int
    cr3: int
    cr4: int
    efer: int
    ac: bool = False
    pdptes: tuple[int, ...] | None = None
    mode: PagingMode = field(init=False, repr=False, compare=False)
    root: int = field(init=False, repr=False, compare=False)
    levels: tuple[Level, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out what every walk asks for."""
        mode = mode_of(self.cr0, self.cr4, self.efer)
        pae = mode is PagingMode.PAE
        root = self.cr3 & (U32 & ~0x1F if pae else (PHYS_MASK if mode.is_long else U32) & ~0xFFF)
        object.__setattr__(self, "mode", mode)
        object.__setattr__(self, "root", root)
        object.__setattr__(self, "levels", _levels(mode, pse=bool(self.cr4 & Cr4.PSE), nxe=bool(self.efer & Efer.NXE)))

    @classmethod
    def of_flags(cls, cr0: int, cr3: int, cr4: int, efer: int, eflags: int) -> PagingState:
        """The same from a whole EFLAGS value."""
        return cls(cr0, cr3, cr4, efer, bool(eflags & Eflags.AC))


@dataclass(frozen=True, slots=True)
class Level:
    """One level of tables.

    ``shift`` is the number of linear address bits below the index.  ``reserved`` and ``leaf_reserved`` are the bits
    that must be 0 in a present entry that refers to a table, or maps a page.  An entry maps a page if it has all bits
    of ``leaf_if``; None means that it never does.
    """

    name: str
    shift: int
    index_mask: int
    entry_size: int
    leaf_if: int | None
    reserved: int
    leaf_reserved: int
    has_rights: bool = True

    @property
    def page_size(self) -> int:
        """The bytes that one entry of this level covers."""
        return 1 << self.shift

    def index(self, linear: int) -> int:
        """The index of this level's entry for a linear address."""
        return linear >> self.shift & self.index_mask

    def is_leaf(self, entry: int) -> bool:
        """Whether a present ``entry`` maps a page rather than refers to a table."""
        return self.leaf_if is not None and entry & self.leaf_if == self.leaf_if

    def reserved_bits(self, entry: int) -> int:
        """The reserved bits that a present ``entry`` has set."""
        return entry & (self.leaf_reserved if self.is_leaf(entry) else self.reserved)

    def table(self, entry: int) -> int:
        """The physical address of the table that ``entry`` refers to."""
        return entry & PHYS_MASK & ~0xFFF

    def page(self, entry: int) -> int:
        """The physical address of the page that a leaf ``entry`` maps; 4-MByte entries carry PSE-36 bits."""
        if self.entry_size == 4 and self.shift == 22:
            return (entry & 0xFFC0_0000) | (entry >> 13 & 0xFF) << 32
        return entry & PHYS_MASK & ~(self.page_size - 1)


_ABOVE_PHYS: Final = (1 << 52) - 1 & ~PHYS_MASK
_IGNORED_IN_LONG: Final = 0x7FF << 52


def _below(shift: int) -> int:
    """The address bits of a large page's entry below its page size, which are reserved; bit 12 there is the PAT bit."""
    return (1 << shift) - 1 & ~0x1FFF


@cache
def _levels(mode: PagingMode, *, pse: bool, nxe: bool) -> tuple[Level, ...]:
    if mode is PagingMode.NONE:
        return ()
    if mode is PagingMode.TWO_LEVEL:
        large_reserved = 1 << 21
        leaf_if = int(Entry.PS) if pse else None
        return (
            Level("PDE", 22, 0x3FF, 4, leaf_if, 0, large_reserved),
            Level("PTE", 12, 0x3FF, 4, 0, 0, 0),
        )
    high = _ABOVE_PHYS | (0 if nxe else int(Entry.XD))
    if mode is PagingMode.PAE:
        high |= _IGNORED_IN_LONG
        top_reserved = 0x1E6 | _ABOVE_PHYS | _IGNORED_IN_LONG | Entry.XD
        return (
            Level("PDPTE", 30, 3, 8, None, top_reserved, 0, has_rights=False),
            Level("PDE", 21, 0x1FF, 8, int(Entry.PS), high, high | _below(21)),
            Level("PTE", 12, 0x1FF, 8, 0, high, high),
        )
    four = (
        Level("PML4E", 39, 0x1FF, 8, None, high | Entry.PS, 0),
        Level("PDPTE", 30, 0x1FF, 8, int(Entry.PS), high, high | _below(30)),
        Level("PDE", 21, 0x1FF, 8, int(Entry.PS), high, high | _below(21)),
        Level("PTE", 12, 0x1FF, 8, 0, high, high),
    )
    return (Level("PML5E", 48, 0x1FF, 8, None, high | Entry.PS, 0), *four) if mode is PagingMode.FIVE_LEVEL else four


def decode_entry(entry: int, level: Level) -> str:
    """The flags of an entry by their SDM letters from bit 0, as ``P W U A D G XD``; reserved bits as ``RSVD=0x..``."""
    if not entry & Entry.P:
        return "not present"
    shown = entry & sum(Entry)
    if not level.is_leaf(entry):
        shown &= ~(Entry.D | Entry.G)
    if level.page_size == 1 << 12:
        shown &= ~Entry.PS
    reserved = level.reserved_bits(entry)
    text = decode(shown, Entry)
    return f"{text} RSVD={reserved:#x}" if reserved else text
