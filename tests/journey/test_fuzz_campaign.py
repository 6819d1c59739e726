"""A campaign on machines: killed in the middle, taken up again with another number of jobs, and none the wiser."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emu.cli import main
from emu.fuzz.batch import Plan, close_worlds
from emu.fuzz.executors import Inline
from emu.fuzz.folder import Folder
from emu.fuzz.runner import Campaign, Limits
from emu.journey.scene import find_journey, make_scene
from emu.journey.scene_data import scene_json
from tests.unit.test_fuzz_campaign import essence

PLAN = Plan("entry", scene_json(make_scene(find_journey("jump"), ram="24M", target="2M@16M", seed=7)), 7)


def killed(folder: Path) -> None:
    """Fuzz in two processes, and kill everything with the second round under way."""
    command = [sys.executable, "-m", "emu.cli", "fuzz", "entry", "--seed", "7", "--jobs", "2", "--out", str(folder)]
    process = subprocess.Popen(
        [*command, "--cases", "1000000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 200
    while not ((folder / "state.json").is_file() and list((folder / "pending").glob("*.json"))):
        assert time.monotonic() < deadline, "no batch of a second round was done"
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_two_jobs_killed_and_resumed_by_one_come_to_what_one_comes_to(tmp_path: Path) -> None:
    killed(tmp_path / "c")
    folder = Folder(tmp_path / "c", PLAN, resume=True)
    stopped = folder.load().cases
    assert stopped >= 64
    resumed = Campaign(PLAN, Inline, folder).run(Limits(stopped + 64))
    assert len(list((tmp_path / "c" / "corpus").glob("*.json"))) == len(resumed.corpus)
    alone = Campaign(PLAN, Inline)
    for cases in (stopped, stopped + 64):
        alone.run(Limits(cases))
    close_worlds()
    assert resumed.cases == stopped + 64 == sum(resumed.tally.values())
    assert essence(resumed) == essence(alone.totals)


def test_a_hostile_b_is_fuzzed_where_it_can_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fuzz", "irq", "--cases", "20", "--hostile"]
    assert main([*command, "df"]) == 0
    assert "findings 0" in capsys.readouterr().out
    for more in ([], ["--sweep", "--transfer", "swap", "--handoff", "page"]):
        assert main([*command, "pge", "--out", str(tmp_path / "c"), *more]) == 2
        said = capsys.readouterr().err
        assert said.startswith("kjump: --hostile pge: irq cannot judge what this B leaves behind: silent memory of")
        assert not (tmp_path / "c").exists()
