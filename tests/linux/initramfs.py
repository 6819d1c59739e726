"""An initramfs made in memory, in the "newc" cpio format.

Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One file: ``content`` of a regular file or a symbolic link; ``device`` is (major, minor) of a device."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> Entry:
    return Entry(name, stat.S_IFDIR | 0o755)


def program(name: str, content: bytes) -> Entry:
    return Entry(name, stat.S_IFREG | 0o755, content)


def link(name: str, target: str) -> Entry:
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def character(name: str, major: int, minor: int) -> Entry:
    return Entry(name, stat.S_IFCHR | 0o600, device=(major, minor))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def cpio(entries: Iterable[Entry]) -> bytes:
    """The archive of ``entries``, in order; owner root, time 0, so that the same entries give the same bytes."""
    parts = []
    for inode, one in enumerate([*entries, Entry("TRAILER!!!", 0)], 1):
        name = one.name.encode() + b"\0"
        fields = (inode, one.mode, 0, 0, 1, 0, len(one.content), 0, 0, *one.device, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        parts += [_padded(header + name), _padded(one.content)]
    return b"".join(parts)
