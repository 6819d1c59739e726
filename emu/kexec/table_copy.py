"""Page tables equal to others but for one page: what a kernel has at an address where A itself has something else."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

from emu.kexec.arch import Arch
from emu.kexec.page_tables import AllocPage, Write, paging_state
from emu.units import PAGE_MASK, PAGE_SIZE, Phys, page_down
from emu.x86.paging.modes import Entry, Level

ReadPage = Callable[[Phys], bytes]
"""The 4096 bytes at a physical page address."""

_TABLE: Final = int(Entry.P | Entry.W | Entry.A)
_PAGE: Final = int(Entry.P | Entry.A | Entry.D)
_ENTRIES: Final = PAGE_SIZE // 8


def copy_with_page(arch: Arch, root: int, linear: int, phys: int, alloc: AllocPage, *, read: ReadPage,
                   write: Write) -> Phys:  # fmt: skip
    """The root of tables that map what those at physical ``root`` map, and 4 KiB at ``linear`` to ``phys``.

    For the 8-byte entries of x86_64.  Only the tables on the way to ``linear`` are copied, one page each; a large page
    there is split.  The new page can be read and executed, not written, and is not global.
    """
    table = alloc()
    top, old = table, bytearray(read(Phys(page_down(root))))
    steps = paging_state(arch, root).levels
    for level, lower in pairwise(steps):
        at = level.index(linear) * level.entry_size
        entry = int.from_bytes(old[at : at + level.entry_size], "little")
        content = _below(level, lower, entry, read)
        below = alloc()
        old[at : at + level.entry_size] = (below | _TABLE).to_bytes(level.entry_size, "little")
        write(table, bytes(old))
        table, old = below, content
    at = steps[-1].index(linear) * steps[-1].entry_size
    old[at : at + steps[-1].entry_size] = (phys & ~PAGE_MASK | _PAGE).to_bytes(steps[-1].entry_size, "little")
    write(table, bytes(old))
    return top


def _below(level: Level, lower: Level, entry: int, read: ReadPage) -> bytearray:
    """The content of the table under ``entry``: a copy, or the pieces of a large page, or nothing."""
    if not entry & Entry.P:
        return bytearray(PAGE_SIZE)
    if not level.is_leaf(entry):
        return bytearray(read(Phys(page_down(level.table(entry)))))
    start = level.page(entry)
    flags = entry & (PAGE_MASK & ~int(Entry.PS) | int(Entry.XD)) | (lower.leaf_if or 0)
    pieces = (start + number * lower.page_size | flags for number in range(_ENTRIES))
    return bytearray(b"".join(piece.to_bytes(8, "little") for piece in pieces))
