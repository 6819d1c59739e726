"""A sweep: the same short campaign in every scene that a target can tell apart, one line for each.

A long campaign looks deeply into one scene; bugs that need another architecture, transfer or hand-off show here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from emu.errors import EXIT_FINDINGS
from emu.fuzz.batch import Plan, close_worlds, require_sound
from emu.fuzz.campaign import Totals
from emu.fuzz.executors import Inline
from emu.fuzz.folder import Folder, finding_path
from emu.fuzz.live import finding_line
from emu.fuzz.runner import Campaign, Limits
from emu.fuzz.target import Target
from emu.fuzz.verdict import Verdict
from emu.journey.scene import Scene
from emu.journey.scene_data import scene_json

Make = Callable[[str | None, str | None], Sequence[Scene]]
"""Scenes, one an architecture, of a transfer and a hand-off; None: the journey's own."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One campaign of a sweep."""

    plan: Plan
    cases: int
    out: Path | None = None
    resume: bool = False

    @property
    def scene(self) -> str:
        """Architecture, transfer and hand-off."""
        scene = self.plan.scene
        return f"{scene['arch']} {scene['transfer']}/{scene['handoff']}"

    @property
    def folder(self) -> Path | None:
        """Where it is kept, if it is."""
        return self.out / self.scene.replace(" ", "-").replace("/", "-") / self.plan.target if self.out else None


def _choices(given: str | None, known: Sequence[str]) -> Sequence[str | None]:
    """What to run where ``given`` was asked for (None: all) and ``known`` make a difference (empty: none does)."""
    if not known:
        return (given,)
    return [one for one in known if given in (None, one)]


def legs(
    targets: Sequence[Target], make: Make, transfer: str | None, handoff: str | None, leg: Callable[[Plan], Leg]
) -> list[Leg]:
    """All campaigns; ``transfer`` and ``handoff`` choose one, None is every one that makes a difference to a target."""
    return [
        leg(Plan(target.name, scene_json(scene), scene.seed))
        for target in targets
        for one in _choices(transfer, target.transfers)
        for other in _choices(handoff, target.handoffs)
        for scene in make(one, other)
    ]


def run_leg(leg: Leg) -> Totals:
    """Run one campaign in this process, or what is left of it; raises FuzzError for a B that it cannot judge."""
    require_sound(leg.plan)
    folder = None
    if leg.folder is not None:
        resume = leg.resume and (leg.folder / "campaign.json").is_file()
        folder = Folder(leg.folder, leg.plan, resume=resume)
    try:
        return Campaign(leg.plan, Inline, folder).run(Limits(leg.cases))
    finally:
        close_worlds()


def sweep(all_legs: Sequence[Leg], executor: Executor) -> Iterator[tuple[Leg, Totals]]:
    """Run the campaigns; each as it ends."""
    futures: dict[Future[Totals], Leg] = {}
    try:
        for leg in all_legs:
            future = executor.submit(run_leg, leg)
            futures[future] = leg
            if future.done():  # in this process
                yield futures.pop(future), future.result()
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def show_sweep(all_legs: Sequence[Leg], executor: Executor, *, as_json: bool) -> int:
    """Run a sweep and print it, a line when a campaign ends; the answer is the exit status."""
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    width = len(str(len(all_legs)))
    done: list[dict[str, Any]] = []
    cases = found = 0
    for leg, totals in sweep(all_legs, executor):
        done.append({"target": leg.plan.target, "scene": dict(leg.plan.scene), **totals.to_json()})
        cases, found = cases + totals.cases, found + len(totals.findings)
        counts = totals.verdicts()
        verdicts = "  ".join(f"{name} {counts[name]:,}" for name in Verdict if counts[name])
        head = f"{len(done):{width}} of {len(all_legs)}  {leg.plan.target:<9}{leg.scene:<28}"
        console.print(Text(f"{head}{totals.cases:>9,} cases  {verdicts}", style="red" if totals.findings else ""))
        for number, one in enumerate(totals.findings.values(), 1):
            console.print(Text(finding_line(number, one, totals), style="red"))
            if leg.folder is not None:
                console.print(Text(f"   kjump replay {finding_path(leg.folder, one)}"))
    if as_json:
        print(json.dumps({"cases": cases, "findings": found, "campaigns": done}))
    else:
        console.print(f"{len(done)} campaigns, {cases:,} cases, {found} findings")
    return EXIT_FINDINGS if found else 0
