"""``kjump test``: the assembly suite, by a thin call of pytest."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from emu.errors import EXIT_BAD_INPUT, EXIT_FINDINGS, EXIT_INTERRUPTED, EXIT_TOOL, KjumpError
from emu.suite.claim_file import ClaimFile, own_files, read_header, tests_dir
from emu.suite.stubs import stubs_for

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names it nowhere else

_NO_TESTS = 5
_STATUS = {0: 0, 1: EXIT_FINDINGS, 2: EXIT_INTERRUPTED, 3: EXIT_TOOL, 4: EXIT_BAD_INPUT}
"""By pytest's own."""


def add_test_command(subparsers: Subparsers) -> None:
    """Add ``test``; it sets ``action``, which gives the exit status."""
    test = subparsers.add_parser("test", help="the assembly suite: named claims about stubs and machine")
    test.add_argument(
        "names", nargs="*", metavar="NAME|FILE.S", help="topics, parts of claims' names, or claim files (default: all)"
    )
    test.add_argument("-k", dest="keyword", metavar="EXPR", help="as pytest's -k")
    test.add_argument("--junit", metavar="FILE", help="write the results as JUnit XML")
    test.add_argument("--list", action="store_true", help="topics, their modes and claims")
    test.add_argument(
        "--stub", metavar="FILE", action="append", default=[], help="run this .S or .o in place of a built-in stub"
    )
    test.add_argument(
        "--coverage", action="store_true", help="instructions and branches of each stub; status 1 unless all were seen"
    )
    test.add_argument("-x", dest="first", action="store_true", help="stop at the first claim that does not hold")
    test.add_argument("-v", "--verbose", action="store_true", help="a line for each claim")
    test.set_defaults(action=_test)


def _test(args: argparse.Namespace) -> int:
    files, names = _chosen(args.names)
    if args.list:
        return _list(files or list(own_files()), names)
    for stub in args.stub:
        if not Path(stub).is_file():
            raise KjumpError("no such file", where=stub)
    for file in files:
        for mode in file.modes:
            stubs_for(mode, [Path(stub) for stub in args.stub])
            file.claims(mode)  # what is wrong with it is bad input, said before anything runs
    arguments = [*_own_options(), *(str(file.path) for file in files or own_files())]
    arguments += [f"--claim={name}" for name in names]
    arguments += [f"--stub={Path(stub).resolve()}" for stub in args.stub]
    if args.keyword:
        arguments += ["-k", args.keyword]
    if args.junit:
        arguments += [f"--junitxml={args.junit}"]
    arguments += ["-v"] if args.verbose else ["-q"]
    arguments += ["-x"] if args.first else []
    arguments += ["--stub-coverage"] if args.coverage else []
    import pytest  # noqa: PLC0415 - other commands do without

    sys.stdout.flush()
    status = int(pytest.main(arguments))
    if status == _NO_TESTS:
        raise KjumpError("no claim is called so", where=" ".join(names) or "-k", hint="kjump test --list")
    return _STATUS[status]


def _own_options() -> list[str]:
    """Pytest without the configuration that happens to lie in this folder."""
    return [
        f"--rootdir={tests_dir().parent.parent}",
        "-c", os.devnull,
        "-p", "emu.suite.plugin",
        "-p", "no:cacheprovider",
        "--no-header", "-rN", "--tb=short",
        "-o", "xfail_strict=true",
    ]  # fmt: skip


def _chosen(words: list[str]) -> tuple[list[ClaimFile], list[str]]:
    """Claim files of one's own, and names; raises KjumpError for a file that is none."""
    files, names = [], []
    for word in words:
        if word.endswith((".S", ".s")) or "/" in word:
            files.append(read_header(Path(word).resolve()))
        else:
            names.append(word)
    return files, names


def _list(files: list[ClaimFile], names: list[str]) -> int:
    for file in files:
        claims: dict[str, list[str]] = {}
        for mode in file.modes:
            for claim in file.claims(mode):
                if not names or any(word == file.name or word in claim.name for word in names):
                    claims.setdefault(claim.sentence, []).append(str(mode))
        if claims:
            print(f"{file.name}: {file.topic}")
            for sentence, modes in claims.items():
                print(f"  {sentence}  [{' '.join(modes)}]")
    return 0
