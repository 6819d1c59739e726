"""``kjump compare``: the thread's argument as a table, every transfer with every hand-off.

Each figure is read from a run: from its transitions, which the event stream gave, none from the model of the list.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from emu.errors import EXIT_FINDINGS, JourneyError
from emu.journey.journey import Journey
from emu.journey.result import RunResult
from emu.journey.scene import HANDOFFS, TRANSFERS, Scene
from emu.report.progress import progress
from emu.units import PAGE_SIZE
from emu.workers import processes

_MEMORY = ("target area", "low region")
"""What a load takes to keep or to bring memory; everything else that it takes are control pages."""


@dataclass(frozen=True, slots=True)
class Row:
    """One pairing on one architecture.

    ``instructions``, ``iterations`` and ``pages_moved`` are those of the first way there and back together;
    ``control_pages`` and ``extra_ram`` (bytes, with the target area where A cannot use it) are what the load takes;
    ``entry_instructions`` what A's entry point executes before it calls the stub; ``peer_kept`` whether B still knew
    of its first visit on the second.  ``refused`` is why a pairing cannot run; the figures are None then.
    """

    arch: str
    transfer: str
    handoff: str
    instructions: int | None = None
    iterations: int | None = None
    pages_moved: int | None = None
    control_pages: int | None = None
    extra_ram: int | None = None
    image_bytes: int | None = None
    entry_instructions: int | None = None
    peer_kept: bool | None = None
    findings: int | None = None
    refused: str = ""

    @property
    def ok(self) -> bool:
        """It ran, and everything held; or it was refused with a reason."""
        return bool(self.refused) or self.findings == 0

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


def row_of(result: RunResult) -> Row:
    """The figures of a finished run; a run that ended early counts as one finding at least."""
    scene = result.scene
    kinds = {transition.kind: transition for transition in reversed(result.transitions)}
    moves = [kinds[name] for name in ("suspend", "return") if name in kinds and kinds[name].instructions is not None]
    taken = kinds["load"].control_pages if "load" in kinds else {}
    memory = sum(taken.get(name, 0) for name in _MEMORY)
    control = sum(count for name, count in taken.items() if name not in _MEMORY)
    reserved = scene.target_range.size if scene.is_reserved else 0
    return Row(
        arch=str(scene.arch),
        transfer=scene.transfer,
        handoff=scene.handoff,
        instructions=sum(move.instructions or 0 for move in moves),
        iterations=sum(move.rep_iterations for move in moves),
        pages_moved=sum(move.pages_moved for move in moves),
        control_pages=control,
        extra_ram=(memory + control) * PAGE_SIZE + reserved,
        image_bytes=result.image_bytes,
        entry_instructions=kinds["return"].entry_instructions if "return" in kinds else None,
        peer_kept=result.peer_state_kept,
        findings=max(len(result.findings), int(not result.ok or bool(result.not_run))),
    )


@dataclass(frozen=True, slots=True)
class Pairing:
    """One run to make: ``make(transfer=, handoff=)`` gives its scene, or raises JourneyError, the reason why not.

    It can be sent to another process if ``make`` can.
    """

    make: Callable[..., Scene]
    arch: str
    transfer: str
    handoff: str

    def run(self) -> Row:
        """The figures of this pairing."""
        try:
            scene = self.make(transfer=self.transfer, handoff=self.handoff)
        except JourneyError as error:
            return Row(self.arch, self.transfer, self.handoff, refused=str(error))
        return row_of(Journey(scene).run())


def compare(pairings: Sequence[Pairing], jobs: int) -> Iterator[Row]:
    """Run all ``pairings``, ``jobs`` at a time; the rows come in their order."""
    if jobs == 1:
        yield from map(Pairing.run, pairings)
        return
    with processes(jobs) as pool:
        yield from pool.map(Pairing.run, pairings)


# ---- the table -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Column:
    """``value`` gives the number that the best of a column is found by, None where there is none."""

    head: str
    width: int
    shown: Callable[[Row], str]
    value: Callable[[Row], int | None]


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _size(value: int | None) -> str:
    if value is None:
        return "-"
    return f"{value / (1 << 20):.1f}M" if value >= 1 << 20 else f"{value / 1024:.1f}K"


_COLUMNS = (
    _Column("instr", 8, lambda row: _number(row.instructions), lambda row: row.instructions),
    _Column("moved", 7, lambda row: _number(row.pages_moved), lambda row: row.pages_moved),
    _Column("ctl", 4, lambda row: _number(row.control_pages), lambda row: row.control_pages),
    _Column("extra RAM", 9, lambda row: _size(row.extra_ram), lambda row: row.extra_ram),
    _Column("image", 7, lambda row: _size(row.image_bytes), lambda row: row.image_bytes),
    _Column(
        "entry",
        5,
        lambda row: "-" if row.entry_instructions is None else f"{row.entry_instructions}i",
        lambda row: row.entry_instructions,
    ),
)
_KEPT = {True: "yes", False: "no", None: "-"}


def show_table(console: Console, rows: Sequence[Row]) -> None:
    """One table for one architecture; ``*`` marks the best of a column."""
    ran = [row for row in rows if not row.refused]
    best = {
        column.head: min((value for row in ran if (value := column.value(row)) is not None), default=None)
        for column in _COLUMNS
    }
    head = f" {'transfer':<9}{'hand-off':<8}" + "".join(f"{column.head:>{column.width + 1}}" for column in _COLUMNS)
    console.print(Text(f"{head} B kept findings", style="dim"), soft_wrap=True)
    for row in rows:
        line = Text(f" {row.transfer:<9}{row.handoff:<8}")
        if row.refused:
            line.append(f" refused: {row.refused}", style="yellow")
            console.print(line, soft_wrap=True)
            continue
        for column in _COLUMNS:
            value = column.value(row)
            mark = "*" if value is not None and value == best[column.head] else " "
            line.append(f"{column.shown(row):>{column.width}}{mark}")
        line.append(f" {_KEPT[row.peer_kept]:>6}")
        line.append(f"{row.findings:>9}", style="green" if row.ok else "bold red")
        console.print(line, soft_wrap=True)


def _show(console: Console, title: str, rows: Sequence[Row]) -> None:
    for arch in dict.fromkeys(row.arch for row in rows):
        console.print(Text(f"{arch}, {title}", style="bold"), soft_wrap=True)
        show_table(console, [row for row in rows if row.arch == arch])
        console.print()
    ran = sum(not row.refused for row in rows)
    wrong = sum(row.findings or 0 for row in rows)
    verdict = Text("ok" if not wrong else "NOT OK", style="bold green" if not wrong else "bold red")
    verdict.append(f"  {ran} pairings ran, {len(rows) - ran} refused, {wrong} findings.", style="not bold")
    console.print(verdict)
    console.print('    There and back once. Lower is better except "B kept"; * marks the best.')
    console.print("next: kjump run checkpoint --transfer T --handoff H -v | docs/DESIGNS.md", soft_wrap=True)


def add_compare_command(
    commands: Any,  # noqa: ANN401 - argparse has no public name for what add_subparsers returns
    scene_options: Callable[[argparse.ArgumentParser], None],
    makers: Callable[[argparse.Namespace], Sequence[tuple[str, Callable[..., Scene]]]],
) -> None:
    """Add ``kjump compare``; ``makers`` gives, for each architecture, its name and what makes a scene of a pairing."""
    parser = commands.add_parser("compare", help="every transfer with every hand-off, one table an architecture")
    scene_options(parser)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (default: processors)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    parser.set_defaults(journey="checkpoint", action=lambda args: _compare(args, makers(args)))


def _compare(args: argparse.Namespace, makers: Sequence[tuple[str, Callable[..., Scene]]]) -> int:
    for option, name, known in (("transfer", args.transfer, TRANSFERS), ("handoff", args.handoff, HANDOFFS)):
        if name is not None and name not in known:
            raise JourneyError(f"{name} is not one of {', '.join(known)}", where=f"--{option}")
    pairings = [
        Pairing(make, arch, transfer, handoff)
        for arch, make in makers
        for transfer in ((args.transfer,) if args.transfer else TRANSFERS)
        for handoff in ((args.handoff,) if args.handoff else HANDOFFS)
    ]
    rows: list[Row] = []
    with progress(f"0 of {len(pairings)} pairings") as status:
        for row in compare(pairings, max(1, min(args.jobs, len(pairings)))):
            rows.append(row)
            if status is not None:
                status.update(f"{len(rows)} of {len(pairings)} pairings")
    if args.json:
        print(json.dumps({"ok": all(row.ok for row in rows), "rows": [row.to_json() for row in rows]}))
    else:
        _show(Console(highlight=False), args.journey, rows)
    return 0 if all(row.ok for row in rows) else EXIT_FINDINGS
