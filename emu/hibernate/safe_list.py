"""The list of memory that is safe to save, as A makes it and as B's userspace gets it.

Source: what Linux leaves out of an image (kernel/power/snapshot.c: pfn_is_nosave, register_nosave_region), and the
headers that kexec-tools makes for elfcorehdr= (kexec/crashdump-elf.c).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from emu.errors import ImageFileError
from emu.hibernate.elf_core import CoreHead, cut_at_direct_map, loads_of, parse_head
from emu.hibernate.memory import joined, without
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range
from emu.units import PAGE_MASK, PAGE_SIZE, Phys, page_down, page_up, phys_of, show_phys

_PAIR: Final = struct.Struct("<QQ")
PAIR_SIZE: Final = _PAIR.size
_WHERE: Final = "list of safe memory"


def safe_ranges(
    memory_map: MemoryMap, target: Range, low: Range | None = None, nosave: Iterable[Range] = ()
) -> tuple[Range, ...]:
    """A's whole pages of RAM less the target area, the low region and ``nosave``; the rest of the map is no RAM.

    ``low`` is the map's own low region where it is not given.  A page that a taken range touches is taken whole.  What
    A had in target area and low region is in source or backup pages, which are on the list.
    """
    taken = [target, memory_map.low_region() if low is None else low, *nosave]
    whole = [Range(Phys(page_down(one.start)), Phys(page_up(one.end))) for one in taken]
    return without(memory_map.ram_ranges, whole)


def pack_safe_list(ranges: Iterable[Range]) -> bytes:
    """``safe_list`` of the jump page: a pair of qwords, start and size in bytes, for each range."""
    return b"".join(_PAIR.pack(one.start, one.size) for one in ranges)


def parse_safe_list(data: bytes) -> tuple[Range, ...]:
    """The ranges; raises ImageFileError unless they are whole pages, ascending, apart, and not empty."""
    if len(data) % PAIR_SIZE:
        raise ImageFileError(f"{len(data)} bytes are no whole number of pairs", where=_WHERE)
    return _checked(list(_PAIR.iter_unpack(data)), _WHERE)


def _checked(pairs: Sequence[tuple[int, int]], where: str) -> tuple[Range, ...]:
    ranges: list[Range] = []
    for start, size in pairs:
        if (start | size) & PAGE_MASK or not size or start + size > 1 << 64:
            raise ImageFileError(f"{size:#x} bytes at {show_phys(start)} are no whole pages of memory", where=where)
        if ranges and start < ranges[-1].end:
            raise ImageFileError(f"the range at {show_phys(start)} begins before the one before it ends", where=where)
        ranges.append(Range(Phys(start), Phys(start + size)))
    return tuple(ranges)


def pack_core_header(arch: Arch, ranges: Iterable[Range]) -> bytes:
    """The contents of an ``elfcorehdr=`` segment: ELF64 as kexec-tools makes it for every x86, in whole pages.

    Offsets are physical addresses, since the file that it heads is memory itself.  There are no notes: with a preserved
    context the registers are in the control page.  Raises ImageFileError for too many ranges.
    """
    return CoreHead(arch.machine, wide=True, notes=(), loads=loads_of(arch, cut_at_direct_map(arch, ranges))).pack()


def parse_core_header(data: bytes) -> tuple[Range, ...]:
    """The ranges of a header made so; raises ImageFileError as :func:`parse_safe_list` does, and for no such header."""
    where = "ELF core header"
    head = parse_head(data)
    if any(load.offset != load.physical for load in head.loads):
        raise ImageFileError("a range lies elsewhere than at its physical address", where=where)
    return joined(_checked([(load.physical, load.size) for load in head.loads], where))


def require_kept(ranges: Iterable[Range], needed: Mapping[str, Iterable[int]]) -> None:
    """Check that the page frames of ``needed``, by what they are to A, are all in ``ranges``.

    These are A's way back: source and backup pages, entry lists, control pages with the saved context, page tables,
    the jump page.  Raises ImageFileError naming the first that a save would lose.
    """
    kept = joined(ranges)
    for what, pfns in needed.items():
        for pfn in sorted(pfns):
            address = phys_of(pfn)
            if not any(one.start <= address and address + PAGE_SIZE <= one.end for one in kept):
                raise ImageFileError(
                    f"the {what} at {show_phys(address)} would not be saved",
                    where=_WHERE,
                    hint="A could not be entered again: it must lie in A's memory outside target area and low region",
                )
