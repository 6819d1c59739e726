"""``kjump test --catalogue``: every known bug made again, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from emu.catalogue.entries import Entry, read_catalogue
from emu.catalogue.reproduce import CAUGHT, MISSED, ROOT, Verdict, reproduce
from emu.errors import EXIT_FINDINGS, KjumpError
from emu.workers import processes

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names it nowhere else

MOST_SHOWN = 76
CATALOGUE = ROOT / "tests" / "catalogue.toml"


def verdicts(entries: Sequence[Entry], jobs: int | None = None) -> Iterator[Verdict]:
    """The verdict on each entry, in order, from ``jobs`` processes (all processors by default)."""
    workers = min(jobs or os.cpu_count() or 1, len(entries))
    if workers <= 1:
        yield from map(reproduce, entries)
        return
    with processes(workers) as pool:
        yield from pool.map(reproduce, entries)


def run_catalogue(names: Sequence[str] = (), *, as_json: bool = False, jobs: int | None = None) -> int:
    """Run the entries called ``names`` (all where empty) and print what came of them; the exit status."""
    entries = read_catalogue(CATALOGUE)
    unknown = sorted(set(names) - {entry.id for entry in entries})
    if unknown:
        raise KjumpError(f"the catalogue has no entry {unknown[0]}", hint=f"{entries[0].id} to {entries[-1].id}")
    wanted = [entry for entry in entries if not names or entry.id in names]
    console = Console(highlight=False)
    found: list[Verdict] = []
    shown = Console(stderr=True)
    with shown.status("") as status:
        for entry, verdict in zip(wanted, verdicts(wanted, jobs), strict=True):
            found.append(verdict)
            status.update(f"catalogue: {entry.id}, {len(found)} of {len(wanted)}")
    caught = sum(verdict.status == CAUGHT for verdict in found)
    missed = [verdict for verdict in found if verdict.status == MISSED]
    if as_json:
        document = {
            "entries": len(found), "caught": caught, "missed": len(missed),
            "cannot_show": len(found) - caught - len(missed), "bugs": [verdict.to_json() for verdict in found],
        }  # fmt: skip
        print(json.dumps(document))
    else:
        _show(console, found)
        told = f"{caught} of {len(found)} caught, each by a test that passes without the bug"
        rest = len(found) - caught - len(missed)
        console.print(f"{'NOT OK' if missed else 'ok'}  {told}; {rest} cannot show here, {len(missed)} missed")
    return EXIT_FINDINGS if missed else 0


def _show(console: Console, found: Sequence[Verdict]) -> None:
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("bug", no_wrap=True)
    table.add_column("caught by, or why it cannot be", ratio=1, overflow="fold")
    table.add_column("finding", ratio=1)
    for verdict in found:
        if verdict.status == CAUGHT and verdict.finding is not None:
            finding = verdict.finding
            told = f"names {finding.names}" if finding.names else finding.text.split(" | ")[0]
            table.add_row(verdict.id, verdict.test, f"{finding.kind}: {told}"[:MOST_SHOWN])
        else:
            table.add_row(verdict.id, f"{verdict.status}: {verdict.why}", "")
    console.print(table)


def add_catalogue_options(commands: Subparsers) -> None:
    """Give the command ``test``, which must be there already, ``--catalogue`` and ``--json``."""
    test = commands.choices["test"]
    otherwise: Callable[[argparse.Namespace], int] = test.get_default("action")
    test.add_argument(
        "--catalogue", action="store_true", help="make each known bug again (or those named), and see it caught"
    )
    test.add_argument("--jobs", type=int, metavar="N", help="processes for --catalogue (default: one a processor)")
    test.add_argument("--json", action="store_true", help="with --catalogue: one JSON document on stdout, nothing else")

    def action(args: argparse.Namespace) -> int:
        if args.catalogue:
            return run_catalogue(args.names, as_json=args.json, jobs=args.jobs)
        if args.json or args.jobs:
            raise KjumpError("is for --catalogue", where="--json" if args.json else "--jobs", hint="--junit FILE")
        return otherwise(args)

    test.set_defaults(action=action)
