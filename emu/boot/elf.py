"""An ELF file as a boot loader sees it: what goes where in physical memory, and the physical entry address.

Source: System V ABI, "Program Header".
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from emu.errors import ImageError

MAGIC = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class Segment:
    """``data`` at physical ``address``, zeroes up to ``size`` bytes."""

    address: int
    data: bytes
    size: int


@dataclass(frozen=True, slots=True)
class ElfImage:
    """The segments to load; ``bits`` is 32 or 64; ``physical_entry`` where control begins."""

    bits: int
    segments: list[Segment]
    physical_entry: int


def read_elf(data: bytes, where: str) -> ElfImage:
    """The executable ELF file ``data``; raises ImageError for anything else, a damaged one, or another processor's."""
    if not data.startswith(MAGIC):
        raise ImageError("is no ELF file", where=where)
    try:
        elf = ELFFile(BytesIO(data))
        machine, entry, bits = str(elf["e_machine"]), int(elf["e_entry"]), int(elf.elfclass)
        headers = [one.header for one in elf.iter_segments() if one.header["p_type"] == "PT_LOAD"]
    except (ELFError, ValueError, KeyError, OSError) as error:
        raise ImageError(f"is damaged or truncated: {error}", where=where) from error
    if machine not in ("EM_386", "EM_X86_64"):
        raise ImageError(f"is a program for {machine.removeprefix('EM_')}", where=where, hint="x86 is wanted")
    segments, physical = [], entry
    for one in headers:
        start, size = int(one["p_offset"]), int(one["p_filesz"])
        if start + size > len(data) or size > one["p_memsz"]:
            raise ImageError(f"is truncated: a segment goes to {start + size:#x}", where=where)
        if one["p_memsz"]:
            segments.append(Segment(int(one["p_paddr"]), data[start : start + size], int(one["p_memsz"])))
        if one["p_vaddr"] <= entry < one["p_vaddr"] + one["p_memsz"]:
            physical = entry - int(one["p_vaddr"]) + int(one["p_paddr"])
    if not segments:
        raise ImageError("has nothing to load", where=where)
    return ElfImage(bits, segments, physical)
