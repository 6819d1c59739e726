"""ELF core headers, 32 and 64 bits wide: built and read.

Source: System V gABI, chapters 4 and 5; notes as Linux and gdb lay them out (names padded to 4 bytes, sizes without
the padding).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from emu.errors import ImageFileError
from emu.kexec.arch import Arch
from emu.kexec.e820 import Range
from emu.units import PAGE_SIZE, Phys, page_down, page_up

ELF_MAGIC: Final = b"\x7fELF"
MOST_LOADS: Final = 60_000
"""Program headers are counted in 16 bits, and PN_XNUM is no number of them."""

_ET_CORE, _PT_LOAD, _PT_NOTE = 4, 1, 4
_RWX: Final = 7
_UNMAPPED: Final = -1
_LITTLE_CURRENT: Final = b"\x01\x01"
_NOTE: Final = struct.Struct("<III")
_HEAD: Final = 0


class _Width(NamedTuple):
    ident: int
    header: struct.Struct
    program: struct.Struct
    flags_last: bool
    limit: int


_WIDE: Final = _Width(
    2, struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ"), flags_last=False, limit=1 << 64
)
_NARROW: Final = _Width(1, struct.Struct("<16sHHIIIIIHHHHHH"), struct.Struct("<8I"), flags_last=True, limit=1 << 32)


class Note(NamedTuple):
    """One note: who defines it, its type, and its bytes."""

    name: str
    type: int
    data: bytes

    def pack(self) -> bytes:
        """Header, name and data, each padded to 4 bytes."""
        name = self.name.encode("ascii") + b"\0"
        return _NOTE.pack(len(name), len(self.data), self.type) + _pad4(name) + _pad4(self.data)


class Load(NamedTuple):
    """One PT_LOAD: where its bytes are in the file, and the linear and physical address that they belong to.

    ``linear`` is taken modulo the width, so that -1 says "not mapped", as it does in kexec-tools' headers.
    """

    offset: int
    linear: int
    physical: int
    size: int


@dataclass(frozen=True, slots=True)
class CoreHead:
    """A core's headers and notes."""

    machine: int
    wide: bool
    notes: tuple[Note, ...]
    loads: tuple[Load, ...]

    @property
    def size(self) -> int:
        """Bytes that headers and notes take, in whole pages."""
        return head_size(self.wide, len(self.loads), self.notes)

    def pack(self) -> bytes:
        """Headers and notes, filled up with zeros to a page; raises ImageFileError for what its width cannot say."""
        width = _WIDE if self.wide else _NARROW
        if len(self.loads) > MOST_LOADS:
            raise ImageFileError(f"{len(self.loads)} ranges; an ELF core has room for {MOST_LOADS}", where="ELF core")
        for load in self.loads:
            if load.physical + load.size > width.limit or load.offset + load.size > width.limit:
                raise ImageFileError("a 32-bit ELF core names addresses up to 4 GiB", where="ELF core")
        notes = b"".join(note.pack() for note in self.notes)
        count = len(self.loads) + 1
        start = width.header.size + width.program.size * count
        ident = (ELF_MAGIC + bytes([width.ident]) + _LITTLE_CURRENT).ljust(16, b"\0")
        sizes = (width.header.size, width.program.size, count, 0, 0, 0)
        parts = [width.header.pack(ident, _ET_CORE, self.machine, 1, 0, width.header.size, 0, 0, *sizes)]
        parts.append(_program(width, _PT_NOTE, 0, Load(start, 0, 0, len(notes)), 4))
        parts += [_program(width, _PT_LOAD, _RWX, load, PAGE_SIZE) for load in self.loads]
        return (b"".join(parts) + notes).ljust(self.size, b"\0")


def _program(width: _Width, kind: int, flags: int, load: Load, align: int) -> bytes:
    values = (load.offset, load.linear % width.limit, load.physical, load.size, load.size)
    if width.flags_last:
        return width.program.pack(kind, *values, flags, align)
    return width.program.pack(kind, flags, *values, align)


def head_size(wide: bool, loads: int, notes: Iterable[Note]) -> int:
    """Bytes of headers and ``notes`` of a core with ``loads`` ranges, in whole pages."""
    width = _WIDE if wide else _NARROW
    return page_up(width.header.size + width.program.size * (loads + 1) + sum(len(note.pack()) for note in notes))


def parse_head(data: bytes) -> CoreHead:
    """The headers and notes at the start of ``data``; raises ImageFileError for what is no little-endian ELF core."""
    if data[:4] != ELF_MAGIC or len(data) < _NARROW.header.size:
        raise ImageFileError("there is no ELF header", block=_HEAD)
    width = {_WIDE.ident: _WIDE, _NARROW.ident: _NARROW}.get(data[4])
    if width is None or data[5:7] != _LITTLE_CURRENT or len(data) < width.header.size:
        raise ImageFileError("the ELF header is of no known class and byte order", block=_HEAD)
    fields = width.header.unpack_from(data)
    kind, machine, first, size, count = fields[1], fields[2], fields[5], fields[9], fields[10]
    if kind != _ET_CORE or size != width.program.size or not count:
        raise ImageFileError(f"the ELF file is of type {kind}, not a core", block=_HEAD)
    if first + size * count > len(data):
        raise ImageFileError("the program headers are cut off", block=_HEAD)
    notes: list[Note] = []
    loads: list[Load] = []
    for index in range(count):
        values = width.program.unpack_from(data, first + index * size)
        if width.flags_last:
            kind, offset, linear, physical, stored = values[:5]
        else:
            kind, _, offset, linear, physical, stored = values[:6]
        if kind == _PT_LOAD:
            loads.append(Load(offset, linear, physical, stored))
        elif kind == _PT_NOTE:
            notes += _notes(data, offset, stored)
    return CoreHead(machine, width is _WIDE, tuple(notes), tuple(loads))


def _notes(data: bytes, offset: int, size: int) -> list[Note]:
    if offset + size > len(data):
        raise ImageFileError("the notes are cut off", block=_HEAD)
    found, at, end = [], offset, offset + size
    while at < end:
        if at + _NOTE.size > end:
            raise ImageFileError("a note is cut off", block=_HEAD)
        name_size, data_size, kind = _NOTE.unpack_from(data, at)
        name_at = at + _NOTE.size
        data_at = name_at + (name_size + 3 & -4)
        at = data_at + (data_size + 3 & -4)
        if at > end:
            raise ImageFileError("a note is longer than its segment", block=_HEAD)
        name = data[name_at : name_at + name_size].rstrip(b"\0").decode("ascii", "replace")
        found.append(Note(name, kind, data[data_at : data_at + data_size]))
    return found


def find_note(notes: Sequence[Note], name: str, kind: int) -> bytes | None:
    """The bytes of the first note of that name and type."""
    return next((note.data for note in notes if note.name == name and note.type == kind), None)


def cut_at_direct_map(arch: Arch, ranges: Iterable[Range]) -> tuple[Range, ...]:
    """``ranges`` cut where A's direct map ends, so that each has one linear address or none."""
    end = Phys(page_down(arch.control_limit))
    parts: list[Range] = []
    for one in ranges:
        inside = one.start < end < one.end
        parts += [Range(one.start, end, one.type), Range(end, one.end, one.type)] if inside else [one]
    return tuple(parts)


def loads_of(arch: Arch, ranges: Iterable[Range], first_offset: int | None = None) -> tuple[Load, ...]:
    """A PT_LOAD for each of the ``ranges`` of :func:`cut_at_direct_map`, at the linear address of A's direct map.

    Their bytes are one after another from ``first_offset``; without it each offset is the physical address.
    """
    loads: list[Load] = []
    offset = first_offset
    for one in ranges:
        linear = int(arch.direct(one.start)) if one.end <= arch.control_limit else _UNMAPPED
        loads.append(Load(one.start if offset is None else offset, linear, one.start, one.size))
        offset = None if offset is None else offset + one.size
    return tuple(loads)


def _pad4(data: bytes) -> bytes:
    return data.ljust(len(data) + 3 & -4, b"\0")
