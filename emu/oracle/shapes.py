"""The memory that random cases begin with: stub, GDT, stacks, and the caller's tables in several shapes.

A shape is the page size of the caller's identity map and whether its mapping of the control page is global.  Tables
have their accessed and dirty bits set from the start, so that no run changes them; they lie behind the pages that each
case has for itself, a place for each shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

from emu import resources
from emu.assembler import Image
from emu.journey import programs
from emu.kexec.arch import Arch
from emu.kexec.layout import PageList
from emu.kexec.page_tables import TableTree, set_rox
from emu.oracle.case import find_gap
from emu.oracle.image import HIGH_START, entry_program
from emu.units import MIB, PAGE_SIZE, Phys
from emu.x86.paging.modes import Entry

SHAPES = 4
LIST_PAGES, DATA_PAGES = 3, 16
MAPPED_END = 4 * MIB
"""The caller maps physical memory up to here to itself: the case, and the loader that it goes back to."""
CODE_SELECTOR, DATA_SELECTOR, TSS_SELECTOR = 0x08, 0x10, 0x18
PAGE_LIST_AT = 0x800
AFTER_AT = 0x40
_TSS_AT = 0xC00
_TABLE_PAGES = 20


class Page(IntEnum):
    """The pages of a case, from HIGH_START."""

    CONTROL = 0
    SWAP = 1
    CODE = 2
    STACK = 3
    GDT = 4
    PEER = 5
    LISTS = 6
    DATA = 9
    END = 25


def place(page: int) -> int:
    """The physical address of a page of the case."""
    return HIGH_START + page * PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Template:
    """What all cases of one shape begin with.  ``large``: the caller maps memory in large pages."""

    memory: bytes
    tables: bytes
    tables_at: int
    stub: Image
    a_root: int
    kexec_root: int
    gap: int
    large: bool


class _Tables:
    """Page tables of one shape under construction."""

    def __init__(self, arch: Arch, shape: int) -> None:
        self.arch = arch
        self.at = place(Page.END) + shape * _TABLE_PAGES * PAGE_SIZE
        self.memory = bytearray(_TABLE_PAGES * PAGE_SIZE)
        self._free = iter(range(self.at, self.at + len(self.memory), PAGE_SIZE))

    def alloc(self) -> Phys:
        return Phys(next(self._free))

    def write(self, address: int, data: bytes) -> None:
        self.memory[address - self.at : address - self.at + len(data)] = data

    def read(self, address: int, size: int) -> int:
        return int.from_bytes(self.memory[address - self.at : address - self.at + size], "little")

    def caller(self, *, large: bool, global_page: bool) -> int:
        """A's tables: memory to itself, the control page read-only in the direct map."""
        tree = TableTree(self.arch, self.alloc)
        step = 2 * MIB if large and self.arch is not Arch.I386 else PAGE_SIZE
        for at in range(0, MAPPED_END, step):
            tree.map_page(at, at, step)
        window = self.arch.direct(place(Page.CONTROL))
        tree.map_page(window, place(Page.CONTROL))
        tree.store(self.write)
        if large and self.arch is Arch.I386:  # one 4 MiB page in place of the table
            self.write(tree.root, int(Entry.P | Entry.W | Entry.A | Entry.D | Entry.PS).to_bytes(4, "little"))
        leaf = set_rox(self.read, self.write, tree.root, self.arch, window)
        if global_page:
            size = 4 if self.arch is Arch.I386 else 8
            self.write(leaf, (self.read(leaf, size) | Entry.G).to_bytes(size, "little"))
        return tree.root

    def kexec(self) -> int:
        """The tables that machine_kexec_prepare builds."""
        tree = TableTree(self.arch, self.alloc)
        control = place(Page.CONTROL)
        if self.arch.word == 8:
            for at in range(0, MAPPED_END, 2 * MIB):
                tree.map_page(at, at, 2 * MIB)
        else:
            tree.map_page(control, control)
        tree.map_page(self.arch.direct(control), control)
        tree.store(self.write)
        return tree.root


@cache
def template(arch: Arch, shape: int) -> Template:
    """The memory of ``shape`` (0 to SHAPES - 1)."""
    tables = _Tables(arch, shape)
    large = bool(shape & 1)
    a_root = tables.caller(large=large, global_page=bool(shape & 2))
    kexec_root = tables.kexec()
    memory = bytearray(Page.END * PAGE_SIZE)

    def write(address: int, data: bytes) -> None:
        memory[address - HIGH_START : address - HIGH_START + len(data)] = data

    stub = _stub(arch)
    write(place(Page.CONTROL), _stub_bytes(arch, stub, kexec_root))
    gap = find_gap(bytes(memory[:PAGE_SIZE]), len(entry_program(arch, 0).code))
    if gap is None:
        raise AssertionError("the control page has room for the entry code")
    write(place(Page.GDT), _gdt(arch))
    if arch.word == 4:
        write(place(Page.GDT) + PAGE_LIST_AT, _page_list(arch, kexec_root))
    return Template(bytes(memory), bytes(tables.memory), tables.at, stub, a_root, kexec_root, gap, large)


def _stub(arch: Arch) -> Image:
    folder = "x86_64" if arch.word == 8 else "i386"
    return programs.load(resources.asm_dir() / folder / "relocate_new_kernel.S", place(Page.CONTROL), arch)


def _stub_bytes(arch: Arch, stub: Image, kexec_root: int) -> bytes:
    code = bytearray(stub.code)
    if arch.word == 8:
        window = int(arch.direct(place(Page.CONTROL)))
        words = {"va_control_page": window, "pa_table_page": kexec_root, "pa_swap_page": place(Page.SWAP)}
        for name, value in words.items():
            at = stub.symbols[f"kexec_{name}"] - stub.org
            code[at : at + 8] = value.to_bytes(8, "little")
    return bytes(code)


def _page_list(arch: Arch, kexec_root: int) -> bytes:
    entries = [0] * PageList.PAGES_NR
    entries[PageList.PA_CONTROL_PAGE] = place(Page.CONTROL)
    entries[PageList.VA_CONTROL_PAGE] = int(arch.direct(place(Page.CONTROL)))
    entries[PageList.PA_PGD], entries[PageList.PA_SWAP_PAGE] = kexec_root, place(Page.SWAP)
    return b"".join(entry.to_bytes(4, "little") for entry in entries)


def _gdt(arch: Arch) -> bytes:
    code = 0x00AF9B000000FFFF if arch.word == 8 else 0x00CF9B000000FFFF
    base = place(Page.GDT) + _TSS_AT
    tss = 0x67 | (base & 0xFFFFFF) << 16 | 0x89 << 40 | base >> 24 << 56
    return b"".join(value.to_bytes(8, "little") for value in (0, code, 0x00CF93000000FFFF, tss, 0))
