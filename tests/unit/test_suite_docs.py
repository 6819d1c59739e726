"""The example in docs/TESTING.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from emu.suite.claim_file import read_header
from emu.suite.runner import run_file

PAGE = Path(__file__).resolve().parents[2] / "docs/TESTING.md"


def test_the_example_of_a_claim_file_holds_in_each_of_its_modes(tmp_path: Path) -> None:
    (text,) = re.findall(r"```asm\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = tmp_path / "mine.S"
    path.write_text(text)
    verdicts = run_file(read_header(path), {})
    assert [(str(one.mode), one.word) for one in verdicts] == [("16", "PASS"), ("32", "PASS"), ("x86_64", "PASS")]
