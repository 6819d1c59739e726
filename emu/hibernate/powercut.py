"""What may be on a disk after the power failed: every state that the operations so far allow.

The model is the weakest that POSIX allows.  Of what was written to a file since it was last synced any sectors may have
arrived, in any order; the file may be as long as it was to become, with zeros where nothing arrived; a name that was
changed is the old or the new one until its folder was synced.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from emu.hibernate.store import Disk

SECTOR: Final = 512


class Operation(NamedTuple):
    """One operation on ``path``: create, write, sync, replace (by ``other``), folder (its names are synced)."""

    kind: str
    path: Path
    offset: int = 0
    data: bytes = b""
    other: Path | None = None


class Recorder(Disk):
    """A disk that works, and remembers what was done with it."""

    def __init__(self) -> None:
        self.log: list[Operation] = []
        self._paths: dict[int, Path] = {}

    def create(self, path: Path) -> int:
        """A new empty file."""
        file = super().create(path)
        self._paths[file] = path
        self.log.append(Operation("create", path))
        return file

    def open(self, path: Path) -> int:
        """An existing file."""
        file = super().open(path)
        self._paths[file] = path
        return file

    def write(self, file: int, data: bytes, offset: int) -> None:
        """Write at ``offset``."""
        super().write(file, data, offset)
        self.log.append(Operation("write", self._paths[file], offset, data))

    def sync(self, file: int) -> None:
        """Sync a file."""
        super().sync(file)
        self.log.append(Operation("sync", self._paths[file]))

    def replace(self, old: Path, new: Path) -> None:
        """Rename."""
        super().replace(old, new)
        self.log.append(Operation("replace", new, other=old))

    def sync_folder(self, folder: Path) -> None:
        """Sync a folder."""
        super().sync_folder(folder)
        self.log.append(Operation("folder", folder))


@dataclass(slots=True)
class _File:
    """The durable bytes of a file, and the sectors that may or may not have followed them."""

    durable: bytes = b""
    pending: list[tuple[int, bytes]] = field(default_factory=list)

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        cuts = [offset, *range((offset // SECTOR + 1) * SECTOR, end, SECTOR), end]
        for start, stop in pairwise(cuts):
            self.pending.append((start, data[start - offset : stop - offset]))

    def settle(self) -> None:
        """Everything has arrived."""
        self.durable = self.contents([True] * len(self.pending), extended=True)
        self.pending.clear()

    def contents(self, arrived: Sequence[bool], *, extended: bool) -> bytes:
        data = bytearray(self.durable)
        for (offset, sector), is_there in zip(self.pending, arrived, strict=True):
            end = offset + len(sector)
            if len(data) < end and (is_there or extended):
                data += bytes(end - len(data))
            if is_there:
                data[offset:end] = sector
        return bytes(data)


class CutState(NamedTuple):
    """One state: how many operations had been issued, which were confirmed, and the files by path."""

    issued: int
    confirmed: int
    files: dict[Path, bytes]


def states(
    log: Sequence[Operation], before: Mapping[Path, bytes], choose: random.Random, per_point: int
) -> Iterator[CutState]:
    """States after a power cut during each operation of ``log`` and after the last has returned.

    There are ``per_point`` random ones of each, and the extremes.
    ``before`` are the files that were on the disk, synced.
    """
    files = {path: _File(data) for path, data in before.items()}
    durable = dict(files)
    for issued, operation in enumerate(log, 1):
        match operation.kind:
            case "create":
                files[operation.path] = _File()
            case "write":
                files[operation.path].write(operation.offset, operation.data)
            case "replace" if operation.other is not None:
                files[operation.path] = files.pop(operation.other)
        yield from _cuts(issued, issued - 1, (durable, files), choose, per_point)
        match operation.kind:
            case "sync":
                files[operation.path].settle()
                yield from _cuts(issued, issued, (durable, files), choose, 0)
            case "folder":
                durable = dict(files)
    yield from _cuts(len(log), len(log), (durable, files), choose, per_point)


def _cuts(
    issued: int, confirmed: int, names: Sequence[Mapping[Path, _File]], choose: random.Random, per_point: int
) -> Iterator[CutState]:
    """For each table of names that may be the one on the disk: nothing arrived, all did, and random parts."""
    for table in names:
        for number in range(per_point + 2):
            share = (0.0, 1.0)[number] if number < 2 else choose.random()
            extended = bool(choose.getrandbits(1))
            held = {
                path: file.contents([choose.random() < share for _ in file.pending], extended=extended)
                for path, file in table.items()
            }
            yield CutState(issued, confirmed, held)
