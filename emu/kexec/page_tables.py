"""The page tables that machine_kexec_prepare builds, and the one edit that the loader makes in A's live tables.

x86_64 (Linux arch/x86/kernel/machine_kexec_64.c): an identity map in 2 MiB pages, and the control page at its linear
address.  i386 (machine_kexec_32.c): the control page at its linear and its physical address, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from errno import EINVAL
from typing import Final

from emu.errors import LoadError
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap
from emu.units import MIB, PAGE_MASK, PAGE_SIZE, Linear, Phys, page_down, show_phys
from emu.x86.bits import Cr0, Cr4, Efer
from emu.x86.paging.modes import Entry, Level, PagingState, ReadEntry

LARGE_PAGE: Final = 2 * MIB
_TABLE: Final = int(Entry.P | Entry.W | Entry.A)
_PAGE: Final = int(Entry.P | Entry.W | Entry.A | Entry.D)

AllocPage = Callable[[], Phys]
Write = Callable[[Phys, bytes], None]
"""Stores bytes at a physical address."""


def paging_state(arch: Arch, root: int) -> PagingState:
    """The registers under which tables of ``arch`` at physical ``root`` are in force, NX enabled and WP set."""
    cr0 = Cr0.PE | Cr0.PG | Cr0.WP
    if arch.word == 4:
        return PagingState(cr0, root, int(Cr4.PAE) if arch.is_pae else 0, int(Efer.NXE) if arch.is_pae else 0)
    cr4 = Cr4.PAE | (Cr4.LA57 if arch.is_la57 else 0)
    return PagingState(cr0, root, cr4, Efer.LME | Efer.LMA | Efer.NXE)


class TableTree:
    """Page tables under construction.  Each table is a whole page from ``alloc``; :meth:`store` writes them all.

    Accessed and dirty bits are set from the start, so that running on the tables does not change them.
    """

    def __init__(self, arch: Arch, alloc: AllocPage) -> None:
        self._alloc = alloc
        self._levels = paging_state(arch, 0).levels
        self._tables: dict[Phys, bytearray] = {}
        self.root = self._new_table()

    @property
    def tables(self) -> tuple[Phys, ...]:
        """The physical addresses of all tables, the root first."""
        return tuple(self._tables)

    def map_page(self, linear: int, phys: int, size: int = PAGE_SIZE) -> None:
        """Map ``size`` bytes (a page size of this mode) writable and executable; what is mapped already stays.

        Raises :class:`LoadError` (EINVAL) where another page is mapped there.
        """
        table = self.root
        for level in self._levels:
            at = level.index(linear) * level.entry_size
            entry = self._get(table, at, level)
            if level.page_size == size:
                if entry and entry & ~PAGE_MASK != phys:
                    raise LoadError(f"{linear:#x} is mapped to {show_phys(level.page(entry))}", errno=EINVAL)
                large = level.leaf_if or 0
                self._set(table, at, level, phys | _PAGE | large)
                return
            if entry and level.is_leaf(entry):
                self._same_place(level, entry, linear, phys)
                return
            if not entry:
                entry = self._new_table() | (_TABLE if level.has_rights else int(Entry.P))
                self._set(table, at, level, entry)
            table = Phys(level.table(entry))

    def store(self, write: Write) -> None:
        """Write every table to physical memory."""
        for table, content in self._tables.items():
            write(table, bytes(content))

    def _same_place(self, level: Level, entry: int, linear: int, phys: int) -> None:
        if level.page(entry) + linear % level.page_size != phys:
            raise LoadError(f"{linear:#x} lies in a large page to elsewhere", errno=EINVAL, where="page tables")

    def _new_table(self) -> Phys:
        table = self._alloc()
        self._tables[table] = bytearray(PAGE_SIZE)
        return table

    def _get(self, table: Phys, at: int, level: Level) -> int:
        return int.from_bytes(self._tables[table][at : at + level.entry_size], "little")

    def _set(self, table: Phys, at: int, level: Level, entry: int) -> None:
        self._tables[table][at : at + level.entry_size] = entry.to_bytes(level.entry_size, "little")


def build(
    arch: Arch,
    alloc: AllocPage,
    write: Write,
    *,
    identity: Iterable[tuple[int, int]] = (),
    pages: Iterable[tuple[int, int]] = (),
) -> Phys:
    """Tables that map each physical (start, end) of ``identity`` to itself and each (linear, physical) 4 KiB page of
    ``pages``.

    Identity ranges are covered by 2 MiB pages (4 KiB pages on i386 without PAE).  Returns the physical address of the
    root.
    """
    tree = TableTree(arch, alloc)
    step = PAGE_SIZE if arch is Arch.I386 else LARGE_PAGE
    for start, end in identity:
        for at in range(start - start % step, end, step):
            tree.map_page(at, at, step)
    for linear, phys in pages:
        tree.map_page(linear, phys)
    tree.store(write)
    return tree.root


def build_transition_tables(
    arch: Arch,
    alloc: AllocPage,
    write: Write,
    *,
    memory_map: MemoryMap,
    control_page: Phys,
    also: Iterable[tuple[int, int]] = (),
    text: Linear | None = None,
) -> Phys:
    """The tables on which relocate_new_kernel runs; returns their root.

    The control page is at its address in A's direct map, executable and writable.  On x86_64 all of physical 0 up to
    the end of RAM is mapped to itself, and so are the (start, end) ranges of ``also`` (segments, control pages, jump
    page).  Given ``text``, the linear address at which A's kernel has the stub in its own text (x86_64 before 6.14),
    the control page is there and not in the direct map.
    """
    window = (arch.direct(control_page) if text is None else text, control_page)
    if arch.word == 4:
        return build(arch, alloc, write, pages=(window, (control_page, control_page)))
    ranges = [(0, memory_map.end_of_ram), *also]
    return build(arch, alloc, write, identity=ranges, pages=(window,))


def build_flat_copy_tables(arch: Arch, alloc: AllocPage, write: Write, page: Phys) -> Phys:
    """i386: the tables of the second copy of the stub, whose linear address is its physical one; returns their root."""
    return build(arch, alloc, write, pages=((page, page),))


def set_rox(
    read_entry: ReadEntry, write: Write, root: int, arch: Arch, linear: Linear, *, writable: bool = False
) -> Phys:
    """Make the 4 KiB page at ``linear`` read-only and executable in the tables at ``root``, as set_memory_rox does.

    ``writable`` leaves the page writable, as set_memory_x does.
    ``read_entry`` takes a physical address and 4 or 8 bytes.  Returns the physical address of the entry that was
    changed; flushing the TLB is the caller's job.  Raises :class:`LoadError` (EINVAL) where the page is not mapped by a
    4 KiB entry or a table above forbids execution.
    """
    table = root & ~PAGE_MASK if not arch.is_pae else root & ~0x1F
    for level in paging_state(arch, root).levels:
        at = Phys(table + level.index(linear) * level.entry_size)
        entry = read_entry(at, level.entry_size)
        if not entry & Entry.P:
            raise LoadError(f"{linear:#x} is not mapped: {level.name} is {entry:#x}", errno=EINVAL, where="set_rox")
        if level.is_leaf(entry):
            if level.page_size != PAGE_SIZE:
                raise LoadError(f"{linear:#x} lies in a large page", errno=EINVAL, where="set_rox")
            changed = entry & ~(0 if writable else int(Entry.W)) & ~(int(Entry.XD) if level.entry_size == 8 else 0)
            write(at, changed.to_bytes(level.entry_size, "little"))
            return at
        if level.entry_size == 8 and entry & Entry.XD:
            raise LoadError(f"{level.name} above {linear:#x} forbids execution", errno=EINVAL, where="set_rox")
        table = page_down(level.table(entry))
    msg = "the last level always maps a page"
    raise AssertionError(msg)
