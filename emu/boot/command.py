"""``kjump boot``: an image in the machine, its console on standard input and output."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from emu.boot.console import Terminal, open_input
from emu.boot.flat import rom_spaces
from emu.boot.formats import Format, Wishes, make_plan
from emu.boot.jumps import Jumps
from emu.boot.load import load
from emu.boot.run import Boot, Limits, Summary
from emu.boot.snapshot import restore, save
from emu.errors import EXIT_FINDINGS, JourneyError, KjumpError
from emu.kexec.e820 import MemoryMap, default_map
from emu.kexec.memparse import memparse
from emu.machine.devices.post import POST_PORT
from emu.machine.gated import GatedMachine
from emu.machine.ram import ROM_RANGES
from emu.report.screen import show_finding

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names it nowhere else

DEFAULT_RAM = "256M"


def _number(text: str) -> int:
    return int(text, 0)


Debugger = Callable[[argparse.Namespace, Boot], Callable[[], int]]
"""Called before a boot that is to be recorded; what it gives is called behind it, and gives the exit status."""


def add_boot_command(subparsers: Subparsers, debugger: Debugger) -> None:
    """Add ``boot``; its ``action`` gives the exit status."""
    parser = subparsers.add_parser("boot", help="boot a kernel, a Multiboot program, a flat image or a ROM")
    parser.add_argument(
        "image", type=Path, nargs="?", metavar="IMAGE", help="what to boot; its format is seen from its header"
    )
    image = parser.add_argument_group("image")
    image.add_argument("--format", choices=list(Format), help="take IMAGE for this (flat and rom have no header)")
    image.add_argument("--initrd", type=Path, metavar="F", help="initramfs of a bzImage, module of a Multiboot kernel")
    image.add_argument("--append", default="", metavar="S", help="the command line")
    image.add_argument(
        "--bits", type=int, choices=(16, 32, 64), help="the entry of a bzImage; the code of a flat image"
    )
    image.add_argument("--load", type=_number, metavar="ADDRESS", help="where a flat image goes (default: 0x7c00)")
    image.add_argument("--entry", type=_number, metavar="ADDRESS", help="where it begins (default: where it is loaded)")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--ram", metavar="SIZE", help=f"RAM of the machine (default: {DEFAULT_RAM})")
    machine.add_argument("--e820", type=Path, metavar="FILE.toml", help="the memory map: an array of [[range]] tables")
    machine.add_argument("--post-port", type=_number, metavar="PORT", help="show what is written there on stderr")
    machine.add_argument("--from", dest="start", type=Path, metavar="FILE", help="go on from a saved machine; no IMAGE")
    machine.add_argument("--no-check-jumps", action="store_true", help="let a kexec jump pass unchecked")
    end = parser.add_argument_group("end")
    end.add_argument("--until", metavar="REGEX", help="end when the console matches")
    end.add_argument("--time", type=float, metavar="SECONDS", help="end after so many virtual seconds")
    end.add_argument("--instructions", type=int, metavar="N", help="end after so many instructions")
    end.add_argument("--save", type=Path, metavar="FILE", help="save the machine as it stands at the end")
    debug = parser.add_argument_group("debugger")
    debug.add_argument("--debug", action="store_true", help="record the boot, and step through it when it has ended")
    debug.add_argument("--symbols", type=Path, metavar="FILE", help="vmlinux, vmlinuz or System.map (default: IMAGE)")
    debug.add_argument("--at", metavar="N|TRANSITION", help="begin at this position or jump")
    debug.add_argument("-x", dest="script", action="append", default=[], metavar="SCRIPT", help="commands from a file")
    debug.add_argument("-ex", dest="command_line", action="append", default=[], metavar="CMD", help="run a command")
    debug.add_argument("--batch", action="store_true", help="leave after the scripts and commands")
    debug.add_argument("--gdb", metavar="[HOST:]PORT", help="serve gdb's remote protocol on loopback")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    parser.set_defaults(action=partial(_boot, debugger=debugger))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KjumpError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _memory(args: argparse.Namespace) -> MemoryMap:
    if args.e820 is not None:
        if args.ram is not None:
            raise KjumpError("the map says how much memory there is", where="--ram", hint="leave it out, or --e820")
        try:
            document = tomllib.loads(_read(args.e820).decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise KjumpError(f"is no TOML: {error}", where=str(args.e820)) from error
        tables = document.get("range")
        if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            raise JourneyError("has no [[range]] tables", where=str(args.e820), hint="start, end or size, type")
        return MemoryMap.from_tables(tables)
    text = args.ram or DEFAULT_RAM
    size, end = memparse(text)
    if end != len(text) or not size:
        raise KjumpError(f"{text!r} is no size", where="--ram", hint="as 256M")
    return default_map(size)


def _limits(args: argparse.Namespace) -> Limits:
    try:
        until = re.compile(args.until.encode()) if args.until is not None else None
    except re.error as error:
        raise KjumpError(f"{args.until!r} is no regular expression: {error}", where="--until") from error
    return Limits(args.time, args.instructions, until)


def _made(args: argparse.Namespace) -> tuple[GatedMachine, str]:
    """The machine, and what is in it in a line."""
    if args.start is not None:
        given = (args.image, args.format, args.initrd, args.bits, args.load, args.entry, args.ram, args.e820)
        if any(one is not None for one in given) or args.append:
            raise KjumpError("a saved machine has its image and memory already", where="--from")
        return restore(args.start), f"goes on from {args.start}"
    if args.image is None:
        raise KjumpError("nothing to boot", where="kjump boot", hint="an IMAGE, or --from FILE")
    memory_map, data = _memory(args), _read(args.image)
    wishes = Wishes(Format(args.format) if args.format else None, args.load, args.entry, args.bits, args.append)
    initrd = _read(args.initrd) if args.initrd is not None else b""
    plan = make_plan(data, str(args.image), memory_map, wishes, initrd)
    roms = rom_spaces(len(data)) if wishes.format is Format.ROM else ROM_RANGES
    machine = GatedMachine(memory_map, roms=roms, post_port=POST_PORT if args.post_port is None else args.post_port)
    load(machine, plan)
    return machine, plan.what


def _boot(args: argparse.Namespace, debugger: Debugger) -> int:
    _check_debugger(args)
    limits = _limits(args)
    machine, what = _made(args)
    post = None if args.post_port is None else _show_post
    jumps = None if args.no_check_jumps else Jumps(machine)
    boot = Boot(machine, None if args.json else sys.stdout.buffer, limits, post, jumps)
    if not args.json:
        print(f"kjump: {what}", file=sys.stderr)
    try:
        debug = debugger(args, boot) if args.debug else None
        summary = _run(args, boot)
        _show(summary, as_json=args.json)
        if jumps is not None and not args.json:
            _show_jumps(jumps, args)
        if debug is not None:
            return debug()
    finally:
        machine.close()
    return 0 if summary.ok else EXIT_FINDINGS


def _check_debugger(args: argparse.Namespace) -> None:
    if args.debug and args.json:
        raise KjumpError("a prompt is no JSON document", where="--debug", hint="leave out --json")
    given = {"--symbols": args.symbols, "--at": args.at, "-x": args.script, "-ex": args.command_line}
    given |= {"--batch": args.batch, "--gdb": args.gdb}
    for name, value in given.items():
        if value and not args.debug:
            raise KjumpError("means something to the debugger only", where=name, hint="add --debug")


def _run(args: argparse.Namespace, boot: Boot) -> Summary:
    given = open_input(boot.machine.board.serial)
    try:
        summary = boot.run(given)
        if args.save is not None:
            save(boot.machine, args.save)
    finally:
        boot.output.flush()
        if isinstance(given, Terminal):
            given.close()
    return summary


def _show_post(code: int) -> None:
    print(f"kjump: POST {code:02x}", file=sys.stderr)


def _show_jumps(jumps: Jumps, args: argparse.Namespace) -> None:
    console = Console(stderr=True, highlight=False)
    for line in jumps.lines():
        print(f"kjump: {line}", file=sys.stderr)
    for number, finding in enumerate(jumps.findings, 1):
        console.print()
        at = f" --at {finding.position.n}" if finding.position is not None else ""
        show_finding(console, number, finding, f"{_again(args)} --debug{at}")


def _again(args: argparse.Namespace) -> str:
    """The command that boots the same again."""
    words = ["kjump", "boot", *([str(args.image)] if args.image is not None else [])]
    for option in ("format", "initrd", "append", "bits", "load", "entry", "ram", "e820", "time", "instructions"):
        value = getattr(args, option)
        if value is not None and value != "":
            words += [f"--{option}", str(value)]
    if args.start is not None:
        words += ["--from", str(args.start)]
    return shlex.join(words)


def _show(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary.to_json()))
        return
    seconds = summary.to_json()["virtual_seconds"]
    print(
        f"\nkjump: {summary.told}\nkjump: {summary.instructions:,} instructions, {seconds:,.3f} virtual seconds",
        file=sys.stderr,
    )
