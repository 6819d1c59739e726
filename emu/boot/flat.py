"""Images without a boot protocol: an ELF for the bare machine, a flat binary at an address, a ROM."""

from __future__ import annotations

from typing import Final

from emu.boot.elf import read_elf
from emu.boot.image import Plan, StartMode, place
from emu.boot.linux import GDT, GDT_LONG, identity_tables
from emu.errors import ImageError
from emu.kexec.e820 import MemoryMap, boot_params
from emu.kexec.layout import (
    BOOT_GDT_ADDRESS,
    BOOT_PARAMS_ADDRESS,
    BOOT_STACK_TOP,
    BOOT_TABLES_ADDRESS,
    COMMAND_LINE_ADDRESS,
)
from emu.units import GIB, KIB, MIB, PAGE_SIZE

DEFAULT_LOAD: Final = 0x7C00
"""Where a flat image goes unless told otherwise: a PC's boot sector."""
MOST_ROM: Final = 8 * MIB
_LEGACY_ROM: Final = 128 * KIB
_RSI, _RSP = 6, 4
_MODES: Final = {16: StartMode.REAL, 32: StartMode.PROTECTED, 64: StartMode.LONG}


def _surroundings(memory_map: MemoryMap, bits: int, append: str) -> list[tuple[int, bytes]]:
    """What code that starts in protected or long mode finds: descriptors, tables, boot parameters."""
    pieces: list[tuple[int, bytes]] = []
    if bits != 16:
        place(
            memory_map, BOOT_TABLES_ADDRESS, COMMAND_LINE_ADDRESS + PAGE_SIZE - BOOT_TABLES_ADDRESS, "boot parameters"
        )
        line = append.encode() + b"\0"
        pieces.append((BOOT_GDT_ADDRESS, GDT_LONG if bits == 64 else GDT))
        pieces.append((BOOT_PARAMS_ADDRESS, boot_params(memory_map, COMMAND_LINE_ADDRESS)))
        pieces.append((COMMAND_LINE_ADDRESS, line[:PAGE_SIZE]))
    if bits == 64:
        pieces.append((BOOT_TABLES_ADDRESS, identity_tables(BOOT_TABLES_ADDRESS)))
    return pieces


def _plan(what: str, bits: int, entry: int, pieces: list[tuple[int, bytes]]) -> Plan:
    registers = ((_RSI, BOOT_PARAMS_ADDRESS), (_RSP, BOOT_STACK_TOP)) if bits != 16 else ()
    return Plan(
        what, _MODES[bits], entry, tuple(pieces), gdt=BOOT_GDT_ADDRESS, tables=BOOT_TABLES_ADDRESS, registers=registers
    )


def elf_plan(data: bytes, where: str, memory_map: MemoryMap, *, append: str = "", entry: int | None = None) -> Plan:
    """An ELF without a Multiboot header, by its physical addresses; RSI (ESI) leads to the boot parameters."""
    elf = read_elf(data, where)
    for one in elf.segments:
        place(memory_map, one.address, one.size, where)
    pieces = _surroundings(memory_map, elf.bits, append)
    pieces += [(one.address, one.data.ljust(one.size, b"\0")) for one in elf.segments]
    start = elf.physical_entry if entry is None else entry
    return _plan(f"{elf.bits}-bit ELF, entry {start:#x}", elf.bits, start, pieces)


def flat_plan(
    data: bytes, where: str, memory_map: MemoryMap, *, load: int, entry: int, bits: int, append: str = ""
) -> Plan:
    """``data`` at physical ``load``, control at ``entry`` in 16-bit, 32-bit or 64-bit code."""
    place(memory_map, load, len(data), where)
    if bits == 16 and entry > 0xFFFFF:
        raise ImageError(f"cannot be entered at {entry:#x} in real mode", where=where, hint="--bits 32")
    pieces = [*_surroundings(memory_map, bits, append), (load, data)]
    return _plan(f"flat image at {load:#x}, {bits}-bit entry {entry:#x}", bits, entry, pieces)


def rom_spaces(size: int) -> tuple[tuple[int, int], ...]:
    """The physical ranges of a ROM of ``size`` bytes: below 4 GiB, and its last 128 KiB below 1 MiB."""
    whole = -(-size // (64 * KIB)) * 64 * KIB
    return ((MIB - min(whole, _LEGACY_ROM), MIB), (4 * GIB - whole, 4 * GIB))


def rom_plan(data: bytes, where: str) -> Plan:
    """A ROM image whose last byte is the last below 4 GiB; the processor starts from reset.  Raises ImageError."""
    if not 16 <= len(data) <= MOST_ROM:
        raise ImageError(f"is no ROM: {len(data)} bytes", where=where, hint="16 bytes to 8 MiB")
    low, high = rom_spaces(len(data))
    legacy = data[-(low[1] - low[0]) :]
    rom = ((low[1] - len(legacy), legacy), (high[1] - len(data), data))
    return Plan(f"ROM of {len(data):#x} bytes, from reset", StartMode.RESET, 0, rom=rom)
