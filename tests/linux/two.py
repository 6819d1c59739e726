"""The memory of a kernel B that a kernel A jumps to: where it lies, and what is in it at its entry."""

from __future__ import annotations

import struct
from pathlib import Path

from emu.assembler import assemble
from emu.kernelfile.bzimage import read_setup
from emu.kexec.e820 import E820Type, MemoryMap, Range
from emu.kexec.layout import ENTRY64_OFFSET, LOADER_TYPE, BootParams
from emu.units import KIB, MIB, Phys
from tests.linux.programs import BASE, HEADERS, elf

LOW, LOW_SIZE = 64 * KIB, 512 * KIB
AREA, AREA_END = 32 * MIB, 56 * MIB
INITRD = AREA_END - MIB
BRIDGE = LOW + LOW_SIZE - 4 * KIB
ZERO_PAGE, LINE, LOW_END = LOW + 4 * KIB, LOW + 8 * KIB, LOW + 12 * KIB
B_MAP = MemoryMap.of(
    Range(Phys(start), Phys(end), E820Type.RAM) for start, end in ((LOW, LOW + LOW_SIZE), (AREA, AREA_END))
)
TEXT_BASE = 0xFFFF_FFFF_8000_0000
FOLDER = Path(__file__).parent


def _assembled(name: str, org: int, **defines: int) -> bytes:
    return assemble(FOLDER / name, org=org, bits=64, defines=defines, include=[]).code


def zero_page(kernel: bytes, initrd_size: int) -> bytes:
    """B's boot parameters."""
    page = bytearray(4 * KIB)
    end = 0x202 + kernel[0x201]
    page[0x1F1:end] = kernel[0x1F1:end]
    page[BootParams.TYPE_OF_LOADER] = LOADER_TYPE
    page[BootParams.LOADFLAGS] |= 1
    struct.pack_into("<I", page, BootParams.CODE32_START, AREA)
    struct.pack_into("<II", page, BootParams.RAMDISK_IMAGE, INITRD, initrd_size)
    struct.pack_into("<I", page, BootParams.CMD_LINE_PTR, LINE)
    table = B_MAP.encode()
    page[BootParams.E820_ENTRIES] = len(B_MAP.ranges)
    page[BootParams.E820_TABLE : BootParams.E820_TABLE + len(table)] = table
    return bytes(page)


def low_memory(kernel: bytes, line: str, initrd_size: int) -> bytes:
    """What B's low memory begins with: entry code, zero page, command line."""
    entry = _assembled(
        "two_entry.S", LOW, LINE_END=LINE + len(line), ZERO_PAGE=ZERO_PAGE, KERNEL_ENTRY=AREA + ENTRY64_OFFSET
    )
    page = 4 * KIB
    return entry.ljust(page, b"\0") + zero_page(kernel, initrd_size) + line.encode().ljust(LOW_END - LINE, b"\0")


def program_a(kernel: bytes, line: str, initrd: bytes) -> bytes:
    """A's first process, with all of B behind it."""
    protected = kernel[read_setup(kernel, "B's kernel").protected_mode :]
    low = low_memory(kernel, line, len(initrd))
    code = _assembled(
        "two_a.S", BASE + HEADERS[64], LOW=LOW, LOW_SIZE=LOW_SIZE, LOW_BYTES=len(low), AREA=AREA, AREA_END=AREA_END,
        INITRD=INITRD, KERNEL_BYTES=len(protected), INITRD_BYTES=len(initrd),
    )  # fmt: skip
    return elf(code + low + protected + initrd, 64)


def program_b(symbols: dict[str, int], *, bridged: bool = True) -> bytes:
    """B's first process; A and B are the same kernel, whose symbols are linear addresses."""
    banner = symbols["linux_banner"] - TEXT_BASE
    code = _assembled(
        "two_b.S", BASE + HEADERS[64], BANNER=banner, BRIDGE=BRIDGE, GDT=symbols["gdt_page"], BRIDGED=int(bridged)
    )
    return elf(code, 64)
