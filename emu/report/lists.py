"""What a person sees of entry lists that a stub carried out: a row a list."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from emu.journey.findings import Finding
from emu.journey.list_runs import ListRun
from emu.journey.scene import Scene
from emu.report.screen import WIDTH, show_evidence

_HEAD = f" {'list':<21}{'pages':>7}{'instr there':>13}{'instr back':>12}  checks"


def show_lists(console: Console, scene: Scene, runs: Sequence[ListRun]) -> None:
    """The table, then what did not hold."""
    console.print(scene.title(), style="bold", highlight=False, soft_wrap=True)
    console.print(_HEAD, style="dim", highlight=False, soft_wrap=True)
    for run in runs:
        there, back = ("-" if count is None else f"{count:,}" for count in (run.there, run.back))
        row = Text(f" {run.shape:<21}{run.pages:>7,}{there:>13}{back:>12}  ")
        wrong = sum(1 + len(finding.follows) for finding in run.findings)
        row.append(f"{wrong} wrong" if wrong else "ok", style="bold red" if wrong else "green")
        console.print(row, soft_wrap=True)
    for number, same in enumerate(_alike(runs), 1):
        (shape, finding), others = same[0], [shape for shape, _ in same[1:]]
        console.print()
        like = f" (like {finding.catalogue})" if finding.catalogue else ""
        console.print(Text(f"FINDING {number}  {finding.kind}, list `{shape}`{like}", style="bold red"))
        show_evidence(console, finding)
        if others:
            console.print(Text(f" the same with {', '.join(others)}"), width=WIDTH)
    findings = sum(len(run.findings) for run in runs)
    head = Text("NOT OK" if findings else "ok", style="bold red" if findings else "bold green")
    head.append(f"  {len(runs)} lists there and back, {findings} findings; all of RAM compared", style="not bold")
    console.print(head)


def _alike(runs: Sequence[ListRun]) -> list[list[tuple[str, Finding]]]:
    """Findings of one kind at one place together, each with its list."""
    groups: dict[tuple[str, str, str], list[tuple[str, Finding]]] = {}
    for run in runs:
        for finding in run.findings:
            groups.setdefault((finding.kind, finding.catalogue, finding.where), []).append((run.shape, finding))
    return list(groups.values())
