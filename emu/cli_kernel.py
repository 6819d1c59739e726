"""``kjump kernel``: what is in a kernel's file, and its own relocate_kernel run as the stub of a journey."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from emu.errors import EXIT_FINDINGS, KjumpError
from emu.journey.journey import Journey
from emu.journey.linux_call import file_sha256
from emu.journey.list_runs import ListBench, ListRun
from emu.journey.list_shapes import SHAPES
from emu.journey.result import RunResult
from emu.journey.scene import Scene, find_journey, make_scene, parse_arch
from emu.kernelfile import KernelStub, StubForm, find_stub, kernel_info, kernel_text
from emu.kexec.arch import Arch
from emu.report.lists import show_lists
from emu.report.progress import progress
from emu.report.screen import show_run, show_verdict

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names it nowhere else

CALLEES = ("call", "ret", "plain")


def add_kernel_commands(subparsers: Subparsers) -> None:
    """Add ``kernel info`` and ``kernel run``; each sets ``action``, which gives the exit status."""
    kernel = subparsers.add_parser("kernel", help="Linux's own relocate_kernel, from a vmlinuz: show it, run it")
    commands = kernel.add_subparsers(dest="kernel_command", required=True, metavar="COMMAND", parser_class=type(kernel))
    info = commands.add_parser("info", help="version, setup header, compression, and where relocate_kernel is")
    info.add_argument("file", type=Path, metavar="VMLINUZ", help="a bzImage, a vmlinux, or a relocate_kernel_64.o")
    info.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    info.set_defaults(action=_info)

    run = commands.add_parser("run", help="run it, unmodified, as the stub of the journey jump")
    run.add_argument("file", type=Path, metavar="VMLINUZ", help="a bzImage, a vmlinux, or a relocate_kernel_64.o")
    run.add_argument("--arch", metavar="A", help="one that has the stub's word size (default: x86_64, i386)")
    run.add_argument(
        "--callee", choices=CALLEES, default="call",
        help="how B comes back: calling A's return address, by a plain ret, not at all (default: call)",
    )  # fmt: skip
    run.add_argument("--own-gdt", action="store_true", help="B comes back with its own GDT instead of A's")
    run.add_argument("--pae-fix", action="store_true", help="B sets CR4.PAE before it comes back (i386-pae)")
    run.add_argument(
        "--lists", action="store_true",
        help="entry lists of every shape, there and back by the shortest peer, instead of the journey",
    )  # fmt: skip
    run.add_argument("--ram", metavar="SIZE", help="RAM of the machine (default: 64M)")
    run.add_argument("--target", metavar="AREA", help="target area as kexec_jump= takes it (default: 16M@16M)")
    run.add_argument("--seed", type=int, default=1, help="seed of A's patterns (default: 1)")
    run.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    run.add_argument("-v", "--verbose", action="store_true", help="checks, consoles, volatile ranges")
    run.set_defaults(action=_run)


def _info(args: argparse.Namespace) -> int:
    told = kernel_info(args.file)
    print(json.dumps(told) if args.json else kernel_text(told))
    return 0


def kernel_scene(
    path: Path,
    stub: KernelStub,
    *,
    arch: str | None = None,
    callee: str = "call",
    own_gdt: bool = False,
    pae_back: bool = False,
    ram: str | None = None,
    target: str | None = None,
    seed: int = 1,
) -> Scene:
    """The journey ``jump`` with the kernel in ``path`` as its stub, hand-off on the stack.

    Raises JourneyError, KjumpError for an architecture of another word size.
    """
    chosen = parse_arch(arch) if arch else (Arch.I386 if stub.form is StubForm.I386 else Arch.X86_64)
    if chosen.bits != stub.bits:
        fitting = ", ".join(one for one in Arch if one.bits == stub.bits)
        raise KjumpError(f"{stub.name} has a {stub.bits}-bit stub", where="--arch", hint=f"one of {fitting}")
    scene = make_scene(
        find_journey("jump"), arch=chosen, handoff="stack", ram=ram, target=target, seed=seed, stubs=(path,)
    )
    return replace(
        scene,
        b_words="ret" if callee == "ret" else "",
        preserve=callee != "plain",
        own_gdt=own_gdt,
        pae_back=pae_back,
    )


def run_document(journey: Journey, result: RunResult, stub: KernelStub) -> dict[str, object]:
    """The document of ``kernel run --json``: that of ``run``, and which bytes were executed."""
    document: dict[str, object] = result.to_json()
    moved = sum(transition.pages_moved for transition in result.transitions)
    document["kernel"] = _which_code(journey, stub) | {"pages_moved": moved}
    return document


def _which_code(journey: Journey, stub: KernelStub) -> dict[str, object]:
    """The file's code, and the code that lies in the control page now."""
    linux = journey.loaded.linux if journey.loaded is not None else None
    executed = linux.executed_sha256(journey.machine.ram) if linux is not None else None
    return {
        "file": stub.name,
        "version": stub.version,
        "form": str(stub.form),
        "bytes": len(stub.code),
        "file_sha256": file_sha256(stub),
        "executed_sha256": executed,
        "unmodified": executed is not None and executed == file_sha256(stub),
    }


def lists_document(bench: ListBench, runs: Sequence[ListRun], stub: KernelStub) -> dict[str, object]:
    """The document of ``kernel run --lists --json``."""
    return {
        "ok": all(run.ok for run in runs),
        "lists": [run.to_json() for run in runs],
        "kernel": _which_code(bench.journey, stub) | {"pages_moved": sum(2 * run.pages for run in runs if run.ok)},
    }


def _run_lists(args: argparse.Namespace, scene: Scene, stub: KernelStub) -> int:
    if args.own_gdt or args.callee == "plain":
        raise KjumpError("the peer of --lists comes back, with A's GDT", where="--lists", hint="--callee call or ret")
    console = Console(highlight=False)
    with progress(f"{scene.arch}: booting A"):
        bench = ListBench(scene)
    runs = []
    for shape in SHAPES:
        with progress(f"{scene.arch}: list {shape}"):
            runs.append(bench.run(shape))
    if args.json:
        print(json.dumps(lists_document(bench, runs, stub)))
    else:
        _show_stub(console, stub)
        show_lists(console, scene, runs)
    return 0 if all(run.ok for run in runs) else EXIT_FINDINGS


def _show_stub(console: Console, stub: KernelStub) -> None:
    console.print(f"Linux {stub.version}: {stub.form}, {len(stub.code)} bytes, sha256 {file_sha256(stub)}")


def _run(args: argparse.Namespace) -> int:
    stub = find_stub(args.file)
    scene = kernel_scene(
        args.file,
        stub,
        arch=args.arch,
        callee=args.callee,
        own_gdt=args.own_gdt,
        pae_back=args.pae_fix,
        ram=args.ram,
        target=args.target,
        seed=args.seed,
    )
    if args.lists:
        return _run_lists(args, scene, stub)
    journey = Journey(scene)
    result = journey.run()
    if args.json:
        print(json.dumps(run_document(journey, result, stub)))
    else:
        console = Console(highlight=False)
        _show_stub(console, stub)
        show_run(console, result, verbose=args.verbose)
        show_verdict(console, [result])
    return 0 if result.ok else EXIT_FINDINGS
