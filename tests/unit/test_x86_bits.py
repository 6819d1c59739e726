"""Register bit tables and how they are shown."""

from __future__ import annotations

from enum import IntEnum

import pytest

from emu.x86 import bits
from emu.x86.bits import Cr0, Cr4, Dr6, Dr7, Efer, Eflags, Msr, decode, decode_cr3, decode_eflags, msr_name


@pytest.mark.parametrize("table", [Cr0, bits.Cr3, Cr4, Efer, Eflags, Dr6, Dr7], ids=lambda table: table.__name__)
def test_every_entry_is_one_bit_and_in_order(table: type[IntEnum]) -> None:
    values = [int(bit) for bit in table]
    assert all(value.bit_count() == 1 for value in values)
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("table", "value", "text"),
    [
        (Cr0, 0x80050033, "PE MP ET NE WP AM PG"),
        (Cr0, 0x11, "PE ET"),
        (Cr4, 0x1020, "PAE LA57"),
        (Efer, 0xD01, "SCE LME LMA NXE"),
        (Cr0, 0, ""),
        (Cr0, 0x1 | 1 << 7 | 1 << 40, "PE +0x10000000080"),
    ],
)
def test_decode_names_bits_from_low_to_high(table: type[IntEnum], value: int, text: str) -> None:
    assert decode(value, table) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0x2, ""), (0x246, "PF ZF IF"), (0x3002, "IOPL=3"), (0x44402, "DF NT AC"), (0x1202, "IF IOPL=1")],
)
def test_eflags_leave_the_fixed_bit_out_and_show_iopl(value: int, text: str) -> None:
    assert decode_eflags(value) == text


def test_cr3_is_an_address_with_flags() -> None:
    assert decode_cr3(0x1234018) == "p:0x1234000 PWT PCD"
    assert decode_cr3(0x700000) == "p:0x700000"


def test_msr_names() -> None:
    assert msr_name(0xC0000080) == "EFER"
    assert msr_name(0x1234) == "0x1234"
    assert int(Msr.PAT) == 0x277


def test_supported_masks_are_those_of_the_documented_processor() -> None:
    assert bits.CR0_SUPPORTED == 0xE005003F
    assert bits.CR4_SUPPORTED == 0xB71FFF
    assert bits.EFER_SUPPORTED == 0xD01
    assert bits.PHYS_MASK == 0xFF_FFFF_FFFF
