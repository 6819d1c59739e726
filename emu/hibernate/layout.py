"""The parts of an image file that are ours: blocks, the table of their checksums, and the commit record.

The file is an ELF core followed by a tail::

    head      ELF header, program headers, notes, to a page      block 0
    memory    the ranges, each in blocks of 64 KiB at most       blocks 1 to n
    table     one entry for each of the blocks above
    padding   to a page
    commit    4096 bytes, written last, when all before it is on the disk
    mark      4096 bytes, see emu.hibernate.marks

In a compressed image each block is one zstd frame, and the tail lies in a skippable frame, so that ``zstd -d`` gives
the bare ELF core.  Checksums are SHA-256 of a block's contents before compression.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from emu.errors import ImageFileError
from emu.hibernate.record import check_version
from emu.kexec.e820 import Range
from emu.units import PAGE_SIZE, page_up

BLOCK_SIZE: Final = 64 * 1024
COMMIT_MAGIC: Final = b"KJUMPIMG"
COMMIT_SIZE: Final = PAGE_SIZE
MARK_SIZE: Final = PAGE_SIZE
TAIL_SIZE: Final = COMMIT_SIZE + MARK_SIZE
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
SKIPPABLE: Final = struct.Struct("<4sI")
SKIPPABLE_MAGIC: Final = b"\x5a\x2a\x4d\x18"
"""A zstd frame that decoders leave out (RFC 8878, 3.1.2); the low nibble is the user's."""

_ENTRY: Final = struct.Struct("<QQII32s")
_COMMIT: Final = struct.Struct("<8sIIQQQQQ32s")
_DIGEST: Final = 32
_COMPRESSED: Final = 1


class Block(NamedTuple):
    """One block: its physical address (0 for the head), where it is in the file, and what it must hold."""

    address: int
    offset: int
    stored: int
    size: int
    digest: bytes

    def pack(self) -> bytes:
        """The entry of the table, 56 bytes."""
        return _ENTRY.pack(*self)


def pack_table(blocks: Iterable[Block]) -> bytes:
    """The table of all blocks, the head first."""
    return b"".join(block.pack() for block in blocks)


def parse_table(table: bytes) -> list[Block]:
    """The blocks; ``table`` is a whole number of entries."""
    return [Block(*fields) for fields in _ENTRY.iter_unpack(table)]


def pieces(ranges: Sequence[Range]) -> Iterator[tuple[int, int]]:
    """(physical address, size) of each block of memory, in the order of the file; no block spans two ranges."""
    for one in ranges:
        for start in range(one.start, one.end, BLOCK_SIZE):
            yield start, min(BLOCK_SIZE, one.end - start)


def wrapped_table(table: bytes, offset: int, *, compressed: bool) -> tuple[bytes, int]:
    """``table`` as it lies in the file from ``offset`` up to the commit record, and the offset of its first entry."""
    first = offset + (SKIPPABLE.size if compressed else 0)
    end = page_up(first + len(table))
    head = SKIPPABLE.pack(SKIPPABLE_MAGIC, end + TAIL_SIZE - first) if compressed else b""
    return head + table.ljust(end - first, b"\0"), first


@dataclass(frozen=True, slots=True)
class Commit:
    """The commit record: with it, and only with it, the file is an image.

    ``root`` is the digest of the table, so of everything; sizes and offsets are bytes of the file.
    """

    image_id: int
    file_size: int
    table_offset: int
    blocks: int
    memory_size: int
    root: bytes
    compressed: bool
    version: int

    def pack(self) -> bytes:
        """The record's 4096 bytes; the last 32 are the digest of the others."""
        flags = _COMPRESSED if self.compressed else 0
        numbers = (self.image_id, self.file_size, self.table_offset, self.blocks, self.memory_size)
        body = _COMMIT.pack(COMMIT_MAGIC, self.version, flags, *numbers, self.root)
        body = body.ljust(COMMIT_SIZE - _DIGEST, b"\0")
        return body + hashlib.sha256(body).digest()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The record in ``data``; raises ImageFileError when it is not there, damaged, or of another version."""
        if len(data) != COMMIT_SIZE or data[: len(COMMIT_MAGIC)] != COMMIT_MAGIC:
            raise ImageFileError(
                "there is no commit record: the writing of this image was cut, or its end was lost",
                where="at its end",
                hint="it cannot be resumed from: save again, or copy it again",
            )
        if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
            raise ImageFileError(
                "the commit record is damaged", where="at its end", hint="it cannot be resumed from: copy it again"
            )
        _, version, flags, image_id, file_size, table_offset, blocks, memory_size, root = _COMMIT.unpack_from(data)
        check_version(version)
        return cls(image_id, file_size, table_offset, blocks, memory_size, root, bool(flags & _COMPRESSED), version)

    @property
    def table_size(self) -> int:
        """Bytes of the table."""
        return self.blocks * _ENTRY.size
