from __future__ import annotations

import pytest

from emu.assembler import assemble_text
from emu.errors import AssemblyError


def test_a_branch_is_short_where_it_reaches_and_long_where_not() -> None:
    assert assemble_text("jmp a\n.skip 127\na:").code[:2].hex() == "eb7f"
    assert assemble_text("jmp a\n.skip 128\na:").code[:5].hex() == "e980000000"
    assert assemble_text("a: .skip 126\njmp a").code[-2:].hex() == "eb80"
    assert assemble_text("a: .skip 127\njne a").code[-6:].hex() == "0f857bffffff"


def test_one_branch_that_grows_pushes_another_out_of_reach() -> None:
    text = "jmp b\njmp a\n.skip 123\nb: .skip 5\na:"
    assert assemble_text(text).code[:10].hex() == "e980000000" + "e980000000"


def test_branches_in_sixteen_bit_code_have_sixteen_bit_distances() -> None:
    assert assemble_text("jmp a\n.skip 200\na:", bits=16).code[:3].hex() == "e9c800"
    assert assemble_text("jmp .-0x7000", org=0x1000, bits=16).code.hex() == "e9fd8f"


def test_branches_to_global_symbols_are_long_as_the_linker_might_move_them() -> None:
    assert assemble_text("a: jmp a").code.hex() == "ebfe"
    assert assemble_text(".global a\na: jmp a").code.hex() == "e9fbffffff"
    assert assemble_text("a: jmp a\n.global a").code.hex() == "e9fbffffff"


@pytest.mark.parametrize("word", ["loop", "jrcxz", "jecxz"])
def test_a_branch_without_a_long_form_says_that_it_does_not_reach(word: str) -> None:
    with pytest.raises(AssemblyError, match="out of reach"):
        assemble_text(f"{word} a\n.skip 200\na:")


def test_padding_that_depends_on_branches_is_laid_out() -> None:
    image = assemble_text("a: jmp b\n.skip 130\nb: .skip 256 - (. - a), 0xcc\nend:")
    assert image.symbols["end"] == 256
    assert image.code[-1] == 0xCC


def test_relocation_is_assembling_again_at_another_address() -> None:
    text = "lea data(%rip), %rax\nmovabs $data, %rbx\ndata: .quad data"
    low, high = assemble_text(text), assemble_text(text, org=0x1000000)
    assert low.code[:7] == high.code[:7]
    assert high.code[-8:] == (0x1000000 + 17).to_bytes(8, "little")


def test_an_address_beyond_its_field_is_refused() -> None:
    with pytest.raises(AssemblyError):
        assemble_text("a: mov $a, %rax", org=0x90000000)
    with pytest.raises(AssemblyError):
        assemble_text("a: mov $a, %ax", org=0x20000, bits=16)
