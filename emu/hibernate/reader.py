"""Reading an image: nothing is believed before the checksum that speaks for it holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard

from emu.errors import ImageFileError
from emu.hibernate.elf_core import ELF_MAGIC, CoreHead, find_note, parse_head
from emu.hibernate.layout import (
    TAIL_SIZE,
    ZSTD_MAGIC,
    Block,
    Commit,
    parse_table,
    pieces,
    wrapped_table,
)
from emu.hibernate.marks import Mark, mark_used, read_tail, require_fresh
from emu.hibernate.record import ImageRecord
from emu.hibernate.store import DISK, Disk
from emu.kexec.e820 import Range
from emu.units import PAGE_SIZE, Phys, show_phys

NOTE_NAME: Final = "KJUMP"
NOTE_RECORD: Final = 0x4B4A0001
NOTE_REGISTERS: Final = 0x4B4A0002
"""Types that nobody else uses: gdb and readelf look at the type before the name."""

_COPY_AGAIN: Final = "it cannot be resumed from; a copy of it may be whole"


@dataclass(frozen=True, slots=True)
class SavedImage:
    """An image whose commit record, table and head hold; its memory is checked as it is read.

    ``mark`` is what the mark said when the file was opened.
    """

    path: Path
    commit: Commit
    mark: Mark
    record: ImageRecord
    head: CoreHead
    ranges: tuple[Range, ...]
    table: tuple[Block, ...]

    @property
    def memory_size(self) -> int:
        """Bytes of memory in the image."""
        return self.commit.memory_size

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """(physical address, bytes) of each block, at most 64 KiB at a time; raises ImageFileError at a bad one."""
        with _opened(self.path) as file:
            for number, block in enumerate(self.table[1:], 1):
                yield block.address, _contents(file, number, block, compressed=self.commit.compressed)

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """(physical address, 4096 bytes) of each page, ascending; raises ImageFileError at a bad block."""
        for address, data in self.blocks():
            for at in range(0, len(data), PAGE_SIZE):
                yield address + at, data[at : at + PAGE_SIZE]

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read all of it; raises ImageFileError naming the first bad block."""
        done = 0
        for _, data in self.blocks():
            done += len(data)
            if progress is not None:
                progress(done, self.memory_size)

    def mark_used(self, disk: Disk = DISK) -> None:
        """Mark this very image as used, durably; raises ImageFileError."""
        mark_used(self.path, root=self.commit.root, disk=disk)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file open for reading; errors inside become ours and name the file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ImageFileError(f"cannot be opened: {error.strerror}", where=str(path)) from error
    try:
        yield file
    except OSError as error:
        raise ImageFileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ImageFileError as error:
        raise ImageFileError(error.what, block=error.block, where=f"{path}, {error.where}", hint=error.hint) from None
    finally:
        os.close(file)


def open_image(path: Path, *, any_mark: bool = False) -> SavedImage:
    """Open the image at ``path``; its commit record, table and head are checked, its memory not yet.

    Raises ImageFileError for anything that is not a whole image, and, unless ``any_mark``, for one that was used or
    invalidated.  Whether it fits a machine is for :meth:`ImageRecord.require`.
    """
    path = Path(path)
    with _opened(path) as file:
        if os.pread(file, 4, 0) not in (ELF_MAGIC, ZSTD_MAGIC):
            raise ImageFileError("is no image: it is neither an ELF file nor a zstd one", where="start")
        commit, mark = read_tail(file)
        table = _table(file, commit)
        head = parse_head(_contents(file, 0, table[0], compressed=commit.compressed))
        record = _record(head)
        ranges = tuple(Range(Phys(load.physical), Phys(load.physical + load.size)) for load in head.loads)
        if record.image_id != commit.image_id or list(pieces(ranges)) != [(b.address, b.size) for b in table[1:]]:
            raise ImageFileError("head and table do not belong together", block=0, hint=_COPY_AGAIN)
    if not any_mark:
        require_fresh(mark, str(path))
    return SavedImage(path, commit, mark, record, head, ranges, tuple(table))


def _table(file: int, commit: Commit) -> list[Block]:
    """The table, if it and all that lies between the last block and the commit record are as they were written."""
    data = os.pread(file, commit.table_size, commit.table_offset)
    if not commit.blocks or hashlib.sha256(data).digest() != commit.root:
        raise ImageFileError("the table of checksums is damaged", where="table", hint=_COPY_AGAIN)
    blocks = parse_table(data)
    end = 0
    for block in blocks:
        if block.offset != end:
            raise ImageFileError("the blocks do not follow one another", where="table", hint=_COPY_AGAIN)
        end += block.stored
    wrapped, first = wrapped_table(data, end, compressed=commit.compressed)
    there = os.pread(file, len(wrapped), end)
    if first != commit.table_offset or there != wrapped or end + len(wrapped) + TAIL_SIZE != commit.file_size:
        raise ImageFileError("the bytes around the table are not what was written", where="table", hint=_COPY_AGAIN)
    return blocks


def _record(head: CoreHead) -> ImageRecord:
    fixed = find_note(head.notes, NOTE_NAME, NOTE_RECORD)
    if fixed is None:
        raise ImageFileError("the ELF core has no note of kjump", block=0)
    return ImageRecord.unpack(fixed, find_note(head.notes, NOTE_NAME, NOTE_REGISTERS) or b"")


def _contents(file: int, number: int, block: Block, *, compressed: bool) -> bytes:
    """What block ``number`` holds; raises ImageFileError unless it is what was written."""
    data = os.pread(file, block.stored, block.offset)
    if compressed:
        data = _decompressed(data, block.size)
    if len(data) != block.size or hashlib.sha256(data).digest() != block.digest:
        what = f"memory {show_phys(block.address)}..{show_phys(block.address + block.size)}" if number else "the head"
        raise ImageFileError(
            f"{what} is not what was written: its checksum differs",
            block=number,
            where=f"block {number}",
            hint=_COPY_AGAIN,
        )
    return data


def _decompressed(data: bytes, size: int) -> bytes:
    """The contents of a zstd frame of ``size`` bytes; nothing where it is another frame or none."""
    try:
        if zstandard.frame_content_size(data) != size:
            return b""
        return bytes(zstandard.ZstdDecompressor().decompress(data))
    except zstandard.ZstdError:
        return b""
