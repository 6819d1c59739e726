"""The list of safe memory and the core header that carries it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.errors import ImageFileError
from emu.hibernate.elf_core import parse_head
from emu.hibernate.safe_list import (
    pack_core_header,
    pack_safe_list,
    parse_core_header,
    parse_safe_list,
    require_kept,
    safe_ranges,
)
from emu.kexec.arch import Arch
from emu.kexec.e820 import E820Type, MemoryMap, Range, default_map
from emu.units import GIB, MIB, PAGE_SIZE, Phys


def span(start: int, end: int, kind: E820Type = E820Type.RAM) -> Range:
    return Range(Phys(start), Phys(end), kind)


TARGET = span(16 * MIB, 20 * MIB)


def test_target_area_and_low_region_are_left_out() -> None:
    assert safe_ranges(default_map(32 * MIB), TARGET) == (span(MIB, 16 * MIB), span(20 * MIB, 32 * MIB))


def test_what_is_no_ram_is_left_out() -> None:
    memory_map = MemoryMap.of(
        [
            span(0, 0x9FC00),
            span(MIB, 24 * MIB),
            span(24 * MIB, 25 * MIB, E820Type.NVS),
            span(25 * MIB, 26 * MIB, E820Type.RESERVED),
            span(26 * MIB, 27 * MIB, E820Type.ACPI),
            span(28 * MIB, 29 * MIB + 0x800),
        ]
    )
    assert safe_ranges(memory_map, TARGET) == (
        span(MIB, 16 * MIB),
        span(20 * MIB, 24 * MIB),
        span(28 * MIB, 29 * MIB),
    )


def test_a_nosave_range_takes_every_page_that_it_touches() -> None:
    nosave = [span(21 * MIB + 0x10, 21 * MIB + 0x20), span(22 * MIB - 1, 22 * MIB + 1)]
    assert safe_ranges(default_map(24 * MIB), TARGET, nosave=nosave) == (
        span(MIB, 16 * MIB),
        span(20 * MIB, 21 * MIB),
        span(21 * MIB + PAGE_SIZE, 22 * MIB - PAGE_SIZE),
        span(22 * MIB + PAGE_SIZE, 24 * MIB),
    )


def test_a_low_region_of_another_place_is_left_out() -> None:
    ranges = safe_ranges(default_map(32 * MIB), TARGET, low=span(0x1000, 0x80000))
    assert ranges[:2] == (span(0, 0x1000), span(0x80000, 0x9F000))


def test_the_list_is_pairs_of_qwords() -> None:
    ranges = (span(0x100000, 0x1000000), span(0x1400000, 0x2000000))
    data = struct.pack("<4Q", 0x100000, 0xF00000, 0x1400000, 0xC00000)
    assert pack_safe_list(ranges) == data
    assert parse_safe_list(data) == ranges


@pytest.mark.parametrize(
    ("qwords", "why"),
    [
        ((0x1000,), "whole number"),
        ((0x1000, 0), "no whole pages"),
        ((0x1800, 0x1000), "no whole pages"),
        ((0x1000, 0x10), "no whole pages"),
        (((1 << 64) - 0x1000, 0x2000), "no whole pages"),
        ((0x3000, 0x1000, 0x1000, 0x1000), "before the one before it ends"),
        ((0x1000, 0x3000, 0x2000, 0x1000), "before the one before it ends"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(qwords: tuple[int, ...], why: str) -> None:
    with pytest.raises(ImageFileError, match=why):
        parse_safe_list(struct.pack(f"<{len(qwords)}Q", *qwords))


@pytest.mark.parametrize("arch", list(Arch))
def test_the_core_header_is_elf64_with_offsets_that_are_addresses(arch: Arch) -> None:
    ranges = (span(MIB, 16 * MIB), span(20 * MIB, GIB))
    data = pack_core_header(arch, ranges)
    head = parse_head(data)
    assert (head.wide, head.machine) == (True, arch.machine)
    assert all(load.offset == load.physical for load in head.loads)
    assert head.loads[0].linear == arch.direct(MIB)
    assert parse_core_header(data) == ranges
    unmapped = [load.physical for load in head.loads if load.linear == (1 << 64) - 1]
    assert unmapped == ([896 * MIB] if arch.bits == 32 else [])


def test_a_core_header_of_a_file_is_not_one_of_memory() -> None:
    data = bytearray(pack_core_header(Arch.X86_64, [span(MIB, 2 * MIB)]))
    data[64 + 56 + 8] ^= 0x10
    with pytest.raises(ImageFileError, match="elsewhere than at its physical address"):
        parse_core_header(bytes(data))


def test_a_page_that_a_needs_and_the_list_leaves_out_is_named() -> None:
    ranges = safe_ranges(default_map(32 * MIB), TARGET)
    require_kept(ranges, {"jump page": [0x1F00], "page tables": range(0x1500, 0x1510)})
    with pytest.raises(ImageFileError, match="the entry list at p:0x1001000 would not be saved"):
        require_kept(ranges, {"jump page": [0x1F00], "entry list": [0x1F01, 0x1001]})


@st.composite
def page_ranges(draw: st.DrawFn) -> tuple[Range, ...]:
    cuts = sorted(draw(st.sets(st.integers(0, 1 << 20), min_size=2, max_size=40)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return tuple(span(start * PAGE_SIZE, end * PAGE_SIZE) for start, end in pairs)


@given(page_ranges(), st.sampled_from(list(Arch)))
def test_lists_and_headers_read_back(ranges: tuple[Range, ...], arch: Arch) -> None:
    assert parse_safe_list(pack_safe_list(ranges)) == ranges
    assert parse_core_header(pack_core_header(arch, ranges)) == ranges
