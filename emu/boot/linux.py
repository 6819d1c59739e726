"""A bzImage by the Linux x86 boot protocol: setup header, zero page, command line, initramfs.

Source: Linux Documentation/arch/x86/boot.rst, sections "The Real-Mode Kernel Header", "32-bit boot protocol" and
"64-bit boot protocol".
"""

from __future__ import annotations

import struct
from typing import Final

from emu.boot.image import Plan, StartMode, highest, place
from emu.errors import ImageError
from emu.kernelfile.bzimage import SECTOR, SetupHeader, read_setup
from emu.kexec.e820 import MemoryMap
from emu.kexec.layout import (
    BOOT_GDT_ADDRESS,
    BOOT_PARAMS_ADDRESS,
    BOOT_STACK_TOP,
    BOOT_TABLES_ADDRESS,
    COMMAND_LINE_ADDRESS,
    ENTRY64_OFFSET,
    LOADER_TYPE,
    BootParams,
)
from emu.units import MIB, PAGE_SIZE

_HEADER_START: Final = 0x1F1
_HEADER_LENGTH_BYTE: Final = 0x201
_HEADER_BASE: Final = 0x202
_INITRD_ADDR_MAX: Final = 0x22C
_OLD_INITRD_MAX: Final = 0x37FFFFFF
_HEAP_END: Final = 0x224
_OLD_COMMAND_LINE: Final = 255
_LOW_LOAD: Final = MIB
_KERNEL_64: Final = 1
_CAN_ABOVE_4G: Final = 2
_KEEP_SEGMENTS: Final = 0x40
_LOADED_HIGH: Final = 1
_GIB_TABLES: Final = 4

GDT: Final = struct.pack("<4Q", 0, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
"""The boot protocol's descriptors: flat code at 0x10, flat data at 0x18."""
GDT_LONG: Final = struct.pack("<4Q", 0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF)
"""The same with a 64-bit code segment."""


def identity_tables(base: int) -> bytes:
    """4-level tables at physical ``base`` that map the first 4 GiB to itself in pages of 2 MiB."""
    directory = base + 2 * PAGE_SIZE
    pointers = [directory + index * PAGE_SIZE | 3 for index in range(_GIB_TABLES)]
    top = struct.pack("<Q", base + PAGE_SIZE | 3).ljust(PAGE_SIZE, b"\0")
    second = struct.pack(f"<{len(pointers)}Q", *pointers).ljust(PAGE_SIZE, b"\0")
    pages = [number * 2 * MIB | 0x83 for number in range(512 * _GIB_TABLES)]
    return top + second + struct.pack(f"<{len(pages)}Q", *pages)


def _entry_bits(header: SetupHeader, wanted: int | None, where: str) -> int:
    has_64 = bool(header.xloadflags & _KERNEL_64)
    if wanted == 64 and not has_64:
        raise ImageError("has no 64-bit entry", where=where, hint="--bits 32")
    return wanted or (64 if has_64 else 32)


def linux_plan(
    data: bytes, where: str, memory_map: MemoryMap, *, append: str = "", initrd: bytes = b"", bits: int | None = None
) -> Plan:
    """How to start the bzImage ``data``; ``bits`` chooses its 32-bit or 64-bit entry (default: 64 where it has one).

    Raises ImageError for a file that cannot be used or memory that is too small.
    """
    header = read_setup(data, where)
    bits = _entry_bits(header, bits, where)
    kernel = data[header.protected_mode :]
    load = header.pref_address if header.relocatable and header.version >= 0x20A else _LOW_LOAD
    place(memory_map, load, max(len(kernel), header.init_size), where)
    line = append.encode() + b"\0"
    most = struct.unpack_from("<I", data, BootParams.CMDLINE_SIZE)[0] if header.version >= 0x206 else _OLD_COMMAND_LINE
    if len(line) - 1 > most:
        raise ImageError(f"takes {most} bytes of command line, not {len(line) - 1}", where=where, hint="--append")
    place(memory_map, BOOT_GDT_ADDRESS, PAGE_SIZE, "the loader's descriptor table")
    place(memory_map, BOOT_TABLES_ADDRESS, COMMAND_LINE_ADDRESS + len(line) - BOOT_TABLES_ADDRESS, "boot parameters")
    pieces = [(load, kernel), (COMMAND_LINE_ADDRESS, line)]
    ramdisk = 0
    if initrd:
        last = struct.unpack_from("<I", data, _INITRD_ADDR_MAX)[0] if header.version >= 0x203 else _OLD_INITRD_MAX
        behind = load + max(len(kernel), header.init_size)
        ramdisk = highest(memory_map, len(initrd), min(last + 1, 1 << 32), behind, "the initramfs")
        pieces.append((ramdisk, initrd))
    pieces.append((BOOT_PARAMS_ADDRESS, _zero_page(data, memory_map, load, ramdisk, len(initrd))))
    version = f"Linux {header.kernel_version.split(' ')[0]}" if header.kernel_version else "Linux"
    what = f"{version}, boot protocol {header.protocol}, {bits}-bit entry"
    if bits == 32:
        pieces.append((BOOT_GDT_ADDRESS, GDT))
        registers: tuple[tuple[int, int], ...] = ((6, BOOT_PARAMS_ADDRESS), (4, BOOT_STACK_TOP))
        return Plan(what, StartMode.PROTECTED, load, tuple(pieces), gdt=BOOT_GDT_ADDRESS, registers=registers)
    pieces += [(BOOT_GDT_ADDRESS, GDT_LONG), (BOOT_TABLES_ADDRESS, identity_tables(BOOT_TABLES_ADDRESS))]
    return Plan(
        what,
        StartMode.LONG,
        load + ENTRY64_OFFSET,
        tuple(pieces),
        gdt=BOOT_GDT_ADDRESS,
        tables=BOOT_TABLES_ADDRESS,
        registers=((6, BOOT_PARAMS_ADDRESS), (4, BOOT_STACK_TOP)),
    )


def _zero_page(data: bytes, memory_map: MemoryMap, load: int, ramdisk: int, ramdisk_size: int) -> bytes:
    """The kernel's own setup header in a zeroed page, and what a loader fills in."""
    page = bytearray(PAGE_SIZE)
    end = min(_HEADER_BASE + data[_HEADER_LENGTH_BYTE], SECTOR * 2)
    page[_HEADER_START:end] = data[_HEADER_START:end]
    page[BootParams.TYPE_OF_LOADER] = LOADER_TYPE
    page[BootParams.LOADFLAGS] = data[BootParams.LOADFLAGS] | _LOADED_HIGH
    struct.pack_into("<I", page, BootParams.CODE32_START, load)
    struct.pack_into("<II", page, BootParams.RAMDISK_IMAGE, ramdisk, ramdisk_size)
    struct.pack_into("<I", page, BootParams.CMD_LINE_PTR, COMMAND_LINE_ADDRESS)
    table = memory_map.encode()
    page[BootParams.E820_ENTRIES] = len(memory_map.ranges)
    page[BootParams.E820_TABLE : BootParams.E820_TABLE + len(table)] = table
    return bytes(page)
