"""pytest collects claim files: each claim in each of its modes is an item, named topic, mode, sentence.

Loaded by ``-p emu.suite.plugin``.  What is heavy is imported when there is something to collect.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from emu.suite.claim_file import Claim, ClaimFile
    from emu.suite.coverage import Coverage
    from emu.suite.modes import Mode
    from emu.suite.runner import Runner
    from emu.suite.verdict import Verdict
    from emu.suite.world import StubPaths

_FILES = "asm/tests"


def pytest_addoption(parser: pytest.Parser) -> None:
    """What ``kjump test`` passes on."""
    group = parser.getgroup("claims", "claim files (assembly)")
    group.addoption("--stub", action="append", default=[], metavar="FILE", help="run this stub in place of ours")
    group.addoption("--stub-coverage", action="store_true", help="what is executed of each stub; all of it must be")
    group.addoption(
        "--claim",
        action="append",
        default=[],
        metavar="NAME",
        help="only this topic, or claims with this in their names",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A claim file is any .S that is named, or lies among the suite's own."""
    if file_path.suffix not in (".S", ".s"):
        return None
    named = any(Path(arg.split("::")[0]).resolve() == file_path for arg in parent.config.args)
    if named or file_path.parent.as_posix().endswith(_FILES):
        outside = not file_path.is_relative_to(parent.config.rootpath)
        name = os.path.relpath(file_path) if outside else None
        topic: pytest.Collector = Topic.from_parent(parent, path=file_path, nodeid=name)
        return topic
    return None


_COVERAGE = pytest.StashKey["Coverage"]()


def coverage_of(config: pytest.Config) -> Coverage | None:
    """Where this run notes what it executes of the stubs; None without ``--stub-coverage``."""
    from emu.suite.coverage import Coverage  # noqa: PLC0415

    if not config.getoption("--stub-coverage"):
        return None
    return config.stash.setdefault(_COVERAGE, Coverage())


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A stub that is not covered whole is a failure."""
    coverage = session.config.stash.get(_COVERAGE, None)
    if coverage is not None and exitstatus == 0 and not all(stub.complete for stub in coverage.stubs.values()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was executed of each stub, and what not."""
    coverage = config.stash.get(_COVERAGE, None)
    if coverage is None:
        return
    for stub in sorted(coverage.stubs.values(), key=lambda stub: stub.path):
        terminalreporter.write_line(stub.summary())
        for line in stub.missing():
            terminalreporter.write_line(f"  {line}")


class ClaimFailed(Exception):  # noqa: N818 - a result, not a mistake of somebody's
    """Raised when a claim does not hold."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.text())
        self.verdict = verdict


class Topic(pytest.File):
    """One claim file."""

    def collect(self) -> Iterator[pytest.Collector]:
        """A group of claims for each mode."""
        from emu.errors import KjumpError  # noqa: PLC0415 - see the module
        from emu.suite.claim_file import read_header  # noqa: PLC0415
        from emu.suite.stubs import stubs_for  # noqa: PLC0415

        given = [Path(name) for name in self.config.getoption("--stub")]
        try:
            file = read_header(self.path)
            for mode in file.modes:
                paths, replaced = stubs_for(mode, given)
                if not given or replaced & set(file.stubs):
                    yield InMode.from_parent(self, name=str(mode), file=file, mode=mode, paths=paths)
        except KjumpError as error:
            raise self.CollectError(str(error)) from None


class InMode(pytest.Collector):
    """The claims of a file in one mode; the machine is made when the first of them runs."""

    def __init__(self, *, file: ClaimFile, mode: Mode, paths: StubPaths, **rest: Any) -> None:  # noqa: ANN401 - pytest's own
        super().__init__(**rest)
        self.file, self.mode, self.paths = file, mode, paths
        self._runner: Runner | None = None

    def collect(self) -> Iterator[pytest.Item]:
        """Its claims."""
        from emu.errors import KjumpError  # noqa: PLC0415

        wanted = self.config.getoption("--claim")
        try:
            claims = self.file.claims(self.mode)
        except KjumpError as error:
            raise self.CollectError(str(error)) from None
        for claim in claims:
            if not wanted or any(word == self.file.name or word in claim.name for word in wanted):
                yield ClaimItem.from_parent(self, name=claim.name, claim=claim)

    def runner(self) -> Runner:
        """The machine for these claims."""
        from emu.suite.runner import Runner  # noqa: PLC0415

        if self._runner is None:
            self._runner = Runner(
                self.file,
                self.mode,
                self.paths,
                report=self.config.get_verbosity() > 0,
                coverage=coverage_of(self.config),
            )
        return self._runner

    def teardown(self) -> None:
        """Give the machine's memory back."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None


class ClaimItem(pytest.Item):
    """One claim in one mode."""

    def __init__(self, *, claim: Claim, **rest: Any) -> None:  # noqa: ANN401 - pytest's own
        super().__init__(**rest)
        self.claim = claim
        if claim.xfail:
            self.add_marker(pytest.mark.xfail(reason=claim.xfail, strict=True))

    def runtest(self) -> None:
        """Run it; raises ClaimFailed where it does not hold."""
        parent = self.parent
        assert isinstance(parent, InMode)  # noqa: S101 - for the types
        verdict = parent.runner().run(self.claim)
        if verdict.console:
            self.add_report_section("call", "console", verdict.console)
        if not verdict.held:
            raise ClaimFailed(verdict)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        """Of a claim that does not hold, no traceback."""
        del style
        from emu.errors import KjumpError  # noqa: PLC0415

        if isinstance(excinfo.value, ClaimFailed | KjumpError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int, str]:
        """File, line, name."""
        parent = self.parent
        mode = parent.name if parent is not None else ""
        return self.path, max(self.claim.line - 1, 0), f"{self.path.stem} {mode}: {self.claim.sentence}"
