"""A boot in the debugger: where the two rooms meet."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from emu.assembler import Image
from emu.boot.run import Boot
from emu.errors import ImageError
from emu.kernelfile.symbol_table import kernel_symbols
from emu.machine.machine import Machine

EVERY = 2_000_000
"""Ticks between checkpoints at first."""
_FIRST_HANDLERS = ("asm_exc_divide_error", "divide_error")


def debug_boot(args: argparse.Namespace, boot: Boot) -> Callable[[], int]:
    """Record ``boot`` from here on; the answer, called when it has ended, opens the debugger on it."""
    from emu.debugger.main import DebugOptions, debug_main  # noqa: PLC0415 - cmd2 costs half a second
    from emu.debugger.recording import BootRecording  # noqa: PLC0415
    from emu.debugger.session import Session  # noqa: PLC0415

    kernel = _symbols(args)
    recording = BootRecording(boot.machine, EVERY)
    boot.host_acted = recording.acted
    options = DebugOptions(args.at or "", args.script, args.command_line, args.batch, args.gdb or "")

    def ended() -> int:
        boot.detach()
        jumps = boot.jumps
        recording.finish(boot.outcome, jumps.marks() if jumps is not None else ())
        if kernel is not None:
            recording.add_symbols(kernel, slide(boot.machine, kernel))
        if jumps is not None:
            recording.findings = jumps.findings
            recording.add_jumps(jumps.images(), jumps.programs())
        return debug_main(Session(recording), options)

    return ended


def _symbols(args: argparse.Namespace) -> Image | None:
    """The kernel's symbols; None where nobody named a file and the image has none."""
    path: Path | None = args.symbols or args.image
    if path is None:
        return None
    try:
        return kernel_symbols(path)
    except ImageError:
        if args.symbols is not None:
            raise
        return None


def slide(machine: Machine, kernel: Image) -> int:
    """How far above its link address the kernel runs (KASLR), by the handler of #DE; 0 where that cannot be told."""
    table = machine.cpu.idtr
    size = 16 if kernel.bits == 64 else 8
    gate = machine.cpu.peek(table.base, size) if table.limit else None
    name = next((one for one in _FIRST_HANDLERS if one in kernel.symbols), "")
    if gate is None or not name:
        return 0
    handler = int.from_bytes(gate[:2] + gate[6:8] + (gate[8:12] if size == 16 else b""), "little")
    distance = handler - kernel.symbols[name]
    return distance if distance % (1 << 20) == 0 else 0
