"""Findings: one cause, the earliest, with the others as what follows from it."""

from __future__ import annotations

from emu.journey.findings import Finding, fold
from emu.machine.events import Position


def finding(kind: str, tick: int, *because: str) -> Finding:
    return Finding(kind, "return", tick, Position(tick * 10), "my.S:1: here", "well", f"{kind} is wrong", because)


def test_no_findings_fold_into_none() -> None:
    assert fold([]) == []


def test_the_earliest_is_the_cause_and_the_others_follow() -> None:
    (cause,) = fold([finding("memory", 9), finding("hazard", 3, "why"), finding("registers", 9)])
    assert (cause.kind, cause.because) == ("hazard", ("why",))
    assert cause.follows == (
        "N 90, memory in return: memory is wrong",
        "N 90, registers in return: registers is wrong",
    )


def test_of_two_at_the_same_tick_the_first_that_was_found_is_the_cause() -> None:
    (cause,) = fold([finding("arrival", 5), finding("memory", 5)])
    assert cause.kind == "arrival"


def test_evidence_of_the_same_kind_at_the_same_tick_is_joined_once() -> None:
    (cause,) = fold([finding("registers", 5, "one"), finding("registers", 5, "one", "two"), finding("memory", 5, "no")])
    assert cause.because == ("one", "two")
