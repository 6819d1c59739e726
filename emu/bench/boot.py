"""The boot benchmark: a kernel of the user's to a text on its console, here and on QEMU's translator.

The environment names the image: KJUMP_BOOT_IMAGE, KJUMP_BOOT_INITRD, KJUMP_BOOT_APPEND and KJUMP_BOOT_UNTIL.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from emu.boot.console import Piped
from emu.boot.formats import Wishes, make_plan
from emu.boot.load import load
from emu.boot.run import Boot, Limits
from emu.errors import EngineError, KjumpError
from emu.kexec.e820 import default_map
from emu.machine.gated import GatedMachine
from emu.units import MIB

_RAM = 256 * MIB
_QEMU = "qemu-system-x86_64"
_MOST_SECONDS = 600


def _setting(name: str, default: str = "") -> str:
    return os.environ.get(f"KJUMP_BOOT_{name}", default)


def bench_boot() -> Iterator[str]:
    """Processor time to the text, against QEMU with -accel tcg on the same files."""
    image = _setting("IMAGE")
    if not image:
        yield "boot   not measured: KJUMP_BOOT_IMAGE names no kernel"
        return
    if shutil.which(_QEMU) is None:
        yield f"boot   not measured: no {_QEMU} here"
        return
    until = re.compile(_setting("UNTIL", "/ # ").encode())
    seconds, instructions = _ours(Path(image), until)
    qemu = _qemus(image, until)
    yield (
        f"boot   {Path(image).name}: {seconds:.1f} s here, {qemu:.1f} s on QEMU's translator, of processor time: "
        f"ratio {seconds / qemu:.1f}   ({instructions:,} instructions)"
    )


def _ours(image: Path, until: re.Pattern[bytes]) -> tuple[float, int]:
    memory_map, initrd = default_map(_RAM), _setting("INITRD")
    try:
        data, ramdisk = image.read_bytes(), Path(initrd).read_bytes() if initrd else b""
    except OSError as error:
        raise KjumpError(f"cannot be read: {error.strerror}", where=str(error.filename)) from error
    machine = GatedMachine(memory_map)
    plan = make_plan(data, str(image), memory_map, Wishes(append=_setting("APPEND", "console=ttyS0")), ramdisk)
    load(machine, plan)
    begin = time.process_time()
    summary = Boot(machine, None, Limits(until=until)).run(Piped(machine.board.serial, b""))
    seconds = time.process_time() - begin
    machine.close()
    if summary.end != "matched":
        raise EngineError(f"the boot that was to be measured ended early: {summary.told}")
    return seconds, summary.instructions


def _qemus(image: str, until: re.Pattern[bytes]) -> float:
    words = [_QEMU, "-accel", "tcg", "-kernel", image, "-m", str(_RAM // MIB), "-display", "none", "-serial", "stdio"]
    words += ["-no-reboot", "-append", _setting("APPEND", "console=ttyS0")]
    words += ["-initrd", _setting("INITRD")] if _setting("INITRD") else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seen = bytearray()
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # noqa: S603 - QEMU, found on PATH
    try:
        deadline = time.monotonic() + _MOST_SECONDS
        while process.stdout is not None and until.search(seen) is None:
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece or time.monotonic() > deadline:
                raise EngineError("QEMU did not come as far")
            seen += piece
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
