"""The kimage entry list: build it, walk it as the stub does, and apply it to memory in pure Python.

An entry is a page-aligned physical address with one flag (:class:`emu.kexec.layout.Ind`) in a word of 4 or 8 bytes.
The rules are those of Linux kernel/kexec_core.c (building) and arch/x86/kernel/relocate_kernel_*.S (walking).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from errno import EINVAL
from typing import Final

from emu.errors import LoadError
from emu.kexec.layout import Ind
from emu.units import PAGE_MASK, PAGE_SIZE, Phys, show_phys

STEP_LIMIT: Final = 1 << 22
"""Entries after which a walk gives up: four times what 4 GiB of single pages need."""

Pair = tuple[Phys, Phys]
"""(destination, source), both page addresses."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the list: what it is and the page it names."""

    kind: Ind
    address: Phys

    @property
    def word(self) -> int:
        """The entry as it stands in memory."""
        return self.address | self.kind


class ListBuilder:
    """Builds a list as kimage_add_entry and kimage_terminate do.

    ``alloc_page`` gives the physical address of a page for entries, ``write`` stores bytes at a physical address.  A
    page of entries has PAGE_SIZE/word - 1 usable ones; its last slot links to the next page.
    """

    def __init__(self, alloc_page: Callable[[], Phys], word: int, write: Callable[[Phys, bytes], None]) -> None:
        self._alloc_page = alloc_page
        self._word = word
        self._write = write
        self._slots = PAGE_SIZE // word
        self._page: Phys | None = None
        self._slot = 0
        self.head = 0
        self.pages: list[Phys] = []

    def add(self, entry: Entry) -> Phys:
        """Append ``entry`` and return the physical address of its slot."""
        if self._page is None or self._slot == self._slots - 1:
            self._link(self._alloc_page())
        at = self._at()
        self._store(entry.word)
        return at

    def add_pairs(self, pairs: Iterable[Pair]) -> None:
        """Append a SOURCE entry for each pair, after a DESTINATION entry where the cursor would be wrong."""
        cursor: int | None = None
        for destination, source in pairs:
            if destination != cursor:
                self.add(Entry(Ind.DESTINATION, destination))
            self.add(Entry(Ind.SOURCE, source))
            cursor = destination + PAGE_SIZE

    def terminate(self) -> int:
        """End the list with DONE in the next free slot and return its head."""
        if self._page is None:
            self.head = int(Ind.DONE)
        else:
            self._store(int(Ind.DONE))
        return self.head

    def _at(self) -> Phys:
        return Phys((self._page or 0) + self._slot * self._word)

    def _store(self, value: int) -> None:
        self._write(self._at(), value.to_bytes(self._word, "little"))
        self._slot += 1

    def _link(self, page: Phys) -> None:
        link = Entry(Ind.INDIRECTION, page).word
        if self._page is None:
            self.head = link
        else:
            self._store(link)
        self._page, self._slot = page, 0
        self.pages.append(page)


class StepKind(Enum):
    """What the stub makes of one entry; the last three end a walk."""

    DESTINATION = "destination"
    INDIRECTION = "indirection"
    SOURCE = "source"
    IGNORED = "ignored"
    DONE = "done"
    NO_LIST = "no list"
    LIMIT = "limit"


ENDS: Final = frozenset({StepKind.DONE, StepKind.NO_LIST, StepKind.LIMIT})


@dataclass(frozen=True, slots=True)
class WalkStep:
    """One entry as the stub meets it.

    ``entry`` is the word and ``at`` the physical address it was read from (None for the head).  For a SOURCE,
    ``source`` is the page read and ``destination`` the page written; otherwise both hold the address in the entry or
    the cursor.
    """

    kind: StepKind
    entry: int
    at: Phys | None
    destination: Phys
    source: Phys


_ORDER: Final = (
    (Ind.DESTINATION, StepKind.DESTINATION),
    (Ind.INDIRECTION, StepKind.INDIRECTION),
    (Ind.DONE, StepKind.DONE),
    (Ind.SOURCE, StepKind.SOURCE),
)


_KINDS: Final = tuple(
    next((kind for flag, kind in _ORDER if bits & flag), StepKind.IGNORED) for bits in range(2 * Ind.SOURCE)
)


def kind_of(entry: int) -> StepKind:
    """The meaning of an entry: the lowest of the four flags that is set counts, an entry with none is ignored."""
    return _KINDS[entry & 0xF]


def walk(read_word: Callable[[Phys], int], head: int, word: int, limit: int = STEP_LIMIT) -> Iterator[WalkStep]:
    """The entries of the list at ``head`` in the order in which the stub meets them, the one that ends it included.

    ``read_word`` reads an entry at a physical address, at the moment it is needed, so that a list that is overwritten
    while it is applied is followed as the stub would.  The cursor starts at 0 and advances by a page after each SOURCE.
    The last step is DONE, or NO_LIST where the head is neither DONE nor an INDIRECTION (the stub would read on at an
    undefined address), or LIMIT after ``limit`` entries.
    """
    wrap = (1 << (8 * word)) - 1
    cursor = Phys(0)
    entry, at = head & wrap, None
    following: Phys | None = None
    for _ in range(limit):
        kind = kind_of(entry)
        address = Phys(entry & ~PAGE_MASK)
        if kind is StepKind.DESTINATION:
            cursor = address
        elif kind is StepKind.INDIRECTION:
            following = address
        yield WalkStep(kind, entry, at, cursor, address)
        if kind is StepKind.DONE:
            return
        if kind is StepKind.SOURCE:
            cursor = Phys((cursor + PAGE_SIZE) & wrap)
        if following is None:
            yield WalkStep(StepKind.NO_LIST, entry, at, cursor, address)
            return
        at = following
        entry = read_word(at)
        following = Phys((at + word) & wrap)
    yield WalkStep(StepKind.LIMIT, entry, at, cursor, Phys(entry & ~PAGE_MASK))


class Mode(Enum):
    """What the stub does with a SOURCE page."""

    COPY = "copy"
    SWAP = "swap"


def apply(
    read_page: Callable[[Phys], bytes],
    write_page: Callable[[Phys, bytes], None],
    steps: Iterable[WalkStep],
    mode: Mode,
    swap_page: Phys | None = None,
) -> int:
    """Do to memory what swap_pages does for ``steps``, and return the number of SOURCE pages.

    COPY: source to destination.  SWAP: source to swap page, destination to source, swap page to destination, so the
    swap page is left with the content of the last source, also where a page is its own source.  Raises
    :class:`LoadError` (EINVAL) for SWAP without a swap page.
    """
    if mode is Mode.SWAP and swap_page is None:
        raise LoadError("a swap needs a swap page", errno=EINVAL)
    moved = 0
    for step in steps:
        if step.kind is not StepKind.SOURCE:
            continue
        if swap_page is not None and mode is Mode.SWAP:
            write_page(swap_page, read_page(step.source))
            write_page(step.source, read_page(step.destination))
            write_page(step.destination, read_page(swap_page))
        else:
            write_page(step.destination, read_page(step.source))
        moved += 1
    return moved


def pairs_of(steps: Iterable[WalkStep]) -> tuple[Pair, ...]:
    """The (destination, source) pages of a walk, in order."""
    return tuple((step.destination, step.source) for step in steps if step.kind is StepKind.SOURCE)


def inverse(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """The pairs of the copy list that puts back what a copy of ``pairs`` has moved: each source becomes a destination.

    Raises :class:`LoadError` (EINVAL) where a page is a destination twice, or both a source and another page's
    destination: the content that was there is lost, no list brings it back.
    """
    forward = tuple(pairs)
    source_of: dict[Phys, Phys] = {}
    for destination, source in forward:
        if destination in source_of:
            raise LoadError(f"{show_phys(destination)} is a destination twice", errno=EINVAL, where="inverse list")
        source_of[destination] = source
    for destination, source in forward:
        if source != destination and source in source_of:
            raise LoadError(f"{show_phys(source)} is source and destination", errno=EINVAL, where="inverse list")
    if len(set(source_of.values())) != len(forward):
        raise LoadError("a page is a source twice", errno=EINVAL, where="inverse list")
    return tuple((source, destination) for destination, source in forward)
