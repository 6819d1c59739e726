"""The model of a disk after a power cut, against cases that can be counted by hand."""

import random
from pathlib import Path

from emu.hibernate.powercut import CutState, Operation, Recorder, states

NAME, PARTIAL, FOLDER = Path("image"), Path("image.partial"), Path()
SAVE = [
    Operation("create", PARTIAL),
    Operation("write", PARTIAL, 0, b"a" * 512 + b"b" * 512),
    Operation("sync", PARTIAL),
    Operation("replace", NAME, other=PARTIAL),
    Operation("folder", FOLDER),
]


def all_states(log: list[Operation], before: dict[Path, bytes]) -> list[CutState]:
    return list(states(log, before, random.Random(1), 200))  # noqa: S311 - the same every time


def test_before_a_sync_any_sectors_may_be_there() -> None:
    found = {state.files.get(PARTIAL) for state in all_states(SAVE[:2], {}) if state.issued == 2}
    a, b, zero = b"a" * 512, b"b" * 512, bytes(512)
    assert found == {None, b"", a, a + b, zero + b, a + zero, zero + zero}


def test_after_a_sync_all_of_them_are() -> None:
    after = [state for state in all_states(SAVE, {NAME: b"old"}) if state.issued == state.confirmed == 3]
    assert {state.files[NAME] for state in after} == {b"old"}
    assert {state.files.get(PARTIAL) for state in after} == {None, b"a" * 512 + b"b" * 512}


def test_a_rename_is_done_or_not_until_its_folder_is_synced() -> None:
    found = all_states(SAVE, {NAME: b"old"})
    during = {state.files[NAME] for state in found if state.issued == 4}
    assert during == {b"old", b"a" * 512 + b"b" * 512}
    done = [state for state in found if state.confirmed == 5]
    assert done
    assert all(state.files == {NAME: b"a" * 512 + b"b" * 512} for state in done)


def test_a_write_in_place_mixes_old_and_new_sectors() -> None:
    log = [Operation("write", NAME, 0, b"n" * 1024), Operation("sync", NAME)]
    found = {state.files[NAME] for state in all_states(log, {NAME: b"o" * 1024}) if not state.confirmed}
    assert found == {x * 512 + y * 512 for x in (b"o", b"n") for y in (b"o", b"n")}


def test_writes_are_cut_at_the_sectors_of_the_disk() -> None:
    log = [Operation("write", NAME, 500, b"n" * 24)]
    found = {state.files[NAME] for state in all_states(log, {NAME: b"o" * 1024})}
    assert b"o" * 500 + b"n" * 12 + b"o" * 512 in found
    assert b"o" * 512 + b"n" * 12 + b"o" * 500 in found


def test_a_recorder_does_what_it_notes(tmp_path: Path) -> None:
    disk = Recorder()
    file = disk.create(tmp_path / "one")
    disk.write(file, b"text", 3)
    disk.sync(file)
    disk.close(file)
    disk.replace(tmp_path / "one", tmp_path / "two")
    disk.sync_folder(tmp_path)
    assert (tmp_path / "two").read_bytes() == b"\0\0\0text"
    assert [one.kind for one in disk.log] == ["create", "write", "sync", "replace", "folder"]
    assert disk.log[1] == Operation("write", tmp_path / "one", 3, b"text")
