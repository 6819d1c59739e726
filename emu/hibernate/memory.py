"""How B's userspace reads memory: through one object that lets it see what it may see, as /dev/oldmem would."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from emu.errors import ImageFileError
from emu.kexec.e820 import Range
from emu.units import Phys, show_phys


def joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """``ranges`` in ascending order, neighbours of one type joined; raises ImageFileError where two overlap."""
    found: list[Range] = []
    for one in sorted(ranges):
        if found and one.start < found[-1].end:
            raise ImageFileError(f"{found[-1]} and {one} overlap", where="memory to save")
        if found and found[-1].end == one.start and found[-1].type is one.type:
            found[-1] = Range(found[-1].start, one.end, one.type)
        else:
            found.append(one)
    return tuple(found)


class OldMemory:
    """Memory at physical addresses, readable inside ``allowed`` and nowhere else.

    ``read(address, size)`` is the machine's own way to read.  Nothing of it is asked for an address outside.
    """

    def __init__(self, read: Callable[[int, int], bytes], allowed: Iterable[Range]) -> None:
        self._read = read
        self.allowed: Final = joined(allowed)

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at physical ``address``; raises ImageFileError unless all of them may be read."""
        if size < 0 or not self._allows(address, address + size):
            raise ImageFileError(
                f"{size} bytes at {show_phys(address)} are not all memory that this kernel may read",
                where="old memory",
                hint="the list of safe memory or the memory map leaves them out",
            )
        data = self._read(address, size)
        if len(data) != size:
            raise ImageFileError(
                f"{len(data)} of {size} bytes at {show_phys(address)} could be read", where="old memory"
            )
        return data

    def _allows(self, start: int, end: int) -> bool:
        return any(one.start <= start and end <= one.end for one in self.allowed)


def without(ranges: Iterable[Range], taken: Iterable[Range]) -> tuple[Range, ...]:
    """``ranges`` less every byte of ``taken``, ascending; both in physical bytes."""
    holes = sorted(taken)
    kept: list[Range] = []
    for one in joined(ranges):
        cursor = int(one.start)
        for hole in holes:
            if hole.end <= cursor or hole.start >= one.end:
                continue
            if cursor < hole.start:
                kept.append(Range(Phys(cursor), hole.start, one.type))
            cursor = max(cursor, int(hole.end))
        if cursor < one.end:
            kept.append(Range(Phys(cursor), one.end, one.type))
    return tuple(kept)
