"""INT 15, the one vector below 20 that has no name, was a traceback of the tool's."""

from __future__ import annotations

from pathlib import Path

from emu.suite.claim_file import read_header
from emu.suite.runner import run_file


def test_a_software_interrupt_may_have_any_number(tmp_path: Path) -> None:
    path = tmp_path / "mine.S"
    path.write_text(
        '# INT.\n# modes: 32\n# may change: ax cx di stack idtr\n.include "claims.inc"\n'
        "claim it_arrives\n call catch_faults\n traps 15, 0, int $15\nholds\n"
    )
    assert [one.problems for one in run_file(read_header(path), {})] == [()]
