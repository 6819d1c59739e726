"""What a person sees of a campaign: one screen that is redrawn, or a few plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from emu.fuzz.campaign import Found, Totals
from emu.fuzz.verdict import Verdict

_SHARES = (Verdict.REFUSED, Verdict.COMPLETED, Verdict.DETECTED, Verdict.WILD)
_COUNTS = tuple(verdict for verdict in Verdict if verdict.is_finding)
_MOST_SHOWN = 5


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def _rate(count: int, seconds: float) -> str:
    rate = count / seconds if seconds > 0 else 0.0
    return f"{rate / 1000:.1f} k/s" if rate >= 1000 else f"{rate:.1f} /s"


def _share(part: int, whole: int) -> str:
    if not part:
        return "-"
    percent = 100 * part / whole
    return f"{percent:.0f}%" if percent >= 1 else "<1%"


def table(totals: Totals) -> Table:
    """One line a class of input: how many cases, and what they came to."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column("input", no_wrap=True)
    grid.add_column("cases", justify="right", no_wrap=True)
    for verdict in _SHARES:
        grid.add_column(str(verdict), justify="right", no_wrap=True)
    totalled = totals.verdicts()
    shown = [verdict for verdict in _COUNTS if totalled[str(verdict)]]
    for verdict in shown:
        grid.add_column(str(verdict).upper(), justify="right", no_wrap=True)
    rows: dict[str, Counter[str]] = {}
    for (row, verdict_name), count in totals.tally.items():
        rows.setdefault(row, Counter())[verdict_name] += count
    for row, counts in sorted(rows.items(), key=lambda pair: -sum(pair[1].values())):
        whole = sum(counts.values())
        cells = [_share(counts[str(verdict)], whole) for verdict in _SHARES]
        cells += [str(counts[str(verdict)] or "-") for verdict in shown]
        bad = any(counts[str(verdict)] for verdict in _COUNTS)
        grid.add_row(row, f"{whole:,}", *cells, style="bold red" if bad else "")
    return grid


def finding_line(number: int, found: Found, totals: Totals) -> str:
    """A finding in a line or two."""
    result = found.result
    where = f" at {result.place}" if result.place else ""
    line = (
        f"#{number} {str(result.verdict).upper()} {result.why}{where}, {totals.keys[found.key]:,} cases: {found.case}"
    )
    return line + (f"\n   {result.detail}" if result.detail else "")


def status(totals: Totals, done: int = 0) -> str:
    """The figures of the moment."""
    cases = totals.cases + done
    new = "" if not totals.cases else f" (last new {cases - totals.last_new:,} cases ago)"
    past = _share(totals.past, totals.cases or 1)
    return (
        f"{cases:,} cases  {_rate(totals.cases, totals.seconds)}  past the check {past}  blocks {totals.blocks}{new}  "
        f"corpus {len(totals.corpus)}  findings {len(totals.findings)}"
    )


class View:
    """Shows a campaign while it runs."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._began = time.monotonic()
        self.live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.__exit__(kind, error, trace)

    def tell(self, totals: Totals, done: int) -> None:
        """Redraw, where there is a terminal."""
        if self.live is not None:
            self.live.update(self._screen(totals, done))

    def _screen(self, totals: Totals, done: int) -> RenderableType:
        head = f"{self._title}  {_clock(time.monotonic() - self._began)}   Ctrl-C stops"
        found = [finding_line(n, one, totals) for n, one in enumerate(totals.findings.values(), 1)]
        lines = Text("\n".join(found[-_MOST_SHOWN:]), style="red")
        return Group(Text(head, style="bold"), Text(status(totals, done)), table(totals), lines)

    def end(self, totals: Totals) -> None:
        """The last word, on a terminal or not."""
        console = self._console
        console.print(Text(self._title, style="bold"))
        console.print(Text(status(totals)))
        console.print(table(totals))
        for number, found in enumerate(totals.findings.values(), 1):
            console.print(Text(finding_line(number, found, totals), style="red"))
