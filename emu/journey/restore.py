"""What C's userspace does on RESTORE: the image's pages into their places, C told what is left to do.

A page of A goes straight to its place where C does not use that itself; otherwise it waits in a page that is free for
C, and C's relocate_new_kernel moves it (Linux kernel/power/snapshot.c does the same with its safe pages).  Everything
of C's that must outlive the move, its control page, tables, list and waiting pages, lies outside all saved memory:
in what was the target area and the low region, whose contents at that time are of no use to anybody.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from emu.assembler import Image
from emu.errors import ImageFileError
from emu.hibernate.reader import SavedImage
from emu.journey import programs, stubs
from emu.journey.scene import Scene
from emu.kexec.arch import Arch
from emu.kexec.entry_list import ListBuilder, Pair
from emu.kexec.layout import COOKIE_SIZE, KexecParams, PageList, RelocateFlag
from emu.kexec.page_tables import build_flat_copy_tables, build_transition_tables
from emu.kexec.places import TABLE_PAGES, low_places
from emu.machine.machine import Machine
from emu.machine.owners import Owner
from emu.units import PAGE_SHIFT, PAGE_SIZE, Phys, phys_of


@dataclass(frozen=True, slots=True)
class Restored:
    """The image as it lies in RAM; addresses physical.

    ``stub`` is C's relocate_new_kernel, linked at its page.  ``pairs`` are (place, waiting page) of what could not be
    put in its place, ``pages`` the number of all pages.
    """

    image: SavedImage
    stub: Image
    head: int
    pairs: tuple[Pair, ...]
    pages: int
    swap_page: int
    entry: int
    entry_va: int


def c_pfns(scene: Scene, kernel_c: Image) -> set[int]:
    """The page frames that C uses itself: its image, and what its boot loader left in the low region."""
    end = kernel_c.symbols.get("image_end", kernel_c.end)
    places = low_places(scene.memory_map)
    tables = range(places.tables >> PAGE_SHIFT, (places.tables >> PAGE_SHIFT) + TABLE_PAGES + 1)
    return {
        *range(kernel_c.org >> PAGE_SHIFT, (end + PAGE_SIZE - 1) >> PAGE_SHIFT),
        *tables,
        places.gdt >> PAGE_SHIFT,
        places.boot_params >> PAGE_SHIFT,
        places.command_line >> PAGE_SHIFT,
    }


class Restoring:
    """One image on its way into RAM."""

    def __init__(self, machine: Machine, scene: Scene, kernel_c: Image, image: SavedImage) -> None:
        self._machine = machine
        self._scene = scene
        self._c = kernel_c
        self._image = image
        self._own = c_pfns(scene, kernel_c)
        self._saved = {pfn for one in image.ranges for pfn in one.pages()}
        self._free = self._free_pages()

    def _free_pages(self) -> Iterator[Phys]:
        taken = self._own | self._saved | {0}
        pages = [phys_of(pfn) for pfn in self._scene.memory_map.ram_pages() if pfn not in taken]
        return iter(pages)

    def _take(self, owner: Owner) -> Phys:
        page = next(self._free, None)
        if page is None:
            raise ImageFileError(
                "C has no page left outside the memory that is to be restored",
                where="restore",
                hint="a larger target area leaves C more room",
            )
        self._machine.owners.assign([page >> PAGE_SHIFT], owner)
        return page

    def run(self) -> Restored:
        """Lay everything down and fill C's ``kexec_params``; raises ImageFileError with C's own memory as it was."""
        scene, ram, arch = self._scene, self._machine.ram, self._scene.arch
        control = self._take(Owner.CONTROL)
        swap = self._take(Owner.SWAP)
        root = self._tables(control)
        files = programs.built_in_stubs(arch)
        stub = programs.load(files.relocate, int(control), arch)
        ram.write(stub.org, self._stub_bytes(stub, root, swap))
        pairs, count = self._pages()
        builder = ListBuilder(lambda: self._take(Owner.LIST), arch.word, ram.write)
        builder.add_pairs(pairs)
        head = builder.terminate()
        entry = self._image.record.entry
        entry_va = programs.relocate_entry(stub)
        restored = Restored(self._image, stub, head, tuple(pairs), count, int(swap), entry, entry_va)
        self._tell_c(restored, int(root), scene.arch)
        return restored

    def _tables(self, control: Phys) -> Phys:
        arch, ram = self._scene.arch, self._machine.ram
        if arch.word == 4:
            return build_flat_copy_tables(arch, lambda: self._take(Owner.PAGE_TABLE), ram.write, control)
        return build_transition_tables(
            arch,
            lambda: self._take(Owner.PAGE_TABLE),
            ram.write,
            memory_map=self._scene.memory_map,
            control_page=control,
        )

    def _stub_bytes(self, stub: Image, root: Phys, swap: Phys) -> bytes:
        if self._scene.arch.word == 4:
            return stub.code
        words = {"kexec_va_control_page": stub.org, "kexec_pa_table_page": int(root), "kexec_pa_swap_page": int(swap)}
        return stubs.patched(stub, words, 8)

    def _pages(self) -> tuple[list[Pair], int]:
        """Every page of the image: in its place, or (those that C uses) in a page of its own beside."""
        pairs: list[Pair] = []
        count = 0
        for address, data in self._image.blocks():
            for at in range(0, len(data), PAGE_SIZE):
                count += 1
                page = Phys(address + at)
                if page >> PAGE_SHIFT in self._own:
                    source = self._take(Owner.SOURCE)
                    self._machine.ram.write(source, data[at : at + PAGE_SIZE])
                    pairs.append((page, source))
                else:
                    self._machine.ram.write(page, data[at : at + PAGE_SIZE])
        return pairs, count

    def _tell_c(self, restored: Restored, root: int, arch: Arch) -> None:
        ram, block = self._machine.ram, self._c.symbols["kexec_params"]
        fields = {
            KexecParams.STATUS: 0,
            KexecParams.ENTRY_VA: restored.entry_va,
            KexecParams.HEAD: restored.head,
            KexecParams.PA_CONTROL: restored.stub.org,
            KexecParams.START: restored.entry,
            KexecParams.FLAGS: int(RelocateFlag.COPY),
            KexecParams.PAGE_LIST: block + KexecParams.ARRAY if arch.bits == 32 else 0,
            KexecParams.HAS_PAE: int(arch.is_pae),
            KexecParams.JUMP_PAGE: restored.image.record.jump_page,
            KexecParams.PAGES: len(restored.pairs),
            KexecParams.COOKIE: self._cookie(restored),
        }
        for offset, value in fields.items():
            ram.write(block + offset, value.to_bytes(8, "little"))
        if arch.bits == 32:
            array = [0] * PageList.PAGES_NR
            array[PageList.PA_CONTROL_PAGE] = array[PageList.VA_CONTROL_PAGE] = restored.stub.org
            array[PageList.PA_PGD], array[PageList.PA_SWAP_PAGE] = root, restored.swap_page
            ram.write(block + KexecParams.ARRAY, struct.pack(f"<{PageList.PAGES_NR}I", *array))

    def _cookie(self, restored: Restored) -> int:
        """Where the cookie of A's entry lies now, 0 for a hand-off that has none."""
        if restored.image.record.handoff == "stack":
            return 0
        at = restored.entry - COOKIE_SIZE
        page = Phys(at & -PAGE_SIZE)
        waiting = dict(restored.pairs).get(page, page)
        return waiting + at - page


def refuse(machine: Machine, kernel_c: Image, errno: int) -> None:
    """Tell C that its userspace has no image for it."""
    machine.ram.write(
        kernel_c.symbols["kexec_params"] + KexecParams.STATUS, (-errno & (1 << 64) - 1).to_bytes(8, "little")
    )
