"""The DWARF line table of an object (versions 2 to 5) as a line map of its flat image.

Sequences in an object start at offsets of their own sections.  Before pyelftools reads the table, the values in
a copy of the symbol table are moved to where the sections were placed, so that relocation gives final addresses.
Source: DWARF 5, 6.2 "Line Number Information".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from elftools.dwarf.lineprogram import LineProgram
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from emu.assembler.image import Line

_SYMBOL_VALUE = {32: (4, "<I"), 64: (8, "<Q")}
_NOWHERE = {32: 0xF0000000, 64: 1 << 60}
"""Where symbols of sections that are not in the image go: far from any address in it."""
ALLOCATED = 0x2
"""The section flag SHF_ALLOC: the section takes memory in the running program."""
_SOURCE_SUFFIXES = frozenset((".S", ".s", ".c", ".h", ".inc", ".asm"))
_LARGEST_SOURCE = 4 << 20


def _moved(content: bytes, placed: Mapping[int, tuple[int, int]], bits: int) -> bytes:
    """``content`` with the value of every symbol of a section moved to the section's place."""
    elf = ELFFile(BytesIO(content))
    table = elf.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return content
    allocated = {number for number, one in enumerate(elf.iter_sections()) if one["sh_flags"] & ALLOCATED}
    offset, form = _SYMBOL_VALUE[bits]
    size = struct.calcsize(form)
    out = bytearray(content)
    for number, symbol in enumerate(table.iter_symbols()):
        home = symbol["st_shndx"]
        if home not in allocated:
            continue
        base = placed[home][0] if home in placed else _NOWHERE[bits]
        at = int(table["sh_offset"]) + number * int(table["sh_entsize"]) + offset
        moved = (int(symbol["st_value"]) + base) % (1 << (8 * size))
        out[at : at + size] = struct.pack(form, moved)
    return bytes(out)


def _file_name(program: LineProgram, number: int) -> str:
    """The name of file ``number``: files count from 1 up to version 4, from 0 in version 5."""
    header = program.header
    version = int(header["version"])
    files = header["file_entry"]
    index = number if version >= 5 else number - 1
    if not 0 <= index < len(files):
        return "?"
    entry = files[index]
    folders = header["include_directory"]
    place = int(entry["dir_index"]) if "dir_index" in entry else 0
    position = place if version >= 5 else place - 1
    name = _text(entry["name"])
    folder = _text(folders[position]) if place and 0 <= position < len(folders) else ""
    return f"{folder}/{name}" if folder and not name.startswith("/") else name


def _text(raw: bytes | str) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)


def _rows(content: bytes) -> Iterator[tuple[int, int, str, int]]:
    """Every stretch of the table as (address, end, file, line)."""
    elf = ELFFile(BytesIO(content))
    if not elf.has_dwarf_info():
        return
    dwarf = elf.get_dwarf_info(relocate_dwarf_sections=True)
    seen: set[int] = set()
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        if program is None or program.program_start_offset in seen:
            continue
        seen.add(program.program_start_offset)
        before: Any = None
        for entry in program.get_entries():
            state = entry.state
            if state is None:
                continue
            if before is not None and state.address > before.address:
                yield before.address, state.address, _file_name(program, before.file), before.line
            before = None if state.end_sequence else state


def line_map(content: bytes, placed: Mapping[int, tuple[int, int]], bits: int) -> tuple[Line, ...]:
    """The lines behind a flat image; ``placed`` maps section numbers to (address, size).  Empty without DWARF."""
    ranges = [(address, address + size) for address, size in placed.values()]
    lines = [
        Line(start, end - start, file, line)
        for start, end, file, line in _rows(_moved(content, placed, bits))
        if line and any(low <= start and end <= high for low, high in ranges)
    ]
    return tuple(sorted(set(lines), key=lambda line: line.address))


def sources_near(path: Path, files: set[str]) -> dict[str, tuple[str, ...]]:
    """The text of those source ``files`` that lie in the object's folder or, by their relative names, above it."""
    found: dict[str, tuple[str, ...]] = {}
    folders = path.resolve().parents
    for file in files:
        name = Path(file)
        if name.suffix not in _SOURCE_SUFFIXES or ".." in name.parts:
            continue
        for candidate in (folder / name for folder in folders):
            inside = candidate.resolve().is_relative_to(folders[0]) or not name.is_absolute()
            if inside and candidate.is_file() and candidate.stat().st_size <= _LARGEST_SOURCE:
                found[file] = tuple(candidate.read_text(encoding="utf-8", errors="replace").split("\n"))
                break
    return found
