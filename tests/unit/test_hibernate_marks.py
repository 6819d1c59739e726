"""Marks: once used, never fresh again, whatever reaches the disk."""

import fcntl
import os
import random
from pathlib import Path

import pytest

from emu.errors import ImageFileError
from emu.hibernate.layout import MARK_SIZE
from emu.hibernate.marks import SECTOR, Mark, invalidate, mark_block, mark_used, read_mark
from emu.hibernate.reader import open_image
from emu.hibernate.store import Disk
from tests.hibernate_bench import save


def test_a_used_image_is_refused_the_second_time(tmp_path: Path) -> None:
    path = tmp_path / "image"
    save(path).mark_used()
    for again in (lambda: open_image(path), lambda: mark_used(path)):
        with pytest.raises(ImageFileError, match="has been resumed from already"):
            again()
    image = open_image(path, any_mark=True)
    assert image.mark is Mark.USED
    image.verify()


def test_an_invalidated_image_is_refused_and_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "image"
    save(path)
    invalidate(path)
    with pytest.raises(ImageFileError, match="A went on after it was saved"):
        open_image(path)
    with pytest.raises(ImageFileError, match="is invalidated"):
        mark_used(path)
    invalidate(path)
    assert open_image(path, any_mark=True).mark is Mark.INVALID


def test_a_used_image_may_be_invalidated(tmp_path: Path) -> None:
    path = tmp_path / "image"
    save(path).mark_used()
    invalidate(path)
    assert open_image(path, any_mark=True).mark is Mark.INVALID


@pytest.mark.parametrize("mark", [Mark.USED, Mark.INVALID])
def test_a_mark_cut_at_any_byte_leaves_nothing_fresh(tmp_path: Path, mark: Mark) -> None:
    commit = save(tmp_path / "image").commit
    fresh, marked = mark_block(Mark.FRESH, commit), mark_block(mark, commit)
    first = next(at for at in range(MARK_SIZE) if fresh[at] != marked[at])
    for cut in range(MARK_SIZE + 1):
        if cut > first:
            assert read_mark(marked[:cut] + fresh[cut:], commit) is not Mark.FRESH
    # The bytes before carry nothing: the write had not begun, and the jump was not allowed.
    assert first < 16


def test_any_sectors_of_a_mark_that_arrive_are_enough(tmp_path: Path) -> None:
    commit = save(tmp_path / "image").commit
    fresh, used = (mark_block(mark, commit)[:SECTOR] for mark in (Mark.FRESH, Mark.USED))
    for arrived in range(1, 256):
        block = b"".join(used if arrived >> sector & 1 else fresh for sector in range(8))
        assert read_mark(block, commit) is Mark.USED
    assert read_mark(fresh * 8, commit) is Mark.FRESH


def test_garbage_over_a_mark_is_never_fresh(tmp_path: Path) -> None:
    commit = save(tmp_path / "image").commit
    fresh = mark_block(Mark.FRESH, commit)
    noise = random.Random(3)  # noqa: S311 - the same every time
    for _ in range(500):
        at, size = noise.randrange(MARK_SIZE), noise.randrange(1, 600)
        torn = (fresh[:at] + noise.randbytes(size) + fresh[at + size :])[:MARK_SIZE]
        assert read_mark(torn, commit) is Mark.TORN
    assert read_mark(bytes(MARK_SIZE), commit) is Mark.TORN
    assert read_mark(b"", commit) is Mark.TORN


def test_the_mark_of_another_image_is_not_taken(tmp_path: Path) -> None:
    one = save(tmp_path / "one", image_id=1).commit
    other = save(tmp_path / "other", image_id=2).commit
    assert read_mark(mark_block(Mark.FRESH, other), one) is Mark.TORN


def test_an_image_that_took_its_place_is_not_marked(tmp_path: Path) -> None:
    path = tmp_path / "image"
    verified = save(path, image_id=1)
    save(path, image_id=2)
    with pytest.raises(ImageFileError, match="another image has taken this one's place"):
        verified.mark_used()
    assert open_image(path).record.image_id == 2


def test_two_cannot_mark_at_once(tmp_path: Path) -> None:
    path = tmp_path / "image"
    save(path)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ImageFileError, match="another process"):
            mark_used(path)
    mark_used(path)


class _NoSync(Disk):
    def sync(self, file: int) -> None:  # noqa: ARG002 - the name is the base class's
        raise OSError(5, os.strerror(5))


def test_a_mark_that_the_disk_does_not_confirm_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "image"
    save(path)
    with pytest.raises(ImageFileError, match=r"cannot be marked as used: Input/output error .*must not be entered"):
        mark_used(path, disk=_NoSync())
