"""Which format an image has, and the plan to start it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from emu.boot.elf import MAGIC
from emu.boot.flat import DEFAULT_LOAD, elf_plan, flat_plan, rom_plan
from emu.boot.image import Plan
from emu.boot.linux import linux_plan
from emu.boot.multiboot import find_header, multiboot_plan
from emu.errors import ImageError, KjumpError
from emu.kernelfile.bzimage import is_bzimage
from emu.kexec.e820 import MemoryMap


class Format(StrEnum):
    """The formats of an image, by the names of --format."""

    BZIMAGE = "bzimage"
    MULTIBOOT = "multiboot"
    ELF = "elf"
    FLAT = "flat"
    ROM = "rom"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user said about an image; None and empty: nothing."""

    format: Format | None = None
    load: int | None = None
    entry: int | None = None
    bits: int | None = None
    append: str = ""


def recognise(data: bytes, where: str) -> Format:
    """The format of ``data`` by its header; ImageError for one that has none, which has to be named."""
    if is_bzimage(data):
        return Format.BZIMAGE
    if find_header(data) is not None:
        return Format.MULTIBOOT
    if data.startswith(MAGIC):
        return Format.ELF
    raise ImageError(
        "is no bzImage, no Multiboot kernel and no ELF file", where=where, hint="--format flat, or --format rom"
    )


def make_plan(data: bytes, where: str, memory_map: MemoryMap, wishes: Wishes, initrd: bytes = b"") -> Plan:
    """The plan for ``data``; raises ImageError, or KjumpError for wishes that do not fit its format."""
    kind = wishes.format or recognise(data, where)
    _check(kind, wishes, initrd=bool(initrd))
    match kind:
        case Format.BZIMAGE:
            return linux_plan(data, where, memory_map, append=wishes.append, initrd=initrd, bits=wishes.bits)
        case Format.MULTIBOOT:
            return multiboot_plan(data, where, memory_map, append=wishes.append, initrd=initrd)
        case Format.ELF:
            return elf_plan(data, where, memory_map, append=wishes.append, entry=wishes.entry)
        case Format.ROM:
            return rom_plan(data, where)
        case _:
            load = DEFAULT_LOAD if wishes.load is None else wishes.load
            entry = load if wishes.entry is None else wishes.entry
            return flat_plan(
                data, where, memory_map, load=load, entry=entry, bits=wishes.bits or 16, append=wishes.append
            )


def _check(kind: Format, wishes: Wishes, *, initrd: bool) -> None:
    """An option that would be ignored is a mistake."""
    rules = (
        ("--load", wishes.load is not None, (Format.FLAT,)),
        ("--entry", wishes.entry is not None, (Format.FLAT, Format.ELF)),
        ("--bits", wishes.bits is not None, (Format.FLAT, Format.BZIMAGE)),
        ("--initrd", initrd, (Format.BZIMAGE, Format.MULTIBOOT)),
        ("--append", bool(wishes.append), (Format.BZIMAGE, Format.MULTIBOOT, Format.ELF, Format.FLAT)),
    )
    for option, given, formats in rules:
        if given and kind not in formats:
            raise KjumpError(f"means nothing for an image of format {kind}", where=option)
    if kind is Format.BZIMAGE and wishes.bits == 16:
        raise KjumpError("a bzImage is entered by 32-bit or 64-bit code", where="--bits")
