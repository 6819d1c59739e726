"""``kjump image`` and ``kjump info``."""

import json
from pathlib import Path

import pytest

from emu.cli import main
from emu.hibernate import command
from emu.hibernate.faults import Bench, Tally
from emu.hibernate.marks import invalidate
from emu.kexec.arch import Arch
from tests.hibernate_bench import RANGES, REGISTERS, record, save


def test_info_tells_the_record_and_the_ranges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image"
    save(path, arch=Arch.I386_PAE)
    assert main(["image", "info", str(path)]) == 0
    said = capsys.readouterr().out
    for text in (
        "image      0x1d  version 1, ELF core",
        "mark       fresh",
        "kernel     kjump toy A, i386-pae",
        "entry      p:0x200010, hand-off page",
        "jump page  p:0x201000",
        "range      p:0x100000..p:0x113000 RAM",
        "open       gdb -c image",
    ):
        assert text in said
    assert all(len(line) <= 80 for line in said.splitlines())


def test_info_as_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image"
    save(path, compress=True)
    assert main(["image", "info", "--json", str(path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["entry"] == record().entry
    assert told["compressed"] is True
    assert told["ranges"] == [{"start": one.start, "size": one.size} for one in RANGES]
    assert told["registers"] == REGISTERS
    assert told["mark"] == "fresh"


def test_verify_has_a_status_for_whole_used_and_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image"
    save(path)
    assert main(["image", "verify", str(path)]) == 0
    assert "every checksum holds; mark: fresh" in capsys.readouterr().out
    invalidate(path)
    assert main(["image", "verify", str(path)]) == 1
    assert capsys.readouterr().out.startswith("not to be resumed from")
    data = bytearray(path.read_bytes())
    data[0x9000] ^= 1
    path.write_bytes(data)
    assert main(["image", "verify", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"kjump: {path}, block 1: memory p:0x100000..p:0x110000")
    assert main(["image", "verify", "--json", str(path)]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["whole"], told["block"]) == (False, 1)


def test_verify_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image"
    image = save(path)
    assert main(["image", "verify", "--json", str(path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "file": str(path),
        "whole": True,
        "block": None,
        "mark": "fresh",
        "blocks": image.commit.blocks,
        "memory_size": image.memory_size,
    }


def test_many_ranges_are_not_all_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image"
    save(path, is_free=lambda pfn: pfn % 2 == 1)
    assert main(["image", "info", str(path)]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 25
    assert "more (--json lists them)" in said


def test_info_of_a_file_goes_by_its_first_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image"
    save(path, compress=True)
    assert main(["info", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: a saved image\nimage      0x1d")
    assert "zstd -dc image > core && gdb -c core" in said
    assert main(["info", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "a saved image"


def test_a_cut_image_is_still_one_and_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image"
    save(path)
    path.write_bytes(path.read_bytes()[:0x5000])
    assert main(["info", str(path)]) == 2
    assert "the writing of this image was cut" in capsys.readouterr().err


def test_files_of_no_kind_and_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "letter"
    path.write_text("Dear reader")
    assert main(["info", str(path)]) == 2
    assert "by its first bytes: a saved image, a kernel" in capsys.readouterr().err
    assert main(["info", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert main(["image", "info", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [[], ["bit 3 of byte 7: image 2 was taken"]], ids=["holds", "does not"])
def test_faults_are_a_table_and_a_status(
    wrong: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = Tally("a bit flipped, plain", cases=12_000, refused=11_999, wrong=wrong)
    monkeypatch.setattr(command, "campaigns", lambda _folder, _flips, _seed: iter([tally]))
    assert main(["image", "faults"]) == (1 if wrong else 0)
    said = capsys.readouterr().out.splitlines()
    assert said[1].split()[-4:] == ["12,000", "11,999", "0", str(len(wrong))]
    assert said[2:-1] == [f"    {line}" for line in wrong]
    assert said[-1].startswith("WRONG  12,000 faults, 1" if wrong else "ok  12,000 faults, 0")
    assert main(["image", "faults", "--json"]) == (1 if wrong else 0)
    assert json.loads(capsys.readouterr().out)["campaigns"][0]["examples"] == wrong


def test_faults_run_where_they_are_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one(folder: Path, flips: int, seed: int) -> list[Tally]:
        assert folder.parent == tmp_path
        bench = Bench(folder, 65536, seed)
        bench.save()
        return [Tally(f"{flips} flips", cases=1, refused=1)]

    monkeypatch.setattr(command, "campaigns", one)
    assert main(["image", "faults", "--dir", str(tmp_path), "--flips", "5", "--seed", "2"]) == 0
    assert "5 flips" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [(["--flips", "-1"], "cannot be flipped"), (["--dir", "/nowhere/at/all"], "is no folder")],
)
def test_faults_that_cannot_be(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "faults", *arguments]) == 2
    assert why in capsys.readouterr().err
