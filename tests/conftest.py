"""Oracle tests: compared with tools that are not ours, skipped where those are missing, unless that is forbidden.

``@pytest.mark.oracle("as", "ld")`` names the commands that a test needs.  With KJUMP_REQUIRE_ORACLES=1 in the
environment an oracle test that would be skipped, for whatever reason, fails, unless it is one that has to be asked for.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator

import pytest

REQUIRE = "KJUMP_REQUIRE_ORACLES"
OPT_IN = {"kernels": "KJUMP_KERNELS", "linux": "KJUMP_LINUX"}
"""Markers of tests that nobody runs unasked, by the variable that asks for them."""


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
    unasked = any(item.get_closest_marker(name) and os.environ.get(asks) != "1" for name, asks in OPT_IN.items())
    required = os.environ.get(REQUIRE) == "1" and not unasked
    if required and report.skipped and item.get_closest_marker("oracle") and not hasattr(report, "wasxfail"):
        reason = call.excinfo.value if call.excinfo else "skipped"
        report.outcome = "failed"
        report.longrepr = f"{REQUIRE}=1, but this oracle test would be skipped: {reason}"
    return report
