"""``kjump info``: what a file is, by its first bytes, and what is in it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

from emu.filekind import FileKind, kind_of
from emu.hibernate.show import IMAGE_KIND
from emu.kernelfile.info import KERNEL_KIND

KINDS: Final[tuple[FileKind, ...]] = (IMAGE_KIND, KERNEL_KIND)
"""Each room's kind of file; the first that matches tells."""


def add_info_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``info``; it sets ``action``, which gives the exit status."""
    info = commands.add_parser("info", help="what a file is: a saved image, a kernel")
    info.add_argument("file", type=Path, metavar="FILE")
    info.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    info.set_defaults(action=_info)


def _info(args: argparse.Namespace) -> int:
    kind = kind_of(args.file, KINDS)
    data, lines = kind.describe(args.file)
    print(json.dumps({"kind": kind.name, **data}) if args.json else "\n".join([f"{args.file}: {kind.name}", *lines]))
    return 0
