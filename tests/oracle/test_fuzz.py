"""Random cases: the same by the same seed, varied, and compared with QEMU; a case that differs is found and kept."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

from emu.errors import EXIT_FINDINGS, KjumpError
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch
from emu.oracle import command
from emu.oracle.arena import random_case
from emu.oracle.compare import Verdict
from emu.oracle.fuzz import fuzz
from emu.oracle.image import OracleImage
from emu.oracle.machines import Other, witness
from emu.oracle.outcome import Ended, Run
from tests.oracle.conftest import HIGH, flipped, liar


def test_a_case_is_a_function_of_its_numbers(arch: Arch) -> None:
    assert random_case(arch, 1, 5) == random_case(arch, 1, 5)
    assert random_case(arch, 1, 5) != random_case(arch, 2, 5)


def test_cases_vary_in_all_that_matters(arch: Arch) -> None:
    cases = [random_case(arch, 1, number) for number in range(60)]
    kinds = {case.name.partition("(")[2] for case in cases}
    assert kinds == {"plain)", "preserve)", "round trip)"}
    assert len({case.registers["cr3"] for case in cases}) == 4
    for bit in (1 << 16, 1 << 3):
        assert {case.registers["cr0"] & bit for case in cases} == {0, bit}
    assert {case.registers["cr4"] & 0x80 for case in cases} == {0, 0x80}
    assert {bool(case.moved) for case in cases if "preserve" in case.name} == {False, True}


@pytest.mark.oracle("qemu-system-x86_64")
def test_fifty_cases_of_each_architecture_agree_with_qemu(arch: Arch) -> None:
    report = fuzz(arch, 50, 1, [witness(Other.QEMU)])
    (row,) = report.summary
    assert row.verdict is Verdict.AGREE, [str(one) for wrong in report.rows for one in wrong.differences][:5]
    assert report.rows == report.summary
    assert row.pages == row.pages_equal > 50 * 25


def test_a_case_that_differs_is_named_and_kept(tmp_path: Path) -> None:
    def lie(image: OracleImage, run: Run) -> Run:
        return flipped(run, image.cases[-1].find(HIGH + 0x9008))

    report = fuzz(Arch.X86_64, 3, 1, [liar(lie)], tmp_path)
    (wrong,) = report.rows[1:]
    assert wrong.case.startswith("x86_64 case 2 ")
    assert wrong.differences[0].place == "p:0x109008"
    assert report.summary[0].verdict is Verdict.DIFFER
    (path,) = report.saved
    assert path.read_bytes().startswith(b"\x7fELF")


def test_a_batch_that_ends_otherwise_is_taken_apart(tmp_path: Path) -> None:
    def lie(image: OracleImage, run: Run) -> Run:
        bad = any("case 1 " in placed.case.name for placed in image.cases)
        return replace(run, ended=Ended.RESET) if bad else run

    report = fuzz(Arch.I386, 3, 1, [liar(lie)], tmp_path)
    assert [row.case.split("(")[0] for row in report.rows[1:]] == ["i386 case 1 "]
    assert report.rows[1].differences[0].place == "end"


def arguments(**changes: object) -> Namespace:
    return Namespace(**{"qemu": True, "kvm": False, "fuzz": 2, "out": None, "irq": None, "json": True, **changes})


def test_what_cannot_be_is_one_message(tmp_path: Path) -> None:
    scene = make_scene(find_journey("jump"), arch=Arch.I386, ram="24M", target="2M@16M")
    with pytest.raises(KjumpError, match="--fuzz"):
        command.oracle_main(arguments(fuzz=-1), [scene])
    with pytest.raises(KjumpError, match="--irq"):
        command.oracle_main(arguments(irq="swap_pages"), [scene])
    (tmp_path / "file").touch()
    lie = liar(lambda image, run: flipped(run, image.cases[0].find(HIGH)))
    with pytest.raises(KjumpError, match="cannot be written"):
        fuzz(Arch.I386, 1, 1, [lie], tmp_path / "file")


def test_the_command_says_so_and_exits_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    scene = make_scene(find_journey("jump"), arch=Arch.I386, ram="24M", target="2M@16M")
    monkeypatch.setattr(command, "witness", lambda _name: liar(lambda _image, run: run))
    assert command.oracle_main(arguments(), [scene]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert [row["verdict"] for row in document["comparisons"]] == ["agree"]
    monkeypatch.setattr(command, "witness", lambda _name: liar(lambda _image, run: replace(run, console="?")))
    assert command.oracle_main(arguments(json=False), [scene]) == EXIT_FINDINGS
    shown = capsys.readouterr().out
    assert "differ" in shown
    assert "console: '' here, '?' there" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
