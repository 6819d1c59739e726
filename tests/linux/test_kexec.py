"""Debian's cloud kernel, unmodified, kexecs without a way back: its own move of pages is seen and checked (make linux).

It is built without CONFIG_KEXEC_JUMP, moved by KASLR, and runs with 5-level paging.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emu.errors import EXIT_FINDINGS
from tests.linux.conftest import boot, debian_kernel
from tests.linux.initramfs import character, cpio, directory, program
from tests.linux.programs import jumping_init

pytestmark = [
    pytest.mark.linux,
    pytest.mark.skipif(os.environ.get("KJUMP_LINUX") != "1", reason="make linux boots kernels"),
]
APPEND = "console=ttyS0 no_console_suspend mitigations=off quiet"


def test_a_plain_kexec_holds_all_checks(folder: Path) -> None:
    init = program("init", jumping_init(64, gdt=0, flags=0))
    initrd = cpio([directory("dev"), character("dev/console", 5, 1), init])
    status, told = boot(debian_kernel(folder), initrd, APPEND)
    assert (status, told["end"]) == (EXIT_FINDINGS, "reset"), told["console"][-2000:]
    assert told["console"].endswith("J"), "the image ran, and reset the board"
    (jump,) = told["jumps"]
    assert (jump["preserve_context"], jump["complete"], jump["pages"]) == (False, True, 1)
    assert {"memory there", "owners there", "entry state"} <= jump["checks"].keys()
    assert not [name for name, wrong in jump["checks"].items() if wrong and not name.startswith("known")]
    assert [finding["catalogue"] for finding in told["findings"]] == ["B-37"]
