from __future__ import annotations

import pytest

from emu.assembler import assemble_text
from emu.errors import AssemblyError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (".byte 1, -1, 'a", "01ff61"),
        (".word 0x1234", "3412"),
        (".short 10", "0a00"),
        (".long 10", "0a000000"),
        (".int -1", "ffffffff"),
        (".quad 0x1122334455667788", "8877665544332211"),
        ('.ascii "ab", "c"', "616263"),
        ('.ascii "\\n\\t\\0\\101\\x42\\"\\\\"', "0a090041422 25c".replace(" ", "")),
        ('.asciz "x"', "7800"),
        ('.string "é"', "c3a900"),
        (".fill 3", "000000"),
        (".fill 2, 2, 0x1234", "34123412"),
        (".fill 1, 8, -1", "ffffffff00000000"),
        (".space 2, 0xcc", "cccc"),
        (".skip 2", "0000"),
        (".zero 1", "00"),
        (".double 1.5", "000000000000f83f"),
        (".float 1.5", "0000c03f"),
        (".byte 1\n.balign 4, 0xcc\n.byte 2", "01cccccc02"),
        (".byte 1\n.p2align 2, 0\n.byte 2", "0100000002"),
        (".byte 1\n.align 4\n.byte 2", "0190909002"),
        (".byte 1\n.balign 16, 0, 3\n.byte 2", "0102"),
        (".byte 1\n.org 4, 0xcc\n.byte 2", "01cccccc02"),
        ("a: .byte 1\n.org a + 3\n.byte 2", "01000002"),
        (".byte 1\n. = 3\n.byte 2", "01000002"),
        (".set x, 3\n.byte x\n.set x, 4\n.byte x", "0304"),
        ("x = 3\n.byte x, y\ny == 5", "0305"),
        ("a: .long b - a, . - a\nb:", "0800000000000000"),
        (".long 1f - .\n1: .byte 1b - .", "0400000000"),
        ("nop\n.end\nbogus", "90"),
        ('.globl x\n.type x, @function\nx: nop\n.size x, . - x\n.cfi_startproc\n.ident "me"', "90"),
        ('.text\nnop\n.section .note.GNU-stack,"",@progbits', "90"),
        ("nop\n.section .text\nhlt", "90f4"),
    ],
)
def test_bytes(text: str, wanted: str) -> None:
    assert assemble_text(text).code.hex() == wanted


def test_org_with_a_number_counts_from_the_start_of_the_image() -> None:
    image = assemble_text(".org 4\nend:", org=0x1000)
    assert (len(image.code), image.symbols["end"]) == (4, 0x1004)


def test_alignment_is_of_the_address() -> None:
    assert len(assemble_text(".balign 16", org=0x1008).code) == 8


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (".byte 256", "does not fit 1 byte"),
        (".byte -129", "does not fit 1 byte"),
        (".word 65536", "does not fit 2 bytes"),
        (".long 0x100000000", "does not fit 4 bytes"),
        (".byte far\n.skip 300\nfar:", "does not fit 1 byte"),
        (".byte 1,,2", "missing"),
        (".ascii x", "string in double quotes"),
        ('.ascii "a" b', "string in double quotes"),
        ('.ascii "\\q"', "unknown escape"),
        (".balign 3", "power of two"),
        (".p2align 99", "power of two"),
        (".skip -1", "outside 0"),
        (".skip 1 << 40", "outside 0"),
        (".fill 1, 9", "outside 0 to 8"),
        (".skip 4\n.org 2", "move the location back"),
        (".org 1 << 40", "more than an image may have"),
        ("a: .skip b - a + 1\nb:", "does not settle"),
        (".set 1x, 2", "a symbol and a value"),
        (".double abc", "not a number"),
        (".long undefined_thing", "is not defined"),
        (".set a, b\n.set b, a\n.long a", "defined by itself"),
        (".equiv a, 1\n.equiv a, 2", "defined already"),
        ("a:\na:", "defined already"),
        ("a:\n.set a, 1", "defined already"),
        ('.error "stub too large"', "stub too large"),
        (".long 1b", "no label 1: before"),
        (".long 1f", "no label 1: after"),
        (".data", "one flat section"),
        (".section .rodata", "one flat section"),
        (".bss", "one flat section"),
        (".comm x, 4", "one flat section"),
        (".section .note.GNU-stack\nnop", "bytes in section"),
        (".section .note.GNU-stack\njmp .", "bytes in section"),
        ('.incbin "/etc/passwd"', "file of this machine"),
        (".intel_syntax noprefix", "AT&T"),
        (".code64 1", "no operand"),
        (".bogus", "not supported"),
    ],
)
def test_refusals(text: str, what: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(text)
    assert what in caught.value.what


def test_a_misspelt_directive_or_symbol_gets_a_hint() -> None:
    with pytest.raises(AssemblyError, match=r"did you mean \.balign"):
        assemble_text(".baling 4")
    with pytest.raises(AssemblyError, match="did you mean swap_pages"):
        assemble_text("swap_pages: call swap_page")


def test_a_warning_is_kept_with_its_place() -> None:
    assert assemble_text('nop\n.warning "odd"', "x.S").warnings == ("x.S:2: odd",)
