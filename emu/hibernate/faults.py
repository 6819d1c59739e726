"""Faults done to images on purpose, all counted: cut files, lost sectors, flipped bits, full disks, killed writers.

Each campaign makes its own small image, harms it in every way of its kind or in random ones, and tries to take it as a
restore kernel would.  A case may end in a refusal with a clear error or in the very memory that was saved; anything
else is *wrong*.
"""

from __future__ import annotations

import errno
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from emu.errors import ImageFileError
from emu.hibernate.layout import MARK_SIZE
from emu.hibernate.marks import Mark, invalidate, mark_used
from emu.hibernate.memory import OldMemory
from emu.hibernate.powercut import SECTOR, Recorder, states
from emu.hibernate.reader import SavedImage, open_image
from emu.hibernate.record import ImageRecord, e820_digest
from emu.hibernate.store import DISK, Disk
from emu.hibernate.writer import PARTIAL, write_image
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range, default_map
from emu.units import KIB, MIB, PAGE_SIZE, Phys

OLD_ID: Final = 1
NEW_ID: Final = 2
_ENTRY: Final = 0x100010
_MOST_TOLD: Final = 5


@dataclass(slots=True)
class Tally:
    """The outcome of one campaign; ``wrong`` describes the cases that went as they must not."""

    name: str
    cases: int = 0
    refused: int = 0
    whole: int = 0
    wrong: list[str] = field(default_factory=list)

    def count(self, case: str, taken: int | None, allowed: Sequence[int | None]) -> None:
        """Count one case, in which image ``taken`` was accepted (None: refused); ``allowed`` is what may happen."""
        self.cases += 1
        if taken not in allowed:
            self.wrong.append(f"{case}: {'refused' if taken is None else f'image {taken} was taken'}")
        elif taken is None:
            self.refused += 1
        else:
            self.whole += 1

    def to_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "campaign": self.name,
            "cases": self.cases,
            "refused": self.refused,
            "whole": self.whole,
            "wrong": len(self.wrong),
            "examples": self.wrong[:_MOST_TOLD],
        }


class Bench:
    """A folder, a machine's memory full of noise, and images of it."""

    def __init__(self, folder: Path, size: int = 256 * KIB, seed: int = 1) -> None:
        self.path = folder / "image"
        self.memory_map: MemoryMap = default_map(2 * MIB + size)
        self.choose = random.Random(seed)  # noqa: S311 - faults that repeat
        self._noise = self.choose.randbytes(8 * MIB)
        half = (size // 2) & -PAGE_SIZE
        self.ranges = (
            Range(Phys(MIB), Phys(MIB + half)),
            Range(Phys(MIB + half + PAGE_SIZE), Phys(MIB + size)),
        )

    def read(self, address: int, size: int, image_id: int = NEW_ID) -> bytes:
        """The memory that image ``image_id`` is of."""
        start = (address * image_id) % (len(self._noise) - size)
        return self._noise[start : start + size]

    def save(self, image_id: int = NEW_ID, *, compress: bool = False, disk: Disk = DISK) -> SavedImage:
        """Write image ``image_id``; raises ImageFileError."""
        old = OldMemory(lambda address, size: self.read(address, size, image_id), self.memory_map.ram_ranges)
        record = ImageRecord(image_id, Arch.X86_64, e820_digest(self.memory_map), _ENTRY, "page", "image of noise")
        return write_image(self.path, old, self.ranges, record, compress=compress, disk=disk)

    def taken(self, path: Path | None = None) -> int | None:
        """Take the image as a restore kernel would: the id of the image, None when it was refused.

        -1 where it was accepted with other memory than was saved.
        """
        try:
            image = open_image(path or self.path)
            image.record.require(Arch.X86_64, self.memory_map)
            image.verify()
            found = image.record.image_id
            same = all(data == self.read(address, len(data), found) for address, data in image.blocks())
        except ImageFileError as error:
            if not str(error).startswith(str(self.path.parent)) and "image record" not in str(error):
                raise
            return None
        return found if same and image.ranges == self.ranges else -1


def cut_anywhere(bench: Bench, *, every: int, samples: int = 0, compress: bool = False) -> Tally:
    """A file that ends early: at each multiple of ``every`` bytes, at each byte of its tail, at random bytes."""
    image = bench.save(compress=compress)
    data = bench.path.read_bytes()
    tail = range(max(image.commit.table_offset, len(data) - 4 * PAGE_SIZE), len(data))
    cuts = {*range(0, len(data), every), *tail, *(bench.choose.randrange(len(data)) for _ in range(samples))}
    tally = Tally(f"cut at a byte, {_kind(compress)}")
    with bench.path.open("r+b") as file:
        for cut in sorted(cuts, reverse=True):
            file.truncate(cut)
            tally.count(f"cut at byte {cut}", bench.taken(), [None])
    return tally


def lost_sectors(bench: Bench, *, size: int = SECTOR, samples: int | None = None, compress: bool = False) -> Tally:
    """A file of full length in which one sector never arrived: zeros, or what was there before."""
    bench.save(compress=compress)
    data = bench.path.read_bytes()
    starts: Sequence[int] = range(0, len(data), size)
    if samples is not None:
        starts = sorted(bench.choose.sample(starts, samples))
    tally = Tally(f"a sector lost, {_kind(compress)}")
    with bench.path.open("r+b") as file:
        for start in starts:
            was = data[start : start + size]
            for instead in (bytes(len(was)), bench.choose.randbytes(len(was))):
                _put(file.fileno(), instead, start)
                # Zeros over zeros are no loss.
                tally.count(f"sector at byte {start}", bench.taken(), [NEW_ID if instead == was else None])
            _put(file.fileno(), was, start)
    return tally


def flipped_bits(bench: Bench, flips: int, *, compress: bool = False) -> Tally:
    """One bit of the file flipped, at ``flips`` random places."""
    bench.save(compress=compress)
    data = bench.path.read_bytes()
    tally = Tally(f"a bit flipped, {_kind(compress)}")
    with bench.path.open("r+b") as file:
        for _ in range(flips):
            at, bit = bench.choose.randrange(len(data)), bench.choose.randrange(8)
            _put(file.fileno(), bytes([data[at] ^ 1 << bit]), at)
            tally.count(f"bit {bit} of byte {at}", bench.taken(), [None, NEW_ID])
            _put(file.fileno(), data[at : at + 1], at)
    return tally


def flipped_marks(bench: Bench) -> Tally:
    """Each bit of the mark of a used and of an invalidated image flipped: neither may become fresh."""
    tally = Tally("a bit of a mark flipped")
    for mark in (mark_used, invalidate):
        bench.save()
        mark(bench.path)
        start = bench.path.stat().st_size - MARK_SIZE
        block = bench.path.read_bytes()[start:]
        with bench.path.open("r+b") as file:
            for bit in range(MARK_SIZE * 8):
                at = bit >> 3
                _put(file.fileno(), bytes([block[at] ^ 1 << (bit & 7)]), start + at)
                tally.count(f"bit {bit} after {mark.__name__}", bench.taken(), [None])
                _put(file.fileno(), block[at : at + 1], start + at)
    return tally


def power_cuts(
    bench: Bench, per_point: int, *, older: bool = True, compress: bool = False, disk: Recorder | None = None
) -> Tally:
    """The power fails while a new image is written, over an old one or (``older`` False) over nothing.

    What is there afterwards is the old one, whole, or the new one, whole; the new one once the save was confirmed.
    """
    disk = disk or Recorder()
    before: dict[Path, bytes] = {}
    bench.path.unlink(missing_ok=True)
    if older:
        bench.save(OLD_ID, compress=compress)
        before[bench.path] = bench.path.read_bytes()
    bench.save(NEW_ID, compress=compress, disk=disk)
    tally = Tally(f"power cut while saving {'over an image' if older else 'the first'}, {_kind(compress)}")
    partial = bench.path.with_name(bench.path.name + PARTIAL)
    for state in states(disk.log, before, bench.choose, per_point):
        _lay_down(state.files, (bench.path, partial))
        done = state.confirmed == len(disk.log)
        allowed = [NEW_ID] if done else [OLD_ID if older else None, NEW_ID]
        tally.count(f"cut at operation {state.issued}", bench.taken(), allowed)
        if bench.taken(partial) not in (None, NEW_ID):
            tally.wrong.append(f"cut at operation {state.issued}: the partial file was taken")
    return tally


def power_cuts_while_marking(bench: Bench, per_point: int, *, disk: Recorder | None = None) -> Tally:
    """The power fails while an image is marked: once the mark is confirmed it is never fresh."""
    tally = Tally("power cut while marking")
    for mark in (mark_used, invalidate):
        log = disk or Recorder()
        log.log.clear()
        bench.save()
        before = {bench.path: bench.path.read_bytes()}
        mark(bench.path, disk=log)
        for state in states(log.log, before, bench.choose, per_point):
            _lay_down(state.files, (bench.path,))
            done = state.confirmed == len(log.log)
            tally.count(f"{mark.__name__} cut at {state.issued}", bench.taken(), [None] if done else [None, NEW_ID])
            if open_image(bench.path, any_mark=True).mark is Mark.FRESH and done:
                tally.wrong.append(f"{mark.__name__} was confirmed and the image is fresh")
    return tally


class _Failing(Disk):
    """A disk on which operation number ``at`` does ``act`` instead; half of what was to be written is."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self._left = at
        self._act = act

    def _step(self) -> bool:
        self._left -= 1
        return self._left < 0

    def write(self, file: int, data: bytes, offset: int) -> None:
        """Write, or fail half way."""
        if self._step():
            super().write(file, data[: len(data) // 2], offset)
            self._act()
        super().write(file, data, offset)

    def sync(self, file: int) -> None:
        """Sync, or fail."""
        if self._step():
            self._act()
        super().sync(file)

    def replace(self, old: Path, new: Path) -> None:
        """Rename, or fail."""
        if self._step():
            self._act()
        super().replace(old, new)


def _operations(bench: Bench, *, compress: bool) -> int:
    disk = Recorder()
    bench.save(OLD_ID, compress=compress, disk=disk)
    return sum(one.kind in ("write", "sync", "replace") for one in disk.log)


def _no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk(bench: Bench, *, compress: bool = False) -> Tally:
    """The disk is full at each operation in turn: a clear error, the old image whole, nothing left behind."""
    tally = Tally(f"disk full, {_kind(compress)}")
    for at in range(_operations(bench, compress=compress)):
        error = ""
        try:
            bench.save(compress=compress, disk=_Failing(at, _no_space))
        except ImageFileError as raised:
            error = str(raised)
        tally.count(f"full at operation {at}", bench.taken(), [OLD_ID])
        if "No space left on device" not in error:
            tally.wrong.append(f"full at operation {at}: the error is {error!r}")
        if [entry.name for entry in bench.path.parent.iterdir()] != [bench.path.name]:
            tally.wrong.append(f"full at operation {at}: a partial file is left")
    return tally


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_writer(bench: Bench, *, compress: bool = False) -> Tally:
    """A process that writes is killed (SIGKILL) in each operation in turn: the old image is whole, and the next save
    works.
    """
    tally = Tally(f"writer killed, {_kind(compress)}")
    for at in range(_operations(bench, compress=compress)):
        child = os.fork()
        if child == 0:
            bench.save(compress=compress, disk=_Failing(at, _kill_self))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            tally.wrong.append(f"killed in operation {at}: the writer ended by itself")
        tally.count(f"killed in operation {at}", bench.taken(), [OLD_ID])
        bench.save(OLD_ID, compress=compress)
    return tally


def campaigns(folder: Path, flips: int, seed: int = 1) -> Iterator[Tally]:
    """All campaigns on small images in ``folder``, and samples on one of 64 MiB."""
    for compress in (False, True):
        small = Bench(folder, seed=seed)
        yield cut_anywhere(small, every=SECTOR, samples=2000, compress=compress)
        yield lost_sectors(small, compress=compress)
        yield flipped_bits(small, flips, compress=compress)
        yield power_cuts(small, 40, compress=compress)
        yield power_cuts(small, 20, older=False, compress=compress)
        yield full_disk(small, compress=compress)
        yield killed_writer(small, compress=compress)
    yield flipped_marks(Bench(folder, seed=seed))
    yield power_cuts_while_marking(Bench(folder, seed=seed), 200)
    large = Bench(folder, 64 * MIB, seed=seed)
    for tally in (cut_anywhere(large, every=MIB // 2), lost_sectors(large, size=PAGE_SIZE, samples=50)):
        tally.name += ", 64 MiB"
        yield tally


def _put(file: int, data: bytes, offset: int) -> None:
    os.pwrite(file, data, offset)


def _lay_down(files: dict[Path, bytes], paths: Sequence[Path]) -> None:
    for path in paths:
        if path in files:
            path.write_bytes(files[path])
        else:
            path.unlink(missing_ok=True)


def _kind(compress: bool) -> str:
    return "zstd" if compress else "plain"
