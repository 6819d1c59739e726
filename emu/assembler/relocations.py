"""The relocation types that compilers and GNU as leave in x86 objects.

Source: System V ABI, i386 supplement, "Relocation Types"; x86-64 supplement, "Relocation".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from emu.errors import ImageError


class Range(Enum):
    """Which values a field can take."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"
    EITHER = "either"


@dataclass(frozen=True, slots=True)
class RelocationType:
    """A field of ``size`` bytes that takes symbol plus addend, less its own address where it is ``relative``."""

    name: str
    size: int
    relative: bool
    values: Range

    def fits(self, value: int) -> bool:
        """Whether the field can hold ``value``."""
        top = 1 << (8 * self.size)
        least = 0 if self.values is Range.UNSIGNED else -top // 2
        most = top // 2 if self.values is Range.SIGNED else top
        return least <= value < most


_TYPES: dict[int, dict[int, RelocationType]] = {
    32: {
        1: RelocationType("R_386_32", 4, relative=False, values=Range.EITHER),
        2: RelocationType("R_386_PC32", 4, relative=True, values=Range.EITHER),
        4: RelocationType("R_386_PLT32", 4, relative=True, values=Range.EITHER),
        20: RelocationType("R_386_16", 2, relative=False, values=Range.EITHER),
        21: RelocationType("R_386_PC16", 2, relative=True, values=Range.SIGNED),
        22: RelocationType("R_386_8", 1, relative=False, values=Range.EITHER),
        23: RelocationType("R_386_PC8", 1, relative=True, values=Range.SIGNED),
    },
    64: {
        1: RelocationType("R_X86_64_64", 8, relative=False, values=Range.EITHER),
        2: RelocationType("R_X86_64_PC32", 4, relative=True, values=Range.SIGNED),
        4: RelocationType("R_X86_64_PLT32", 4, relative=True, values=Range.SIGNED),
        10: RelocationType("R_X86_64_32", 4, relative=False, values=Range.UNSIGNED),
        11: RelocationType("R_X86_64_32S", 4, relative=False, values=Range.SIGNED),
        12: RelocationType("R_X86_64_16", 2, relative=False, values=Range.EITHER),
        13: RelocationType("R_X86_64_PC16", 2, relative=True, values=Range.SIGNED),
        14: RelocationType("R_X86_64_8", 1, relative=False, values=Range.EITHER),
        15: RelocationType("R_X86_64_PC8", 1, relative=True, values=Range.SIGNED),
        24: RelocationType("R_X86_64_PC64", 8, relative=True, values=Range.EITHER),
    },
}


def relocation_type(number: int, bits: int, where: str) -> RelocationType:
    """Relocation type ``number`` of a ``bits``-bit object.

    Raises:
        ImageError: no type that makes sense in a flat image (a GOT or TLS reference, for one).
    """
    if number == 0:
        raise ImageError("an empty relocation", where=where)
    found = _TYPES[bits].get(number)
    if found is None:
        raise ImageError(
            f"relocation type {number} of a {bits}-bit object is not supported",
            where=where,
            hint="compile without -fPIC (no GOT) and without thread-local data",
        )
    return found


@dataclass(frozen=True, slots=True)
class Relocation:
    """One field to fill: ``offset`` bytes into the flat image; ``addend`` None: it stands in the field already."""

    offset: int
    kind: RelocationType
    symbol: str
    value: int
    addend: int | None
    where: str

    def apply(self, code: bytearray, org: int) -> None:
        """Fill the field in ``code``, which is an image for address ``org``.

        Raises:
            ImageError: the field is outside the image, or the value does not fit it.
        """
        end = self.offset + self.kind.size
        if not 0 <= self.offset <= end <= len(code):
            raise ImageError("a relocation points outside its section", where=self.where)
        addend = self.addend
        if addend is None:
            addend = int.from_bytes(code[self.offset : end], "little", signed=True)
        value = self.value + addend - (org + self.offset if self.kind.relative else 0)
        if self.kind.size == 4 and self.kind.relative and self.kind.name.startswith("R_386"):
            value = (value + (1 << 31)) % (1 << 32) - (1 << 31)
        if not self.kind.fits(value):
            raise ImageError(
                f"{self.kind.name} against {self.symbol or 'a section'} cannot hold {value:#x}",
                where=self.where,
            )
        code[self.offset : end] = (value % (1 << (8 * self.kind.size))).to_bytes(self.kind.size, "little")
