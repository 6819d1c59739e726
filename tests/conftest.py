"""Oracle tests: compared with tools that are not ours, skipped where those are missing, unless that is forbidden.

``@pytest.mark.oracle("as", "ld")`` names the commands that a test needs.  With KJUMP_REQUIRE_ORACLES=1 in the
environment an oracle test that would be skipped, for whatever reason, fails.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator

import pytest

REQUIRE = "KJUMP_REQUIRE_ORACLES"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip an oracle test whose commands are not on PATH."""
    marker = item.get_closest_marker("oracle")
    missing = [command for command in marker.args if shutil.which(command) is None] if marker else []
    if missing:
        pytest.skip(f"needs {', '.join(missing)} on PATH")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped oracle test into a failure where oracles are required."""
    report = yield
    required = os.environ.get(REQUIRE) == "1"
    if required and report.skipped and item.get_closest_marker("oracle") and not hasattr(report, "wasxfail"):
        reason = call.excinfo.value if call.excinfo else "skipped"
        report.outcome = "failed"
        report.longrepr = f"{REQUIRE}=1, but this oracle test would be skipped: {reason}"
    return report
