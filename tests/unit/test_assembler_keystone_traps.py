"""Faults of Keystone 0.9.2 and Capstone 5 that the layer works around: a release without one is noticed here."""

from __future__ import annotations

import subprocess
import sys

import keystone
import pytest

from emu.assembler import assemble_text, keystone_port
from emu.assembler.capstone_port import decode
from emu.errors import AssemblyError

MODES = {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}


def raw(bits: int, text: str) -> str | None:
    """The bytes that bare Keystone makes in AT&T syntax; None where it refuses."""
    engine = keystone.Ks(keystone.KS_ARCH_X86, MODES[bits])
    engine.syntax = keystone.KS_OPT_SYNTAX_ATT
    try:
        code, _ = engine.asm(text, 0, True)
    except keystone.KsError:
        return None
    return bytes(code or b"").hex()


@pytest.mark.parametrize(
    ("bits", "text", "wrong"),
    [
        (32, "shl $12, %eax", "c1e012"),
        (32, ".long 10", "10000000"),
        (32, "ljmpl $0x8, $0x12345678", ""),
        (16, "ljmp $0x8, $0x1234", None),
        (64, "endbr64", None),
        (64, "wbnoinvd", None),
        (64, "notrack jmp *%rax", None),
        (16, "bound %ax, (%bx)", ""),
        (64, "nopl 8(%rax)", "0f186008"),
        (64, "incl 0x5000", "ff05fa4f0000"),
        (64, "mov %gs:0x10, %rax", "6548a11000000000000000"),
        (64, "mov $-0x1, %rax", "48b8ffffffffffffffff"),
        (32, "rep movsw", "f366a5"),
        (32, "nop # comment", None),
        (32, "1: jmp 1b", None),
    ],
)
def test_keystone_still_does_this(bits: int, text: str, wrong: str | None) -> None:
    assert raw(bits, text) == wrong


@pytest.mark.parametrize(
    ("bits", "text", "sign"),
    [
        (64, "movzbq %ah, %rax", "LLVM ERROR"),
        (64, "mov %ah, %r8b", "LLVM ERROR"),
        (16, "scasq (%bx,%si,0x1)", "only for determining the size"),
        (64, "lodsl 0x4(%rax,%rbx,0x8)", "only for determining the size"),
    ],
)
def test_what_ends_keystones_process_or_makes_it_print_is_refused_before_it(bits: int, text: str, sign: str) -> None:
    alone = f"import keystone as k;e=k.Ks(k.KS_ARCH_X86,{MODES[bits]});e.syntax=k.KS_OPT_SYNTAX_ATT;e.asm({text!r})"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", alone], capture_output=True, text=True, check=False)
    assert sign in done.stderr
    with pytest.raises(AssemblyError):
        assemble_text(text, bits=bits)


@pytest.mark.parametrize(
    "text", [".section .data", ".text", ".cfi_startproc", '.incbin "/etc/hostname"', "%define X 1"]
)
def test_no_directive_ever_reaches_keystone(text: str) -> None:
    with pytest.raises(keystone_port.RejectedError, match="not a plain instruction"):
        keystone_port.machine_code(text, 64)


def test_capstone_reads_a_store_of_sse_in_sixteen_bit_code_as_mmx() -> None:
    found = decode(bytes.fromhex("660f7f07"), 0, 16)
    assert found is not None
    assert "%mm0" in found.text


def test_capstone_calls_both_sizes_of_a_conversion_alike_in_sixteen_bit_code() -> None:
    texts = {found.text for code in ("98", "6698") if (found := decode(bytes.fromhex(code), 0, 16)) is not None}
    assert texts == {"cwtl"}


def test_capstone_leaves_the_accumulator_of_stos_out_of_the_operands() -> None:
    found = decode(b"\xab", 0, 32)
    assert found is not None
    assert len(found.operands) == 1
