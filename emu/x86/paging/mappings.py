"""Translating without reasons, and listing everything that the tables map."""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from emu.units import PAGE_SIZE
from emu.x86.bits import U64, Cr4
from emu.x86.paging.modes import Entry, Level, PagingMode, PagingState, ReadEntry
from emu.x86.paging.walk import Rights, descend

MAX_TABLES: Final = 16_384
"""How many tables :func:`mappings` reads before it gives up: real trees are smaller, garbage can refer to itself."""


_WIDTHS: Final = {PagingMode.FOUR_LEVEL: 48, PagingMode.FIVE_LEVEL: 57}
_WHOLE_TABLE: Final = {4: "<1024I", 8: "<512Q"}
_NOT_USED_YET: Final = ~(Entry.A | Entry.D)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A run of linear addresses mapped to consecutive physical ones with the same rights; sizes in bytes."""

    linear: int
    physical: int
    size: int
    rights: Rights


def translate(read_entry: ReadEntry, state: PagingState, linear: int) -> int | None:
    """The physical address behind ``linear``, or None where nothing is mapped or an entry has a reserved bit set.

    Rights are not looked at.  Agrees with :func:`emu.x86.paging.walk` for every page, at a fraction of its cost.
    """
    found = descend(read_entry, state, linear)
    return None if isinstance(found, int) else found.physical


def mappings(
    read_entry: ReadEntry,
    state: PagingState,
    *,
    max_tables: int = MAX_TABLES,
    read_table: Callable[[int], bytes] | None = None,
) -> Generator[Mapping, None, bool]:
    """Every page that the tables map, each address space's lower half first.

    Entries with reserved bits set map nothing.  The generator's return value is False if it stopped after
    ``max_tables`` tables, so that garbage that refers to itself ends.  Nothing is listed when paging is off.

    With ``read_table``, which gives the 4096 bytes at the physical address of a table, entries of one table that
    continue each other are one mapping.
    """
    width = _WIDTHS.get(state.mode)
    lister = _Lister(read_entry, state, max_tables, read_table, bool(state.cr4 & Cr4.PGE), width)
    if state.mode is not PagingMode.NONE:
        yield from lister.table(state.levels, state.root, 0, Rights())
    return lister.tables_left >= 0


def merge(found: Iterable[Mapping]) -> Iterator[Mapping]:
    """Join neighbours that continue each other in both address spaces with the same rights."""
    run: Mapping | None = None
    size = 0
    for each in found:
        if run is not None:
            if each.linear == run.linear + size and each.physical == run.physical + size and each.rights == run.rights:
                size += each.size
                continue
            yield replace(run, size=size)
        run, size = each, each.size
    if run is not None:
        yield replace(run, size=size)


@dataclass(slots=True)
class _Lister:
    read_entry: ReadEntry
    state: PagingState
    tables_left: int
    read_table: Callable[[int], bytes] | None
    pge: bool
    width: int | None

    def table(self, steps: tuple[Level, ...], table: int, linear: int, rights: Rights) -> Iterator[Mapping]:
        """List what the table at physical ``table`` maps; ``steps`` are its level and those below."""
        level, below = steps[0], steps[1:]
        self.tables_left -= 1
        if self.tables_left < 0:
            return
        if not below and self.read_table is not None:
            first = _one_run(level, self.read_table(table))
            if first is not None:
                combined = rights.through(first, level, pge=self.pge)
                size = (level.index_mask + 1) * level.page_size
                yield Mapping(_extend(linear, self.width), level.page(first), size, combined)
                return
        for index, entry, pages in self._runs(level, table):
            start = linear | index << level.shift
            combined = rights.through(entry, level, pge=self.pge)
            if level.is_leaf(entry):
                size = pages * level.page_size
                yield Mapping(_extend(start, self.width), level.page(entry), size, combined)
            else:
                yield from self.table(below, level.table(entry), start, combined)
            if self.tables_left < 0:
                return

    def _runs(self, level: Level, table: int) -> Iterator[tuple[int, int, int]]:
        """The present entries of a table: (index, entry, how many from there on are one mapping)."""
        count = level.index_mask + 1
        if self.read_table is not None and count * level.entry_size == PAGE_SIZE:
            yield from _joined(level, struct.unpack(_WHOLE_TABLE[level.entry_size], self.read_table(table)))
            return
        for index in range(count):
            entry = self._entry(level, table, index)
            if entry & Entry.P and not level.reserved_bits(entry):
                yield index, entry, 1

    def _entry(self, level: Level, table: int, index: int) -> int:
        latched = self.state.pdptes
        if latched is not None and not level.has_rights:
            return latched[index]
        return self.read_entry(table + index * level.entry_size, level.entry_size)


def _joined(level: Level, entries: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """What :meth:`_Lister._runs` gives, for a whole table; accessed and dirty bits do not end a run."""
    first, begun, following = 0, -1, -1
    for index, entry in enumerate(entries):
        same = entry & _NOT_USED_YET
        if same == following and not level.reserved_bits(entry):
            following += level.page_size
            continue
        if begun >= 0:
            yield begun, first, index - begun
            begun = following = -1
        if not entry & Entry.P or level.reserved_bits(entry):
            continue
        if level.is_leaf(entry):
            first, begun, following = entry, index, same + level.page_size
        else:
            yield index, entry, 1
    if begun >= 0:
        yield begun, first, len(entries) - begun


@cache
def _pattern(entry_size: int) -> tuple[int, int, int]:
    """A table as one number: 1 in each entry, the entry's index times the page size, all but accessed and dirty."""
    places = [(index, 8 * entry_size * index) for index in range(PAGE_SIZE // entry_size)]
    ones = sum(1 << place for _, place in places)
    kept = ((1 << 8 * entry_size) - 1) & ~(Entry.A | Entry.D)
    return ones, sum(index * PAGE_SIZE << place for index, place in places), ones * kept


def _one_run(level: Level, raw: bytes) -> int | None:
    """The first entry of a table of 4 KiB pages whose entries continue each other; None where they do not."""
    ones, ramp, kept = _pattern(level.entry_size)
    first = int.from_bytes(raw[: level.entry_size], "little")
    last = int.from_bytes(raw[-level.entry_size :], "little")
    if not first & Entry.P or level.reserved_bits(first) or level.reserved_bits(last):
        return None
    start = first & ~(Entry.A | Entry.D)
    return first if int.from_bytes(raw, "little") & kept == ones * start + ramp else None


def _extend(linear: int, width: int | None) -> int:
    """The canonical form of an address of ``width`` bits; None: nothing is extended."""
    if width is not None and linear >> (width - 1) & 1:
        return linear | U64 & ~((1 << width) - 1)
    return linear
