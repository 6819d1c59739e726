"""A kernel by the Multiboot specification, version 1: its header, how it is loaded, the information it is given.

Source: Multiboot Specification 0.6.96, sections 3.1 (header), 3.2 (machine state), 3.3 (boot information).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from emu.boot.elf import Segment, read_elf
from emu.boot.image import Plan, StartMode, highest, place
from emu.boot.linux import GDT
from emu.errors import ImageError
from emu.kexec.e820 import MemoryMap
from emu.kexec.layout import BOOT_GDT_ADDRESS, BOOT_PARAMS_ADDRESS
from emu.units import KIB, MIB, PAGE_SIZE

HEADER_MAGIC: Final = 0x1BADB002
LOADER_MAGIC: Final = 0x2BADB002
_SEARCHED: Final = 8192
_HAS_ADDRESSES: Final = 1 << 16
_KNOWN_MANDATORY: Final = 0x3
_INFO_MEMORY, _INFO_COMMAND_LINE, _INFO_MODULES, _INFO_MAP, _INFO_LOADER = 1, 4, 8, 0x40, 0x200
_MAP_AT, _MODULES_AT, _LINE_AT = 0x100, 0xC00, 0xD00
_EAX, _EBX = 0, 3
_NAME: Final = b"kjump\0"


@dataclass(frozen=True, slots=True)
class _Header:
    at: int
    flags: int
    addresses: tuple[int, int, int, int, int]


def find_header(data: bytes) -> _Header | None:
    """The Multiboot header in the first 8192 bytes, or None."""
    for at in range(0, min(len(data), _SEARCHED) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", data, at)
        if magic == HEADER_MAGIC and not (magic + flags + checksum) & 0xFFFFFFFF:
            addresses = struct.unpack_from("<5I", data.ljust(at + 32, b"\0"), at + 12)
            return _Header(at, flags, addresses)
    return None


def _segments(data: bytes, header: _Header, where: str) -> tuple[list[Segment], int]:
    if not header.flags & _HAS_ADDRESSES:
        elf = read_elf(data, where)
        return elf.segments, elf.physical_entry
    header_addr, load, load_end, bss_end, entry = header.addresses
    start = header.at - (header_addr - load)
    if not 0 <= start <= len(data) or load > header_addr:
        raise ImageError("has Multiboot addresses that lead outside the file", where=where)
    content = data[start : start + load_end - load] if load_end else data[start:]
    return [Segment(load, content, max(len(content), bss_end - load))], entry


def multiboot_plan(data: bytes, where: str, memory_map: MemoryMap, *, append: str = "", initrd: bytes = b"") -> Plan:
    """How to start the Multiboot kernel ``data``; ``initrd`` is its one module.  Raises ImageError."""
    header = find_header(data)
    if header is None:
        raise ImageError("has no Multiboot header in its first 8192 bytes", where=where)
    unknown = header.flags & 0xFFFF & ~_KNOWN_MANDATORY
    if unknown:
        raise ImageError(f"asks for Multiboot features that are not there: flags {unknown:#x}", where=where)
    segments, entry = _segments(data, header, where)
    for one in segments:
        place(memory_map, one.address, one.size, where)
    pieces = [(one.address, one.data.ljust(one.size, b"\0")) for one in segments]
    line = f"{where} {append}".strip().encode() + b"\0"
    if _LINE_AT + len(line) > 2 * PAGE_SIZE:
        raise ImageError(f"is given a command line of {len(line)} bytes, which is too long", where="--append")
    module = 0
    if initrd:
        module = highest(memory_map, len(initrd), 1 << 32, max(one.address + one.size for one in segments), "module")
        pieces.append((module, initrd))
    place(memory_map, BOOT_GDT_ADDRESS, PAGE_SIZE, "the loader's descriptor table")
    place(memory_map, BOOT_PARAMS_ADDRESS, 2 * PAGE_SIZE, "the boot information")
    pieces += [
        (BOOT_PARAMS_ADDRESS, _information(memory_map, line, module, len(initrd))),
        (BOOT_GDT_ADDRESS, GDT),
    ]
    registers = ((_EAX, LOADER_MAGIC), (_EBX, BOOT_PARAMS_ADDRESS))
    what = f"Multiboot kernel, {len(segments)} segments, entry {entry:#x}"
    return Plan(what, StartMode.PROTECTED, entry, tuple(pieces), gdt=BOOT_GDT_ADDRESS, registers=registers)


def _information(memory_map: MemoryMap, line: bytes, module: int, module_size: int) -> bytes:
    base = BOOT_PARAMS_ADDRESS
    table = b"".join(_map_entries(memory_map))
    block = bytearray(_LINE_AT + len(line))
    flags = _INFO_MEMORY | _INFO_COMMAND_LINE | _INFO_MODULES | _INFO_MAP | _INFO_LOADER
    lower = sum(part.size for part in memory_map.ram_within(0, 640 * KIB)) // KIB
    upper = next((part.size for part in memory_map.ram_within(MIB, 1 << 32)), 0) // KIB
    struct.pack_into("<III", block, 0, flags, lower, upper)
    struct.pack_into("<III", block, 16, base + _LINE_AT, int(bool(module)), base + _MODULES_AT)
    struct.pack_into("<II", block, 44, len(table), base + _MAP_AT)
    struct.pack_into("<I", block, 64, base + _MODULES_AT + 16)
    block[_MAP_AT : _MAP_AT + len(table)] = table
    struct.pack_into("<IIII", block, _MODULES_AT, module, module + module_size, base + _LINE_AT, 0)
    block[_MODULES_AT + 16 : _MODULES_AT + 16 + len(_NAME)] = _NAME
    block[_LINE_AT:] = line
    return bytes(block)


def _map_entries(memory_map: MemoryMap) -> Iterable[bytes]:
    for part in memory_map.ranges:
        yield struct.pack("<IQQI", 20, part.start, part.size, part.type)
