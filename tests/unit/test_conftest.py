"""A skipped oracle test is a failure where oracles are required, and only there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
SUITE = """
import pytest

@pytest.mark.oracle("no-such-command-anywhere")
def test_missing():
    assert False, "never runs"

@pytest.mark.oracle
def test_skips_itself():
    pytest.skip("its own reason")

@pytest.mark.oracle("sh")
def test_present():
    assert True

def test_plain():
    pytest.skip("not an oracle test")

@pytest.mark.linux
@pytest.mark.oracle("sh")
def test_unasked():
    pytest.skip("nobody asked for it")
"""


def outcomes(folder: Path, *, required: bool) -> str:
    """The last line and the reasons of a run of the small suite."""
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "test_sample.py").write_text(SUITE)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    oracle: needs tools\n    linux: opt-in\n")
    environment = {**os.environ, "KJUMP_REQUIRE_ORACLES": "1" if required else "0", "KJUMP_LINUX": "0"}
    command = [sys.executable, "-m", "pytest", "-q", "-rsf", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder).stdout


def test_missing_oracles_are_skipped_with_their_reason(tmp_path: Path) -> None:
    text = outcomes(tmp_path, required=False)
    assert "1 passed, 4 skipped" in text
    assert "needs no-such-command-anywhere on PATH" in text


@pytest.mark.parametrize("reason", ["needs no-such-command-anywhere on PATH", "its own reason"])
def test_a_required_oracle_fails_with_the_reason(tmp_path: Path, reason: str) -> None:
    text = outcomes(tmp_path, required=True)
    # pytest calls a failure before the test's own code an error; either makes the run fail.
    assert "1 failed, 1 passed, 2 skipped, 1 error" in text
    assert f"KJUMP_REQUIRE_ORACLES=1, but this oracle test would be skipped: {reason}" in text
