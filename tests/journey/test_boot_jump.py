"""Jumps of a program that ``kjump boot`` runs: seen without symbols, checked whole, and walked in the debugger."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emu.boot.control_page import read_control_page
from emu.cli import main
from emu.errors import EXIT_FINDINGS
from emu.kernelfile.forms import StubForm
from emu.kexec.arch import Arch

pytestmark = pytest.mark.oracle("as", "ld")
STUBS = Path(__file__).parent / "stubs"
CONTROL, SWAP, SOURCE, DESTINATION, ELSEWHERE = 0x200000, 0x201000, 0x300000, 0x400000, 0x600000
LAYOUT = """
SECTIONS {
    . = 0x100000;
    .text : {
        *kernel.o(.text)
        . = ALIGN(4096);
        __relocate_kernel_start = .;
        *(.text) *(.text..relocate_kernel) *(.data..relocate_kernel)
        . = ALIGN(4096);
    }
    /DISCARD/ : { *(.rodata) *(.note*) }
}
"""
Build = Callable[..., Path]


@pytest.fixture(autouse=True)
def _nothing_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Links the kernel with the stub, in which ``old`` is replaced by ``new``; other words are symbols."""

    def make(old: str = "", new: str = "", *, shape: str = "shape_classic_64.S", **symbols: int) -> Path:
        source = (STUBS / shape).read_text()
        assert source.count(old) or not old
        (tmp_path / "stub.S").write_text(source.replace(old, new, 1) if old else source)
        defined = [word for name, value in symbols.items() for word in ("--defsym", f"{name}={value}")]
        for name, path in (("kernel", STUBS / "boot_jump.S"), ("stub", tmp_path / "stub.S")):
            subprocess.run(["as", "--64", *defined, "-o", tmp_path / f"{name}.o", path], check=True)
        (tmp_path / "layout.ld").write_text(LAYOUT)
        words = ["ld", "-m", "elf_x86_64", "-T", str(tmp_path / "layout.ld"), "-e", "_start", "--build-id=none"]
        objects = [tmp_path / "kernel.o", tmp_path / "stub.o"]
        subprocess.run([*words, "-o", tmp_path / "vmlinux", *objects], check=True)
        subprocess.run([*words, "--oformat", "binary", "-o", tmp_path / "kernel.bin", *objects], check=True)
        return tmp_path / "kernel.bin"

    return make


def words(kernel: Path) -> list[str]:
    flat = ["--format", "flat", "--bits", "64", "--load", "0x100000", "--ram", "16M"]
    return ["boot", str(kernel), *flat, "--instructions", "100000"]


@pytest.fixture
def boot(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], tuple[int, dict[str, Any]]]:
    def run(kernel: Path) -> tuple[int, dict[str, Any]]:
        status = main([*words(kernel), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


Boot = Callable[[Path], tuple[int, dict[str, Any]]]


def told(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(finding["catalogue"], finding["kind"]) for finding in document["findings"]]


KNOWN = [("B-01", "entry state"), ("B-37", "entry state"), ("B-07", "registers")]
"""What the classic shape has by its nature."""


def test_three_jumps_are_checked_and_only_the_known_faults_are_found(build: Build, boot: Boot) -> None:
    status, document = boot(build())
    assert (status, document["end"], document["status"]) == (EXIT_FINDINGS, "exit", 0)
    assert told(document) == KNOWN
    jumps = document["jumps"]
    assert [(one["number"], one["pages"], one["complete"]) for one in jumps] == [(n, 1, True) for n in (1, 2, 3)]
    assert jumps[0]["start"] == DESTINATION
    assert DESTINATION < jumps[1]["start"] < DESTINATION + 0x20, "B went back by a call"
    for one in jumps:
        assert [name for name, wrong in one["checks"].items() if wrong] == ["known there", "known after the call"]
        assert {"memory there", "memory back", "as before the jump", "owners there", "registers"} <= one[
            "checks"
        ].keys()


def test_the_form_of_6_14_is_followed_too(build: Build, boot: Boot) -> None:
    """It gives the peer a word for its next entry and loads the caller's GDT again; the shape has no IDT of its own."""
    status, document = boot(build(shape="shape_6_14.S", LATER=1))
    assert (status, document["end"], document["status"]) == (EXIT_FINDINGS, "exit", 0)
    assert told(document) == [("B-37", "entry state")]
    assert [(one["stub"], one["complete"]) for one in document["jumps"]] == [("6.14 x86_64", True)] * 3
    for one in document["jumps"]:
        assert [name for name, wrong in one["checks"].items() if wrong] == ["known there"]


def test_the_form_of_6_14_without_the_gdt_is_known_for_it(build: Build, boot: Boot) -> None:
    document = boot(build("lgdt\tGDTR_AT(%rax)", "nop", shape="shape_6_14.S", LATER=1))[1]
    assert told(document) == [("B-37", "entry state"), ("B-07", "registers")]


def test_a_move_of_one_word_less_is_wrong_memory(build: Build, boot: Boot) -> None:
    status, document = boot(build("mov\t%rax, %rdi\n\tmov\t$512, %ecx", "mov\t%rax, %rdi\n\tmov\t$511, %ecx"))
    assert status == EXIT_FINDINGS
    wrong = [finding for finding in document["findings"] if finding["kind"] == "memory"]
    assert wrong[0]["expected"] == f"p:{SOURCE + 0xFF8:#x}: a5 a5 a5 a5 00 00 00 00 (reference model of the list)"
    assert f"source p:{SOURCE:#x} <-> destination p:{DESTINATION:#x}" in wrong[0]["because"][0]
    assert document["jumps"][0]["checks"]["memory there"] == 1


def test_a_move_of_one_word_more_is_an_owner_violation(build: Build, boot: Boot) -> None:
    document = boot(build("mov\t$512, %ecx", "mov\t$513, %ecx"))[1]
    wrong = next(finding for finding in document["findings"] if finding["kind"] == "owner violation")
    assert f"p:{SWAP + 0x1000:#x}, a page of list" in wrong["actual"]
    assert "swap_pages+" in wrong["because"][0]


def test_registers_that_the_stub_mixes_up_are_found(build: Build, boot: Boot) -> None:
    document = boot(build("pop\t%rbp\n\tpop\t%rbx\n", "pop\t%rbx\n\tpop\t%rbp\n"))[1]
    assert {"rbx", "rbp"} <= {one["expected"].split()[0] for one in document["findings"] if one["kind"] == "registers"}


@pytest.mark.parametrize("address", [ELSEWHERE, SOURCE])
def test_a_peer_that_writes_what_is_not_its_own_is_found(build: Build, boot: Boot, address: int) -> None:
    document = boot(build(B_WRITES=address))[1]
    wrong = next(finding for finding in document["findings"] if finding["kind"] == "owner violation")
    assert f"B stored 0x5a (8 bytes) at p:{address:#x}" in wrong["actual"]
    assert document["jumps"][0]["checks"]["owners of the peer"] == 1


def test_a_peer_that_writes_its_own_pages_is_not(build: Build, boot: Boot) -> None:
    assert told(boot(build(B_WRITES=DESTINATION + 0x800))[1]) == KNOWN


def test_nothing_is_looked_at_when_nobody_wants_it(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words(build()), "--json", "--no-check-jumps"]) == 0
    assert "jumps" not in json.loads(capsys.readouterr().out)


def test_a_person_sees_each_jump_and_each_finding(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(build())) == EXIT_FINDINGS
    shown = capsys.readouterr().err
    assert "jump 3: 1 page swapped, there and back, from N " in shown
    assert shown.count("FINDING ") == len(KNOWN)
    assert "(like B-07)" in shown
    assert "--debug --at " in shown


def test_the_debugger_walks_a_boot_both_ways(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = build()
    commands = [
        "info transitions", "b swap_pages", "c", "kimage", "d 1", "goto transition return 2",
        f"who-wrote p:{DESTINATION:#x}", "b again", "rc", "info findings", "p start",
    ]  # fmt: skip
    line = [*words(kernel), "--debug", "--symbols", str(kernel.with_name("vmlinux")), "--batch"]
    assert main([*line, *(word for one in commands for word in ("-ex", one))]) == 0
    shown = capsys.readouterr().out
    for text in (
        "return 3  ends",
        "breakpoint 1 at swap_pages",
        f"IND  entries go on in p:{CONTROL + 0x2000:#x}",
        "by           relocate_kernel, in jump 2",
        f"SRC  p:{SOURCE:#x} <-> p:{DESTINATION:#x}",
        "breakpoint 2 at again",
        "registers in jump 1",
    ):
        assert text in shown, text


def test_the_same_instant_is_the_same_however_one_came_there(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    line = [*words(build()), "--debug", "--batch", "-ex", "goto transition return 2", "-ex", "regs"]
    assert main([*line, "-ex", "goto start", "-ex", "b *0x400000", "-ex", "c 3", "-ex", "rc", "-ex", "undo"]) == 0
    first = capsys.readouterr().out
    assert main([*line[:-4], "-ex", "goto end", "-ex", "rsi 3", "-ex", "goto transition return 2", "-ex", "regs"]) == 0
    again = capsys.readouterr().out
    registers = [text[text.index("(kjump) regs") :].splitlines()[1:6] for text in (first, again)]
    strip = [[row.replace("*", "").split() for row in rows] for rows in registers]
    assert strip[0] == strip[1]


@pytest.mark.parametrize(
    ("bits", "cr4", "arch"), [(32, 0, Arch.I386), (32, 0x20, Arch.I386_PAE), (64, 0x20, Arch.X86_64)]
)
def test_a_control_page_says_all_there_is_to_know(tmp_path: Path, bits: int, cr4: int, arch: Arch) -> None:
    made, target = tmp_path / "stub.o", tmp_path / "stub.bin"
    subprocess.run(["as", f"--{bits}", "-o", made, STUBS / f"shape_classic_{bits}.S"], check=True)
    emulation = "elf_x86_64" if bits == 64 else "elf_i386"
    options = ["-m", emulation, "-Ttext", "0x100000", "-e", "0", "--build-id=none", "--oformat", "binary"]
    subprocess.run(["ld", *options, "-o", target, made], check=True)
    names = {
        64: ("rsp", "cr0", "cr3", "cr4", "tables", "swap_page", "head"),
        32: ("rsp", "cr0", "cr3", "cr4", "linear", "tables", "swap_page", "head"),
    }[bits]
    data = b"".join(
        (cr4 if name == "cr4" else at * 0x1000).to_bytes(bits // 8, "little") for at, name in enumerate(names)
    )
    page = target.read_bytes()[:2048].ljust(2048, b"\xcc") + data
    control = read_control_page(page.ljust(4096, b"\0"), CONTROL)
    assert control is not None
    assert control.form is (StubForm.X86_64 if bits == 64 else StubForm.I386)
    assert control.arch is arch
    assert control.head == (len(names) - 1) * 0x1000
    assert control.swap_page == (len(names) - 2) * 0x1000
    assert control.linear == (0x4000 if bits == 32 else 0x100000)
    assert not control.has_slot
    assert not control.restores_gdt
    assert read_control_page(bytes(4096), CONTROL) is None
