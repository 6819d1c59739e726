"""gdb opens a saved image: the registers of the record, and A's memory at A's linear addresses."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from emu.cli import main
from emu.hibernate.reader import open_image
from emu.journey.journey import Journey
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch
from emu.units import PAGE_SIZE
from tests.hibernate_bench import NOISE, REGISTERS, save

pytestmark = pytest.mark.oracle("gdb")


def gdb(core: Path, *commands: str) -> str:
    script = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run(
        ["gdb", "-nx", "-batch", "-c", str(core), *script], capture_output=True, text=True, timeout=120, check=True
    )
    assert not re.search(r"(?i)not in executable format|not a core|truncated|error", done.stderr), done.stderr
    return done.stdout


@pytest.mark.parametrize("arch", list(Arch))
def test_registers_and_memory(tmp_path: Path, arch: Arch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image"
    image = save(path, arch=arch)
    last = image.ranges[-1].end - PAGE_SIZE
    said = gdb(path, "info registers", f"x/4wx {int(arch.direct(last)):#x}")
    shown = dict(re.findall(r"^(\w+) +(0x[0-9a-f]+)", said, re.MULTILINE))
    names = {"rip": "rip", "rsp": "rsp", "rax": "rax", "rbx": "rbx", "rdi": "rdi", "eflags": "rflags", "ss": "ss"}
    if arch.bits == 32:
        names = {name.replace("r", "e", 1) if name.startswith("r") else name: ours for name, ours in names.items()}
    assert {name: int(shown[name], 16) for name in names} == {name: REGISTERS[ours] for name, ours in names.items()}
    words = [int(word, 16) for word in re.findall(r"\t(0x[0-9a-f]{8})", said)]
    assert b"".join(word.to_bytes(4, "little") for word in words) == NOISE[last : last + 16]
    assert main(["image", "verify", str(path)]) == 0
    assert capsys.readouterr().out.startswith("ok  ")


@pytest.mark.oracle("gdb", "zstd")
def test_a_compressed_image_opens_after_zstd_has_unpacked_it(tmp_path: Path) -> None:
    packed, core = tmp_path / "image.zst", tmp_path / "core"
    save(packed, compress=True)
    subprocess.run(["zstd", "-q", "-t", str(packed)], check=True)
    subprocess.run(["zstd", "-q", "-d", str(packed), "-o", str(core)], check=True)
    assert f"rip            {REGISTERS['rip']:#x}" in gdb(core, "info registers")


def test_the_image_of_a_journey_opens_too(tmp_path: Path) -> None:
    path = tmp_path / "image"
    scene = make_scene(find_journey("hibernate"), ram="24M", target="2M@16M", image=path)
    assert Journey(scene).run("save").findings == []
    registers = open_image(path).record.registers
    said = gdb(path, "info registers rip rsp")
    assert re.findall(r"^r(?:ip|sp) +(0x[0-9a-f]+)", said, re.MULTILINE) == [
        f"{registers[name]:#x}" for name in ("rip", "rsp")
    ]
    assert main(["image", "verify", str(path)]) == 0
