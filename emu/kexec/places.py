"""Where in the low region a boot loader and a kexec userspace put what a kernel is told of.

Kernels take these addresses from registers and boot_params, so they may lie anywhere in the low region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from emu.errors import JourneyError
from emu.kexec.e820 import MemoryMap
from emu.kexec.layout import BOOT_GDT_ADDRESS, BOOT_PARAMS_ADDRESS, BOOT_TABLES_ADDRESS, COMMAND_LINE_ADDRESS
from emu.units import PAGE_SIZE, show_size

TABLE_PAGES: Final = 15
"""Pages for the boot loader's identity tables; the one above them is its stack."""
_PURGATORY: Final = 0x92000
_CORE_HEADER: Final = 0x93000
_END: Final = 0x94000
_PAGES: Final = 1 + TABLE_PAGES + 1 + 4


@dataclass(frozen=True, slots=True)
class Places:
    """Physical addresses of pages; the stack grows down from ``stack_top``."""

    gdt: int
    tables: int
    stack_top: int
    boot_params: int
    command_line: int
    purgatory: int
    core_header: int


def low_places(memory_map: MemoryMap) -> Places:
    """The usual addresses, or the last pages of the low region where that does not hold them.

    Raises :class:`JourneyError` where the low region is too small.
    """
    low = memory_map.low_region()
    if low.start <= BOOT_GDT_ADDRESS and low.end >= _END:
        return _places(BOOT_GDT_ADDRESS, BOOT_TABLES_ADDRESS, BOOT_PARAMS_ADDRESS)
    start = low.end - _PAGES * PAGE_SIZE
    if start < low.start:
        raise JourneyError(
            f"the low region has {show_size(low.size)}; a kernel, its loader and purgatory need {_PAGES} pages of it",
            where="memory map",
        )
    return _places(start, start + PAGE_SIZE, start + (2 + TABLE_PAGES) * PAGE_SIZE)


def _places(gdt: int, tables: int, params: int) -> Places:
    return Places(
        gdt=gdt,
        tables=tables,
        stack_top=params - 0x10,
        boot_params=params,
        command_line=params + COMMAND_LINE_ADDRESS - BOOT_PARAMS_ADDRESS,
        purgatory=params + _PURGATORY - BOOT_PARAMS_ADDRESS,
        core_header=params + _CORE_HEADER - BOOT_PARAMS_ADDRESS,
    )


def boot_table_pages(places: Places) -> range:
    """The pages that the boot loader may use for its identity tables."""
    return range(places.tables, places.tables + TABLE_PAGES * PAGE_SIZE, PAGE_SIZE)
