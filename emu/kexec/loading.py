"""The part of kexec_load(2) that takes pages: control pages, page tables, segments and their entry list."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from emu.kexec.allocator import PageAllocator, PageOwner, PagePool
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range
from emu.kexec.entry_list import Entry, ListBuilder, Pair, inverse, pairs_of, walk
from emu.kexec.image import JumpPages, KexecImage
from emu.kexec.layout import Ind, LoadFlag, Transfer
from emu.kexec.page_tables import build_flat_copy_tables, build_transition_tables
from emu.kexec.segments import Segment, page_of
from emu.kexec.staged import ZERO_PAGE, Staged
from emu.units import PAGE_MASK, PAGE_SIZE, Linear, Phys, page_up


@dataclass(frozen=True, slots=True)
class JumpWish:
    """What KJUMP asks of a load, see :class:`emu.kexec.load.LoadRequest`; ``target`` is the target area."""

    target: Range
    transfer: Transfer = Transfer.SWAP
    jump_page: bool = True
    entry_code: bool = True


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
        self._in_place: Range | None = None
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
        wish: JumpWish | None,
        *,
        text: Linear | None = None,
        caller_pages: int = 0,
    ) -> KexecImage:
        """The image, its pages staged; ``wish`` is given for KJUMP, ``text`` and ``caller_pages`` as in LoadRequest.

        Raises :class:`LoadError` (ENOMEM, EFAULT).
        """
        control = self._pages.control_page()
        swap = self._pages.control_page(PageOwner.SWAP)
        extra = self._jump_control_pages(wish) if wish is not None else {}
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
                *((page, page + PAGE_SIZE) for page in (control, swap, *extra.values())),
            ],
        )
        jump = self._jump_pages(extra, root, wish.target) if wish is not None else None
        self._pages.release_rejects()
        transfer = Transfer.SWAP if wish is None else wish.transfer
        if wish is not None and transfer is Transfer.RESERVED:
            self._in_place = wish.target
        backups = self._back_up() if transfer is Transfer.COPY else []
        for segment in self._segments:
            self._load_segment(segment, keep=transfer is Transfer.COPY)
        head = self._list.terminate()
        back = self._inverse_list(backups) if transfer is Transfer.COPY else None
        if wish is not None and wish.jump_page and jump is not None:
            jump = replace(jump, safe_list=self._pages.outside_page(PageOwner.SAFE_LIST))
            self._staged.write_page(jump.safe_list, ZERO_PAGE)
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
            transfer=transfer,
            inverse_head=back.head if back is not None else 0,
            inverse_pairs=inverse(backups) if back is not None else (),
        )

    def _list_page(self) -> Phys:
        page = self._pages.list_page()
        self._staged.write_page(page, ZERO_PAGE)
        return page

    def _table_page(self) -> Phys:
        return self._pages.control_page(PageOwner.TABLE)

    def _read_entry(self, address: Phys) -> int:
        return self._staged.read_word(address, self._arch.word)

    def _jump_control_pages(self, wish: JumpWish) -> dict[PageOwner, Phys]:
        """Jump page, entry code page and second copy of the stub, as far as they are wanted, cleared."""
        owners = [PageOwner.JUMP_PAGE] if wish.jump_page else []
        owners += [PageOwner.ENTRY_CODE, PageOwner.RELOCATE_COPY] if wish.entry_code else []
        pages = {owner: self._pages.control_page(owner) for owner in owners}
        for page in pages.values():
            self._staged.write_page(page, ZERO_PAGE)
        return pages

    def _jump_pages(self, extra: dict[PageOwner, Phys], root: Phys, target: Range) -> JumpPages:
        relocate_copy = extra.get(PageOwner.RELOCATE_COPY, Phys(0))
        if self._arch.word == 4 and relocate_copy:
            root = build_flat_copy_tables(self._arch, self._table_page, self._staged.write, relocate_copy)
        return JumpPages(
            jump_page=extra.get(PageOwner.JUMP_PAGE, Phys(0)),
            entry_page=extra.get(PageOwner.ENTRY_CODE, Phys(0)),
            relocate_copy=relocate_copy,
            safe_list=Phys(0),
            copy_table_root=root,
            target=target,
            low_region=self._map.low_region(),
        )

    def _back_up(self) -> list[Pair]:
        """The first part of a copy list: every page that B may use to a backup page of its own.

        The two parts are ordered: what the second writes has been read by the first.
        """
        pages = (page for segment in self._segments for page in range(segment.mem, segment.end, PAGE_SIZE))
        pairs = [(self._pages.outside_page(PageOwner.BACKUP), Phys(page)) for page in pages]
        self._list.add_pairs(pairs)
        return pairs

    def _inverse_list(self, backups: list[Pair]) -> ListBuilder:
        """The list that copies every backup to where it came from: who builds a copy list builds its inverse."""
        back = ListBuilder(self._list_page, self._arch.word, self._staged.write)
        back.add_pairs(inverse(backups))
        back.terminate()
        self._list.pages.extend(back.pages)
        return back

    def _load_segment(self, segment: Segment, *, keep: bool) -> None:
        """One DESTINATION entry, then for each page: a source page, its entry, clear it, copy what there is.

        ``keep``: pages without content get no source, and sources are never moved, so that the list can be carried out
        again.  A segment in the part of memory that is loaded in place gets no entries.
        """
        if self._in_place is not None and self._in_place.start <= segment.mem < self._in_place.end:
            for at in range(0, segment.memsz, PAGE_SIZE):
                self._staged.write_page(Phys(segment.mem + at), page_of(segment, at))
            return
        if keep:
            pages = range(0, min(page_up(segment.bufsz), segment.memsz), PAGE_SIZE)
            pairs = [(Phys(segment.mem + at), self._pages.outside_page(PageOwner.SOURCE)) for at in pages]
            self._list.add_pairs(pairs)
            for at, (_, source) in zip(pages, pairs, strict=True):
                self._staged.write_page(source, page_of(segment, at))
            return
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
