"""The check of each emitted instruction, given bytes that say something else."""

from __future__ import annotations

import pytest

from emu.assembler import assemble_text, keystone_port
from emu.assembler.expression import evaluate
from emu.assembler.operands import Immediate, Memory, parse_instruction
from emu.assembler.source import Position, Statement
from emu.assembler.verify import MismatchError, check
from emu.errors import AssemblyError


def compare(text: str, code: str, bits: int) -> None:
    """Check ``code`` against ``text``, whose operands must be plain numbers."""
    instruction = parse_instruction(Statement(text, Position("x", 1, 1, text)))
    values: list[int | None] = []
    for operand in instruction.operands:
        value = operand.value if isinstance(operand, Immediate) else None
        value = operand.displacement if isinstance(operand, Memory) else value
        values.append(None if value is None else evaluate(value, lambda _: 0))
    check(instruction, values, bytes.fromhex(code), 0, bits)


@pytest.mark.parametrize(
    ("bits", "text", "code"),
    [
        (32, "shl $12, %eax", "c1e00c"),
        (64, "xchg %rax, %rbx", "4893"),
        (64, "xchg %rbx, %rax", "4893"),
        (64, "str %rax", "0f00c8"),
        (32, "imul $3, %eax", "6bc003"),
        (32, "fadd %st(1), %st", "d8c1"),
        (64, "setc %al", "0f92c0"),
        (64, "rep nop", "f390"),
        (64, "movsq", "48a5"),
    ],
)
def test_the_right_bytes_pass(bits: int, text: str, code: str) -> None:
    compare(text, code, bits)
    with pytest.raises(MismatchError):
        compare(text, "f4", bits)


@pytest.mark.parametrize(
    ("bits", "text", "code", "why"),
    [
        (32, "shl $12, %eax", "c1e012", "immediate 0x12"),
        (32, "mov %eax, %ebx", "89d8", "operands swapped"),
        (32, "movl $1, (%eax)", "66c7000100", "operand size"),
        (32, "mov 4(%eax), %ebx", "8b5808", "displacement"),
        (32, "mov (%eax), %ebx", "8b18f4", "a byte too many"),
        (32, "mov (%eax,%ecx,4), %ebx", "8b1c48", "scale"),
        (32, "mov %es:(%eax), %ebx", "8b18", "segment lost"),
        (32, "mov (%eax), %ebx", "268b18", "segment added"),
        (32, "rep movsb", "a4", "prefix lost"),
        (32, "movsb", "f3a4", "prefix added"),
        (32, "lock incl (%eax)", "ff00", "lock lost"),
        (64, "incl 0x5000", "ff05fa4f0000", "relative to rip"),
        (64, "lretq", "cb", "far return of another size"),
        (64, "iret", "48cf", "size added"),
        (32, "iret", "66cf", "size added"),
        (64, "mov %rax, %cr3", "0f22e0", "another control register"),
        (32, "in %dx, %al", "6c", "ins for in"),
        (32, "bts %eax, %ecx", "0fa3c1", "bt for bts"),
        (32, "je .", "75fe", "condition"),
        (32, "shrb (%edi)", "d22f", "count in cl"),
        (32, "imul $3, %eax", "6bd003", "another target"),
        (64, "xchg %eax, %eax", "90", "does not clear the upper half"),
        (64, "mov $1, %eax", "ffff", "no instruction"),
    ],
)
def test_wrong_bytes_do_not(bits: int, text: str, code: str, why: str) -> None:
    with pytest.raises(MismatchError):
        compare(text, code, bits)
    assert why


def test_a_keystone_that_swaps_operands_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystone_port, "machine_code", lambda _text, _bits: bytes.fromhex("89d8"))
    with pytest.raises(AssemblyError, match="did not come out as written") as caught:
        assemble_text("hlt_here:\n mov %eax, %ebx", bits=32)
    assert (caught.value.line, caught.value.column) == (2, 2)


def test_a_keystone_that_drops_an_instruction_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystone_port, "machine_code", lambda _text, _bits: b"")
    with pytest.raises(AssemblyError, match="not one instruction"):
        assemble_text("mov %eax, %ebx", bits=32)
