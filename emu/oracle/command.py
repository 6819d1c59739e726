"""``kjump oracle``: the journey's movements, or random ones, on our machine and on others, in one table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from emu.errors import EXIT_FINDINGS, ImageError, KjumpError
from emu.journey.scene import Scene
from emu.oracle.compare import MOST_SHOWN, Comparison, Known, Verdict, compare, not_comparable
from emu.oracle.fuzz import FuzzReport, fuzz
from emu.oracle.image import build_image
from emu.oracle.machines import Other, Witness, map_refused, witness
from emu.oracle.mark import Mark, parse_mark
from emu.oracle.ours import run_ours
from emu.oracle.outcome import TIME_LIMIT, Ended
from emu.oracle.record import MOVEMENTS, record
from emu.report.progress import progress
from emu.report.screen import WIDTH

NO_END_LIMIT = 20.0
"""Seconds that another machine is given where ours came to no end."""
REFERENCE = "docs/FAITHFULNESS.md"
_STYLES = {Verdict.AGREE: "green", Verdict.DIFFER: "bold red", Verdict.NOT_COMPARABLE: "yellow"}
_HEAD = f" {'movement':<21}{'machine':<9}{'pages equal':<18}{'registers':>9}{'time':>8}  verdict"


def add_oracle_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    scene_options: Callable[[argparse.ArgumentParser], None],
    scenes: Callable[[argparse.Namespace], list[Scene]],
) -> None:
    """Add ``oracle`` to the command line; ``scene_options`` and ``scenes`` are those of every command with a scene."""
    parser = commands.add_parser("oracle", help="run the stubs on QEMU and KVM too, and compare everything")
    scene_options(parser)
    parser.add_argument("--qemu", action="store_true", help="compare with QEMU only (default: QEMU and KVM)")
    parser.add_argument("--kvm", action="store_true", help="compare with KVM only (default: QEMU and KVM)")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="N random cases instead of the journey")
    parser.add_argument(
        "--irq",
        metavar="N|SYMBOL[+OFF]",
        help="begin at this instruction of the stub, an interrupt taken before it",
    )
    parser.add_argument("--out", metavar="DIR", help="keep images of cases that differ here")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    parser.set_defaults(action=lambda args: oracle_main(args, scenes(args)))


def oracle_main(args: argparse.Namespace, scenes: Sequence[Scene]) -> int:
    """Run what ``args`` ask for and print it; the answer is the exit status."""
    if args.fuzz < 0:
        raise KjumpError(f"{args.fuzz} cases cannot be run", where="--fuzz", hint="a number, as 1000")
    mark = parse_mark(args.irq) if args.irq else None
    if mark is not None and args.fuzz:
        raise KjumpError("random cases have no marked instruction", where="--irq", hint="without --fuzz")
    names = [name for name, wanted in ((Other.QEMU, args.qemu), (Other.KVM, args.kvm)) if wanted] or list(Other)
    witnesses = [witness(name) for name in names]
    console = Console(highlight=False)
    rows: list[Comparison] = []
    for scene in scenes:
        if args.fuzz:
            with progress(f"{scene.arch}: {args.fuzz:,} random cases"):
                report = fuzz(scene.arch, args.fuzz, scene.seed, witnesses, Path(args.out) if args.out else None)
            found = report.rows
            if not args.json:
                _show_fuzz(console, report)
        else:
            with progress(f"{scene.arch}: recording and comparing"):
                found = compare_scene(scene, witnesses, mark)
            if not args.json:
                show(console, scene.title() + (f"    IRQ 0 at {mark}" if mark else ""), found)
        rows += found
    ok = not any(row.verdict is Verdict.DIFFER for row in rows)
    if args.json:
        print(json.dumps({"ok": ok, "comparisons": [row.to_json() for row in rows]}))
    else:
        _show_verdict(console, rows)
    return 0 if ok else EXIT_FINDINGS


def compare_scene(scene: Scene, witnesses: Sequence[Witness], mark: Mark | None = None) -> list[Comparison]:
    """Every movement of ``scene`` on every machine; with ``mark`` from there on, with an interrupt before it.

    Raises:
        JourneyError: the journey reaches no movement.
    """
    refusals = {one.name: map_refused(scene.memory_map) or one.refuses(scene.arch) for one in witnesses}
    if all(refusals.values()):
        names = [f"{scene.arch} {movement}" for movement in MOVEMENTS]
        return [not_comparable(name, one.name, refusals[one.name]) for name in names for one in witnesses]
    recording = record(replace(scene, strict=False), mark)
    rows = [not_comparable(name, one.name, reason) for name, reason in recording.missing for one in witnesses]
    for case in recording.cases:
        reasons = {one.name: refusals[one.name] or one.lacks(case) for one in witnesses}
        rows += [not_comparable(case.name, name, reason) for name, reason in reasons.items() if reason]
        usable = [one for one in witnesses if not reasons[one.name]]
        if usable:
            image = build_image([case], in_place=True)
            ours = run_ours(image)
            if mark is None and ours.ended is not Ended.DONE:
                raise ImageError(
                    f"the image does not do what was recorded: {ours.ended.value} {ours.why}", where=case.name
                )
            limit = TIME_LIMIT if ours.ended is Ended.DONE else NO_END_LIMIT
            rows += [row for one in usable for row in compare(image, ours, one.run(image, limit=limit))]
    return rows


def _row(row: Comparison) -> Text:
    pages = f"{row.pages_equal:,} of {row.pages:,}" if row.pages else "-"
    seconds = f"{row.seconds:.2f} s" if row.seconds else "-"
    text = Text(
        f" {row.case:<21}{row.machine:<9}{pages:<18}{f'{row.registers:,}' if row.registers else '-':>9}{seconds:>8}  "
    )
    text.append(str(row.verdict), style=_STYLES[row.verdict])
    return text


def show(console: Console, title: str, rows: Sequence[Comparison]) -> None:
    """The table of one scene."""
    console.print(title, style="bold", soft_wrap=True)
    console.print(_HEAD, style="dim", soft_wrap=True)
    for row in rows:
        console.print(_row(row), soft_wrap=True)
        for difference in row.differences[:MOST_SHOWN]:
            console.print(f"    {difference}", markup=False, soft_wrap=True)
        if len(row.differences) > MOST_SHOWN:
            console.print(f"    and {len(row.differences) - MOST_SHOWN} more")
    for machine, reason in dict.fromkeys((row.machine, row.reason) for row in rows if row.reason):
        console.print(Text(f" {machine}: {reason}"), width=WIDTH)


def _show_fuzz(console: Console, report: FuzzReport) -> None:
    show(console, f"{report.arch}, {report.cases:,} random cases    seed {report.seed}", report.summary)
    for row in report.rows:
        if row.verdict is Verdict.DIFFER:
            console.print(f" {row.case}:", markup=False)
            for difference in row.differences[:MOST_SHOWN]:
                console.print(f"    {difference}", markup=False, soft_wrap=True)
    for path in report.saved:
        console.print(f" kept: {path}", markup=False, soft_wrap=True)


def _show_verdict(console: Console, rows: Sequence[Comparison]) -> None:
    known = [(one, sum(row.known.get(one, 0) for row in rows)) for one in Known]
    for one, count in known:
        if count:
            console.print(Text(f" documented difference, {count} times: {one.what} ({one.source})"), width=WIDTH)
    counts = {verdict: sum(row.verdict is verdict for row in rows) for verdict in Verdict}
    ok = not counts[Verdict.DIFFER]
    head = Text("ok" if ok else "NOT OK", style="bold green" if ok else "bold red")
    told = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items() if count or verdict is Verdict.AGREE)
    head.append(f"  {told}; {REFERENCE} lists what may differ", style="not bold")
    console.print(head)
