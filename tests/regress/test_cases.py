"""Every case file in cases/ was a finding once, made small with ``kjump minimize``; it must not be one again."""

from __future__ import annotations

from pathlib import Path

import pytest

from emu.fuzz.batch import close_worlds, judged
from emu.fuzz.case_file import read_case

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_what_was_a_finding_is_none_any_more(path: Path) -> None:
    file = read_case(path)
    result = judged(file.plan, file.case)
    close_worlds()
    assert not result.verdict.is_finding, f"{result.key}: {result.detail}"
