"""A machine that goes on from a file is the machine that was saved."""

from __future__ import annotations

import io
import pickle
import sys
from dataclasses import make_dataclass
from pathlib import Path

import pytest
import zstandard

from emu.boot.flat import flat_plan
from emu.boot.load import load
from emu.boot.snapshot import MAGIC, _fill, layout_digest, restore, save
from emu.cli import main
from emu.errors import ImageError
from emu.kexec.e820 import default_map
from emu.machine import events as ev
from emu.machine.gated import GatedMachine
from tests.machine_bench import guest_state
from tests.unit.test_boot import code, say

MAP = default_map(4 << 20)
PROGRAM = (
    "mov %cr4, %rax\norl $0x40600, %eax\nmov %rax, %cr4\nxorl %ecx, %ecx\nmovl $3, %eax\nxorl %edx, %edx\nxsetbv\n"
    "movabs $0x123456789abcdef0, %rax\nmovq %rax, %xmm3\nfldpi\nfld1\nmovl $0x5000, 0x300000\n"
    "movb $0x34, %al\noutb %al, $0x43\nmovb $9, %al\noutb %al, $0x40\noutb %al, $0x40\n"
    "xorl %ebx, %ebx\nspin: incq %rbx\ncmpl $2000, %ebx\njne spin\n"
    "xorl %ecx, %ecx\nxgetbv\nmovl %eax, %esi\nmovq %xmm3, %rdi\nrdtsc\nmovl %eax, %ebp\n"
    "fistpl 0x300008\ninb $0x40, %al\nhlt\n"
)


def machine() -> GatedMachine:
    made = GatedMachine(MAP)
    load(made, flat_plan(code(PROGRAM, 0x10000, 64), "x", MAP, load=0x10000, entry=0x10000, bits=64))
    return made


def test_it_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    first, path = machine(), tmp_path / "saved"
    first.run(1000)
    assert first.loop.xcr0 == 3
    save(first, path)
    second = restore(path)
    assert guest_state(second) == guest_state(first)
    assert second.board.snapshot() == first.board.snapshot()
    assert isinstance(first.run(), ev.Halted)
    assert isinstance(second.run(), ev.Halted)
    assert guest_state(second) == guest_state(first)
    registers = second.cpu.registers()
    assert (registers["rsi"], registers["rdi"]) == (3, 0x123456789ABCDEF0)
    assert second.ram.read_int(0x300008, 4) == 1


def test_pages_out_of_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="its pages are out of order"):
        _fill(machine(), [5, 4], memoryview(bytes(0x2000)), tmp_path)


def test_pages_outside_of_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="has a page 0x9f outside its memory map"):
        _fill(machine(), [0x9E, 0x9F], memoryview(bytes(0x2000)), tmp_path)


def test_pages_of_zeroes_are_not_kept(tmp_path: Path) -> None:
    first = machine()
    first.ram.write(0x200000, bytes(64 << 10))
    save(first, tmp_path / "saved")
    assert (tmp_path / "saved").stat().st_size < 32 << 10


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("1",))


def packed(body: bytes) -> bytes:
    return MAGIC + zstandard.ZstdCompressor().compress(layout_digest(1) + body)


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"something", "no saved machine"),
        (MAGIC + b"garbage", "damaged"),
        (packed(len(pickle.dumps(1)).to_bytes(4, "little") + pickle.dumps(1) + bytes(4)), "damaged or truncated"),
        (packed(len(pickle.dumps(Evil())).to_bytes(4, "little") + pickle.dumps(Evil()) + bytes(4)), "builtins.eval"),
    ],
)
def test_files_that_are_none_are_refused(raw: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "saved"
    path.write_bytes(raw)
    with pytest.raises(ImageError, match=what):
        restore(path)


def test_a_machine_of_another_layout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "saved"
    with monkeypatch.context() as then:
        then.setattr("emu.boot.snapshot.layout_digest", lambda _value: bytes(32))
        save(machine(), path)
    with pytest.raises(ImageError, match="another kjump"):
        restore(path)


def test_a_layout_is_known_by_the_fields_of_its_types() -> None:
    one = make_dataclass("State", ["a", "b"])
    other = make_dataclass("State", ["a", "c"])
    assert layout_digest((one(1, 2),)) == layout_digest((one(3, {}),))
    assert layout_digest((one(1, 2),)) != layout_digest((other(1, 2),))
    assert layout_digest({"x": one(1, other(1, 2))}) != layout_digest({"x": one(1, one(1, 2))})


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    save(machine(), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ImageError, match="damaged"):
        restore(path)


def test_the_command_saves_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, path = tmp_path / "flat", tmp_path / "saved"
    text = say("ab") + "movb $0, %al\noutb %al, $0xf4\n"
    image.write_bytes(code(text, 0x7C00, 16))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert (
        main(["boot", "--json", "--ram", "4M", str(image), "--format", "flat", "--until", "a", "--save", str(path)])
        == 0
    )
    assert '"console": "a"' in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert main(["boot", "--json", "--from", str(path)]) == 0
    assert '"console": "ab"' in capsys.readouterr().out
    assert main(["boot", "--from", str(path), "--ram", "4M"]) == 2
    assert main(["boot"]) == 2
