"""Campaigns: the same whatever the jobs, whole after a kill, and nothing counted twice.

The target is ``segments``, which runs no machine; what happens on machines is in tests/journey.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import Any

import pytest

from emu.cli import main
from emu.errors import FuzzError
from emu.fuzz.batch import BatchResult, Plan, close_worlds, run_batch
from emu.fuzz.campaign import Totals, batches, merge, round_size
from emu.fuzz.case import Case
from emu.fuzz.case_file import read_case, write_case
from emu.fuzz.executors import Inline
from emu.fuzz.folder import Folder, batch_from, batch_json
from emu.fuzz.runner import Campaign, Limits
from emu.fuzz.targets.segments import SegmentsWorld
from emu.fuzz.verdict import Result, Verdict
from emu.journey.scene import find_journey, make_scene
from emu.journey.scene_data import scene_json
from emu.workers import processes

CASES = 460
SCENE = scene_json(make_scene(find_journey("jump"), ram="24M", target="2M@16M", seed=7))
PLAN = Plan("segments", SCENE, 7)


def run(jobs: int = 1, folder: Folder | None = None, cases: int = CASES) -> Totals:
    campaign = Campaign(PLAN, lambda: Inline() if jobs == 1 else processes(jobs), folder)
    totals = campaign.run(Limits(cases))
    close_worlds()
    return totals


def essence(totals: Totals) -> dict[str, Any]:
    """All but the clock."""
    return {name: value for name, value in totals.to_json().items() if "second" not in name} | {
        "corpus": totals.corpus,
        "covered": totals.covered,
    }


@pytest.fixture(scope="module")
def whole() -> Totals:
    return run()


def test_a_campaign_runs_as_many_cases_as_it_is_told(whole: Totals) -> None:
    assert whole.cases == CASES == sum(whole.tally.values())
    assert whole.corpus
    assert whole.verdicts()[str(Verdict.REFUSED)] > 60
    assert whole.verdicts()[str(Verdict.COMPLETED)] > 60
    assert not whole.findings


def test_two_jobs_come_to_the_same_as_one(whole: Totals) -> None:
    assert essence(run(jobs=2)) == essence(whole)


def test_another_seed_makes_other_cases(whole: Totals) -> None:
    other = Campaign(Plan("segments", SCENE, 8), Inline).run(Limits(CASES))
    assert other.tally != whole.tally


def test_a_stopped_campaign_goes_on_as_if_nothing_had_happened(tmp_path: Path, whole: Totals) -> None:
    first = run(folder=Folder(tmp_path / "c", PLAN, resume=False), cases=200)
    assert first.cases == 200
    resumed = Folder(tmp_path / "c", PLAN, resume=True)
    assert essence(resumed.load()) == essence(first)
    assert run(folder=resumed).cases == CASES
    assert len(list((tmp_path / "c" / "corpus").glob("*.json"))) == len(resumed.load().corpus)
    assert whole.cases == CASES


def test_batches_that_were_done_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path / "c", PLAN, resume=False)
    left = list(batches(PLAN, Totals(), None))
    assert len(left) > 2
    for batch in left[1:]:
        folder.keep(run_batch(batch))
    ran: list[int] = []

    def counted(batch: Any) -> BatchResult:
        ran.append(batch.first)
        return run_batch(batch)

    monkeypatch.setattr("emu.fuzz.runner.run_batch", counted)
    totals = run(folder=folder, cases=round_size(0))
    assert ran == [left[0].first]
    assert essence(totals) == essence(run(cases=round_size(0)))


def test_a_campaign_begins_with_what_another_has_learned(tmp_path: Path, whole: Totals) -> None:
    run(folder=Folder(tmp_path / "a", PLAN, resume=False), cases=200)
    command = ["fuzz", "segments", "--seed", "8", "--cases", "20", "--out", str(tmp_path / "b")]
    assert main([*command, "--merge", str(tmp_path / "a")]) == 0
    learned, own = Folder(tmp_path / "a", PLAN, resume=True).load(), load_seed_8(tmp_path / "b")
    assert own.corpus[: len(learned.corpus)] == learned.corpus
    assert own.covered >= learned.covered
    assert own.cases == 20
    assert len(list((tmp_path / "b" / "corpus").glob("*.json"))) == len(own.corpus)
    assert main([*command[:-1], str(tmp_path / "c"), "--merge", str(tmp_path / "nothing")]) == 2
    assert whole.corpus


def test_a_finding_that_cannot_be_found_again_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another case left behind is no fault of the case that stumbled over it."""
    honest, seen, bad = SegmentsWorld.run, set[Case](), set[Case]()

    def stumbling(world: SegmentsWorld, case: Case) -> Result:
        if case not in seen:
            seen.add(case)
            if len(seen) % 7 == 0:
                return Result(Verdict.SILENT, "any", "another case's")
            if len(seen) % 11 == 0:
                bad.add(case)
        return Result(Verdict.OWNER, "any", "its own") if case in bad else honest(world, case)

    monkeypatch.setattr(SegmentsWorld, "run", stumbling)
    totals = Campaign(PLAN, Inline).run(Limits(64))
    close_worlds()
    assert {found.result.verdict for found in totals.findings.values()} == {Verdict.OWNER}
    assert totals.verdicts()[str(Verdict.OWNER)] > 1
    assert totals.cases == 64 == sum(totals.tally.values())


def load_seed_8(path: Path) -> Totals:
    scene = scene_json(make_scene(find_journey("jump"), ram="24M", target="2M@16M", seed=8))
    return Folder(path, Plan("segments", scene, 8), resume=True).load()


def test_kill_9_in_the_middle_leaves_a_campaign_that_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    command = [sys.executable, "-m", "emu.cli", "fuzz", "segments", "--seed", "7", "--out", str(folder)]
    process = subprocess.Popen([*command, "--time", "120"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not (folder / "state.json").is_file():
        assert time.monotonic() < deadline, "no round ended"
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    stopped = Folder(folder, PLAN, resume=True).load()
    assert stopped.cases > 0
    cases = stopped.cases + 300
    done = subprocess.run([*command, "--cases", str(cases), "--resume", "--json"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    stats = json.loads(done.stdout)
    assert stats["cases"] == cases == sum(stats["verdicts"].values())
    assert essence(Folder(folder, PLAN, resume=True).load()) == essence(Campaigns.until(stopped.cases, cases))


def test_a_campaign_that_was_killed_while_it_tidied_up_goes_on(tmp_path: Path, whole: Totals) -> None:
    """Killed between the end of one round and the folder for the next one's batches."""
    run(folder=Folder(tmp_path / "c", PLAN, resume=False), cases=round_size(0))
    (tmp_path / "c" / "pending").rmdir()
    assert essence(run(folder=Folder(tmp_path / "c", PLAN, resume=True))) == essence(whole)


class Campaigns:
    """The same campaign, never killed."""

    @staticmethod
    def until(*cases: int) -> Totals:
        campaign = Campaign(PLAN, Inline)
        for one in cases:
            campaign.run(Limits(one))
        return campaign.totals


class Dying(Executor):
    """Loses its worker with every second batch."""

    deaths = 0
    submitted = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        Dying.submitted += 1
        if Dying.submitted % 2:
            future.set_result(fn(*args, **kwargs))
        else:
            Dying.deaths += 1
            future.set_exception(BrokenExecutor("the worker died"))
        return future


def test_a_lost_worker_s_batch_is_done_again_and_none_is_counted_twice(whole: Totals) -> None:
    campaign = Campaign(PLAN, Dying)
    assert essence(campaign.run(Limits(CASES))) == essence(whole)
    assert Dying.deaths > 2


class Dead(Executor):
    """Loses its worker with every batch."""

    def submit(self, _fn: Any, /, *_args: Any, **_kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(BrokenExecutor("the worker died"))
        return future


def test_a_batch_that_always_kills_its_worker_is_a_finding() -> None:
    totals = Campaign(PLAN, Dead).run(Limits(20))
    assert totals.cases == 20
    assert [found.result.verdict for found in totals.findings.values()] == [Verdict.TOOL]


def test_a_folder_is_not_begun_twice_nor_resumed_for_another_plan(tmp_path: Path) -> None:
    Folder(tmp_path / "c", PLAN, resume=False)
    with pytest.raises(FuzzError, match="holds a campaign"):
        Folder(tmp_path / "c", PLAN, resume=False)
    with pytest.raises(FuzzError, match="another target, scene or seed"):
        Folder(tmp_path / "c", Plan("segments", SCENE, 8), resume=True)
    with pytest.raises(FuzzError, match="holds no campaign"):
        Folder(tmp_path / "d", PLAN, resume=True)


def finding(key: str, index: int, first: int = 0) -> BatchResult:
    result = Result(Verdict.SILENT, "row", key, "place", "return", "mode", "detail")
    case = Case.of("segments", {"segments": (index,), "flags": 1, "entry": 2, "array": "readable"})
    return BatchResult(
        0, first, 10, Counter({("row", "silent"): 1}), 1, [(index, case, result)], Counter({result.key: 1}),
        [(index, case, frozenset({("load", "x", index)}))], 0.5,
    )  # fmt: skip


def test_a_batch_s_result_survives_a_file() -> None:
    result = finding("why", 3)
    assert batch_from(json.loads(json.dumps(batch_json(result)))) == result


def test_findings_with_one_key_are_one_and_the_first_index_counts() -> None:
    totals = Totals()
    merge(totals, [finding("same", 12, 10), finding("same", 3, 0), finding("other", 25, 20)])
    assert [(found.result.why, found.index) for found in totals.findings.values()] == [("same", 3), ("other", 25)]
    assert totals.keys[next(iter(totals.findings))] == 2
    assert totals.rounds == 1
    assert [case.words("segments") for case in totals.corpus] == [(3,), (12,), (25,)]


def test_a_finding_s_case_can_be_read_again(tmp_path: Path) -> None:
    _, case, result = finding("why", 3).findings[0]
    write_case(tmp_path / "one.json", PLAN, case, result, "a note")
    file = read_case(tmp_path / "one.json")
    assert (file.case, file.key, file.verdict, file.note) == (case, result.key, "silent", "a note")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(FuzzError):
        read_case(tmp_path / "bad.json")
