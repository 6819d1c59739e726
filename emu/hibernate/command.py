"""``kjump image``: what is in a saved image, whether it is whole, and what harm it withstands."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from emu.errors import EXIT_BAD_INPUT, EXIT_FINDINGS, ImageFileError, KjumpError
from emu.hibernate.faults import Tally, campaigns
from emu.hibernate.marks import Mark
from emu.hibernate.reader import open_image
from emu.hibernate.show import image_info, image_lines

_FLIPS: Final = 10_000
_HEAD: Final = f"{'fault':<48}{'cases':>8}{'refused':>9}{'whole':>7}{'wrong':>7}"


def add_image_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``image info``, ``image verify`` and ``image faults``; each sets ``action``, which gives the exit status."""
    image = commands.add_parser("image", help="saved images: what is in one, is it whole")
    actions = image.add_subparsers(dest="image_command", required=True, metavar="COMMAND", parser_class=type(image))
    info = actions.add_parser("info", help="the record, the mark, the ranges of memory; memory itself is not read")
    info.add_argument("file", type=Path, metavar="FILE")
    info.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    info.set_defaults(action=_info)
    verify = actions.add_parser("verify", help="read all of it and compare every checksum")
    verify.add_argument("file", type=Path, metavar="FILE")
    verify.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    verify.set_defaults(action=_verify)
    faults = actions.add_parser("faults", help="harm images of noise in every way that is known, and count")
    faults.add_argument("--flips", type=int, default=_FLIPS, metavar="N", help=f"flipped bits (default: {_FLIPS:,})")
    faults.add_argument("--dir", type=Path, metavar="DIR", help="on this file system (default: a temporary folder)")
    faults.add_argument("--seed", type=int, default=1, help="seed of noise and places (default: 1)")
    faults.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    faults.set_defaults(action=_faults)


def _info(args: argparse.Namespace) -> int:
    image = open_image(args.file, any_mark=True)
    print(json.dumps(image_info(image)) if args.json else "\n".join(image_lines(image)))
    return 0


class _Bar:
    """Progress on a terminal, nothing where stderr is not one."""

    def __init__(self, what: str) -> None:
        self._progress = (
            Progress(TextColumn(what), BarColumn(), console=Console(stderr=True), transient=True)
            if sys.stderr.isatty()
            else None
        )

    def shown(self) -> AbstractContextManager[object]:
        """The time in which it is on the screen."""
        return nullcontext() if self._progress is None else self._progress

    def told(self) -> Callable[[int, int], None] | None:
        """A function that is given what is done and all."""
        if self._progress is None:
            return None
        progress = self._progress
        task = progress.add_task("", total=None)
        return lambda done, total: progress.update(task, completed=done, total=total)


def _verify(args: argparse.Namespace) -> int:
    """0 when it is whole and fresh, 1 when it is whole and no longer fresh, 2 when it is not whole."""
    try:
        image = open_image(args.file, any_mark=True)
        bar = _Bar("verifying")
        with bar.shown():
            image.verify(bar.told())
    except ImageFileError as error:
        if not args.json:
            raise
        print(json.dumps({"file": str(args.file), "whole": False, "block": error.block, "error": str(error)}))
        return EXIT_BAD_INPUT
    fresh = image.mark is Mark.FRESH
    if args.json:
        whole = {"whole": True, "block": None, "mark": str(image.mark), "blocks": image.commit.blocks}
        print(json.dumps({"file": str(args.file), **whole, "memory_size": image.memory_size}))
    else:
        print(f"{'ok' if fresh else 'not to be resumed from'}  {image.commit.blocks:,} blocks, ", end="")
        print(f"{image.memory_size:,} bytes of memory, every checksum holds; mark: {image.mark}")
    return 0 if fresh else EXIT_FINDINGS


def _faults(args: argparse.Namespace) -> int:
    if args.flips < 0:
        raise KjumpError(f"{args.flips} bits cannot be flipped", where="--flips", hint="a number, as 10000")
    tallies: list[Tally] = []
    if not args.json:
        print(_HEAD)
    with tempfile.TemporaryDirectory(prefix="kjump-", dir=_folder(args.dir)) as folder:
        for tally in campaigns(Path(folder), args.flips, args.seed):
            tallies.append(tally)
            if not args.json:
                _show(tally)
    wrong = sum(len(tally.wrong) for tally in tallies)
    cases = sum(tally.cases for tally in tallies)
    if args.json:
        print(json.dumps({"ok": not wrong, "cases": cases, "campaigns": [tally.to_json() for tally in tallies]}))
    else:
        print(f"{'ok' if not wrong else 'WRONG'}  {cases:,} faults, {wrong} that were not refused and not harmless")
    return EXIT_FINDINGS if wrong else 0


def _folder(chosen: Path | None) -> Path | None:
    if chosen is not None and not chosen.is_dir():
        raise KjumpError("is no folder", where=str(chosen), hint="--dir names one that is there")
    return chosen


def _show(tally: Tally) -> None:
    numbers = f"{tally.cases:>8,}{tally.refused:>9,}{tally.whole:>7,}{len(tally.wrong):>7,}"
    print(f"{tally.name:<48}{numbers}", flush=True)
    for line in tally.wrong[:3]:
        print(f"    {line}")
