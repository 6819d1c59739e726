from errno import EADDRNOTAVAIL, EFAULT, EINVAL

import pytest

from emu.errors import LoadError
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range, default_map
from emu.kexec.segments import Segment, check_segments, content_of, kjump_segments, page_of, usable_by_jump
from emu.units import MIB, PAGE_SIZE, Phys

MAP = default_map(64 * MIB)
TARGET = Range(Phys(16 * MIB), Phys(24 * MIB))


def at(mem: int, pages: int = 1, content: bytes = b"x") -> Segment:
    return Segment(content, len(content), mem, pages * PAGE_SIZE)


def test_a_segment_of_content_takes_whole_pages() -> None:
    assert Segment.of(b"a" * 4097, 0x5000) == Segment(b"a" * 4097, 4097, 0x5000, 0x2000)
    assert Segment.of(b"a", 0x5000, 0x3000).pages == 3
    assert Segment.of(b"", 0).memsz == 0


def test_pages_are_the_content_then_zero() -> None:
    segment = Segment(b"ab" * 2050, 4099, 0x5000, 0x3000)
    assert page_of(segment, 0) == b"ab" * 2048
    assert page_of(segment, 0x1000) == b"aba".ljust(4096, b"\0")
    assert page_of(segment, 0x2000) == bytes(4096)
    assert content_of(segment) == (b"ab" * 2050)[:4099]


@pytest.mark.parametrize("buf", [None, b"short"])
def test_a_buffer_that_cannot_be_read_is_efault_unless_bufsz_is_0(buf: bytes | None) -> None:
    for read in (content_of, lambda segment: page_of(segment, 0)):
        with pytest.raises(LoadError) as caught:
            read(Segment(buf, 100, 0x5000, 0x1000))
        assert caught.value.errno == EFAULT
        assert read(Segment(buf, 0, 0x5000, 0x1000)).strip(b"\0") == b""


@pytest.mark.parametrize(
    ("segments", "errno", "words"),
    [
        ([Segment(None, 0, (1 << 64) - 0x1000, 0x1000)], EADDRNOTAVAIL, "wraps"),
        ([Segment(None, 0, (1 << 64) - 0x1000, 0x2000)], EADDRNOTAVAIL, "wraps"),
        ([Segment(None, 0, 0x5800, 0x1000)], EADDRNOTAVAIL, "begin and end at a page"),
        ([Segment(None, 0, 0x5000, 0x800)], EADDRNOTAVAIL, "begin and end at a page"),
        ([Segment(None, 0, 1 << 46, 0x1000)], EADDRNOTAVAIL, "above the limit"),
        ([at(0x5000, 2), at(0x6000)], EINVAL, "overlaps"),
        ([at(0x5000), at(0x5000)], EINVAL, "overlaps"),
        ([Segment(b"x" * 4097, 4097, 0x5000, 0x1000)], EINVAL, "4097 bytes for 4096"),
        ([at(MIB, 33 * MIB // PAGE_SIZE)], EINVAL, "half of RAM"),
        ([at(MIB, 16 * MIB // PAGE_SIZE), at(17 * MIB, 16 * MIB // PAGE_SIZE)], EINVAL, "half of RAM"),
        ([at(0x9F000)], EADDRNOTAVAIL, "not all RAM"),
        ([at(64 * MIB - PAGE_SIZE, 2)], EADDRNOTAVAIL, "not all RAM"),
    ],
)
def test_refused_segments(segments: list[Segment], errno: int, words: str) -> None:
    with pytest.raises(LoadError, match=words) as caught:
        check_segments(segments, Arch.X86_64, MAP)
    assert caught.value.errno == errno


def test_checks_come_in_the_order_of_the_kernel() -> None:
    wraps, overlaps, too_much = Segment(None, 0, (1 << 64) - 0x1000, 0x1000), at(0x5000), Segment(b"", 9, 0x9000, 0)
    with pytest.raises(LoadError, match="wraps"):
        check_segments([overlaps, overlaps, too_much, wraps], Arch.X86_64, MAP)
    with pytest.raises(LoadError, match="overlaps"):
        check_segments([too_much, overlaps, overlaps], Arch.X86_64, MAP)
    with pytest.raises(LoadError, match="9 bytes for 0"):
        check_segments([at(MIB, 33 * 256), too_much], Arch.X86_64, MAP)


def test_i386_wraps_at_4_gib() -> None:
    with pytest.raises(LoadError, match="wraps"):
        check_segments([Segment(None, 0, 0xFFFFF000, 0x1000)], Arch.I386, MAP)


def test_neighbours_empty_segments_and_the_null_image_pass() -> None:
    check_segments([at(0x5000), at(0x6000), Segment(None, 0, 0x5000, 0)], Arch.X86_64, MAP)
    check_segments([Segment(None, 0, 0, 0)], Arch.I386, MAP)
    with pytest.raises(LoadError, match="overlaps"):
        check_segments([at(0x5000), at(0x6000), at(0x6000)], Arch.X86_64, MAP)


def covered(segments: tuple[Segment, ...]) -> set[int]:
    return {pfn for segment in segments for pfn in range(segment.mem >> 12, segment.end >> 12)}


def filled(segments: tuple[Segment, ...]) -> dict[int, bytes]:
    """Every page that is not zero, by physical address."""
    pages = {s.mem + offset: page_of(s, offset) for s in segments for offset in range(0, s.memsz, PAGE_SIZE)}
    return {address: page for address, page in pages.items() if any(page)}


def test_every_page_that_b_may_use_becomes_a_destination() -> None:
    image = [at(0x3000, content=b"purgatory"), at(0x90000, 2), at(16 * MIB, 20)]
    segments = kjump_segments(MAP, TARGET, image)
    assert covered(segments) == {*range(0x9F), *range(16 * 256, 24 * 256)}
    assert [(s.mem, s.end, s.bufsz) for s in segments] == [
        (0, 0x3000, 0),
        (0x3000, 0x90000, 9),
        (0x90000, 0x9F000, 1),
        (16 * MIB, 24 * MIB, 1),
    ]
    check_segments(segments, Arch.X86_64, MAP)


def test_no_image_still_covers_both() -> None:
    assert [(s.mem, s.bufsz) for s in kjump_segments(MAP, TARGET, [])] == [(0, 0), (16 * MIB, 0)]


def test_holes_in_the_target_area_are_left_out() -> None:
    holed = MemoryMap.of(
        [
            Range(Phys(0x10000), Phys(0x97800)),
            Range(Phys(MIB), Phys(18 * MIB + 0x800)),
            Range(Phys(20 * MIB), Phys(64 * MIB)),
        ]
    )
    assert usable_by_jump(holed, TARGET) == [
        Range(Phys(0x10000), Phys(0x97000)),
        Range(Phys(16 * MIB), Phys(18 * MIB)),
        Range(Phys(20 * MIB), Phys(24 * MIB)),
    ]
    segments = kjump_segments(holed, TARGET, [at(20 * MIB + PAGE_SIZE)])
    assert [s.mem for s in segments] == [0x10000, 16 * MIB, 20 * MIB, 20 * MIB + PAGE_SIZE]
    check_segments(segments, Arch.X86_64, holed)


def test_a_target_area_that_touches_the_low_region_is_one_piece_with_it() -> None:
    through = MemoryMap.of([Range(Phys(0), Phys(8 * MIB))])
    assert usable_by_jump(through, Range(Phys(0x80000), Phys(2 * MIB))) == [Range(Phys(0), Phys(2 * MIB))]


@pytest.mark.parametrize("count", [1, 14, 15, 16, 17, 40])
def test_neighbours_are_joined_until_there_are_16_and_content_stays_where_it_is(count: int) -> None:
    image = [at(16 * MIB + 3 * n * PAGE_SIZE, 1, bytes([n + 1]) * (n + 1)) for n in range(count)]
    segments = kjump_segments(MAP, TARGET, [*image, at(0x4000)])
    assert len(segments) <= 16
    assert covered(segments) == {*range(0x9F), *range(16 * 256, 24 * 256)}
    assert filled(segments) == filled((*image, at(0x4000)))
    check_segments(segments, Arch.X86_64, MAP)


@pytest.mark.parametrize("mem", [0x9F000, 15 * MIB, 24 * MIB])
def test_a_segment_outside_target_area_and_low_region_is_refused(mem: int) -> None:
    with pytest.raises(LoadError, match="outside the low region and the target area") as caught:
        kjump_segments(MAP, TARGET, [at(mem)])
    assert caught.value.errno == EADDRNOTAVAIL


def test_a_segment_that_leaves_the_target_area_is_refused() -> None:
    with pytest.raises(LoadError, match="outside"):
        kjump_segments(MAP, TARGET, [at(24 * MIB - PAGE_SIZE, 2)])


def test_overlaps_are_refused_before_anything_is_joined() -> None:
    with pytest.raises(LoadError, match="overlaps") as caught:
        kjump_segments(MAP, TARGET, [at(16 * MIB, 2), at(16 * MIB + PAGE_SIZE)])
    assert caught.value.errno == EINVAL
