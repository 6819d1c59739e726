"""``kjump mutate``: small damages to a stub, and whether the tests notice."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from emu import resources
from emu.errors import EXIT_FINDINGS, AssemblyError, KjumpError
from emu.mutation.coverage import coverage
from emu.mutation.killing import run_all
from emu.mutation.mutants import StubUnderTest
from emu.mutation.reasons import Key, Reason, read_reasons, stale
from emu.mutation.score import Score, too_many_by_hand
from emu.trials.registry import all_trials
from emu.trials.stubs import NAMES, StubSet, built_in

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names it nowhere else

REASONS = Path(__file__).resolve().parents[2] / "tests" / "mutants.toml"
FOLDERS = ("x86_64", "i386")
_OF_WHOM = {"relocate_new_kernel": "swap_pages", "jump_entry": "after_image_save", "purgatory": "purgatory_start"}
_MOST_SHOWN = 40


def add_mutate_command(commands: Subparsers) -> None:
    """Add ``mutate``; its ``action`` gives the exit status."""
    mutate = commands.add_parser("mutate", help="damage a stub in every small way, and see whether the tests notice")
    mutate.add_argument(
        "stub", nargs="+", metavar="STUB",
        help=f"a built-in stub ({', '.join(NAMES)}, or as x86_64/purgatory), a file of your own, or all",
    )  # fmt: skip
    mutate.add_argument("--jobs", type=int, metavar="N", help="processes (default: one for each processor)")
    mutate.add_argument("--line", type=int, metavar="N", help="only the mutants of this source line")
    mutate.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    mutate.set_defaults(action=_mutate)


def _chosen(words: list[str]) -> dict[str, dict[str, str]]:
    """By folder: the stubs to damage, and the text of those that are not the built-in ones."""
    chosen: dict[str, dict[str, str]] = {}
    for word in words:
        path = Path(word)
        known = [(folder, name) for folder in FOLDERS for name in NAMES if word in ("all", name, f"{folder}/{name}")]
        if not known and path.is_file():
            known = [_place_of(path)]
            chosen.setdefault(known[0][0], {})[known[0][1]] = _text_of(path, *known[0])
        if not known:
            raise KjumpError(f"no stub is called {word}", where="mutate", hint=f"{', '.join(NAMES)}, all, or a .S file")
        for folder, name in known:
            chosen.setdefault(folder, {}).setdefault(name, "")
    return chosen


def _text_of(path: Path, folder: str, name: str) -> str:
    built = built_in(folder, name)
    return "" if built.is_file() and path.samefile(built) else path.read_text(encoding="utf-8")


def _place_of(path: Path) -> tuple[str, str]:
    """(folder, name) of the stub in ``path``, by the symbols that it has; raises KjumpError where it is none."""
    text = path.read_text(encoding="utf-8")
    wrong = ""
    for folder in sorted(FOLDERS, key=lambda folder: folder != path.resolve().parent.name):
        for name, symbol in _OF_WHOM.items():
            try:
                image = StubSet(folder, {name: text}).assembled(name, 0)
            except AssemblyError as error:
                wrong = str(error)
                break
            if symbol in image.symbols:
                return folder, name
    raise KjumpError(
        f"is no stub: {wrong or 'it has none of the symbols ' + ', '.join(_OF_WHOM.values())}", where=str(path)
    )


def scores_of(
    chosen: Mapping[str, Mapping[str, str]], jobs: int, reasons: Mapping[Key, Reason], *, line: int | None = None,
    told: Callable[[str], None] = lambda _text: None,
) -> Iterator[Score]:  # fmt: skip
    """The score of each chosen stub (folder, then name, then its text or nothing), one after the other."""
    for folder, texts in chosen.items():
        stubs = StubSet(folder, {name: text for name, text in texts.items() if text})
        began = time.monotonic()
        covering = coverage(all_trials(), stubs, lambda name: told(f"what is executed by: {name}"))
        spent = time.monotonic() - began
        for name in texts:
            began, score = time.monotonic() - spent, Score(f"{folder}/{name}")
            spent = 0.0
            mutants = [one for one in StubUnderTest(stubs, name).mutants() if line is None or one.line == line]
            if line is None:
                score.stale = stale(reasons.values(), mutants, [score.stub])
            for number, outcome in enumerate(run_all(mutants, stubs, covering, jobs), 1):
                score.take(outcome, reasons)
                told(f"{score.stub}: {number:,} of {len(mutants):,} mutants, {len(score.survivors)} survived")
            score.seconds = time.monotonic() - began
            yield score


def _mutate(args: argparse.Namespace) -> int:
    chosen = _chosen(args.stub)
    jobs = args.jobs or os.cpu_count() or 1
    with Console(stderr=True).status("mutants") as status:
        scores = list(scores_of(chosen, jobs, read_reasons(REASONS), line=args.line, told=status.update))
    ok = all(score.ok for score in scores) and not (too_many_by_hand(scores) and args.line is None)
    if args.json:
        print(json.dumps({"ok": ok, "stubs": [score.to_json() for score in scores]}))
    else:
        _show(Console(highlight=False, soft_wrap=True), scores, ok=ok)
    return 0 if ok else EXIT_FINDINGS


def _show(console: Console, scores: list[Score], *, ok: bool) -> None:
    table = Table(box=None, pad_edge=False, header_style="")
    for title in ("stub", "mutants", "killed", "alive", "equal", "reasons", "runs", "s"):
        table.add_column(title, justify="left" if title == "stub" else "right", no_wrap=True)
    for one in scores:
        cells = (one.total, one.killed, len(one.survivors), one.equivalent, one.reasoned, one.runs)
        table.add_row(one.stub, *(f"{cell:,}" for cell in cells), f"{one.seconds:.0f}")
    console.print(table, soft_wrap=False)
    for one in scores:
        for outcome in one.survivors[:_MOST_SHOWN]:
            path = resources.asm_dir() / outcome.mutant.folder
            console.print(
                f"survived  {_place(path, outcome.mutant.stub)}:{outcome.mutant.line}: {outcome.mutant.change}"
            )
        for outcome in one.untrue:
            console.print(f"reason    not true, {outcome.fate} by {outcome.by}: {outcome.mutant}")
        for reason in one.stale:
            console.print(f"reason    names no mutant: {' '.join(map(str, reason.key))}")
    total, killed = sum(one.total for one in scores), sum(one.killed for one in scores)
    equivalent, by_hand = sum(one.equivalent for one in scores), sum(one.reasoned for one in scores)
    share = 100.0 * killed / max(total - equivalent, 1)
    console.print(
        f"{'ok' if ok else 'NOT OK'}  {killed:,} of {total - equivalent:,} mutants killed ({share:.4g} %); "
        f"{equivalent:,} more are equivalent, {by_hand} of them by a reason written by hand"
    )


def _place(folder: Path, name: str) -> str:
    path = folder / f"{name}.S"
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
