"""Debian 12's cloud kernel, unmodified, with a busybox initramfs: a shell in the machine (make linux)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from emu.boot.console import Piped
from emu.boot.formats import Wishes, make_plan
from emu.boot.load import load
from emu.boot.run import Boot, Limits, Summary
from emu.kexec.e820 import default_map
from emu.machine.gated import GatedMachine
from tests.linux.conftest import boot, debian_kernel, unpacked
from tests.linux.initramfs import character, cpio, directory, link, program

pytestmark = [
    pytest.mark.linux,
    pytest.mark.skipif(os.environ.get("KJUMP_LINUX") != "1", reason="make linux boots kernels"),
]

INIT = b"""#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
export PATH=/bin
exec /bin/sh
"""
APPEND = "console=ttyS0 mitigations=off nokaslr quiet"
LOOP = "i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done; echo forked $i"


def go_on(saved: Path, typed: str) -> tuple[int, dict[str, Any]]:
    """``kjump boot --from`` in a process of its own."""
    line = [sys.executable, "-m", "emu.cli", "boot", "--json", "--from", str(saved)]
    run = subprocess.run(line, input=typed, capture_output=True, text=True, check=False, timeout=600)
    assert run.stdout, run.stderr
    return run.returncode, json.loads(run.stdout)


@pytest.fixture(scope="module")
def kernel(folder: Path) -> Path:
    return debian_kernel(folder)


@pytest.fixture(scope="module")
def initrd(folder: Path) -> bytes:
    busybox = (unpacked(folder, "busybox-static") / "bin/busybox").read_bytes()
    return cpio(
        [
            *(directory(name) for name in ("bin", "dev", "proc", "sys")),
            character("dev/console", 5, 1),
            program("bin/busybox", busybox),
            link("bin/sh", "busybox"),
            program("init", INIT),
        ]
    )


def test_a_shell_that_forks_and_reboots(kernel: Path, initrd: bytes) -> None:
    typed = f"uname -a\ncat /proc/cpuinfo\n{LOOP}\nreboot -f\n"
    runs = [boot(kernel, initrd, APPEND, typed=typed) for _ in range(2)]
    status, told = runs[0]
    assert (status, told["end"]) == (0, "reset"), told["console"][-500:]
    console = told["console"]
    assert re.search(r"^Linux .* x86_64 GNU/Linux\r$", console, re.MULTILINE)
    assert "model name\t: kjump x86 processor, in order" in console
    assert re.search(r"^bugs\t+: *\r$", console, re.MULTILINE), "a processor that does not speculate has none"
    assert "\nforked 200\r" in console
    assert runs[0] == runs[1], "the same boot twice gives the same console, byte for byte"


def whole_run(kernel: Path, initrd: bytes, typed: str, *, by_blocks: bool) -> tuple[Summary, dict[str, int], str]:
    """What a boot in this process ends with: its summary, the processor, a hash of all memory."""
    memory_map = default_map(256 << 20)
    machine = GatedMachine(memory_map, by_blocks=by_blocks)
    assert machine.by_blocks == by_blocks
    load(machine, make_plan(kernel.read_bytes(), str(kernel), memory_map, Wishes(append=APPEND), initrd))
    summary = Boot(machine, None, Limits()).run(Piped(machine.board.serial, typed.encode()))
    memory = sha256()
    for bank in machine.ram.banks:
        memory.update(bank.view)
    registers = machine.cpu.registers()
    machine.close()
    return summary, registers, memory.hexdigest()


def test_a_boot_counted_by_blocks_is_one_counted_by_instructions(kernel: Path, initrd: bytes) -> None:
    """To the last byte of console and memory, and to the last instruction."""
    typed = f"cat /proc/interrupts\n{LOOP}\npoweroff -f\n"
    blocks, single = (whole_run(kernel, initrd, typed, by_blocks=by_blocks) for by_blocks in (True, False))
    assert blocks[0].end == "halt"
    assert b"forked 200" in blocks[0].console
    assert blocks == single


def test_a_saved_boot_goes_on(kernel: Path, initrd: bytes, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.kjump"
    status, told = boot(kernel, initrd, APPEND, "--until", "/ # ", "--save", str(prompt))
    assert (status, told["end"]) == (0, "matched")
    runs = [go_on(prompt, typed="echo $((6*7))\npoweroff -f\n") for _ in range(2)]
    status, rest = runs[0]
    assert (status, rest["end"]) == (0, "halt")
    assert "\n42\r" in rest["console"]
    assert "Linux version" not in rest["console"], "it went on"
    assert rest["instructions"] > told["instructions"]
    assert runs[0] == runs[1]


def test_poweroff_halts(kernel: Path, initrd: bytes) -> None:
    status, told = boot(kernel, initrd, APPEND, typed="poweroff -f\n")
    assert (status, told["end"]) == (0, "halt")
    assert "reboot: System halted" in told["console"]


def test_the_32_bit_entry_comes_as_far(kernel: Path, initrd: bytes) -> None:
    status, told = boot(kernel, initrd, APPEND, "--bits", "32", "--until", "/ # ")
    assert (status, told["end"]) == (0, "matched")
