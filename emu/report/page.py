"""``--report``: one journey as a page that needs nothing but itself, to read, to keep or to send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from emu.journey.result import RunResult, Transition
from emu.kexec.jump_page import describe, diff
from emu.machine.owners import Owner
from emu.report.album import Album, Cell, Leaf, cells
from emu.report.screen import look_at, rerun
from emu.units import PAGE_SHIFT, PAGE_SIZE, show_size

COLUMNS = 32
"""Cells in a row of a map of memory."""
_CELL = 10
_COLOURS: Mapping[Owner, str] = {
    Owner.A: "#9db8d9",
    Owner.B: "#e8a05c",
    Owner.C: "#8fbf8f",
    Owner.FREE: "#dfe5ec",
    Owner.SOURCE: "#c9a6d8",
    Owner.BACKUP: "#a58ac9",
    Owner.CONTROL: "#c0392b",
    Owner.SWAP: "#d4ac0d",
    Owner.LIST: "#2e86c1",
    Owner.PAGE_TABLE: "#117a65",
    Owner.JUMP_PAGE: "#e84393",
    Owner.RESERVED: "#7f8c8d",
    Owner.HOLE: "#3a3f44",
}


@dataclass(frozen=True, slots=True)
class Square:
    """A cell as it is drawn; ``changed`` marks it where the transition gave it to somebody else."""

    x: int
    y: int
    colour: str
    text: str
    mixed: bool
    changed: bool


def _text(cell: Cell) -> str:
    start = cell.first << PAGE_SHIFT
    owners = ", ".join(f"{count} {owner}" for owner, count in cell.counts)
    return f"p:{start:#x} {show_size(cell.pages * PAGE_SIZE)}: {owners}"


def _squares(after: Sequence[Cell], before: Sequence[Cell]) -> list[Square]:
    return [
        Square(
            x=index % COLUMNS * _CELL,
            y=index // COLUMNS * _CELL,
            colour=_COLOURS[cell.owner],
            text=_text(cell),
            mixed=cell.mixed,
            changed=cell.counts != old.counts,
        )
        for index, (cell, old) in enumerate(zip(after, before, strict=True))
    ]


def _fields(leaf: Leaf) -> list[dict[str, str | bool]]:
    """The jump page as it is after the transition, what changed marked, with what it was before."""
    if leaf.after.jump_page is None:
        return []
    was = {}
    if leaf.before.jump_page is not None:
        was = {change.field: change.before for change in diff(leaf.before.jump_page, leaf.after.jump_page)}
    return [
        {"name": name, "value": value, "meaning": meaning, "was": was.get(name, ""), "changed": name in was}
        for name, value, meaning in describe(leaf.after.jump_page)
    ]


def _legend(leaves: Sequence[Leaf]) -> list[tuple[str, str]]:
    seen = {owner for leaf in leaves for picture in (leaf.before, leaf.after) for owner in picture.owners.values()}
    seen |= {Owner.A, Owner.HOLE}
    return [(str(owner), colour) for owner, colour in _COLOURS.items() if owner in seen]


def _bars(leaves: Sequence[Leaf], total: int) -> list[dict[str, float | str | int]]:
    """Where in virtual time each transition lies, in per cent of the run."""
    scale = 100 / max(total, 1)
    return [
        {
            "name": leaf.name,
            "left": leaf.before.tick * scale,
            "width": max((leaf.after.tick - leaf.before.tick) * scale, 0.4),
            "ticks": leaf.after.tick - leaf.before.tick,
        }
        for leaf in leaves
    ]


def _stages(result: RunResult, leaves: Sequence[Leaf]) -> list[dict[str, Any]]:
    memory_map = result.scene.memory_map
    pictures: dict[int, list[Cell]] = {}

    def drawn(owners: dict[int, Owner]) -> list[Cell]:
        return pictures.setdefault(id(owners), cells(owners, memory_map))

    stages = []
    for transition, leaf in zip(result.transitions, leaves, strict=False):
        before, after = drawn(leaf.before.owners), drawn(leaf.after.owners)
        stages.append(
            {
                "transition": transition,
                "who": _who(transition),
                "before": _squares(before, before),
                "after": _squares(after, before),
                "height": -(-len(after) // COLUMNS) * _CELL,
                "fields": _fields(leaf),
            }
        )
    return stages


def _who(transition: Transition) -> str:
    return " → ".join(side for side in (transition.source, transition.target) if side != "-")


def report_page(result: RunResult, album: Album) -> str:
    """The page for a finished run, as HTML: no script, nothing to fetch, readable on a narrow screen."""
    environment = Environment(
        loader=PackageLoader("emu.report", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    leaves = album.leaves
    findings = [(finding, look_at(result, finding)) for finding in result.findings]
    return environment.get_template("page.html").render(
        result=result,
        title=f"{result.scene.journey.name}: {result.scene.title()}",
        command=rerun(result),
        stages=_stages(result, leaves),
        bars=_bars(leaves, result.ticks),
        legend=_legend(leaves),
        findings=findings,
        width=COLUMNS * _CELL,
        cell=_CELL,
    )
