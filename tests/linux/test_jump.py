"""Linux's own jump: kernels built with KEXEC_JUMP, whose first process jumps three times (make linux)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emu.errors import EXIT_FINDINGS
from tests.linux.conftest import Built, Progress, boot, built
from tests.linux.initramfs import character, cpio, directory, program
from tests.linux.programs import jumping_init

pytestmark = [
    pytest.mark.linux,
    pytest.mark.skipif(os.environ.get("KJUMP_LINUX") != "1", reason="make linux builds kernels"),
]
APPEND = "console=ttyS0 no_console_suspend"
FAULTS = {
    "x86_64": ["B-01", "B-37", "B-07"],
    "i386": ["B-01", "B-37", "B-07"],
    "i386-pae": ["B-01", "B-37", "B-24", "B-07"],
}
"""What relocate_kernel of 6.1 is known for, in the order in which a jump comes to it."""


@dataclass(frozen=True)
class Prompt:
    """A machine that was saved shortly before its first process begins."""

    kind: str
    kernel: Built
    initrd: bytes
    saved: Path


@pytest.fixture(scope="module", params=["x86_64", "i386", "i386-pae"])
def before_init(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory, progress: Progress
) -> Prompt:
    kind = request.param
    kernel = built(folder, kind, progress)
    init = jumping_init(64 if kind == "x86_64" else 32, kernel.symbols["gdt_page"], pae=kind == "i386-pae")
    initrd = cpio([directory("dev"), character("dev/console", 5, 1), program("init", init)])
    saved = tmp_path_factory.mktemp(kind) / "init.kjump"
    progress(f"booting the {kind} kernel")
    words = ("--ram", "64M", "--until", "Run /init", "--save", str(saved))
    status, told = boot(kernel.image, initrd, APPEND, *words)
    assert (status, told["end"]) == (0, "matched"), told["console"][-2000:]
    return Prompt(kind, kernel, initrd, saved)


def go_on(saved: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "emu.cli", "boot", "--from", str(saved), "--time", "60", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=600, stdin=subprocess.DEVNULL)


def jumps(console: str) -> list[str]:
    """What the image (J) and the process (a digit, or F) printed, in order; the kernel's own lines come between."""
    return [one[-1] for one in re.findall(r"(?:^|\n)(J|[0-9F](?=\r?\n))", console)]


def test_three_jumps_in_a_row_hold_all_checks_but_for_the_known_faults(before_init: Prompt) -> None:
    run = go_on(before_init.saved, "--json")
    told: dict[str, Any] = json.loads(run.stdout)
    assert (run.returncode, told["end"]) == (EXIT_FINDINGS, "reset"), told["console"][-2000:]
    assert jumps(told["console"]) == ["J", "1", "J", "2", "J", "3"]
    assert [finding["catalogue"] for finding in told["findings"]] == FAULTS[before_init.kind]
    assert [(one["number"], one["complete"], one["pages"]) for one in told["jumps"]] == [
        (n, True, 1) for n in (1, 2, 3)
    ]
    for one in told["jumps"]:
        assert not [name for name, wrong in one["checks"].items() if wrong and not name.startswith("known")]
        assert {"memory there", "memory back", "as before the jump", "registers"} <= one["checks"].keys()
        assert {"owners there", "owners of the peer", "owners back"} <= one["checks"].keys()


@pytest.mark.oracle("qemu-system-x86_64")
def test_qemu_shows_the_same(before_init: Prompt, tmp_path: Path) -> None:
    ramdisk = tmp_path / "init.img"
    ramdisk.write_bytes(before_init.initrd)
    image = str(before_init.kernel.image)
    words = ["qemu-system-x86_64", "-accel", "tcg", "-kernel", image, "-initrd", str(ramdisk), "-m", "64"]
    words += ["-append", APPEND, "-display", "none", "-serial", "stdio", "-no-reboot"]
    qemu = subprocess.run(words, capture_output=True, text=True, check=True, timeout=600, stdin=subprocess.DEVNULL)
    assert jumps(qemu.stdout) == ["J", "1", "J", "2", "J", "3"]


def test_the_debugger_goes_through_the_jump_and_back_before_reboot(before_init: Prompt) -> None:
    """The transcript of docs/DEBUGGING.md, "A kernel of your own"."""
    call = "__x64_sys_reboot" if before_init.kind == "x86_64" else "__ia32_sys_reboot"
    commands = (
        "b relocate_kernel", "c", "bt", "tb swap_pages", "c", "kimage", "si 3", "goto transition return 1",
        "who-wrote p:0x400000", f"b {call}", "rc", "rc", "info findings",
    )  # fmt: skip
    words = [word for one in commands for word in ("-ex", one)]
    run = go_on(before_init.saved, "--symbols", str(before_init.kernel.image), "--debug", "--batch", *words)
    assert run.returncode == 0, run.stderr
    parts = re.split(r"^\(kjump\) ", run.stdout, flags=re.MULTILINE)[1:]
    told = dict(zip([part.split("\n", 1)[0] for part in parts], parts, strict=True))  # the last of equal commands
    assert [part.split("\n", 1)[0] for part in parts] == list(commands)
    assert "stop: breakpoint 1 at relocate_kernel" in parts[1]
    assert re.search(r"#1 .* machine_kexec\+", told["bt"])
    assert call in told["bt"] or "do_sys_reboot" in told["bt"]
    assert "breakpoint 2 at swap_pages" in told["c"]
    assert re.search(r"page p:0x[0-9a-f]+ control", told["c"])
    assert "flags PRESERVE_CONTEXT" in told["kimage"]
    assert re.search(r"SRC  p:0x[0-9a-f]+ <-> p:0x400000", told["kimage"])
    assert re.search(r"by +relocate_kernel, in jump 1", told["who-wrote p:0x400000"])
    assert "at swap_pages+" in re.sub(" +", " ", told["who-wrote p:0x400000"])
    assert "stop: breakpoint 1 at relocate_kernel" in parts[10]
    assert f"stop: breakpoint 3 at {call}" in parts[11]
    assert "registers in jump 1" in told["info findings"]
