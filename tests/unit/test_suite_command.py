"""kjump test: what it picks, what it says, how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from emu.cli import main
from emu.resources import asm_dir

GOOD = "claim it_holds\nholds\n"
BAD = "claim it_does_not_hold\n movl $1, %eax\n equall $2, %eax\nholds\n"


def kjump(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emu.cli", "test", *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=300)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.S"
    path.write_text(f'# Mine.\n#\n# modes: 32\n# may change: ax stack\n.include "claims.inc"\n{GOOD}{BAD}')
    return path


def test_a_file_of_ones_own_is_run_and_its_failure_is_told_without_a_traceback(mine: Path) -> None:
    done = kjump(mine)
    assert done.returncode == 1
    assert "mine.S:10" in done.stdout
    assert "`equall $2, %eax` does not hold: %eax = 0x1" in done.stdout
    assert "1 failed, 1 passed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert ".py" not in done.stdout


def test_a_name_picks_claims(mine: Path) -> None:
    done = kjump(mine, "it_holds")
    assert (done.returncode, "1 passed" in done.stdout) == (0, True)


def test_junit_has_an_item_for_each_claim(mine: Path, tmp_path: Path) -> None:
    assert kjump(mine, "--junit", tmp_path / "out.xml").returncode == 1
    cases = ET.parse(tmp_path / "out.xml").getroot().iter("testcase")  # noqa: S314 - ours
    assert [case.get("name") for case in cases] == ["it_holds", "it_does_not_hold"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["./no_such_file.S"], "cannot be read"),
        (["--stub", "no_such_stub.S"], "no such file"),
    ],
)
def test_what_is_not_there_is_bad_input(words: list[str], complaint: str) -> None:
    done = kjump(*words)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_no_claim_has_is_bad_input(mine: Path) -> None:
    done = kjump(mine, "no_such_claim")
    assert (done.returncode, "no claim is called so" in done.stderr) == (2, True)


def test_a_file_that_does_not_assemble_is_told_with_its_line(mine: Path) -> None:
    mine.write_text(mine.read_text() + " movl %nothing, %eax\n")
    done = kjump(mine)
    assert done.returncode == 2
    assert "mine.S:12:" in done.stdout + done.stderr


def test_list_names_topics_claims_and_modes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--list", "rep_movs"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("rep_movs: rep movs")
    assert "  a count of zero copies nothing and leaves the registers  [16 32 i386 i386-pae x86_64" in shown


def test_a_stub_of_ones_own_runs_the_claims_about_it(tmp_path: Path) -> None:
    source = asm_dir() / "x86_64" / "relocate_new_kernel.S"
    path = tmp_path / "stub.S"
    text = source.read_text()
    path.write_text(text)
    claims = asm_dir() / "tests" / "relocate.S"
    good = kjump("--stub", path, claims, "peer_that_only_returns")
    assert (good.returncode, "2 passed" in good.stdout) == (0, True)
    path.write_text(text.replace("    popq    %r12\n", "    popq    %r14\n"))
    bad = kjump("--stub", path, claims, "peer_that_only_returns")
    assert bad.returncode == 1
    assert "r12: " in bad.stdout
