"""Descriptors, gates and hidden segment parts."""

from __future__ import annotations

import struct

import pytest

from emu.x86.segments import (
    CODE_16,
    CODE_32,
    CODE_64,
    CONFORMING_OR_EXPAND_DOWN,
    DATA_16,
    DATA_32,
    GRANULARITY,
    PRESENT,
    Descriptor,
    Gate,
    SegmentCache,
    TableRegister,
    system_type_name,
)


def test_flat_code_decodes_from_the_bytes_that_every_kernel_uses() -> None:
    code = Descriptor.decode(struct.pack("<Q", 0x00CF9A000000FFFF))
    assert (code.base, code.limit, code.dpl) == (0, 0xFFFFFFFF, 0)
    assert code.is_code
    assert code.present
    assert code.db
    assert not code.long
    assert code.flags == 0x00C09A00


def test_base_and_limit_are_put_together_from_their_pieces() -> None:
    data = Descriptor.decode(struct.pack("<Q", 0x12_4_3_93_345678_9ABC | 0))
    assert data.base == 0x12345678
    assert data.limit == 0x39ABC


def test_granularity_scales_the_limit_in_both_directions() -> None:
    made = Descriptor.of(limit=0xFFFFF, flags=DATA_32)
    assert made.raw_limit == 0xFF
    assert Descriptor.decode(made.encode()).limit == 0xFFFFF
    assert Descriptor.of(limit=0x67, flags=PRESENT | 9 << 8).raw_limit == 0x67


@pytest.mark.parametrize(
    ("limit", "flags"), [(0x100000, DATA_16), (0x1000, DATA_32), (0x67, DATA_16 | 1)], ids=["wide", "ragged", "flags"]
)
def test_a_limit_that_no_descriptor_can_hold_is_refused(limit: int, flags: int) -> None:
    with pytest.raises(ValueError, match="no descriptor has limit"):
        Descriptor.of(limit=limit, flags=flags)


def test_a_sixteen_bit_gate_ignores_its_upper_offset() -> None:
    raw = struct.pack("<HHBBH", 0x1234, 8, 0, 0x86, 0xDEAD)
    assert Gate.decode(raw).offset == 0x1234
    assert Gate.decode(struct.pack("<HHBBH", 0x1234, 8, 0, 0x8E, 0xDEAD)).offset == 0xDEAD1234


@pytest.mark.parametrize("decode", [Descriptor.decode, Gate.decode])
@pytest.mark.parametrize("size", [0, 7, 9, 15, 17])
def test_other_lengths_are_refused(decode: type[Descriptor], size: int) -> None:
    with pytest.raises(ValueError, match=f"not {size}"):
        decode(bytes(size))  # type: ignore[call-arg,arg-type]


def test_expand_up_limits() -> None:
    segment = SegmentCache(0x18, 0, 0xFFF, DATA_32)
    assert segment.holds(0xFFC, 4)
    assert not segment.holds(0xFFD, 4)


def test_expand_down_limits() -> None:
    segment = SegmentCache(0x18, 0, 0xFFF, DATA_32 | CONFORMING_OR_EXPAND_DOWN)
    assert segment.holds(0x1000, 4)
    assert not segment.holds(0xFFF, 4)
    assert segment.holds(0xFFFFFFFC, 4)
    narrow = SegmentCache(0x18, 0, 0xFFF, DATA_16 | CONFORMING_OR_EXPAND_DOWN)
    assert not narrow.holds(0xFFFE, 4)


def test_table_register_limits() -> None:
    table = TableRegister(0x1000, 0xFF)
    assert table.holds(0xF8, 8)
    assert not table.holds(0xF9, 8)


def test_real_mode_segment() -> None:
    segment = SegmentCache.real(0x1234)
    assert (segment.base, segment.limit) == (0x12340, 0xFFFF)
    assert not segment.null
    assert SegmentCache.real(3).null


def test_rights_of_the_usual_segments() -> None:
    code64 = SegmentCache(8, 0, 0xFFFFFFFF, CODE_64)
    data = SegmentCache(0x10, 0, 0xFFFFFFFF, DATA_32)
    assert code64.long
    assert not code64.writable
    assert data.writable
    assert not data.is_code
    assert not data.conforming
    assert SegmentCache(8, 0, 0, CODE_32 | CONFORMING_OR_EXPAND_DOWN).conforming


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (CODE_64, "code 64-bit DPL0 read"),
        (CODE_32 | 3 << 13, "code 32-bit DPL3 read"),
        (CODE_16, "code 16-bit DPL0 read"),
        (DATA_32 & ~PRESENT, "data 32-bit DPL0 write not present"),
        (PRESENT | 11 << 8, "TSS32 busy DPL0"),
    ],
)
def test_descriptions(flags: int, text: str) -> None:
    made = Descriptor(0x1000, 0x67, flags & ~GRANULARITY)
    assert made.describe() == f"base 0x1000 limit 0x67 {text}"


def test_system_types_that_long_mode_does_not_have() -> None:
    assert system_type_name(9, long=True) == "TSS64 available"
    assert system_type_name(3, long=True) == "reserved type 0x3"
    assert system_type_name(6) == "interrupt gate 16"
    assert system_type_name(13) == "reserved type 0xd"
