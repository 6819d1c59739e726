"""Instructions that Keystone alone gets wrong, drops or does not know, and what must not be assembled at all."""

from __future__ import annotations

import pytest

from emu.assembler import assemble_text
from emu.errors import AssemblyError


@pytest.mark.parametrize(
    ("bits", "text", "wanted"),
    [
        (16, "ljmp $0x08, $0x1234", "ea34120800"),
        (16, "ljmpl $0x08, $0x12345678", "66ea785634120800"),
        (32, "ljmp $0x08, $0x12345678", "ea785634120800"),
        (32, "ljmpw $0x08, $0x1234", "66ea34120800"),
        (32, "lcall $0x10, $0x20", "9a200000001000"),
        (64, "ljmp *(%rax)", "ff28"),
        (64, "ljmpq *(%rax)", "48ff28"),
        (64, "rex.w ljmp *(%rax)", "48ff28"),
        (64, "lcall *8(%rip)", "ff1d08000000"),
        (32, "ljmp *0x1234", "ff2d34120000"),
        (64, "lretq", "48cb"),
        (64, "iretq", "48cf"),
        (64, "endbr64", "f30f1efa"),
        (32, "endbr32", "f30f1efb"),
        (64, "notrack jmp *%rax", "3effe0"),
        (64, "wbnoinvd", "f30f09"),
        (64, "icebp", "f1"),
        (64, "invpcid (%rax), %rbx", "660f388218"),
        (16, "data32 lgdt 0x6000", "660f01160060"),
        (16, "lgdtl 0x6000", "660f01160060"),
        (16, "bound %ax, (%bx)", "6207"),
        (32, "bound %eax, 8(%ebx)", "624308"),
        (64, "nopw 0(%rax,%rax,1)", "660f1f0400"),
        (64, "nopl 8(%rax)", "0f1f4008"),
        (64, "incl 0x5000", "ff042500500000"),
        (64, "mov 0x5000, %rax", "488b042500500000"),
        (64, "mov %gs:0x10, %rax", "65488b042510000000"),
        (64, "mov $-1, %rax", "48c7c0ffffffff"),
        (64, "mov $0xffffffff, %rax", "48b8ffffffff00000000"),
        (64, "mov $0x1122334455667788, %rax", "48b88877665544332211"),
        (32, "and $~0x80000000, %eax", "25ffffff7f"),
        (32, "shl $12, %eax", "c1e00c"),
        (32, "mov $010, %eax", "b808000000"),
        (32, "rep movsw", "66f3a5"),
        (32, "rep; movsb", "f3a4"),
        (32, "lock\nincl (%eax)", "f0ff00"),
        (32, "rep", "f3"),
        (32, "int $3", "cc"),
        (32, "fstcw (%eax)", "9bd938"),
        (16, "addr32 movl $1, 0x12345", "6766c7054523010001000000"),
        (16, "cbtw", "98"),
        (16, "cwtl", "6698"),
        (32, "mov %ax, %ds", "8ed8"),
        (64, "xchg %rax, %rax", "4890"),
        (64, "call *sym(%rip)\nsym:", "ff1500000000"),
        (64, "cmpl $5, sym(%rip)\nsym:", "833d0000000005"),
        (64, "lea sym - . (%rip), %rax\nsym:", "488d0507000000"),
        (32, "a: mov $a, %eax\nmov a, %ecx", "b8000000008b0d00000000"),
        (32, "add $a, %ecx\na:", "81c106000000"),
        (16, "mov $a, %si\njmp *a\na:", "be0700ff260700"),
    ],
)
def test_bytes(bits: int, text: str, wanted: str) -> None:
    assert assemble_text(text, bits=bits).code.hex() == wanted


@pytest.mark.parametrize(
    ("bits", "text", "what"),
    [
        (64, "ljmp $0x08, $0x1234", "does not exist in 64-bit code"),
        (64, "pusha", "pusha"),
        (64, "push %eax", "push"),
        (64, "inc (%rax)", "inc"),
        (64, "mov $1, (%rax)", "mov"),
        (32, "mov %rax, %rbx", "%rax does not exist"),
        (32, "lock mov %eax, (%ebx)", "'lock' cannot stand"),
        (32, "lock incl %eax", "'lock' cannot stand"),
        (32, "rep incl (%eax)", "needs a string instruction"),
        (32, "rex.w nop", "64-bit code only"),
        (32, "data32 nop", "no prefix in 32-bit code"),
        (64, "data16 data16 nop", "there already"),
        (64, "notrack ret", "indirect jmp or call"),
        (32, "movb $0x1ff, %al", "does not fit 1 byte"),
        (32, "movw $65536, %ax", "does not fit 2 bytes"),
        (32, "mov $0x100000000, %eax", "does not fit 4 bytes"),
        (64, "and $0xffffffff, %rax", "and"),
        (64, "mov 0x123456789(%rax), %eax", "does not fit 4 bytes"),
        (64, "jmpq .+200", "does not exist"),
        (16, "jrcxz .", "does not exist"),
        (64, "bound %eax, (%rbx)", "does not exist"),
        (32, "jmp,pt .", "branch hints"),
        (32, "bogus %eax", "bogus"),
        (32, "mov %eax", "mov"),
        (32, "mov %eax, %foo", "%foo is not a register"),
        (32, "mov (%eax,%ebx,3), %ecx", "scale of 3"),
        (32, "mov (%eax,%esp), %ecx", "mov"),
        (32, "mov $, %eax", "missing"),
        (32, "mov %eax,", "operand is missing"),
        (32, "mov (%eax, %ebx", "cannot read"),
        (32, "mov $undefined_one, %eax", "undefined_one is not defined"),
        (16, "movdqa %xmm0, (%bx)", "16-bit code"),
        (32, "mov %r8d, %eax", "%r8d does not exist in 32-bit code"),
        (32, "str %rax", "%rax does not exist in 32-bit code"),
        (32, "swapgs", "does not exist in 32-bit code"),
        (64, "mov %ah, %sil", "REX prefix is needed"),
        (64, "movzbq %ah, %rax", "REX prefix is needed"),
        (64, "stosb 4(%rdi)", "no such address"),
        (64, "lodsb (%rdi)", "no such address"),
        (32, "nop %eax", "memory operand or none"),
        (32, "mov %mm1, (%ebp)", "does not take such a register"),
        (64, "cs movl $1, %gs:4", "two segments"),
        (64, "data16 vzeroupper", "AVX"),
        (64, "rex.w subq $1, (%rax)", "there already"),
        (64, "lretq $0xffffffff", "does not fit 2 bytes"),
        (32, "@nop", "neither an instruction nor"),
    ],
)
def test_refusals(bits: int, text: str, what: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(f"nop\n  {text}\n", bits=bits)
    assert what in str(caught.value)
    assert caught.value.line == 2
    assert caught.value.source.strip() == text


def test_the_column_is_that_of_the_offending_operand() -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text("nop\n    movl $1, %foo  # here", "x.S")
    error = caught.value
    assert (error.file, error.line, error.column) == ("x.S", 2, 14)
    assert error.source == "    movl $1, %foo  # here"
    assert str(error).startswith("x.S:2:14: ")
