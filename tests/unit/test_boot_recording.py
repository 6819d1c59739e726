"""A boot that is recorded: what was typed is part of it, symbols are found, what only journeys have is refused."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from emu.assembler import Image
from emu.boot.formats import Format, Wishes, make_plan
from emu.boot.load import load
from emu.cli import main
from emu.cli_boot import slide
from emu.errors import EXIT_BAD_INPUT, ImageError
from emu.kernelfile.symbol_table import kernel_symbols
from emu.kexec.e820 import default_map
from emu.machine.gated import GatedMachine
from emu.x86.segments import TableRegister
from tests.unit.test_boot import ECHO, code, flat

TYPED = b"ab\ncq\n"
BASE = 0xFFFFFFFF81000000


def debug(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, image: str, *commands: str
) -> tuple[int, list[str], str]:
    """Exit status, what each command showed, and the guest's console."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TYPED)))
    words = [word for command in commands for word in ("-ex", command)]
    status = main(["boot", image, "--format", "flat", "--ram", "16M", "--debug", "--batch", *words])
    console, *shown = re.split(r"\(kjump\) .*\n", capsys.readouterr().out)
    return status, shown, console


def handler() -> str:
    """The address of ECHO's interrupt handler, as a breakpoint takes it."""
    return hex(0x7C00 + code(ECHO, 0x7C00, 16).index(b"\xba\xf8\x03\xec"))


def test_what_was_typed_comes_again_at_the_same_instants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ("c", "regs", "c", "regs", "c", "c", "c", "c")
    back = ("rc", "rc", "rc", "rc", "regs", "rc", "regs")
    status, shown, console = debug(capsys, monkeypatch, flat(tmp_path, ECHO), f"b {handler()}", *there, *back)
    assert (status, console) == (0, "ab\rcq"), "nothing is printed a second time"
    assert ["breakpoint 1" in shown[at] for at in (1, 3, 5, 6, 7)] == [True] * 5, "a byte each"
    assert "end of the recording" in shown[8]
    first, second, second_again, first_again = (shown[at].replace("*", "").split() for at in (2, 4, 13, 15))
    assert second_again == second
    assert first_again == first != second


def test_what_journeys_have_and_boots_have_not_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = flat(tmp_path, ECHO)
    for command in ("save x", "poke jumpbuf.sequence 1", "kimage", "jumpbuf"):
        assert debug(capsys, monkeypatch, image, command)[0] == EXIT_BAD_INPUT
    asked = ("info e820", "info owners", "info transitions", "info findings", "cmdline", "post-mortem", "where")
    status, shown, _ = debug(capsys, monkeypatch, image, *asked)
    assert status == 0
    assert "firmware's map" in shown[0]
    assert "target area" not in shown[0]
    assert shown[3].strip() == "no findings: everything that was checked held"


def test_symbols_of_a_system_map(tmp_path: Path) -> None:
    path = tmp_path / "System.map"
    names = {"per_cpu_start": 0, "_text": BASE, "one": BASE + 0x10, "_end": BASE + 0x40}
    lines = [f"{at:016x} T {name}" for name, at in names.items()]
    path.write_text("".join(f"{line}\n" for line in lines))
    image = kernel_symbols(path)
    assert (image.org, image.end, image.bits) == (BASE, BASE + 0x40, 64)
    assert image.symbol_at(BASE + 0x12) == "one+0x2"
    assert "per_cpu_start" not in image.symbols


def test_a_32_bit_map_and_no_map(tmp_path: Path) -> None:
    path = tmp_path / "System.map"
    path.write_text("c1000000 T _text\nc1000020 T one\nc1000100 B _end\n")
    assert kernel_symbols(path).bits == 32
    path.write_text("nothing of the kind\n")
    with pytest.raises(ImageError, match="no symbols"):
        kernel_symbols(path)
    with pytest.raises(ImageError, match="cannot be read"):
        kernel_symbols(tmp_path / "none")


@pytest.mark.parametrize("distance", [0, 0x1200000, 0x1234])
def test_a_kernel_that_was_moved_is_found_by_its_first_handler(tmp_path: Path, distance: int) -> None:
    """The distance counts only where it is one by which a kernel can be moved."""
    machine = GatedMachine(default_map(16 << 20))
    path = Path(flat(tmp_path, "hlt"))
    load(machine, make_plan(path.read_bytes(), str(path), machine.memory_map, Wishes(Format.FLAT, None, None, 64, "")))
    at = BASE + 0x8A0 + distance
    gate = (at & 0xFFFF) | 0x10 << 16 | 0x8E00 << 32 | (at >> 16 & 0xFFFF) << 48 | (at >> 32) << 64
    machine.ram.write(0x9000, gate.to_bytes(16, "little"))
    machine.engine.idtr = TableRegister(0x9000, 0xFFF)
    kernel = Image(bytes(0x1000), BASE, 64, {"asm_exc_divide_error": BASE + 0x8A0}, (), "k")
    assert slide(machine, kernel) == (0 if distance == 0x1234 else distance)
    machine.engine.idtr = TableRegister(0, 0)
    assert slide(machine, kernel) == 0
    machine.close()
