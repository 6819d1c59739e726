"""``kjump compare``: a row for each pairing, figures from runs, refusals with their reason."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
from rich.console import Console

from emu.cli import main
from emu.journey.scene import HANDOFFS, TRANSFERS, find_journey, make_scene
from emu.report.compare import Pairing, Row, compare, show_table
from tests.journey.test_pairings import SPARSE

SMALL = ["--ram", "24M", "--target", "1M"]


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], Row]:
    make = partial(make_scene, replace(find_journey("checkpoint"), e820=SPARSE), ram="24M", target="1M")
    pairings = [Pairing(make, "x86_64", transfer, "page") for transfer in TRANSFERS]
    return {(row.transfer, row.handoff): row for row in compare(pairings, 1)}


def test_every_transfer_runs_without_a_finding(rows: dict[tuple[str, str], Row]) -> None:
    assert [transfer for transfer, _ in rows] == list(TRANSFERS)
    assert [row for row in rows.values() if not row.ok or row.refused] == []


def test_a_copy_moves_what_b_may_use_three_times_where_a_swap_does_it_twice(
    rows: dict[tuple[str, str], Row],
) -> None:
    copy, swap, reserved = (rows[transfer, "page"] for transfer in ("copy", "swap", "reserved"))
    pages = (1 << 20) // 4096
    low = reserved.pages_moved
    assert low is not None
    assert swap.pages_moved == low + 2 * pages
    assert copy.pages_moved is not None
    assert swap.pages_moved < copy.pages_moved < 3 * swap.pages_moved // 2
    assert copy.iterations is not None
    assert swap.iterations is not None
    assert copy.iterations < swap.iterations, "an exchange is three moves of a page"


def test_b_is_kept_by_all_but_copy(rows: dict[tuple[str, str], Row]) -> None:
    assert {pair[0] for pair, row in rows.items() if row.peer_kept} == {"reserved", "swap"}


def test_a_reserved_target_area_costs_its_own_size(rows: dict[tuple[str, str], Row]) -> None:
    extra = rows["reserved", "page"].extra_ram
    assert extra is not None
    assert extra > 1 << 20


def test_a_pairing_that_cannot_run_says_why() -> None:
    make = partial(make_scene, find_journey("checkpoint"), ram="1M")
    row = Pairing(make, "x86_64", "swap", "page").run()
    assert "too small" in row.refused
    assert row.ok
    assert row.instructions is None


@pytest.mark.parametrize("option", ["--transfer", "--handoff"])
def test_a_pairing_of_no_such_name_is_bad_input(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", option, "nope"]) == 2
    assert capsys.readouterr().err.startswith(f"kjump: {option}: nope is not one of ")


def test_json_lists_every_row_and_two_jobs_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    documents = []
    for jobs in ("1", "2"):
        assert main(["compare", "jump", "--transfer", "reserved", "--json", "--jobs", jobs, *SMALL]) == 0
        documents.append(json.loads(capsys.readouterr().out))
    assert documents[0] == documents[1]
    assert [row["handoff"] for row in documents[0]["rows"]] == list(HANDOFFS)


def test_the_table_fits_80_columns_and_marks_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    base = Row("x86_64", "copy", "cmdline", 388_105, 6_535_680, 12_762, 111, 116 << 20, 146 << 20, 21, False, 0)
    better = Row("x86_64", "swap", "page", 206_871, 6_535_680, 8_508, 55, 16 << 20, 46 << 20, 14, True, 0)
    show_table(Console(width=200, highlight=False), [base, better])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    marks = [line.count("*") for line in out.splitlines()]
    assert marks == [0, 0, 6]
