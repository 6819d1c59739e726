"""Debian 12's cloud kernel, unmodified, with a busybox initramfs: a shell in the machine (make linux)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.linux.conftest import boot, command, unpacked
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


@pytest.fixture(scope="module")
def kernel(folder: Path) -> Path:
    depends = command("apt-cache", "depends", "linux-image-cloud-amd64")
    match = re.search(r"Depends: (linux-image-\S+)", depends)
    assert match is not None, depends
    return next((unpacked(folder, match.group(1)) / "boot").glob("vmlinuz-*"))


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


def test_poweroff_halts(kernel: Path, initrd: bytes) -> None:
    status, told = boot(kernel, initrd, APPEND, typed="poweroff -f\n")
    assert (status, told["end"]) == (0, "halt")
    assert "reboot: System halted" in told["console"]


def test_the_32_bit_entry_comes_as_far(kernel: Path, initrd: bytes) -> None:
    status, told = boot(kernel, initrd, APPEND, "--bits", "32", "--until", "/ # ")
    assert (status, told["end"]) == (0, "matched")
