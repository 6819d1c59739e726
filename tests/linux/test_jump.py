"""Linux's own jump: a kernel built with KEXEC_JUMP, whose first process jumps three times (make linux)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.linux.conftest import boot, built
from tests.linux.initramfs import character, cpio, directory, program
from tests.linux.programs import jumping_init

pytestmark = [
    pytest.mark.linux,
    pytest.mark.skipif(os.environ.get("KJUMP_LINUX") != "1", reason="make linux builds kernels"),
]
APPEND = "console=ttyS0 no_console_suspend"


def jumps(console: str) -> list[str]:
    """What the image (J) and the process (a digit, or F) printed, in order; the kernel's own lines come between."""
    return [one[-1] for one in re.findall(r"(?:^|\n)(J|[0-9F](?=\r?\n))", console)]


@pytest.mark.oracle("qemu-system-x86_64")
@pytest.mark.parametrize("kind", ["x86_64", "i386", "i386-pae"])
def test_three_jumps_in_a_row_here_and_on_qemu(folder: Path, kind: str) -> None:
    kernel = built(folder, kind)
    init = jumping_init(64 if kind == "x86_64" else 32, kernel.gdt, pae=kind == "i386-pae")
    initrd = cpio([directory("dev"), character("dev/console", 5, 1), program("init", init)])
    status, told = boot(kernel.image, initrd, APPEND, "--ram", "64M", "--time", "60")
    assert (status, told["end"]) == (0, "reset"), told["console"][-2000:]
    assert jumps(told["console"]) == ["J", "1", "J", "2", "J", "3"]
    ramdisk = folder / f"{kind}.img"
    ramdisk.write_bytes(initrd)
    words = ["qemu-system-x86_64", "-accel", "tcg", "-kernel", str(kernel.image), "-initrd", str(ramdisk), "-m", "64"]
    words += ["-append", APPEND, "-display", "none", "-serial", "stdio", "-no-reboot"]
    qemu = subprocess.run(words, capture_output=True, text=True, check=True, timeout=600, stdin=subprocess.DEVNULL)
    assert jumps(qemu.stdout) == jumps(told["console"])
