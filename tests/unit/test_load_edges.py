"""Requests at the edges of what kexec_load takes: each was once taken, or refused, wrongly somewhere."""

from __future__ import annotations

from errno import EADDRNOTAVAIL, EINVAL

import pytest

from emu.errors import LoadError
from emu.kexec.arch import Arch
from emu.kexec.e820 import E820Type, MemoryMap, Range, default_map
from emu.kexec.segments import Segment, check_segments, kjump_segments
from emu.units import MIB, PAGE_SIZE, Phys

MAP = default_map(24 * MIB)


@pytest.mark.parametrize("arch", list(Arch))
def test_a_segment_that_wraps_around_is_refused_as_such(arch: Arch) -> None:
    segment = Segment(None, 0, (1 << arch.bits) - PAGE_SIZE, 2 * PAGE_SIZE)
    with pytest.raises(LoadError, match="wraps around") as caught:
        check_segments([segment], arch, MAP)
    assert caught.value.errno == EADDRNOTAVAIL


def test_more_than_half_of_ram_is_refused_for_one_segment_and_for_all_together() -> None:
    half = MAP.total_ram_pages // 2 * PAGE_SIZE
    together = [Segment(None, 0, MIB, half // 2 & -PAGE_SIZE), Segment(None, 0, 14 * MIB, 8 * MIB)]
    for segments in ([Segment(None, 0, MIB, half + PAGE_SIZE)], together):
        with pytest.raises(LoadError, match="more than half of RAM") as caught:
            check_segments(segments, Arch.X86_64, MAP)
        assert caught.value.errno == EINVAL
    check_segments([Segment(None, 0, MIB, half)], Arch.X86_64, MAP)


def test_a_piece_of_ram_smaller_than_a_page_is_no_segment() -> None:
    target = Range(Phys(16 * MIB), Phys(18 * MIB))
    memory_map = MemoryMap.of(
        [
            Range(Phys(0), Phys(0x9FC00)),
            Range(Phys(MIB), Phys(17 * MIB)),
            Range(Phys(17 * MIB), Phys(17 * MIB + 0x400), E820Type.RESERVED),
            Range(Phys(17 * MIB + 0x400), Phys(17 * MIB + 0xC00)),
            Range(Phys(17 * MIB + 0xC00), Phys(17 * MIB + PAGE_SIZE), E820Type.RESERVED),
            Range(Phys(17 * MIB + PAGE_SIZE), Phys(24 * MIB)),
        ]
    )
    segments = kjump_segments(memory_map, target, [])
    assert [(segment.mem, segment.end) for segment in segments] == [
        (0, 0x9F000), (16 * MIB, 17 * MIB), (17 * MIB + PAGE_SIZE, 18 * MIB),
    ]  # fmt: skip
