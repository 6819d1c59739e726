"""Two Linuxes: kernel A jumps to a kernel B in its memory, B reads what A holds and jumps back, twice (make linux)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from emu.errors import EXIT_FINDINGS
from emu.units import PAGE_MASK
from tests.linux.conftest import Built, Progress, boot, built
from tests.linux.initramfs import character, cpio, directory, program
from tests.linux.two import AREA, AREA_END, LOW, LOW_SIZE, program_a, program_b

pytestmark = [
    pytest.mark.linux,
    pytest.mark.skipif(os.environ.get("KJUMP_LINUX") != "1", reason="make linux builds kernels"),
]
APPEND = "console=ttyS0 no_console_suspend quiet"
HIGH = " memmap=15M$1M"
"""Keeps A's control page out of the first 2 MiB, which B's tables happen to map."""
B_APPEND = "console=ttyS0 no_console_suspend"
ORDER = ["B1", "A1", "B2", "A2"]


@pytest.fixture(scope="module")
def kernel(folder: Path, progress: Progress) -> Built:
    return built(folder, "x86_64", progress)


def initrd_of(kernel: Built, *, bridged: bool) -> bytes:
    console, memory = character("dev/console", 5, 1), character("dev/mem", 1, 1)
    init_b = program("init", program_b(kernel.symbols, bridged=bridged))
    of_b = cpio([directory("dev"), directory("proc"), console, memory, init_b])
    init_a = program("init", program_a(kernel.image.read_bytes(), B_APPEND, of_b))
    return cpio([directory("dev"), console, init_a])


@pytest.fixture(scope="module")
def initrd(kernel: Built) -> bytes:
    return initrd_of(kernel, bridged=True)


def told(console: str) -> list[str]:
    """What the two first processes printed: a letter for whose, and the number of the visit; F for a failure."""
    return re.findall(r"^(A\d|B\d|F[AB])\r?$", console, re.MULTILINE)


def banners(console: str) -> list[str]:
    """The command line of B as its process read it, and what it read in A's memory."""
    found = re.search(rf"^{B_APPEND} (kexec_jump_back_entry=0x[0-9a-f]+)\r?\n(.*?)\r?\n", console, re.MULTILINE)
    return list(found.groups()) if found is not None else []


def test_a_jumps_to_b_and_back_twice(kernel: Built, initrd: bytes, progress: Progress) -> None:
    progress("two kernels")
    status, document = boot(kernel.image, initrd, APPEND + HIGH, "--ram", "128M", "--time", "120")
    console = document["console"]
    assert (status, document["end"]) == (EXIT_FINDINGS, "reset"), console[-2000:]
    assert told(console) == ORDER
    assert console.count("Linux version 6.1") == 2, "B's own boot, and what its process read in A's memory"
    back, banner = banners(console)
    assert banner.startswith("Linux version 6.1")
    first, second, third, fourth = document["jumps"]
    assert int(back.split("=")[1], 16) & ~PAGE_MASK == first["control_page"]
    assert [one["complete"] for one in document["jumps"]] == [True, True, True, False], (
        "A restarts, and leaves B waiting"
    )
    assert first["pages"] == third["pages"] == (LOW_SIZE + AREA_END - AREA) >> 12
    assert (first["start"], second["pages"], fourth["pages"]) == (LOW, 1, 1)
    for one in document["jumps"]:
        assert not [name for name, wrong in one["checks"].items() if wrong and not name.startswith("known")]
    assert [finding["catalogue"] for finding in document["findings"]] == ["B-01", "B-37", "B-07"]


@pytest.mark.parametrize(("more", "fault"), [("", "B-07"), (HIGH, "B-26")])
def test_without_the_bridge_b_cannot_go_back_to_a(kernel: Built, more: str, fault: str, progress: Progress) -> None:
    progress(f"two kernels, no bridge: {fault}")
    initrd = initrd_of(kernel, bridged=False)
    status, document = boot(kernel.image, initrd, APPEND + more, "--ram", "128M", "--time", "120")
    assert (status, document["end"]) == (EXIT_FINDINGS, "triple fault"), document["console"][-2000:]
    assert told(document["console"]) == ["B1"]
    assert [finding["catalogue"] for finding in document["findings"]] == ["B-01", "B-37", fault]
    if fault == "B-26":
        way_back = document["jumps"][0]["control_page"]
        assert f"p:{way_back:#x}" in " ".join(document["findings"][-1]["because"])
    else:
        assert "limit 0x0" in document["findings"][-1]["actual"]


@pytest.mark.oracle("qemu-system-x86_64")
def test_qemu_shows_the_same(kernel: Built, initrd: bytes, tmp_path: Path) -> None:
    ramdisk = tmp_path / "two.img"
    ramdisk.write_bytes(initrd)
    words = ["qemu-system-x86_64", "-accel", "tcg", "-kernel", str(kernel.image), "-initrd", str(ramdisk), "-m", "128"]
    words += ["-append", APPEND + HIGH, "-display", "none", "-serial", "stdio", "-no-reboot"]
    qemu = subprocess.run(words, capture_output=True, text=True, check=True, timeout=600, stdin=subprocess.DEVNULL)
    assert told(qemu.stdout) == ORDER
    assert banners(qemu.stdout)[1].startswith("Linux version 6.1")
