"""Mutants from source to verdict, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emu.cli import main
from emu.errors import KjumpError
from emu.mutation.command import REASONS
from emu.mutation.coverage import coverage
from emu.mutation.killing import Fate, Killers, run_all
from emu.mutation.mutants import StubUnderTest
from emu.mutation.reasons import key_of, read_reasons, stale
from emu.mutation.score import Score, too_many_by_hand
from emu.trials.registry import all_trials
from emu.trials.stubs import NAMES, StubSet

X86_64 = StubSet("x86_64")
FEW = {name: all_trials()[name] for name in ("entries x86_64", "purgatory plain x86_64", "plain x86_64")}


def under_test(name: str = "purgatory", folder: str = "x86_64") -> StubUnderTest:
    return StubUnderTest(StubSet(folder), name)


@pytest.mark.parametrize("folder", ["x86_64", "i386"])
@pytest.mark.parametrize("name", NAMES)
def test_every_instruction_of_a_stub_has_mutants_and_each_differs(folder: str, name: str) -> None:
    stub = under_test(name, folder)
    mutants = list(stub.mutants())
    assert {mutant.line for mutant in mutants} == {line.number for line in stub.lines}
    assert len({key_of(mutant) for mutant in mutants}) == len(mutants)
    original = "".join(stub.source)
    assert all(stub.text_of(mutant) != original for mutant in mutants)


def test_a_line_of_a_macro_is_one_line_with_many_places() -> None:
    stub = under_test("relocate_new_kernel")
    places = [line for line in stub.lines if "number" in line.text]
    assert [len(line.places) for line in places] == [10, 6]


def test_a_trial_covers_what_it_executes() -> None:
    covering = coverage(FEW, X86_64)
    assert "purgatory" in covering["purgatory plain x86_64"]
    assert "purgatory" not in covering["plain x86_64"]
    image = X86_64.assembled("relocate_new_kernel", 0)
    plain = covering["plain x86_64"]["relocate_new_kernel"]
    assert image.symbols["swap_pages"] in plain
    assert image.symbols["virtual_mapped"] not in plain
    assert image.symbols["virtual_mapped"] in covering["entries x86_64"]["relocate_new_kernel"]


def test_only_trials_that_execute_the_line_are_run_and_the_best_killer_first() -> None:
    killers = Killers(coverage(FEW, X86_64))
    mutant = next(under_test().mutants())
    assert [trial.name for trial in killers.order(mutant)] == ["purgatory plain x86_64"]
    shared = next(under_test("relocate_new_kernel").mutants())
    assert len(killers.order(shared)) == 3
    killers.ran("plain x86_64", shared, 0.01, killed=True)
    assert killers.order(shared)[0].name == "plain x86_64"


def test_mutants_are_killed_by_a_trial_or_survive() -> None:
    stub = under_test()
    line = next(line for line in stub.lines if line.text.split() == ["pushq", "$BOOT_CS"])
    mutants = [mutant for mutant in stub.mutants() if mutant.line == line.number]
    covering = coverage(FEW, X86_64)
    outcomes = list(run_all(mutants, X86_64, covering, 1))
    assert {outcome.fate for outcome in outcomes} == {Fate.KILLED}
    assert {outcome.by for outcome in outcomes} == {"purgatory plain x86_64"}
    assert all(outcome.says for outcome in outcomes)
    assert {outcome.fate for outcome in run_all(mutants, X86_64, {}, 1)} == {Fate.SURVIVED}  # without any test


def test_reasons_name_mutants_that_are_there_and_are_few() -> None:
    reasons = read_reasons(REASONS)
    stubs = [(folder, name) for folder in ("x86_64", "i386") for name in NAMES]
    mutants = [mutant for folder, name in stubs for mutant in under_test(name, folder).mutants()]
    assert stale(reasons.values(), mutants, [f"{folder}/{name}" for folder, name in stubs]) == []
    assert len(reasons) * 20 <= len(mutants)
    assert all(len(reason.why.split()) >= 4 for reason in reasons.values())


def test_a_reason_for_a_line_that_is_gone_is_stale(tmp_path: Path) -> None:
    path = tmp_path / "mutants.toml"
    path.write_text("[[reason]]\nstub = 'x86_64/purgatory'\nline = 'nop'\nkind = 'drop'\nwhy = 'it does nothing'\n")
    reasons = read_reasons(path)
    assert len(stale(reasons.values(), under_test().mutants(), ["x86_64/purgatory"])) == 1
    assert stale(reasons.values(), under_test().mutants(), ["i386/purgatory"]) == []
    path.write_text("[[reason]]\nstub = 'x86_64/purgatory'\nline = 'nop'\n")
    with pytest.raises(KjumpError, match="a reason has kind, line, stub, why"):
        read_reasons(path)


def test_the_score_of_a_reason_that_is_not_true() -> None:
    stub = under_test()
    mutants = [mutant for mutant in stub.mutants() if mutant.text.split() == ["pushq", "$BOOT_CS"]]
    outcomes = list(run_all(mutants[:1], X86_64, coverage(FEW, X86_64), 1))
    score = Score("x86_64/purgatory")
    score.take(outcomes[0], {key_of(mutants[0]): read_reasons(REASONS).popitem()[1]})
    assert not score.ok
    assert [one.mutant for one in score.untrue] == [mutants[0]]
    many = Score("x", killed=94, reasoned=6)
    assert too_many_by_hand([many])
    assert not too_many_by_hand([many, Score("y", killed=100)])


def test_the_command_knows_a_stub_by_its_symbols_and_tells_of_survivors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unseen = "    movb    $0x55, gdt_base + 8(%rip)"  # padding
    mark = "    xorl    %ebx, %ebx\n"
    path = tmp_path / "mine.S"
    path.write_text(under_test().stubs.source("purgatory").replace(mark, f"{unseen}\n{mark}"))
    line = path.read_text().splitlines().index(unseen) + 1
    assert main(["mutate", str(path), "--jobs", "1", "--line", str(line)]) == 1
    printed = capsys.readouterr().out
    assert f"{line}: `movb    $0x55, gdt_base + 8(%rip)` -> nothing (drop)" in printed
    assert "NOT OK" in printed


def test_the_command_refuses_what_is_no_stub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mutate", "no_such_stub"]) == 2
    (tmp_path / "none.S").write_text("ret\n")
    assert main(["mutate", str(tmp_path / "none.S")]) == 2
    assert "is no stub" in capsys.readouterr().err


def test_a_score_as_data() -> None:
    stub = under_test()
    mutants = [mutant for mutant in stub.mutants() if mutant.text.split() == ["pushq", "$BOOT_CS"]]
    score = Score("x86_64/purgatory")
    for outcome in run_all(mutants, X86_64, coverage(FEW, X86_64), 1):
        score.take(outcome, {})
    document = json.loads(json.dumps(score.to_json()))
    assert document["killed"] == document["mutants"] == len(mutants)
    assert document["killers"] == {"purgatory plain x86_64": len(mutants)}
    assert document["survived"] == document["by_hand"] == 0
