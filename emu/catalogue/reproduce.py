"""One entry of the catalogue: its test without the bug, and with it."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from emu.catalogue.entries import Entry, Patch
from emu.catalogue.seams import bug
from emu.catalogue.sources import patched_kernels, patched_set, patched_stubs
from emu.errors import AssemblyError, KjumpError
from emu.journey.journey import Journey
from emu.journey.scene import Scene, find_journey, make_scene, parse_arch, read_journey
from emu.trials.registry import all_trials
from emu.trials.trial import run_trial

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parents[2]
RAM, TARGET = "24M", "2M@16M"
# Low memory, target area, room for its sources: A has little to seal and to verify.
SPARSE = ({"start": 0, "end": 0x9FC00, "type": "ram"}, {"start": 16 << 20, "end": 22 << 20, "type": "ram"})
CAUGHT, CANNOT_SHOW, MISSED = "caught", "cannot show", "missed"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a test found: the kind of the finding, the catalogue entry that it names, and what it says."""

    kind: str
    text: str
    names: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An entry and what came of it; ``why`` it cannot show, or was missed."""

    id: str
    bug: str
    status: str
    test: str = ""
    passes_without: bool = False
    finding: Seen | None = None
    why: str = ""

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return asdict(self)


def reproduce(entry: Entry) -> Verdict:
    """Run the test of ``entry`` without and with its bug."""
    if entry.why_not:
        return Verdict(entry.id, entry.bug, CANNOT_SHOW, why=entry.why_not)
    without = _run(entry.test, entry.setup, "")
    seen = _run(entry.test, (*entry.setup, *entry.patch), entry.seam)
    why = _objection(entry, without, seen)
    return Verdict(entry.id, entry.bug, MISSED if why else CAUGHT, entry.test, without is None, seen, why)


def _objection(entry: Entry, without: Seen | None, seen: Seen | None) -> str:
    if without is not None:
        return f"the test fails without the bug: {without.text}"
    if seen is None:
        return "the test passes with the bug"
    if entry.finding and seen.kind != entry.finding:
        return f"found as {seen.kind}, not as {entry.finding}: {seen.text}"
    if entry.says not in seen.text:
        return f"does not say {entry.says!r}: {seen.text}"
    if entry.named and seen.names != entry.id:
        return f"the finding names {seen.names or 'no entry'}: {seen.kind}: {seen.text}"
    return ""


@cache
def _run(test: str, patches: tuple[Patch, ...], seam: str) -> Seen | None:
    kind, _, rest = test.partition(" ")
    with bug(seam):
        if kind == "jump":
            return _run_scene(rest.split(), patches)
        if kind == "trial":
            return _run_trial(rest, patches)
        return _run_pytest(test)


# ---- scenes --------------------------------------------------------------------------------------------------------


def _run_scene(words: Sequence[str], patches: Iterable[Patch]) -> Seen | None:
    """``ARCH HANDOFF``, then B's own words, or ``hostile=NAME``."""
    patches = tuple(patches)
    with tempfile.TemporaryDirectory(prefix="kjump-") as name:
        folder = Path(name)
        kernels = patched_kernels(patches, folder)
        journey = find_journey("jump") if kernels is None else read_journey(kernels / "jump.toml")
        scene = make_scene(
            replace(journey, e820=SPARSE), arch=parse_arch(words[0]), handoff=words[1], ram=RAM, target=TARGET,
            stubs=patched_stubs(patches, folder),
        )  # fmt: skip
        scene = _with_words(scene, words[2:])
        try:
            result = Journey(scene).run()
        except KjumpError as error:
            return Seen(type(error).__name__, str(error))
    if result.ok:
        return None
    finding = result.findings[0]
    text = " | ".join((finding.actual, *finding.because))
    return Seen(finding.kind, text, finding.catalogue)


def _with_words(scene: Scene, words: Iterable[str]) -> Scene:
    for word in words:
        key, _, value = word.partition("=")
        scene = replace(scene, hostile=value) if key == "hostile" else replace(scene, b_words=word)
    return scene


# ---- trials and tests ----------------------------------------------------------------------------------------------


def _run_trial(name: str, patches: Iterable[Patch]) -> Seen | None:
    trials = all_trials()
    if name not in trials:
        raise KjumpError(f"no trial is called {name}", where="catalogue")
    trial = trials[name]
    try:
        wrong = run_trial(trial, patched_set(trial.folder, patches))
    except AssemblyError as error:
        return Seen("AssemblyError", str(error))
    return Seen("trial", " | ".join(wrong)) if wrong else None


class _Failure:
    """Keeps the first failure of a pytest run."""

    def __init__(self) -> None:
        self.text = ""
        self.ran = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest for each phase of a test."""
        self.ran += report.when == "call"
        if report.failed and not self.text:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.text = str(crash.message if crash is not None else report.longrepr).splitlines()[0]


def _run_pytest(test: str) -> Seen | None:
    import pytest  # noqa: PLC0415 - a tenth of a second of every command, and wanted only here

    if not (ROOT / "tests").is_dir():
        raise KjumpError("the suite is not here", where=test, hint="run this in a checkout")
    file, _, _ = test.partition("::")
    failure = _Failure()
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:unraisableexception",  # it collects garbage five times when a session ends
        f"--rootdir={ROOT}",
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = pytest.main([*options, str(ROOT / test)], plugins=[failure])
    if not failure.ran:
        raise KjumpError(f"pytest ran nothing (status {int(status)})", where=test, hint=f"is it in {file}?")
    return Seen("failed test", failure.text) if failure.text or status else None
