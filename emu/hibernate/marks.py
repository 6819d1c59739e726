"""The mark of an image: fresh, used, or invalidated; durable, and safe against a cut while it is written.

The mark block is eight sectors that all say the same.  An image may be resumed from only if every one of them says
*fresh*, byte for byte, for this image; whatever else is there, garbage included, refuses.  A mark that was cut leaves
at least one sector that is not *fresh*, or none was written, and then the jump had not been allowed either: whoever
marks goes on only when the disk has confirmed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from enum import StrEnum
from pathlib import Path
from typing import Final

from emu.errors import ImageFileError
from emu.hibernate.layout import COMMIT_SIZE, MARK_SIZE, TAIL_SIZE, Commit
from emu.hibernate.store import DISK, Disk

MARK_MAGIC: Final = b"KJUMPMRK"
SECTOR: Final = 512
_BODY: Final = struct.Struct("<8s8sQ32s")


class Mark(StrEnum):
    """What became of an image; TORN: something was written over *fresh*, but not all of it arrived."""

    FRESH = "fresh"
    USED = "used"
    INVALID = "invalid"
    TORN = "torn"


_WHY: Final = {
    Mark.USED: ("has been resumed from already", "A went on from it, and its disks with it: save a new one"),
    Mark.INVALID: ("is invalidated: A went on after it was saved", "save a new one"),
    Mark.TORN: (
        "has a damaged mark: perhaps it was used, perhaps the power failed while it was marked",
        "it cannot be resumed from; save a new one",
    ),
}


def mark_block(mark: Mark, commit: Commit) -> bytes:
    """The 4096 bytes that say ``mark`` of the image with this commit record."""
    body = _BODY.pack(MARK_MAGIC, mark.encode("ascii"), commit.image_id, commit.root)
    return (body + hashlib.sha256(body).digest()).ljust(SECTOR, b"\0") * (MARK_SIZE // SECTOR)


def read_mark(block: bytes, commit: Commit) -> Mark:
    """What the mark block says; :attr:`Mark.TORN` for anything but whole sectors of this image."""
    if block == mark_block(Mark.FRESH, commit):
        return Mark.FRESH
    sectors = {block[at : at + SECTOR] for at in range(0, len(block), SECTOR)}
    for mark in (Mark.INVALID, Mark.USED):
        if mark_block(mark, commit)[:SECTOR] in sectors:
            return mark
    return Mark.TORN


def require_fresh(mark: Mark, where: str) -> None:
    """Raises ImageFileError with the reason unless ``mark`` is fresh."""
    if mark is not Mark.FRESH:
        what, hint = _WHY[mark]
        raise ImageFileError(f"the image {what}", where=where, hint=hint)


def mark_used(path: Path, *, root: bytes | None = None, disk: Disk = DISK) -> None:
    """Mark the image as used; when this returns, the mark is on the disk and A may be entered.

    ``root`` is that of the image that was verified: another one that has taken its place is refused.  Raises
    ImageFileError when the image is not fresh, another process is marking it, or the mark cannot be written.
    """
    _write_mark(path, Mark.USED, root, disk)


def invalidate(path: Path, *, disk: Disk = DISK) -> None:
    """Mark the image as invalid, fresh or not; when this returns, the mark is on the disk.  Raises ImageFileError."""
    _write_mark(path, Mark.INVALID, None, disk)


def _write_mark(path: Path, mark: Mark, root: bytes | None, disk: Disk) -> None:
    try:
        file = disk.open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            commit, old = read_tail(file)
            if mark is Mark.USED:
                require_fresh(old, str(path))
            if root is not None and commit.root != root:
                raise ImageFileError("another image has taken this one's place", where=str(path), hint="start again")
            disk.write(file, mark_block(mark, commit), commit.file_size - MARK_SIZE)
            disk.sync(file)
        finally:
            disk.close(file)
    except ImageFileError as error:
        if str(path) in error.where:
            raise
        raise ImageFileError(error.what, block=error.block, where=f"{path}, {error.where}", hint=error.hint) from None
    except BlockingIOError as error:
        raise ImageFileError("another process is resuming from it now", where=str(path)) from error
    except OSError as error:
        raise ImageFileError(
            f"cannot be marked as {mark}: {error.strerror}",
            where=str(path),
            hint="A must not be entered from an image that stays fresh",
        ) from error


def read_tail(file: int) -> tuple[Commit, Mark]:
    """The commit record and the mark at the end of an open image; raises ImageFileError, OSError."""
    size = os.fstat(file).st_size
    tail = os.pread(file, TAIL_SIZE, max(0, size - TAIL_SIZE))
    commit = Commit.parse(tail[:COMMIT_SIZE])
    if commit.file_size != size:
        raise ImageFileError(
            f"the file is {size} bytes long, {commit.file_size} were written",
            where="at its end",
            hint="copy it again",
        )
    return commit, read_mark(tail[COMMIT_SIZE:], commit)
