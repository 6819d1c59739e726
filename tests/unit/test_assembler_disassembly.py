from __future__ import annotations

import pytest

from emu.assembler import Instruction, decode_one, disassemble


def test_one_instruction() -> None:
    assert decode_one(b"\x0f\x20\xd8\x90", 0x1000, 64) == Instruction(
        0x1000, 3, b"\x0f\x20\xd8", "movq", "%cr3, %rax", "movq %cr3, %rax"
    )


def test_the_same_bytes_in_three_code_sizes() -> None:
    code = bytes.fromhex("b801000000")
    assert [decode_one(code, 0, bits).text for bits in (16, 32, 64)] == [
        "movw $1, %ax",
        "movl $1, %eax",
        "movl $1, %eax",
    ]


def test_branch_targets_are_addresses() -> None:
    assert decode_one(b"\xeb\xfe", 0x1234, 64).operands == "0x1234"


def test_bad_bytes_are_one_bad_instruction_each() -> None:
    found = disassemble(b"\x90\x0f\xff\xf4", 0x10, 64)
    assert [one.address for one in found] == sorted(one.address for one in found)
    assert found[0].text == "nop"
    assert b"".join(one.bytes for one in found) == b"\x90\x0f\xff\xf4"


def test_a_truncated_instruction_is_bad() -> None:
    assert disassemble(b"\xe8\x00", 0, 32)[0].mnemonic == "(bad)"


@pytest.mark.parametrize(("code", "bits"), [(b"", 64), (b"\x90", 8)])
def test_misuse_is_refused(code: bytes, bits: int) -> None:
    with pytest.raises(ValueError, match="decode_one needs"):
        decode_one(code, 0, bits)
