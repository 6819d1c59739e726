"""The few operations on files by which an image becomes durable.

All writing goes through a :class:`Disk`, so that a test can stand in its place and cut the power between any two.
"""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """The file system of this machine.  Each method raises OSError."""

    def create(self, path: Path) -> int:
        """A new empty file, readable by its owner only: it will hold all of a kernel's memory."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def open(self, path: Path) -> int:
        """An existing file, to be changed in place."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def write(self, file: int, data: bytes, offset: int) -> None:
        """All of ``data`` from ``offset`` on."""
        done = 0
        while done < len(data):
            done += os.pwrite(file, memoryview(data)[done:], offset + done)

    def sync(self, file: int) -> None:
        """Come back when the file's contents and size are on the disk."""
        os.fsync(file)

    def close(self, file: int) -> None:
        """Close it."""
        os.close(file)

    def replace(self, old: Path, new: Path) -> None:
        """Give ``old`` the name ``new``, which may exist, in one step."""
        old.replace(new)

    def sync_folder(self, folder: Path) -> None:
        """Come back when the names in ``folder`` are on the disk."""
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def remove(self, path: Path) -> None:
        """Remove the file if it is there."""
        path.unlink(missing_ok=True)


DISK = Disk()
