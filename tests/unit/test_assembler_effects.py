"""What instructions read and write, as the rules for mutants need it."""

from __future__ import annotations

import pytest

from emu.assembler import assemble_text
from emu.assembler.effects import FLAGS, Effects, effects_of


def of(text: str, bits: int = 64) -> Effects:
    found = effects_of(assemble_text(text, bits=bits).code, 0, bits)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "reads", "writes"),
    [
        ("movq %rax, %rbx", {"ax"}, {"bx"}),
        ("movl %r8d, %r9d", {"r8"}, {"r9"}),
        ("movw %ax, %bx", {"ax", "bx"}, {"bx"}),  # the rest of rbx stays
        ("addq %rax, %rbx", {"ax", "bx"}, {"bx", FLAGS}),
        ("xorl %eax, %eax", set(), {"ax", FLAGS}),
        ("xorb %al, %al", {"ax"}, {"ax", FLAGS}),
        ("leaq 8(%rsi,%rcx,2), %rdi", {"si", "cx"}, {"di"}),
        ("pushq %rbx", {"bx", "sp"}, {"sp"}),
        ("movl %eax, %ds", {"ax", "gdtr"}, {"ds"}),
        ("rep movsq", {"cx", "si", "di", "df"}, {"cx", "si", "di"}),
        ("cld", set(), {"df"}),
        ("lgdt (%rax)", {"ax"}, {"gdtr"}),
        ("sidt (%rax)", {"ax", "idtr"}, set()),
        ("movq %cr3, %rbx", {"cr3"}, {"bx"}),
    ],
)
def test_registers(text: str, reads: set[str], writes: set[str]) -> None:
    found = of(text)
    assert found.reads >= reads
    assert found.reads - reads <= {FLAGS, "ds", "es"}
    assert found.writes == writes


def test_a_conditional_jump_reads_flags_and_has_a_target() -> None:
    found = of("jz there; nop; there: nop")
    assert (found.branch, found.target, FLAGS in found.reads) == ("jcc", 3, True)
    assert (of("call *%rax").branch, of("call *%rax").target) == ("call", None)
    assert (of("jmp .").branch, of("ret").branch, of("nop").branch) == ("jump", "ret", "")


def test_memory_operands_with_their_places() -> None:
    (store,) = of("movl %eax, 0x10(%rbx)").memory
    assert (store.base, store.index, store.displacement, store.size, store.writes) == ("bx", "", 0x10, 4, True)
    (load,) = of("movq 0x20(%rip), %rax").memory
    assert (load.base, load.displacement, load.writes) == ("", 0x27, False)
    (pushed,) = of("pushq %rax").memory
    assert (pushed.base, pushed.displacement, pushed.size, pushed.writes) == ("sp", -8, 8, True)
    assert of("leaq 8(%rax), %rbx").memory == ()


def test_an_access_of_32_bit_code_reads_its_segment() -> None:
    assert "ds" in of("movl (%eax), %ecx", 32).reads
    assert "ss" in of("movl (%ebp), %ecx", 32).reads
    assert "ds" not in of("movl (%rax), %ecx").reads


@pytest.mark.parametrize("text", ["movq %rax, %cr3", "popfq", "wrmsr", "wbinvd", "inb %dx, %al", "pushfq"])
def test_what_does_more_is_marked(text: str) -> None:
    assert of(text).system
    assert not of(text).alone


@pytest.mark.parametrize("text", ["hlt", "cli", "iretq"])
def test_what_changes_places_with_nothing_is_marked(text: str) -> None:
    assert of(text).alone


def test_what_is_no_instruction_has_no_effects() -> None:
    assert effects_of(b"\x06\x06", 0, 64) is None
    assert effects_of(b"", 0, 64) is None
