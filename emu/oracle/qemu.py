"""QEMU runs an oracle's image: one boot, all of its RAM in a file, an exit code from a guest's port write.

``-machine microvm`` starts in some 30 ms and has no firmware that outlives the boot loader.  isa-debug-exit ends QEMU
with status ``2 * value + 1`` (QEMU hw/misc/debugexit.c).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from emu.errors import KjumpError
from emu.oracle.image import EXIT_PORT, OracleImage
from emu.oracle.outcome import TIME_LIMIT, Ended, Run
from emu.units import MIB

COMMAND = "qemu-system-x86_64"
_DONE_STATUS = 1


def require_qemu() -> str:
    """The path of QEMU; raises KjumpError where there is none."""
    path = shutil.which(COMMAND)
    if path is None:
        raise KjumpError(f"{COMMAND} is not on PATH", where="QEMU", hint="Debian, Ubuntu: apt install qemu-system-x86")
    return path


def run_qemu(image: OracleImage, *, limit: float = TIME_LIMIT) -> Run:
    """Run ``image`` on QEMU's TCG; raises KjumpError where QEMU is missing or cannot start."""
    path = require_qemu()
    with tempfile.TemporaryDirectory(prefix="kjump-oracle-") as name:
        folder = Path(name)
        (folder / "image.elf").write_bytes(image.elf())
        (folder / "serial").touch()
        began = time.perf_counter()
        status, said = _run([path, *_arguments(image, folder)], limit)
        seconds = time.perf_counter() - began
        ram = folder / "ram"
        if not ram.exists() or ram.stat().st_size != image.size:
            raise KjumpError(f"did not start: {said.strip() or f'status {status}'}", where=COMMAND)
        memory = ram.read_bytes()
        console = (folder / "serial").read_text(encoding="latin-1").replace("\r\n", "\n")
    ended, why = _ended(status, said, limit)
    return Run("QEMU", ended, lambda address, size: memory[address : address + size], console, seconds, why)


def _run(command: list[str], limit: float) -> tuple[int | None, str]:
    """Exit status (None: it had to be ended) and what was said on stderr."""
    with subprocess.Popen(  # noqa: S603 - QEMU, found by PATH, with arguments of our own
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, said = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return None, ""
        else:
            return process.returncode, said
        finally:
            process.kill()


def _arguments(image: OracleImage, folder: Path) -> list[str]:
    return [
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "microvm,rtc=off,memory-backend=ram,accel=tcg", "-cpu", "max,apic=off",
        "-m", f"{image.size // MIB}M",
        "-object", f"memory-backend-file,id=ram,size={image.size},mem-path={folder / 'ram'},share=on",
        "-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4",
        "-serial", f"file:{folder / 'serial'}",
        "-kernel", str(folder / "image.elf"),
    ]  # fmt: skip


def _ended(status: int | None, said: str, limit: float) -> tuple[Ended, str]:
    if status is None:
        return Ended.HUNG, f"no end after {limit:g} s"
    if status == _DONE_STATUS:
        return Ended.DONE, ""
    if status == 0:
        return Ended.RESET, "the machine was reset"
    return Ended.FAILED, said.strip() or f"status {status}"
