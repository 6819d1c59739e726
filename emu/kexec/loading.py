"""The part of kexec_load(2) that takes pages: control pages, page tables, segments and their entry list."""

from __future__ import annotations

from types import MappingProxyType

from emu.kexec.allocator import PageAllocator, PageOwner, PagePool
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range
from emu.kexec.entry_list import Entry, ListBuilder, pairs_of, walk
from emu.kexec.image import JumpPages, KexecImage
from emu.kexec.layout import Ind, LoadFlag
from emu.kexec.page_tables import build_flat_copy_tables, build_transition_tables
from emu.kexec.segments import Segment, page_of
from emu.kexec.staged import ZERO_PAGE, Staged
from emu.units import PAGE_MASK, PAGE_SIZE, Linear, Phys


class ImageLoading:
    """One load under way; :meth:`run` does it in the order of do_kexec_load."""

    def __init__(
        self, arch: Arch, memory_map: MemoryMap, pool: PagePool, staged: Staged, segments: tuple[Segment, ...]
    ) -> None:
        self._arch = arch
        self._map = memory_map
        self._staged = staged
        self._segments = segments
        self._slots: dict[Phys, Phys] = {}
        self._pages = PageAllocator(
            pool,
            [(segment.mem, segment.end) for segment in segments],
            control_limit=arch.control_limit,
            source_limit=arch.destination_limit,
            on_move=self._move_source,
        )
        self._list = ListBuilder(self._list_page, arch.word, staged.write)

    def run(
        self,
        entry: int,
        flags: LoadFlag,
        target: Range | None,
        *,
        text: Linear | None = None,
        caller_pages: int = 0,
    ) -> KexecImage:
        """The image, its pages staged; ``target`` is given for KJUMP, ``text`` and ``caller_pages`` as in LoadRequest.

        Raises :class:`LoadError` (ENOMEM, EFAULT).
        """
        control = self._pages.control_page()
        swap = self._pages.control_page(PageOwner.SWAP)
        extra = self._jump_control_pages() if target is not None else ()
        caller = tuple(self._pages.control_page() for _ in range(caller_pages))
        root = build_transition_tables(
            self._arch,
            self._table_page,
            self._staged.write,
            memory_map=self._map,
            control_page=control,
            text=text,
            also=[
                *((segment.mem, segment.end) for segment in self._segments),
                *((page, page + PAGE_SIZE) for page in (control, swap, *extra)),
            ],
        )
        jump = self._jump_pages(extra, root, target) if target is not None else None
        self._pages.release_rejects()
        for segment in self._segments:
            self._load_segment(segment)
        head = self._list.terminate()
        self._pages.finish()
        owned = {owner: tuple(pfns) for owner, pfns in self._pages.pages_by_owner().items()}
        return KexecImage(
            arch=self._arch,
            entry=Phys(entry),
            flags=flags,
            segments=self._segments,
            head=head,
            pairs=pairs_of(walk(self._read_entry, head, self._arch.word)),
            control_page=control,
            swap_page=swap,
            table_root=root,
            list_pages=tuple(self._list.pages),
            owners=MappingProxyType(owned),
            jump=jump,
            caller_pages=caller,
        )

    def _list_page(self) -> Phys:
        page = self._pages.list_page()
        self._staged.write_page(page, ZERO_PAGE)
        return page

    def _table_page(self) -> Phys:
        return self._pages.control_page(PageOwner.TABLE)

    def _read_entry(self, address: Phys) -> int:
        return self._staged.read_word(address, self._arch.word)

    def _jump_control_pages(self) -> tuple[Phys, ...]:
        """Jump page, entry code page and second copy of the stub, cleared."""
        owners = (PageOwner.JUMP_PAGE, PageOwner.ENTRY_CODE, PageOwner.RELOCATE_COPY)
        pages = tuple(self._pages.control_page(owner) for owner in owners)
        for page in pages:
            self._staged.write_page(page, ZERO_PAGE)
        return pages

    def _jump_pages(self, extra: tuple[Phys, ...], root: Phys, target: Range) -> JumpPages:
        jump_page, entry_page, relocate_copy = extra
        if self._arch.word == 4:
            root = build_flat_copy_tables(self._arch, self._table_page, self._staged.write, relocate_copy)
        return JumpPages(jump_page, entry_page, relocate_copy, root, target, self._map.low_region())

    def _load_segment(self, segment: Segment) -> None:
        """One DESTINATION entry, then for each page: a source page, its entry, clear it, copy what there is."""
        self._list.add(Entry(Ind.DESTINATION, Phys(segment.mem)))
        for at in range(0, segment.memsz, PAGE_SIZE):
            destination = Phys(segment.mem + at)
            source = self._pages.source_page(destination)
            self._slots[source] = self._list.add(Entry(Ind.SOURCE, source))
            self._pages.listed(destination, source)
            self._staged.write_page(source, page_of(segment, at))

    def _move_source(self, old: Phys, new: Phys) -> None:
        """A destination page came free after it got a source: it becomes its own source, its entry is repointed.

        It stays its own source for good, so its slot need not be remembered.
        """
        slot = self._slots.pop(old)
        self._staged.write_page(new, self._staged.read_page(old))
        flags = self._read_entry(slot) & PAGE_MASK
        self._staged.write(slot, (new | flags).to_bytes(self._arch.word, "little"))
