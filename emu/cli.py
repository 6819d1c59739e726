"""The command ``kjump``.  Thin: it reads options, calls the rooms below, and turns results into exit statuses."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

from rich.console import Console

from emu.assembler import assemble, load_program
from emu.assembler.listing import asm_report
from emu.bench.measure import BENCHES, run_benches
from emu.boot.command import add_boot_command
from emu.catalogue.command import add_catalogue_options
from emu.cli_boot import debug_boot
from emu.cli_fuzz import debug_case
from emu.cli_info import add_info_command
from emu.cli_kernel import add_kernel_commands
from emu.errors import EXIT_BAD_INPUT, EXIT_FINDINGS, EXIT_INTERRUPTED, EXIT_TOOL, KjumpError
from emu.fuzz.command import add_fuzz_commands
from emu.hibernate.command import add_image_command
from emu.journey.journey import Journey
from emu.journey.programs import hostile_names
from emu.journey.result import RunResult
from emu.journey.scene import (
    HANDOFFS,
    TRANSFERS,
    TRANSITIONS,
    Scene,
    builtin_journeys,
    find_journey,
    make_scene,
    parse_arch,
)
from emu.kexec.arch import Arch
from emu.machine.engine import Engine
from emu.mutation.command import add_mutate_command
from emu.oracle.command import add_oracle_command
from emu.report.album import Album
from emu.report.compare import add_compare_command
from emu.report.progress import progress
from emu.report.screen import show_run, show_verdict
from emu.report.trace import write_trace
from emu.resources import asm_dir
from emu.suite.command import add_test_command


class _Parser(argparse.ArgumentParser):
    """One line on stderr for a usage error, and exit status 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise KjumpError(message, where=self.prog, hint=f"{self.prog} --help")


def _scene_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scene")
    group.add_argument("journey", nargs="?", default="jump", help="a built-in journey or a .toml file (default: jump)")
    group.add_argument("--arch", default="x86_64", help=f"{', '.join(Arch)} or all (default: x86_64)")
    group.add_argument("--transfer", metavar="T", help=f"how memory is moved: {', '.join(TRANSFERS)}")
    group.add_argument("--handoff", metavar="H", help=f"how B learns the way back: {', '.join(HANDOFFS)}")
    group.add_argument(
        "--stub", metavar="FILE", action="append", default=[], help="run this .S or .o in place of a built-in stub"
    )
    group.add_argument(
        "--hostile", metavar="NAME", default="", help="a B that leaves the processor in a mess (see --list)"
    )
    group.add_argument("--ram", metavar="SIZE", help="RAM of the machine (default: 64M)")
    group.add_argument("--target", metavar="AREA", help="target area as kexec_jump= takes it (default: 16M@16M)")
    group.add_argument("--seed", type=int, default=1, help="seed of A's patterns (default: 1)")
    group.add_argument("--plain-strings", action="store_true", help="let the engine do every string iteration itself")
    group.add_argument("--fast", action="store_true", help="no owner policy, no hazards")


def _makers(args: argparse.Namespace) -> list[tuple[str, Callable[..., Scene]]]:
    """For each architecture its name, and what makes a scene of a transfer and a hand-off."""
    arches = list(Arch) if args.arch == "all" else [parse_arch(args.arch)]
    same = partial(
        make_scene,
        find_journey(args.journey),
        ram=args.ram,
        target=args.target,
        seed=args.seed,
        stubs=tuple(Path(name) for name in args.stub),
        hostile=args.hostile,
        strict=not args.fast,
        plain_strings=args.plain_strings,
        checks=not getattr(args, "no_checks", False),
        image=Path(args.image) if getattr(args, "image", None) else None,
    )
    return [(str(arch), partial(same, arch=arch)) for arch in arches]


def _scenes(args: argparse.Namespace) -> list[Scene]:
    return [make(transfer=args.transfer, handoff=args.handoff) for _, make in _makers(args)]


@contextmanager
def _written(name: str) -> Iterator[TextIO]:
    try:
        with Path(name).open("w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise KjumpError(f"cannot be written: {error.strerror}", where=name) from error


def _run_one(scene: Scene, until: str | None, *, report: str | None = None) -> tuple[RunResult, Journey]:
    journey = Journey(scene)
    album = Album(journey) if report is not None else None
    with progress(f"{scene.arch}: booting A") as status:
        if status is not None:
            # Not by an observer: one may interfere, so a run with one is not run again for evidence.
            journey.before_run = lambda: status.update(f"{scene.arch}: {journey.transition.name}")
        result = journey.run(until)
    if report is not None and album is not None:
        from emu.report.page import report_page  # noqa: PLC0415 - only here is a template engine wanted

        with _written(report) as file:
            file.write(report_page(result, album))
    return result, journey


def _list(console: Console) -> int:
    for name, journey in builtin_journeys().items():
        console.print(f"{name:<12}{journey.summary}", highlight=False)
    console.print(f"\narchitectures: {', '.join(Arch)}", highlight=False)
    console.print(f"transitions:   {', '.join(TRANSITIONS)}", highlight=False)
    console.print(f"hostile B's:   {', '.join(name for name in hostile_names() if name != 'none')}", highlight=False)
    return 0


def _run(args: argparse.Namespace) -> int:
    console = Console(highlight=False)
    if args.list:
        return _list(console)
    for option in ("trace", "report", "image"):
        if getattr(args, option) is not None and args.arch == "all":
            raise KjumpError(f"a {option} is of one architecture", where=f"--{option}", hint="name it with --arch")
    if args.image is not None and not Path(args.image).absolute().parent.is_dir():
        raise KjumpError("its folder does not exist", where=args.image, hint="name a file in a folder that does")
    results: list[RunResult] = []
    for scene in _scenes(args):
        result, journey = _run_one(scene, args.until, report=args.report)
        results.append(result)
        if args.trace is not None:
            with _written(args.trace) as file:
                write_trace(file, result, journey.machine.events)
        if not args.json:
            show_run(console, result, verbose=args.verbose)
    if args.json:
        documents = [result.to_json() for result in results]
        print(json.dumps(documents[0] if args.arch != "all" else {"ok": all(r.ok for r in results), "runs": documents}))
    else:
        show_verdict(console, results)
    if args.debug:
        return _debug_findings(results)
    return 0 if all(result.ok for result in results) else EXIT_FINDINGS


def _debug_findings(results: Sequence[RunResult]) -> int:
    """Open the debugger at the first finding of the first run that has one."""
    from emu.debugger.main import DebugOptions, debug_main  # noqa: PLC0415 - cmd2 costs half a second

    bad = next((result for result in results if not result.ok), None)
    if bad is None:
        return 0
    debug_main(bad.scene, DebugOptions(at_finding=True))
    return EXIT_FINDINGS


def _debug(args: argparse.Namespace) -> int:
    from emu.debugger.main import DebugOptions, debug_main, open_session  # noqa: PLC0415 - cmd2 costs half a second

    options = DebugOptions(
        at=args.at or "",
        scripts=args.script,
        commands=args.command_line,
        batch=args.batch,
        gdb=args.gdb or "",
    )
    saved = Path(args.journey)
    if saved.is_file() and saved.suffix != ".toml":
        return debug_main(saved, options)
    scenes = _scenes(args)
    if len(scenes) > 1:
        raise KjumpError("a session is of one architecture", where="--arch", hint="name it")
    with progress(f"{scenes[0].arch}: recording"):
        session = open_session(scenes[0])
    return debug_main(session, options)


def _asm(args: argparse.Namespace) -> int:
    path = Path(args.file)
    if not path.is_file():
        raise KjumpError("no such file", where=args.file)
    defines = {}
    for word in args.define:
        name, _, value = word.partition("=")
        try:
            defines[name] = int(value or "1", 0)
        except ValueError:
            raise KjumpError(f"{word!r} is not NAME=NUMBER", where="-D") from None
    include = [asm_dir() / "include"]
    if path.suffix in (".S", ".s", ".asm", ".inc"):
        image = assemble(path, org=args.org, bits=args.bits, defines=defines, include=include)
    else:
        image = load_program(path, org=args.org)
    print(asm_report(image, listing=args.listing, symbols=args.symbols))
    return 0


def _bench(args: argparse.Namespace) -> int:
    for line in run_benches(args.names):
        print(line, flush=True)
    return 0


def _address(text: str) -> int:
    return int(text, 0)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(prog="kjump", description="A bench for the code of kexec jumps.")
    parser_class: type[argparse.ArgumentParser] = _Parser
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=parser_class)

    run = commands.add_parser("run", help="run a journey and check everything about it")
    _scene_options(run)
    run.add_argument("--until", metavar="TRANSITION", help=f"stop when this one is checked: {', '.join(TRANSITIONS)}")
    run.add_argument("--image", metavar="FILE", help="save A's image there (default: a file that goes away)")
    run.add_argument("--list", action="store_true", help="journeys, architectures, transitions, hostile B's")
    run.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    run.add_argument("--trace", metavar="FILE", help="write every event, one JSON object a line")
    run.add_argument("--report", metavar="FILE", help="write the journey as a page of HTML that stands alone")
    run.add_argument("--debug", action="store_true", help="open the debugger at the first finding")
    run.add_argument("--no-checks", action="store_true", help="leave all checking to the guests")
    run.add_argument("-v", "--verbose", action="store_true", help="checks, consoles, volatile ranges")
    run.set_defaults(action=_run)

    debug = commands.add_parser("debug", help="step through a jump, forwards and backwards")
    _scene_options(debug)
    debug.add_argument("--at", metavar="N|TRANSITION", help="begin at this position or transition")
    debug.add_argument("-x", dest="script", action="append", default=[], metavar="SCRIPT", help="commands from a file")
    debug.add_argument("-ex", dest="command_line", action="append", default=[], metavar="CMD", help="run a command")
    debug.add_argument("--batch", action="store_true", help="leave after the scripts and commands")
    debug.add_argument("--gdb", metavar="[HOST:]PORT", help="serve gdb's remote protocol on loopback")
    debug.set_defaults(action=_debug)

    asm = commands.add_parser("asm", help="assemble a .S, or read a .o, and show what came out")
    asm.add_argument("file")
    asm.add_argument("--bits", type=int, choices=(16, 32, 64), default=64, help="code size at the start (default: 64)")
    asm.add_argument("--org", type=_address, default=0, metavar="ADDRESS", help="link address (default: 0)")
    asm.add_argument("-D", dest="define", action="append", default=[], metavar="NAME=N", help="a symbol set beforehand")
    asm.add_argument("--listing", action="store_true", help="addresses, bytes and source lines")
    asm.add_argument("--symbols", action="store_true", help="the symbol table")
    asm.set_defaults(action=_asm)

    add_info_command(commands)
    add_image_command(commands)
    add_kernel_commands(commands)
    add_boot_command(commands, debug_boot)
    add_oracle_command(commands, _scene_options, _scenes)
    add_compare_command(commands, _scene_options, _makers)
    add_fuzz_commands(commands, _scene_options, _scenes, debug_case)

    add_test_command(commands)
    add_catalogue_options(commands)
    add_mutate_command(commands)

    bench = commands.add_parser("bench", help="speed, as ratios measured in this run")
    bench.add_argument("names", nargs="*", help=f"of {', '.join(BENCHES)} (default: all)")
    bench.set_defaults(action=_bench)
    return top


def _on_interrupt(_signal: int, _frame: object) -> None:
    if not Engine.interrupt():
        raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the answer is the exit status."""
    signal.signal(signal.SIGINT, _on_interrupt)
    try:
        args = parser().parse_args(argv)
        status: int = args.action(args)
        sys.stdout.flush()
    except KjumpError as error:
        print(f"kjump: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("kjump: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        print("kjump: out of memory: a smaller --ram would need less", file=sys.stderr)
        return EXIT_TOOL
    return status


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["EXIT_BAD_INPUT", "main", "parser"]
