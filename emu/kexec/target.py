"""``kexec_jump=``: the grammar of the target area, and where the loader puts it when no address is given."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from emu.errors import BadCommandLine
from emu.kexec.e820 import MemoryMap, Range
from emu.kexec.layout import KERNEL_BASE
from emu.kexec.memparse import memparse
from emu.units import MIB, PAGE_SIZE, Phys, show_phys, show_size

OPTION: Final = "kexec_jump="
RAM_GRAIN: Final = 128 * MIB
PLACE_STEP: Final = 2 * MIB
_EXAMPLE: Final = "as in kexec_jump=16M@16M or kexec_jump=64M-1G:16M,1G-:64M"


class Preference(Enum):
    """Where the loader looks for a target area that has no fixed address."""

    KERNEL_BASE_FIRST = "kernel base first"
    HIGH = "high"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class SizeRange:
    """``size`` bytes of target area when system RAM is at least ``start`` and less than ``end`` (None: no limit).

    ``column`` is where the size stands on the command line.
    """

    start: int
    end: int | None
    size: int
    column: int


@dataclass(frozen=True, slots=True)
class TargetChoice:
    """A target area of ``size`` bytes; ``offset`` is its physical address, None where the loader chooses."""

    size: int
    offset: int | None
    preference: Preference
    column: int


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """The value of one ``kexec_jump=`` option, not yet applied to a machine.

    ``ranged`` tells ``start-[end]:size`` lists from a plain size.
    """

    sizes: tuple[SizeRange, ...]
    ranged: bool
    offset: int | None
    preference: Preference
    column: int

    def choose(self, total_ram: int) -> TargetChoice | None:
        """What this option asks for on a machine with ``total_ram`` bytes of RAM; None where no range holds it.

        For ranges the RAM is first rounded up to 128 MiB.  Raises :class:`BadCommandLine` for a size that is not less
        than the RAM, also in a range before the one that is chosen (Linux kernel/crash_reserve.c).
        """
        rounded = -(-total_ram // RAM_GRAIN) * RAM_GRAIN if self.ranged else total_ram
        for entry in self.sizes:
            if entry.size >= rounded:
                raise _too_large(entry.size, rounded, entry.column)
            if entry.start <= rounded and (entry.end is None or rounded < entry.end):
                if entry.size >= total_ram:
                    raise _too_large(entry.size, total_ram, entry.column)
                return TargetChoice(entry.size, self.offset, self.preference, self.column) if entry.size else None
        return None


def _bad(what: str, column: int, hint: str = _EXAMPLE) -> BadCommandLine:
    return BadCommandLine(what, option=OPTION, column=column, hint=hint)


def _too_large(size: int, ram: int, column: int) -> BadCommandLine:
    return _bad(f"a target area of {show_size(size)} is not less than RAM, {show_size(ram)}", column, "")


def _size_at(text: str, at: int, column: int, name: str) -> tuple[int, int]:
    value, end = memparse(text, at)
    if end == at:
        raise _bad(f"{name} expected", column + at)
    if value >= 1 << 64:
        raise _bad(f"{name} does not fit 64 bits", column + at)
    return value, end


def _pages_at(text: str, at: int, column: int, name: str) -> tuple[int, int]:
    value, end = _size_at(text, at, column, name)
    if value % PAGE_SIZE:
        raise _bad(f"{name} {value:#x} is not whole pages", column + at)
    return value, end


def _expect(text: str, at: int, column: int, wanted: str) -> int:
    if not text.startswith(wanted, at):
        found = repr(text[at]) if at < len(text) else "the end"
        raise _bad(f"{wanted!r} expected, not {found}", column + at)
    return at + len(wanted)


def _offset_at(text: str, at: int, column: int) -> int | None:
    if at == len(text):
        return None
    start = _expect(text, at, column, "@")
    offset, end = _pages_at(text, start, column, "an address")
    if end != len(text):
        raise _bad(f"unrecognised {text[end]!r} after the address", column + end)
    return offset or None


def _parse_ranges(text: str, column: int) -> TargetSpec:
    sizes: list[SizeRange] = []
    at = 0
    while True:
        start, at = _size_at(text, at, column, "the start of a range")
        at = _expect(text, at, column, "-")
        end: int | None = None
        if not text.startswith(":", at):
            end_at = at
            end, at = _size_at(text, at, column, "the end of a range")
            if end <= start:
                raise _bad(f"the range ends at {end:#x}, not after its start {start:#x}", column + end_at)
        at = _expect(text, at, column, ":")
        size, after = _pages_at(text, at, column, "a size")
        sizes.append(SizeRange(start, end, size, column + at))
        at = after
        if not text.startswith(",", at):
            break
        at += 1
    offset = _offset_at(text, at, column)
    return TargetSpec(tuple(sizes), True, offset, Preference.KERNEL_BASE_FIRST, column)


def parse_target(text: str, column: int = 1) -> TargetSpec:
    """Read the value of ``kexec_jump=``, which stands at ``column`` of the command line.

    The grammar is that of ``crashkernel=``: ``size[@offset]``, ``size,high``, ``size,low``, or
    ``start-[end]:size[,start-[end]:size...][@offset]``; an offset of 0 leaves the choice to the loader.  Where the
    kernel ignores what follows a complete value, this is an error.  Raises :class:`BadCommandLine` with the column.
    """
    if ":" in text:
        return _parse_ranges(text, column)
    size, at = _pages_at(text, 0, column, "a size")
    if size == 0:
        raise _bad("a target area of 0 bytes", column)
    preference = Preference.KERNEL_BASE_FIRST
    offset: int | None = None
    if text[at:] in {",high", ",low"}:
        preference = Preference(text[at + 1 :])
    elif text[at:] == ",cma":
        raise _bad("a target area cannot come from CMA", column + at)
    elif text[at : at + 1] in {"", "@"}:
        offset = _offset_at(text, at, column)
    else:
        raise _bad(f"unrecognised {text[at]!r} after the size", column + at)
    return TargetSpec((SizeRange(0, None, size, column),), False, offset, preference, column)


def place_target(choice: TargetChoice, memory_map: MemoryMap, avoid: Range | None = None) -> Range:
    """The physical target area for ``choice``: at its fixed address, or where all of it is RAM.

    Without an address it goes to the kernels' link address, where a kernel needs no relocation, or else to the first 2
    MiB step of RAM above 1 MiB that holds it (the last one for ``,high``).  Where the area must ``avoid`` a range, the
    loader's choice begins at the first multiple of its size behind that, or else wherever it fits.  A fixed area may
    contain holes.  Raises :class:`BadCommandLine` where a fixed area has no RAM at either end or meets ``avoid``, or
    none is large enough.
    """
    if choice.offset is not None:
        start, end = choice.offset, choice.offset + choice.size
        first, last = start // PAGE_SIZE, end // PAGE_SIZE - 1
        if not (memory_map.is_ram(first) and memory_map.is_ram(last)):
            raise _bad(f"{show_phys(start)}..{show_phys(end)} does not begin and end in RAM", choice.column, "")
        if avoid is not None and start < avoid.end and avoid.start < end:
            raise _bad(
                f"{show_phys(start)}..{show_phys(end)} meets kernel A at {show_phys(avoid.start)}",
                choice.column,
                "a reserved area is not A's to run in: give the size alone, or as in 16M@32M",
            )
        return Range(Phys(start), Phys(end))
    starts = [
        at
        for entry in memory_map.ram_ranges
        for at in range(max(-(-entry.start // PLACE_STEP), 1) * PLACE_STEP, entry.end - choice.size + 1, PLACE_STEP)
    ]
    if avoid is not None:
        starts = [at for at in starts if at >= avoid.end or at + choice.size <= avoid.start]
        behind = -(-avoid.end // choice.size) * choice.size
        starts.sort(key=lambda at: (at != behind, at < avoid.end, at))
    if not starts:
        raise _bad(f"no RAM holds {show_size(choice.size)} in one piece", choice.column, "")
    if choice.preference is Preference.HIGH:
        start = max(starts)
    elif choice.preference is Preference.KERNEL_BASE_FIRST and KERNEL_BASE in starts:
        start = KERNEL_BASE
    else:
        start = starts[0]
    return Range(Phys(start), Phys(start + choice.size))
