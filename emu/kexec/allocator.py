"""Page allocation for a kexec image, with the invariant that makes the order of copying irrelevant.

A source page is its own destination or lies in no destination; control, swap, list and table pages lie in no
destination (Linux kernel/kexec_core.c, kimage_alloc_page and kimage_alloc_control_pages).
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, StrEnum
from errno import ENOMEM

from emu.errors import LoadError
from emu.kexec.e820 import MemoryMap
from emu.units import PAGE_SIZE, Pfn, Phys, pfn_of, phys_of


class PageOwner(StrEnum):
    """What a page of a loaded image is for."""

    CONTROL = "control"
    SWAP = "swap"
    LIST = "list"
    SOURCE = "source"
    BACKUP = "backup"
    TABLE = "page table"
    JUMP_PAGE = "jump page"
    ENTRY_CODE = "entry code"
    RELOCATE_COPY = "relocate copy"
    SAFE_LIST = "safe list"


class Order(Enum):
    """In which order a pool gives pages away."""

    TOP = "from the top of RAM"
    BOTTOM = "lowest first"
    SHUFFLED = "shuffled by seed"


class PagePool:
    """The free page frames of kernel A; the last one given back is the first one given away."""

    def __init__(self, free: Iterable[int]) -> None:
        self._stack = [Pfn(pfn) for pfn in free]
        self._stack.reverse()

    @classmethod
    def of_map(
        cls, memory_map: MemoryMap, busy: Iterable[int] = (), order: Order = Order.TOP, seed: int = 0
    ) -> PagePool:
        """All whole pages of RAM but those whose frame number is in ``busy``."""
        taken = set(busy)
        free = [pfn for pfn in memory_map.ram_pages() if pfn not in taken]
        if order is Order.TOP:
            free.reverse()
        elif order is Order.SHUFFLED:
            random.Random(seed).shuffle(free)  # noqa: S311 - an order that a seed repeats, no secret
        return cls(free)

    def __len__(self) -> int:
        return len(self._stack)

    def take(self) -> Pfn:
        """The next free page; raises :class:`LoadError` (ENOMEM) where there is none."""
        if not self._stack:
            raise LoadError("no free page is left", errno=ENOMEM, hint="more RAM, or a smaller target area")
        return self._stack.pop()

    def give_back(self, pfns: Iterable[Pfn]) -> None:
        """Make pages free again."""
        self._stack.extend(pfns)

    def snapshot(self) -> tuple[Pfn, ...]:
        """The free pages in the order in which they would be given away."""
        return tuple(reversed(self._stack))

    def restore(self, snapshot: Sequence[Pfn]) -> None:
        """Go back to an earlier :meth:`snapshot`."""
        self._stack = list(reversed(snapshot))


class PageAllocator:
    """Pages for one image.

    ``destinations`` are the physical (start, end) of its segments, end exclusive, disjoint.  ``control_limit`` and
    ``source_limit`` are physical addresses that control and source pages must end below.  ``on_move(old, new)`` is
    called when a source page that is in use is moved: the content must be copied and the list entry repointed.
    """

    def __init__(
        self,
        pool: PagePool,
        destinations: Iterable[tuple[int, int]],
        *,
        control_limit: int,
        source_limit: int,
        on_move: Callable[[Phys, Phys], None],
    ) -> None:
        self._pool = pool
        self._ranges = sorted((start, end) for start, end in destinations if start < end)
        self._starts = [start for start, _ in self._ranges]
        self._control_limit = control_limit
        self._source_limit = source_limit
        self._on_move = on_move
        self._rejects: list[Pfn] = []
        self._unusable: list[Pfn] = []
        self._parked: set[Pfn] = set()
        self._source_of: dict[Pfn, Pfn] = {}
        self.owned: dict[Pfn, PageOwner] = {}

    def is_destination(self, pfn: int) -> bool:
        """Whether page frame ``pfn`` touches a destination range."""
        at = bisect_right(self._starts, phys_of(pfn) + PAGE_SIZE - 1) - 1
        return at >= 0 and self._ranges[at][1] > phys_of(pfn)

    def control_page(self, owner: PageOwner = PageOwner.CONTROL) -> Phys:
        """A page below the control limit and outside all destinations; raises :class:`LoadError` (ENOMEM)."""
        while True:
            pfn = self._pool.take()
            if phys_of(pfn) + PAGE_SIZE <= self._control_limit and not self.is_destination(pfn):
                return self._own(pfn, owner)
            self._rejects.append(pfn)

    def release_rejects(self) -> None:
        """Free the pages that were no good as control pages: they may still be their own destinations."""
        self._pool.give_back(reversed(self._rejects))
        self._rejects.clear()

    def list_page(self) -> Phys:
        """A page for entries of the list: for no destination, so in none; raises :class:`LoadError` (ENOMEM)."""
        return self.outside_page(PageOwner.LIST)

    def outside_page(self, owner: PageOwner) -> Phys:
        """A page in no destination, not even its own; raises :class:`LoadError` (ENOMEM)."""
        return self._own(self._outside_or(None), owner)

    def source_page(self, destination: Phys) -> Phys:
        """The source page for the page at ``destination``; raises :class:`LoadError` (ENOMEM)."""
        return self._own(self._outside_or(pfn_of(destination)), PageOwner.SOURCE)

    def listed(self, destination: Phys, source: Phys) -> None:
        """Tell that ``source`` has its entry in the list: from now on it may be moved."""
        self._source_of[pfn_of(destination)] = pfn_of(source)

    def finish(self) -> None:
        """Free everything that was set aside."""
        self.release_rejects()
        self._pool.give_back(self._unusable)
        self._pool.give_back(sorted(self._parked))
        self._unusable.clear()
        self._parked.clear()

    def pages_by_owner(self) -> dict[PageOwner, list[Pfn]]:
        """The page frames of the image, ascending, by what they are for."""
        pages: dict[PageOwner, list[Pfn]] = {}
        for pfn in sorted(self.owned):
            pages.setdefault(self.owned[pfn], []).append(pfn)
        return pages

    def _own(self, pfn: Pfn, owner: PageOwner) -> Phys:
        self.owned[pfn] = owner
        return phys_of(pfn)

    def _outside_or(self, wanted: Pfn | None) -> Pfn:
        """A free page in no destination, or ``wanted`` itself."""
        if wanted is not None and wanted in self._parked:
            self._parked.remove(wanted)
            return wanted
        while True:
            pfn = self._pool.take()
            if phys_of(pfn) + PAGE_SIZE > self._source_limit:
                self._unusable.append(pfn)
            elif pfn == wanted or not self.is_destination(pfn):
                return pfn
            elif pfn in self._source_of:
                return self._move_source(pfn)
            else:
                self._parked.add(pfn)

    def _move_source(self, destination: Pfn) -> Pfn:
        """``destination`` became free after it got a source: make it its own source and reuse the old one."""
        old = self._source_of[destination]
        self._on_move(phys_of(old), phys_of(destination))
        self._source_of[destination] = destination
        del self.owned[old]
        self.owned[destination] = PageOwner.SOURCE
        return old
