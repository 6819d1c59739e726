"""A %rip-relative operand ``symbol + number`` did not assemble for addresses in the upper half."""

from __future__ import annotations

import pytest

from emu.assembler import assemble_text


@pytest.mark.parametrize("org", [0x1000, 0x7FFF_F000, 0xFFFF_8880_0100_0000, 0xFFFF_FFFF_8100_0F00])
def test_an_offset_from_a_symbol_is_the_same_everywhere(org: int) -> None:
    text = "movl x + 4(%rip), %edx\nmovl x - 4(%rip), %edx\nret\nx: .quad 0\n"
    image = assemble_text(text, org=org, bits=64)
    assert image.code.hex() == "8b150b000000" + "8b15fdffffff" + "c3" + "00" * 8
