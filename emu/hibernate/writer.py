"""Writing an image: a block at a time, and never in the place of an older one before it is whole and on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import zstandard

from emu.errors import ImageFileError
from emu.hibernate.elf_core import MOST_LOADS, CoreHead, Note, cut_at_direct_map, head_size, loads_of
from emu.hibernate.layout import TAIL_SIZE, Block, Commit, pack_table, pieces, wrapped_table
from emu.hibernate.marks import Mark, mark_block
from emu.hibernate.memory import OldMemory, joined
from emu.hibernate.prstatus import prstatus
from emu.hibernate.reader import NOTE_NAME, NOTE_RECORD, NOTE_REGISTERS, SavedImage, open_image
from emu.hibernate.record import IMAGE_VERSION, ImageRecord
from emu.hibernate.store import DISK, Disk
from emu.kexec.e820 import Range
from emu.units import PAGE_SHIFT, Phys, show_size

PARTIAL: Final = ".partial"
_LEVEL: Final = 3
_NARROW_END: Final = 1 << 32


def write_image(
    path: Path,
    memory: OldMemory,
    ranges: Sequence[Range],
    record: ImageRecord,
    *,
    compress: bool = False,
    is_free: Callable[[int], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
    disk: Disk = DISK,
) -> SavedImage:
    """Save ``ranges`` of ``memory`` (physical, whole pages) to ``path`` and open what was written.

    The file grows under the name ``path`` with ``.partial`` behind it and takes its place when it is whole and on
    the disk; until then an older image of that name stays as it was.  ``is_free`` tells which page frames hold nothing
    and are left out.  ``progress`` is given the bytes of memory done and all.  Raises ImageFileError, with nothing
    left behind, when memory may not be read or the file cannot be written.
    """
    path = Path(path).resolve()
    kept = cut_at_direct_map(record.arch, without_free(joined(ranges), is_free))
    if not kept:
        raise ImageFileError("there is no memory to save", where=str(path))
    partial = path.with_name(path.name + PARTIAL)
    try:
        if path.exists() and not path.is_file():
            raise ImageFileError("is not a regular file", where=str(path), hint="name a file, or one that is not there")
        try:
            file = disk.create(partial)
            try:
                _Writing(file, disk, compress).run(memory, kept, record, progress)
            finally:
                disk.close(file)
            disk.replace(partial, path)
        except BaseException:
            disk.remove(partial)
            raise
        disk.sync_folder(path.parent)
    except OSError as error:
        size = sum(one.size for one in kept)
        raise ImageFileError(
            f"cannot be written: {error.strerror}",
            where=str(path),
            hint=f"{show_size(size)} of memory are to be saved; an image that was there before is as it was",
        ) from error
    return open_image(path)


class _Writing:
    """One image on its way into an open file."""

    def __init__(self, file: int, disk: Disk, compress: bool) -> None:
        self._file = file
        self._disk = disk
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL) if compress else None
        self._offset = 0
        self._blocks: list[Block] = []

    def run(
        self,
        memory: OldMemory,
        ranges: Sequence[Range],
        record: ImageRecord,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        total = sum(one.size for one in ranges)
        self._block(0, core_head(ranges, record).pack())
        done = 0
        for address, size in pieces(ranges):
            self._block(address, memory.read(address, size))
            done += size
            if progress is not None:
                progress(done, total)
        self._finish(record, total)

    def _block(self, address: int, data: bytes) -> None:
        stored = data if self._compressor is None else self._compressor.compress(data)
        digest = hashlib.sha256(data).digest()
        self._blocks.append(Block(address, self._offset, len(stored), len(data), digest))
        self._write(stored)

    def _write(self, data: bytes) -> None:
        self._disk.write(self._file, data, self._offset)
        self._offset += len(data)

    def _finish(self, record: ImageRecord, total: int) -> None:
        compressed = self._compressor is not None
        table = pack_table(self._blocks)
        wrapped, table_offset = wrapped_table(table, self._offset, compressed=compressed)
        self._write(wrapped)
        commit = Commit(
            image_id=record.image_id,
            file_size=self._offset + TAIL_SIZE,
            table_offset=table_offset,
            blocks=len(self._blocks),
            memory_size=total,
            root=hashlib.sha256(table).digest(),
            compressed=compressed,
            version=IMAGE_VERSION,
        )
        # The commit record must not reach the disk before what it speaks for.
        self._disk.sync(self._file)
        self._write(commit.pack() + mark_block(Mark.FRESH, commit))
        self._disk.sync(self._file)


def core_head(ranges: Sequence[Range], record: ImageRecord) -> CoreHead:
    """The ELF core's headers and notes for ``ranges``; offsets are those of the file when it is not compressed."""
    total = sum(one.size for one in ranges)
    wide = record.arch.bits == 64 or ranges[-1].end > _NARROW_END or total > _NARROW_END - (_NARROW_END >> 4)
    notes = (
        prstatus(record.arch, record.registers),
        Note(NOTE_NAME, NOTE_RECORD, record.pack()),
        Note(NOTE_NAME, NOTE_REGISTERS, record.pack_registers()),
    )
    offset = head_size(wide, len(ranges), notes)
    return CoreHead(record.arch.machine, wide, notes, loads_of(record.arch, ranges, offset))


def without_free(ranges: Sequence[Range], is_free: Callable[[int], bool] | None) -> tuple[Range, ...]:
    """``ranges`` less the page frames that ``is_free`` names.

    Where that makes more ranges than an ELF core has program headers, short runs of free pages are kept, the shortest
    first.
    """
    if is_free is None:
        return tuple(ranges)
    used = [list(_used_runs(one, is_free)) for one in ranges]
    shortest = 1
    while sum(map(len, used)) > MOST_LOADS:
        shortest *= 2
        used = [_bridged(runs, shortest) for runs in used]
    return tuple(Range(Phys(a << PAGE_SHIFT), Phys(b << PAGE_SHIFT)) for runs in used for a, b in runs)


def _used_runs(one: Range, is_free: Callable[[int], bool]) -> Iterator[tuple[int, int]]:
    start: int | None = None
    pages = one.pages()
    for pfn in pages:
        if is_free(pfn):
            if start is not None:
                yield start, pfn
            start = None
        elif start is None:
            start = pfn
    if start is not None:
        yield start, pages.stop


def _bridged(runs: Sequence[tuple[int, int]], shortest: int) -> list[tuple[int, int]]:
    """``runs`` of page frames, those joined that fewer than ``shortest`` free pages lie between."""
    found: list[tuple[int, int]] = []
    for start, end in runs:
        if found and start - found[-1][1] < shortest:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found
