"""What a person sees of a campaign, on a terminal and where there is none."""

from __future__ import annotations

from collections import Counter
from io import StringIO

from rich.console import Console

from emu.fuzz.campaign import Found, Totals
from emu.fuzz.case import Case
from emu.fuzz.live import View, finding_line, status
from emu.fuzz.verdict import Result, Verdict

BAD = Result(Verdict.SILENT, "jump page", "memory of A", "swap_pages+0x2e", "return", "64-bit", "1 pages; p:0x1 is 00")
CASE = Case.of("entry", {"door": "saved", "address": 0x1234})
TOTALS = Totals(
    rounds=3,
    cases=1000,
    past=600,
    tally=Counter({("legal entries", "completed"): 200, ("hole", "refused"): 798, ("jump page", "silent"): 2}),
    keys=Counter({BAD.key: 2}),
    corpus=[CASE],
    covered={("return", "0>10", 1), ("return", "10>20", 1), ("return", "10>20", 2)},
    findings={BAD.key: Found(BAD.key, 1, 5, CASE, BAD)},
    seconds=2.0,
    last_new=900,
)


def shown(*, terminal: bool) -> str:
    out = StringIO()
    console = Console(file=out, force_terminal=terminal, width=80, color_system=None, highlight=False)
    with View(console, "fuzz entry  x86_64 swap/page  seed 7  2 jobs") as view:
        view.tell(TOTALS, 40)
        if terminal and view.live is not None:
            view.live.refresh()
    view.end(TOTALS)
    return out.getvalue()


def test_the_figures_of_the_moment() -> None:
    assert status(TOTALS, 40) == (
        "1,040 cases  500.0 /s  past the check 60%  blocks 2 (last new 140 cases ago)  corpus 1  findings 1"
    )


def test_a_finding_says_what_where_and_how_often() -> None:
    line, detail = finding_line(1, TOTALS.findings[BAD.key], TOTALS).splitlines()
    assert line == "#1 SILENT memory of A at swap_pages+0x2e, 2 cases: door=saved address=0x1234"
    assert detail.strip() == BAD.detail


def test_where_there_is_no_terminal_the_end_is_told_in_plain_lines() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[0].startswith("fuzz entry")
    assert "\x1b" not in "".join(lines)
    assert max(map(len, lines)) <= 80
    table = {line[:14].strip(): line.split()[-5:] for line in lines if line.startswith(("hole", "jump page", "legal"))}
    assert table["hole"] == ["100%", "-", "-", "-", "-"]
    assert table["jump page"] == ["-", "-", "-", "-", "2"]


def test_a_terminal_is_redrawn_and_says_how_to_stop() -> None:
    screen = shown(terminal=True)
    assert "Ctrl-C stops" in screen
    assert "1,040 cases" in screen
    assert "1,000 cases" in screen
