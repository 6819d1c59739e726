"""The campaigns find nothing wrong with the room as it is, and do find it when a piece of the room is taken away."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emu.errors import ImageFileError
from emu.hibernate import faults, layout, marks, reader
from emu.hibernate.faults import NEW_ID, OLD_ID, Bench, Tally
from emu.hibernate.marks import Mark
from emu.hibernate.powercut import Recorder
from emu.hibernate.reader import open_image
from emu.hibernate.store import Disk
from emu.units import KIB

BOTH = pytest.mark.parametrize("compress", [False, True], ids=["plain", "zstd"])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, 64 * KIB)


def assert_holds(tally: Tally, cases: int) -> None:
    assert tally.wrong == []
    assert tally.cases >= cases
    assert tally.refused + tally.whole == tally.cases


@BOTH
def test_a_cut_at_any_byte_of_a_small_image_is_refused(bench: Bench, *, compress: bool) -> None:
    tally = faults.cut_anywhere(bench, every=7, compress=compress)
    assert_holds(tally, 10_000)
    assert tally.refused == tally.cases


@BOTH
def test_every_lost_sector_is_refused_unless_it_was_of_zeros(bench: Bench, *, compress: bool) -> None:
    tally = faults.lost_sectors(bench, compress=compress)
    assert_holds(tally, 150)
    zeros = [chunk for chunk in _sectors(bench.path) if not any(chunk)]
    assert tally.whole == len(zeros)


def _sectors(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[at : at + 512] for at in range(0, len(data), 512)]


@BOTH
def test_a_flipped_bit_is_refused(bench: Bench, *, compress: bool) -> None:
    tally = faults.flipped_bits(bench, 300, compress=compress)
    assert_holds(tally, 300)
    assert tally.refused == 300


@BOTH
def test_a_power_cut_leaves_the_old_image_or_the_new_one(bench: Bench, *, compress: bool) -> None:
    assert_holds(faults.power_cuts(bench, 10, compress=compress), 200)
    first = faults.power_cuts(bench, 10, older=False, compress=compress)
    assert_holds(first, 200)
    assert first.refused > 0
    assert first.whole > 0


def test_a_power_cut_while_marking_never_makes_a_marked_image_fresh(bench: Bench) -> None:
    tally = faults.power_cuts_while_marking(bench, 100)
    assert_holds(tally, 400)
    assert tally.whole > 0


@BOTH
def test_a_full_disk_costs_the_new_image_only(bench: Bench, *, compress: bool) -> None:
    assert_holds(faults.full_disk(bench, compress=compress), 8)


@BOTH
def test_a_killed_writer_costs_the_new_image_only(bench: Bench, *, compress: bool) -> None:
    assert_holds(faults.killed_writer(bench, compress=compress), 8)


class _Lying(Recorder):
    """A disk that confirms what it has not done: the model of it then loses sectors after the rename."""

    def sync(self, file: int) -> None:
        Disk.sync(self, file)


def test_without_syncing_before_the_rename_a_cut_would_cost_both_images(bench: Bench) -> None:
    assert any("refused" in line for line in faults.power_cuts(bench, 10, disk=_Lying()).wrong)


class _Forgetful(Recorder):
    """A disk that syncs no names."""

    def sync_folder(self, folder: Path) -> None:
        Disk.sync_folder(self, folder)


def test_without_syncing_the_folder_a_save_that_was_confirmed_could_be_lost(bench: Bench) -> None:
    assert any("image 1 was taken" in line for line in faults.power_cuts(bench, 3, disk=_Forgetful()).wrong)


def test_without_syncing_a_mark_a_used_image_could_be_fresh(bench: Bench) -> None:
    wrong = faults.power_cuts_while_marking(bench, 3, disk=_Lying()).wrong
    assert "mark_used was confirmed and the image is fresh" in wrong


def test_a_reader_that_compares_no_checksums_is_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def believing(file: int, _number: int, block: layout.Block, *, compressed: bool) -> bytes:
        assert not compressed
        return os.pread(file, block.stored, block.offset)

    monkeypatch.setattr(reader, "_contents", believing)
    assert any("image -1 was taken" in line for line in faults.flipped_bits(bench, 50).wrong)


def test_a_mark_that_is_read_from_its_last_sector_only_is_noticed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(block: bytes, commit: layout.Commit) -> Mark:
        return Mark.FRESH if block[-512:] == marks.mark_block(Mark.FRESH, commit)[-512:] else Mark.USED

    monkeypatch.setattr(marks, "read_mark", careless)
    monkeypatch.setattr(marks, "mark_block", _only_first)
    assert faults.power_cuts_while_marking(bench, 5).wrong != []


_true_mark_block = marks.mark_block


def _only_first(mark: Mark, commit: layout.Commit) -> bytes:
    return _true_mark_block(mark, commit)[:512] + _true_mark_block(Mark.FRESH, commit)[512:]


def test_a_tally_tells_what_is_wrong() -> None:
    tally = Tally("example")
    tally.count("one", None, [None])
    tally.count("two", NEW_ID, [OLD_ID, NEW_ID])
    tally.count("three", None, [NEW_ID])
    tally.count("four", -1, [None, NEW_ID])
    assert (tally.cases, tally.refused, tally.whole) == (4, 1, 1)
    assert tally.wrong == ["three: refused", "four: image -1 was taken"]
    assert tally.to_json()["wrong"] == 2


def test_a_file_that_may_not_grow_is_an_error_and_the_old_image_stays(bench: Bench) -> None:
    bench.save(OLD_ID)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30 * KIB, hard))
    try:
        with pytest.raises(ImageFileError, match="cannot be written: File too large"):
            bench.save(NEW_ID)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert bench.taken() == OLD_ID
    assert [entry.name for entry in bench.path.parent.iterdir()] == ["image"]


_WRITER = """
import sys
from pathlib import Path
from emu.hibernate.faults import Bench
bench = Bench(Path(sys.argv[1]), 8 << 20)
print("ready", flush=True)
while True:
    bench.save(2)
"""


@pytest.mark.slow
def test_kill_9_of_a_writing_process_at_any_time_leaves_a_whole_image(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 8 << 20)
    bench.save(OLD_ID)
    root = Path(__file__).resolve().parents[2]
    seen: set[int | None] = set()
    for turn in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path)], cwd=root, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.013 * turn)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        seen.add(bench.taken())
    assert seen <= {OLD_ID, NEW_ID}
    bench.save(NEW_ID)
    open_image(bench.path).verify()


def test_ctrl_c_leaves_no_partial_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.save(OLD_ID)

    def interrupted(_number: int) -> Callable[[], None]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Bench, "read", lambda *_: interrupted(0))
    with pytest.raises(KeyboardInterrupt):
        bench.save(NEW_ID)
    assert [entry.name for entry in bench.path.parent.iterdir()] == ["image"]
