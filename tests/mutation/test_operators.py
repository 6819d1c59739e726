"""The fixed list of damages, instruction by instruction."""

from __future__ import annotations

import pytest

from emu.mutation.lines import split_line, without_comment
from emu.mutation.operators import MOST, changes, split_operands

VALUES = {"MASK": 0x5000C, "-PAGE_SIZE": -0x1000, "ONE": 1, "'0'": 0x30}


def made(text: str, next_text: str = "") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for change in changes(text, VALUES.get, next_text=next_text):
        found.setdefault(change.kind, []).append(change.text)
    return found


@pytest.mark.parametrize(
    ("text", "kind", "new"),
    [
        ("movq %rax, %cr3", "register", ["movq %rbx, %cr3"]),
        ("movq %rdx, %rsi", "register", ["movq %rdx, %rdi"]),
        ("xorl %r15d, %r15d", "register", ["xorl %r15d, %eax"]),
        ("testb $ONE, %cl", "register", ["testb $ONE, %dl"]),
        ("movl %eax, %ds", "register", ["movl %ebx, %ds"]),
        ("setne %ch", "register", ["setne %dh"]),
        ("andl $MASK, %eax", "constant", ["andl $(MASK ^ 0x4), %eax", "andl $(MASK ^ 0x40000), %eax"]),
        ("andq $-PAGE_SIZE, %rdi", "constant", ["andq $(-PAGE_SIZE ^ 0x1000), %rdi"]),
        ("testb $ONE, %cl", "constant", ["testb $(ONE ^ 0x1), %cl"]),
        ("movl $16, %ecx", "constant", ["movl $(16 + 1), %ecx"]),
        ("addb $'0', %al", "constant", ["addb $('0' + 1), %al"]),
        ("movq saved(%rip), %rax", "address", ["movq saved + 1(%rip), %rax"]),
        ("movq (%rbx), %rcx", "address", ["movq 1(%rbx), %rcx"]),
        ("movl je_head, %eax", "address", ["movl je_head + 1, %eax"]),
        ("call *je_relocate(%rip)", "address", ["call *je_relocate + 1(%rip)"]),
        ("jz list_done", "condition", ["jnz list_done"]),
        ("jbe have_digit", "condition", ["ja have_digit"]),
        ("setne %cl", "condition", ["sete %cl"]),
        ("rep movsq", "size", ["movsq"]),
        ("movq %rbx, saved(%rip)", "size", ["movl %ebx, saved(%rip)"]),
        ("movl $1, done(%rip)", "size", ["movw $1, done(%rip)"]),
        ("pushq %r12", "size", ["pushw %r12w"]),
        ("lodsb", "size", ["lodsw"]),
        ("inb %dx, %al", "size", ["inw %dx, %ax"]),
        ("cmpb $ONE, 40(%rsp)", "size", ["cmpw $ONE, 40(%rsp)"]),
        ("lretq", "size", ["lretl"]),
        ("popfq", "size", ["popfw"]),
    ],
)
def test_a_damage(text: str, kind: str, new: list[str]) -> None:
    assert made(text)[kind] == new


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("jmp enter", "address"),
        ("jmp *%rax", "size"),
        ("movq %cr3, %rax", "size"),
        ("ret", "register"),
        ("ret", "size"),
        ("movl $16, %ecx", "size"),
        ("decl %ecx", "size"),
        ("leaq 8(%rax), %rbx", "size"),
    ],
)
def test_a_damage_that_makes_no_sense_is_not_made(text: str, kind: str) -> None:
    assert kind not in made(text)


def test_every_instruction_can_be_dropped_and_changes_places_with_another_one() -> None:
    assert made("ret") == {"drop": [""]}
    assert made("cld", "ret") == {"drop": [""], "swap": [""]}
    assert "swap" not in made("rep movsq", "rep movsq")


def test_there_are_six_at_most() -> None:
    assert len(changes("andl $MASK, 4(%rax)", VALUES.get, next_text="ret")) == MOST


def test_operands_are_split_where_the_assembler_does() -> None:
    assert split_operands("$(A, B), 8(%rax,%rcx,2), %rdx") == ["$(A, B)", "8(%rax,%rcx,2)", "%rdx"]
    assert split_operands("$',', %al") == ["$','", "%al"]
    assert split_operands("") == []


def test_labels_and_comments_are_told_from_the_instruction() -> None:
    assert split_line("here: popq %rax  # back") == ("here: ", "popq %rax")
    assert split_line("    movb $'#', %al") == ("    ", "movb $'#', %al")
    assert split_line("# nothing")[1] == ""
    assert without_comment('.asciz "# no comment"') == '.asciz "# no comment"'
