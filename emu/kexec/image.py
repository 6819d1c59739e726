"""A loaded kexec image: what kexec_load leaves behind, and what the jump needs to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from emu.kexec.allocator import PageOwner
from emu.kexec.arch import Arch
from emu.kexec.e820 import Range
from emu.kexec.entry_list import Pair
from emu.kexec.jump_page import JumpPage
from emu.kexec.layout import LoadFlag, PageList, RelocateFlag, Transfer
from emu.kexec.segments import Segment
from emu.units import Linear, Pfn, Phys


@dataclass(frozen=True, slots=True)
class JumpPages:
    """What KJUMP adds to an image; all addresses physical, 0 for a page that the hand-off does without.

    ``relocate_copy`` is the page for the second copy of the stub.  ``copy_table_root`` is the root of its tables: on
    x86_64 the image's own tables, on i386 a PGD that maps it at its physical address.  ``safe_list`` is the page for
    the list of memory that is safe to save, which the jump page names.
    """

    jump_page: Phys
    entry_page: Phys
    relocate_copy: Phys
    safe_list: Phys
    copy_table_root: Phys
    target: Range
    low_region: Range


@dataclass(frozen=True, slots=True)
class KexecImage:
    """One loaded image; addresses are physical unless they say otherwise.

    ``head`` is the first kimage entry, by value.  ``pairs`` are the (destination, source) pages that the list names, in
    order. ``inverse_head`` and ``inverse_pairs`` are those of the list that undoes it: with COPY one of its own, else
    the same. ``swap_page`` is None for a crash image, which has no sources either.  ``caller_pages`` are control pages
    for whoever calls the stub.
    """

    arch: Arch
    entry: Phys
    flags: LoadFlag
    segments: tuple[Segment, ...]
    head: int
    pairs: tuple[Pair, ...]
    control_page: Phys
    swap_page: Phys | None
    table_root: Phys
    list_pages: tuple[Phys, ...]
    owners: Mapping[PageOwner, tuple[Pfn, ...]] = field(default_factory=lambda: MappingProxyType({}))
    jump: JumpPages | None = None
    caller_pages: tuple[Phys, ...] = ()
    transfer: Transfer = Transfer.SWAP
    inverse_head: int = 0
    inverse_pairs: tuple[Pair, ...] = ()

    @property
    def is_copied(self) -> bool:
        """Whether the pages are copied, so that the way back has a list of its own."""
        return self.transfer is Transfer.COPY

    @property
    def way_back(self) -> tuple[int, tuple[Pair, ...]]:
        """The head and the pairs of the list that brings A's pages back."""
        return (self.inverse_head, self.inverse_pairs) if self.is_copied else (self.head, self.pairs)

    @property
    def word(self) -> int:
        """Bytes of a kimage entry."""
        return self.arch.word

    @property
    def preserves_context(self) -> bool:
        """Whether B may come back: PRESERVE_CONTEXT, or KJUMP, which implies it."""
        return bool(self.flags & (LoadFlag.PRESERVE_CONTEXT | LoadFlag.KJUMP))

    @property
    def relocate_flags(self) -> RelocateFlag:
        """The flag word for the first jump."""
        flags = RelocateFlag.PRESERVE_CONTEXT if self.preserves_context else RelocateFlag(0)
        return flags | RelocateFlag.COPY if self.is_copied else flags

    @property
    def return_flags(self) -> RelocateFlag:
        """The flag word with which an entry point of A calls relocate_new_kernel."""
        return RelocateFlag.COPY if self.is_copied else RelocateFlag.SWAP

    @property
    def control_va(self) -> Linear:
        """The linear address of the control page in A's direct map."""
        return self.arch.direct(self.control_page)

    @property
    def destinations(self) -> tuple[tuple[int, int], ...]:
        """The (start, end) of every segment, end exclusive."""
        return tuple((segment.mem, segment.end) for segment in self.segments)

    @property
    def source_pages(self) -> tuple[Phys, ...]:
        """The source of every destination page, in the order of the list."""
        return tuple(source for _, source in self.pairs)

    @property
    def pfns(self) -> frozenset[Pfn]:
        """Every page frame that the image owns."""
        return frozenset(pfn for pfns in self.owners.values() for pfn in pfns)

    def pages_by_owner(self) -> dict[PageOwner, list[Pfn]]:
        """The page frames of the image, ascending, by what they are for."""
        return {owner: list(pfns) for owner, pfns in self.owners.items()}

    def page_list(self, *, second_copy: bool = False) -> tuple[int, ...]:
        """The dwords that i386 relocate_new_kernel takes as ``page_list``; for the second copy linear is physical."""
        entries = [0] * PageList.PAGES_NR
        page, linear, root = self.control_page, int(self.control_va), self.table_root
        if second_copy and self.jump is not None:
            page, linear, root = self.jump.relocate_copy, int(self.jump.relocate_copy), self.jump.copy_table_root
        entries[PageList.PA_CONTROL_PAGE] = page
        entries[PageList.VA_CONTROL_PAGE] = linear
        entries[PageList.PA_PGD] = root
        entries[PageList.PA_SWAP_PAGE] = self.swap_page or 0
        return tuple(entries)

    def first_jump_page(self, after_resume: int, after_image_save: int, safe_count: int = 0) -> JumpPage:
        """The jump page as the loader leaves it for an image loaded with KJUMP; the entry points are physical.

        ``safe_count`` ranges are on the list of memory that is safe to save.  Raises :class:`ValueError` for an image
        that was loaded without KJUMP.
        """
        if self.jump is None:
            msg = "an image without KJUMP has no jump page"
            raise ValueError(msg)
        return JumpPage(
            arch=self.arch.machine,
            mode=self.arch.mode(self.transfer),
            after_resume=after_resume,
            after_image_save=after_image_save,
            control_page=self.control_page,
            swap_page=self.swap_page or 0,
            list_head=self.head,
            inverse_head=self.way_back[0],
            target_start=self.jump.target.start,
            target_size=self.jump.target.size,
            low_start=self.jump.low_region.start,
            low_size=self.jump.low_region.size,
            entry_page=self.jump.entry_page,
            safe_list=self.jump.safe_list if safe_count else 0,
            safe_count=safe_count,
        )
