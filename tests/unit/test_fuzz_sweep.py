"""Sweeps: which campaigns there are, that each is run once, and that one which was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from emu.cli import main
from emu.fuzz.executors import Inline
from emu.fuzz.sweep import Leg, legs, sweep
from emu.fuzz.targets.table import TARGETS
from emu.journey.scene import HANDOFFS, TRANSFERS, Scene, find_journey, make_scene
from emu.kexec.arch import Arch

ARCHES = (Arch.I386, Arch.X86_64)
SEGMENTS = ["fuzz", "segments", "--sweep"]


def make(transfer: str | None, handoff: str | None) -> Sequence[Scene]:
    target = "2M" if transfer == "reserved" else "2M@16M"
    journey = find_journey("jump")
    return [
        make_scene(journey, arch=arch, transfer=transfer, handoff=handoff, ram="24M", target=target) for arch in ARCHES
    ]


def named(transfer: str | None = None, handoff: str | None = None) -> list[tuple[str, str]]:
    found = legs(list(TARGETS.values()), make, transfer, handoff, lambda plan: Leg(plan, 1))
    return [(leg.plan.target, leg.scene) for leg in found]


def test_every_target_goes_with_everything_that_makes_a_difference_to_it() -> None:
    all_of_them = named()
    assert len(set(all_of_them)) == len(all_of_them)
    scenes = {f"{arch} {transfer}/{other}" for arch in ARCHES for transfer in TRANSFERS for other in HANDOFFS}
    for target in ("entry", "list", "cmdline", "regs", "irq"):
        assert {scene for name, scene in all_of_them if name == target} == scenes
    pages = {scene for scene in scenes if scene.endswith("/page")}
    assert {scene for name, scene in all_of_them if name == "jumpbuf"} == pages
    assert {scene for name, scene in all_of_them if name == "segments"} == pages
    assert {scene for name, scene in all_of_them if name == "image"} == {"i386 swap/page", "x86_64 swap/page"}


def test_what_is_named_is_all_there_is() -> None:
    some = named("copy", "stack")
    assert {scene for _, scene in some} == {"i386 copy/stack", "x86_64 copy/stack"}
    assert {name for name, _ in some} == set(TARGETS) - {"jumpbuf"}


def test_a_sweep_gives_each_campaign_as_it_ends() -> None:
    chosen = legs([TARGETS["segments"]], make, None, None, lambda plan: Leg(plan, 70))
    seen = []
    for leg, totals in sweep(chosen, Inline()):
        seen.append(leg)
        assert totals.cases == 70
    assert seen == chosen
    assert len(seen) == len(TRANSFERS) * 2


def test_a_sweep_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SEGMENTS, "--cases", "70", "--arch", "all", "--transfer", "copy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 of 4  segments i386 copy/page")
    assert "70 cases  refused " in lines[0]
    assert lines[4] == "4 campaigns, 280 cases, 0 findings"


def test_a_sweep_goes_on_where_it_was_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s"
    kept = [*SEGMENTS, "--out", str(out), "--json"]
    assert main([*kept, "--cases", "70", "--transfer", "copy"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert [one["cases"] for one in first["campaigns"]] == [70]
    assert (out / "x86_64-copy-page" / "segments" / "state.json").is_file()
    assert main([*kept, "--cases", "80"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*kept, "--cases", "80", "--resume"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert [one["cases"] for one in both["campaigns"]] == [80] * len(TRANSFERS)
    assert both["cases"] == 80 * len(TRANSFERS)
    assert both["findings"] == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--transfer", "mail"], "mail is not one of reserved, copy, swap"),
        (["--time", "5"], "is for a single campaign"),
        (["--merge", "c"], "is for a single campaign"),
        (["--resume"], "wants a campaign"),
    ],
)
def test_what_makes_no_sense_is_said(more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SEGMENTS, *more]) == 2
    assert said in capsys.readouterr().err


def test_a_target_that_does_not_go_with_the_hand_off_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "jumpbuf", "--sweep", "--handoff", "stack"]) == 2
    assert "no target goes with" in capsys.readouterr().err


def test_findings_are_told_with_the_case_and_make_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emu.fuzz.targets.segments.SegmentsWorld.run", _fails)
    assert main([*SEGMENTS, "--cases", "64", "--transfer", "swap", "--out", str(tmp_path / "s")]) == 1
    said = capsys.readouterr().out
    assert "#1 TOOL" in said
    replay = next(line for line in said.splitlines() if "kjump replay" in line)
    assert Path(replay.split()[-1]).is_file()
    assert "1 campaigns, 64 cases, 1 findings" in said


def _fails(_world: object, _case: object) -> None:
    raise RuntimeError("a bug of ours")
