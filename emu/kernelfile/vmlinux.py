"""The ELF inside: sections, symbols of an unstripped one, and the version that the kernel would print.

Source: System V ABI, "Object Files".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from emu.errors import ImageError

ELF_MAGIC: Final = b"\x7fELF"
_BITS: Final = {"EM_386": 32, "EM_X86_64": 64}
_ALLOCATED: Final = 2
_BANNER: Final = re.compile(rb"Linux version ([0-9][^ \0]{0,120}) [^\0]{0,400}")
_MOST_SECTIONS: Final = 4096


@dataclass(frozen=True, slots=True)
class Piece:
    """One section that is loaded: its linear ``address`` and its bytes."""

    name: str
    address: int
    data: bytes

    @property
    def end(self) -> int:
        """The linear address after the last byte."""
        return self.address + len(self.data)


@dataclass(frozen=True, slots=True)
class Vmlinux:
    """A kernel as it is linked.  ``symbols`` are linear addresses from .symtab, empty in a stripped file."""

    bits: int
    pieces: tuple[Piece, ...]
    version: str
    symbols: Mapping[str, int] = field(default_factory=dict)

    def piece_at(self, address: int) -> Piece | None:
        """The section that holds linear ``address``."""
        return next((piece for piece in self.pieces if piece.address <= address < piece.end), None)

    def read(self, address: int, size: int) -> bytes:
        """At most ``size`` bytes at linear ``address``, as far as the section goes."""
        piece = self.piece_at(address)
        return b"" if piece is None else piece.data[address - piece.address : address - piece.address + size]

    def find(self, signature: re.Pattern[bytes]) -> Iterator[tuple[Piece, int]]:
        """Every section and offset in it where ``signature`` occurs."""
        for piece in self.pieces:
            for match in signature.finditer(piece.data):
                yield piece, match.start()


def read_vmlinux(data: bytes, where: str) -> Vmlinux:
    """The kernel in the ELF file ``data``; raises ImageError, naming ``where``, for anything else or a damaged one."""
    if not data.startswith(ELF_MAGIC):
        raise ImageError(f"holds no ELF file: it begins with {data[:4].hex(' ') or 'nothing'}", where=where)
    try:
        return _read(data, where)
    except ImageError:
        raise
    except RecursionError as error:
        raise ImageError("is damaged: its structures refer to themselves", where=where) from error
    except Exception as error:  # pyelftools raises whatever its parser runs into
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageError(f"is damaged or truncated: {what}", where=where) from error


def _read(data: bytes, where: str) -> Vmlinux:
    elf = ELFFile(BytesIO(data))
    machine = str(elf["e_machine"])
    bits = _BITS.get(machine)
    if bits is None or elf.elfclass != bits or not elf.little_endian:
        name = machine.removeprefix("EM_")
        raise ImageError(f"is a kernel for {name}, {elf.elfclass}-bit", where=where, hint="x86 kernels are wanted")
    if elf.num_sections() > _MOST_SECTIONS:
        raise ImageError(f"claims {elf.num_sections()} sections", where=where)
    pieces = []
    for section in elf.iter_sections():
        if not section["sh_flags"] & _ALLOCATED or section["sh_type"] == "SHT_NOBITS":
            continue
        start, size = int(section["sh_offset"]), int(section["sh_size"])
        if start + size > len(data):
            raise ImageError(f"is truncated: section {section.name} goes to {start + size:#x}", where=where)
        pieces.append(Piece(str(section.name), int(section["sh_addr"]), data[start : start + size]))
    if not pieces:
        raise ImageError("has no sections, so nothing can be found in it", where=where)
    table = elf.get_section_by_name(".symtab")
    symbols = {}
    if isinstance(table, SymbolTableSection):
        symbols = {str(one.name): int(one["st_value"]) for one in table.iter_symbols() if one.name}
    return Vmlinux(bits, tuple(pieces), _version(pieces), symbols)


def _version(pieces: list[Piece]) -> str:
    for piece in pieces:
        if piece.name.startswith((".rodata", ".data")):
            match = _BANNER.search(piece.data)
            if match is not None:
                return match.group(1).decode("ascii", "replace")
    return ""
