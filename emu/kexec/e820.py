"""The memory map: e820 ranges, the low region, and the zero page that tells a kernel of them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import pairwise
from typing import Final, Self

from emu.errors import JourneyError
from emu.kexec.layout import (
    BOOT_VERSION,
    COMMAND_LINE_SIZE,
    E820_ENTRY_SIZE,
    E820_MAX_ENTRIES,
    HEADER_MAGIC,
    LOADER_TYPE,
    BootParams,
)
from emu.units import GIB, KIB, MIB, PAGE_SIZE, Pfn, Phys, page_down, page_up, phys_of, show_phys

LOW_REGION_LIMIT: Final = 640 * KIB
_LOW_RAM_END: Final = 0x9FC00
_ROM_START: Final = 0xF0000
_PCI_HOLE_START: Final = 3 * GIB
_PCI_HOLE_END: Final = 4 * GIB
_ENTRY: Final = struct.Struct("<QQI")
_RANGE_KEYS: Final = frozenset({"start", "end", "size", "type"})


class E820Type(IntEnum):
    """Types of an e820 range (Linux arch/x86/include/asm/e820/types.h)."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5
    PMEM = 7
    PRAM = 12


_TYPES: Final = frozenset(int(member) for member in E820Type)


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """Physical bytes ``start`` up to but not including ``end``, of one type.

    Raises :class:`JourneyError` where the range is empty or does not fit 64 bits.
    """

    start: Phys
    end: Phys
    type: E820Type = E820Type.RAM

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1 << 64:
            raise JourneyError(
                f"a range from {self.start:#x} to {self.end:#x} holds no memory",
                where="memory map",
                hint="end is the first byte after the range",
            )

    def __str__(self) -> str:
        return f"{show_phys(self.start)}..{show_phys(self.end)} {self.type.name}"

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.end - self.start

    def pages(self) -> range:
        """The page frames that lie wholly inside."""
        return range(page_up(self.start) // PAGE_SIZE, page_down(self.end) // PAGE_SIZE)


@dataclass(frozen=True)
class MemoryMap:
    """All ranges of a machine, sorted, without overlaps; what no range covers is a hole.

    Use :meth:`of` to build one from ranges in any order.
    """

    ranges: tuple[Range, ...]

    @classmethod
    def of(cls, ranges: Iterable[Range]) -> Self:
        """The map of ``ranges``; raises :class:`JourneyError` for overlaps, too many entries, or no RAM at all."""
        ordered = tuple(sorted(ranges))
        for left, right in pairwise(ordered):
            if right.start < left.end:
                raise JourneyError(f"{left} and {right} overlap", where="memory map")
        if len(ordered) > E820_MAX_ENTRIES:
            raise JourneyError(f"{len(ordered)} ranges, the zero page holds {E820_MAX_ENTRIES}", where="memory map")
        if not any(entry.type is E820Type.RAM for entry in ordered):
            raise JourneyError("there is no RAM", where="memory map", hint="give at least one range of type ram")
        return cls(ordered)

    @classmethod
    def from_tables(cls, tables: Sequence[Mapping[str, object]]) -> Self:
        """The map that a TOML array of ``{start, end|size, type}`` tables describes; raises :class:`JourneyError`."""
        return cls.of(_range_of(number, table) for number, table in enumerate(tables, 1))

    @classmethod
    def decode(cls, table: bytes) -> Self:
        """The map held by consecutive 20-byte e820 entries; raises :class:`JourneyError` for what is not one."""
        if len(table) % E820_ENTRY_SIZE:
            raise JourneyError(f"{len(table)} bytes are no whole number of 20-byte entries", where="e820 table")
        ranges = []
        for start, size, kind in _ENTRY.iter_unpack(table):
            if kind not in _TYPES:
                raise JourneyError(f"unknown type {kind}", where=f"e820 entry at {show_phys(start)}")
            ranges.append(Range(Phys(start), Phys(start + size), E820Type(kind)))
        return cls.of(ranges)

    def encode(self) -> bytes:
        """The 20-byte entries (address 8, size 8, type 4), in order."""
        return b"".join(_ENTRY.pack(entry.start, entry.size, entry.type) for entry in self.ranges)

    @cached_property
    def ram_ranges(self) -> tuple[Range, ...]:
        """RAM as whole-page ranges, neighbours joined."""
        joined: list[Range] = []
        for entry in self.ranges:
            if entry.type is not E820Type.RAM:
                continue
            if joined and joined[-1].end == entry.start:
                joined[-1] = Range(joined[-1].start, entry.end)
            else:
                joined.append(entry)
        return tuple(Range(phys_of(r.pages().start), phys_of(r.pages().stop)) for r in joined if r.pages())

    def ram_pages(self) -> Iterator[Pfn]:
        """Every page frame that is wholly RAM, ascending."""
        return (Pfn(pfn) for entry in self.ram_ranges for pfn in entry.pages())

    @property
    def total_ram_pages(self) -> int:
        """Number of page frames that are wholly RAM."""
        return sum(len(entry.pages()) for entry in self.ram_ranges)

    @property
    def total_ram(self) -> int:
        """Bytes of RAM as the map tells it, part pages included."""
        return sum(entry.size for entry in self.ranges if entry.type is E820Type.RAM)

    @property
    def end_of_ram(self) -> Phys:
        """The first physical address after the last whole page of RAM."""
        return self.ram_ranges[-1].end

    def is_ram(self, pfn: int) -> bool:
        """Whether page frame ``pfn`` is wholly RAM."""
        return any(pfn in entry.pages() for entry in self.ram_ranges)

    def ram_within(self, start: int, end: int) -> list[Range]:
        """The whole pages of RAM in physical ``start`` up to ``end``, as ranges."""
        clipped = ((max(page_up(start), r.start), min(page_down(end), r.end)) for r in self.ram_ranges)
        return [Range(Phys(low), Phys(high)) for low, high in clipped if low < high]

    def with_reserved(self, area: Range) -> MemoryMap:
        """This map with ``area`` taken out of RAM: what lies in it is RESERVED."""
        parts: list[Range] = []
        for entry in self.ranges:
            start, end = max(entry.start, area.start), min(entry.end, area.end)
            if entry.type is not E820Type.RAM or start >= end:
                parts.append(entry)
                continue
            if entry.start < start:
                parts.append(Range(entry.start, start))
            parts.append(Range(start, end, E820Type.RESERVED))
            if end < entry.end:
                parts.append(Range(end, entry.end))
        return MemoryMap.of(parts)

    def low_region(self) -> Range:
        """The first RAM range under 640 KiB, in whole pages, wherever this machine has it.

        Raises :class:`JourneyError` where there is no RAM below 640 KiB.
        """
        below = self.ram_within(0, LOW_REGION_LIMIT)
        if not below:
            raise JourneyError("no whole page of RAM under 640 KiB", where="memory map", hint="every kernel needs some")
        return below[0]


def _range_of(number: int, table: Mapping[str, object]) -> Range:
    where = f"memory map, range {number}"
    unknown = sorted(set(table) - _RANGE_KEYS)
    if unknown:
        raise JourneyError(f"unknown key {unknown[0]!r}", where=where, hint="keys are start, end or size, type")
    if ("end" in table) == ("size" in table):
        raise JourneyError("needs one of end and size", where=where)
    numbers: dict[str, int] = {}
    for key in ("start", "end", "size"):
        value = table.get(key, 0)
        if not isinstance(value, int) or isinstance(value, bool):
            raise JourneyError(f"{key} is {value!r}, not a number", where=where)
        numbers[key] = value
    kind = table.get("type", "ram")
    names = {member.name.lower(): member for member in E820Type}
    if not isinstance(kind, str) or kind.lower() not in names:
        raise JourneyError(f"unknown type {kind!r}", where=where, hint=f"types are {', '.join(names)}")
    end = numbers["end"] if "end" in table else numbers["start"] + numbers["size"]
    return Range(Phys(numbers["start"]), Phys(end), names[kind.lower()])


def default_map(ram_size: int) -> MemoryMap:
    """The map of the default machine with RAM up to physical ``ram_size``: low region, legacy hole and ROM, the rest
    RAM.

    RAM beyond 3 GiB goes above 4 GiB, as on a PC.  Raises :class:`JourneyError` for less than 2 MiB or part pages.
    """
    if ram_size < 2 * MIB or ram_size % PAGE_SIZE:
        raise JourneyError(f"{ram_size:#x} bytes of RAM", where="memory map", hint="whole pages, at least 2 MiB")
    ranges = [
        Range(Phys(0), Phys(_LOW_RAM_END)),
        Range(Phys(_LOW_RAM_END), Phys(LOW_REGION_LIMIT), E820Type.RESERVED),
        Range(Phys(_ROM_START), Phys(MIB), E820Type.RESERVED),
        Range(Phys(MIB), Phys(min(ram_size, _PCI_HOLE_START))),
    ]
    if ram_size > _PCI_HOLE_START:
        ranges.append(Range(Phys(_PCI_HOLE_END), Phys(_PCI_HOLE_END + ram_size - _PCI_HOLE_START)))
    return MemoryMap.of(ranges)


def boot_params(memory_map: MemoryMap, cmd_line_ptr: int) -> bytes:
    """The zero page: e820 table, setup header and the physical address of the command line (boot protocol 2.12).

    Raises :class:`JourneyError` where ``cmd_line_ptr`` does not fit the 4-byte field.
    """
    if not 0 <= cmd_line_ptr < 1 << 32:
        raise JourneyError(
            f"command line at {show_phys(cmd_line_ptr)}", where="boot_params", hint="must lie below 4 GiB"
        )
    page = bytearray(PAGE_SIZE)
    table = memory_map.encode()
    page[BootParams.E820_ENTRIES] = len(memory_map.ranges)
    page[BootParams.E820_TABLE : BootParams.E820_TABLE + len(table)] = table
    struct.pack_into("<H", page, BootParams.BOOT_FLAG, 0xAA55)
    struct.pack_into("<I", page, BootParams.HEADER_MAGIC, HEADER_MAGIC)
    struct.pack_into("<H", page, BootParams.VERSION, BOOT_VERSION)
    page[BootParams.TYPE_OF_LOADER] = LOADER_TYPE
    page[BootParams.LOADFLAGS] = 1
    struct.pack_into("<I", page, BootParams.CMD_LINE_PTR, cmd_line_ptr)
    struct.pack_into("<I", page, BootParams.CMDLINE_SIZE, COMMAND_LINE_SIZE - 1)
    return bytes(page)
