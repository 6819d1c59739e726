"""What to put where before the first instruction: one value for every image format, made without a machine.

A :class:`Plan` is pure data.  The formats (:mod:`emu.boot.linux`, :mod:`emu.boot.multiboot`, :mod:`emu.boot.flat`) make
plans; :func:`emu.boot.load.load` carries one out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from emu.errors import ImageError
from emu.kexec.e820 import MemoryMap
from emu.units import show_phys


class StartMode(Enum):
    """The state of the processor at the first instruction; the value is how people call it."""

    LONG = "64-bit long mode, identity mapped"
    PROTECTED = "32-bit protected mode, paging off"
    REAL = "16-bit real mode"
    RESET = "the reset state"


@dataclass(frozen=True, slots=True)
class Plan:
    """An image ready to start.

    ``pieces`` are (physical address, bytes), ``rom`` those that only the power-on programming of a ROM may write;
    ``gdt`` is the physical address of the descriptor table among them; ``registers`` go by the number of the general
    register.  ``what`` says in a line what was loaded.
    """

    what: str
    mode: StartMode
    entry: int
    pieces: tuple[tuple[int, bytes], ...] = ()
    rom: tuple[tuple[int, bytes], ...] = ()
    gdt: int = 0
    tables: int = 0
    registers: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()


def place(memory_map: MemoryMap, start: int, size: int, what: str) -> None:
    """Raises ImageError unless ``size`` bytes at physical ``start`` are RAM throughout."""
    if not any(part.start <= start and start + size <= part.end for part in memory_map.ram_ranges):
        raise ImageError(
            f"does not fit: {size:#x} bytes at {show_phys(start)} are not all RAM", where=what, hint="a larger --ram"
        )


def highest(memory_map: MemoryMap, size: int, below: int, above: int, what: str) -> int:
    """The highest page-aligned physical address of ``size`` bytes of RAM in ``above`` .. ``below``, or ImageError."""
    for part in reversed(memory_map.ram_ranges):
        start = (min(part.end, below) - size) & ~0xFFF
        if start >= max(part.start, above):
            return start
    raise ImageError(
        f"does not fit: no {size:#x} bytes of RAM between {show_phys(above)} and {show_phys(below)}",
        where=what,
        hint="a larger --ram",
    )
