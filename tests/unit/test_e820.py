import struct

import pytest

from emu.errors import JourneyError
from emu.kexec.e820 import E820Type, MemoryMap, Range, boot_params, default_map
from emu.units import GIB, MIB, Phys

RESERVED = E820Type.RESERVED


def ram(start: int, end: int, kind: E820Type = E820Type.RAM) -> Range:
    return Range(Phys(start), Phys(end), kind)


def test_default_map_is_that_of_the_guest_contract() -> None:
    found = default_map(64 * MIB)
    assert [(r.start, r.end) for r in found.ranges if r.type is E820Type.RAM] == [(0, 0x9FC00), (MIB, 64 * MIB)]
    assert found.total_ram_pages == 0x9F + (64 * MIB - MIB) // 4096
    assert found.low_region() == ram(0, 0x9F000)
    assert found.is_ram(0x9E)
    assert not found.is_ram(0x9F)
    assert not found.is_ram(0xA0)
    assert found.end_of_ram == 64 * MIB


def test_ram_beyond_3_gib_goes_above_4_gib() -> None:
    found = default_map(4 * GIB)
    assert found.end_of_ram == 5 * GIB
    assert not found.is_ram((3 * GIB) >> 12)


@pytest.mark.parametrize("size", [MIB, 2 * MIB + 1, 0])
def test_default_map_refuses_odd_sizes(size: int) -> None:
    with pytest.raises(JourneyError, match="bytes of RAM"):
        default_map(size)


def test_low_region_is_the_first_ram_range_wherever_it_is() -> None:
    early_hole = MemoryMap.of([ram(0x10000, 0x97800), ram(0, 0x10000, RESERVED), ram(MIB, 8 * MIB)])
    assert early_hole.low_region() == ram(0x10000, 0x97000)
    through = MemoryMap.of([ram(0x1000, 8 * MIB)])
    assert through.low_region() == ram(0x1000, 0xA0000)
    part_pages = MemoryMap.of([ram(0x400, 0x1400), ram(0x3000, 0x5000), ram(MIB, 8 * MIB)])
    assert part_pages.low_region() == ram(0x3000, 0x5000)


def test_no_low_region_is_an_error() -> None:
    with pytest.raises(JourneyError, match="640 KiB"):
        MemoryMap.of([ram(MIB, 8 * MIB)]).low_region()


def test_ranges_are_sorted_and_neighbours_make_whole_pages_together() -> None:
    found = MemoryMap.of([ram(0x1800, 0x3000), ram(0x1000, 0x1800)])
    assert [r.start for r in found.ranges] == [0x1000, 0x1800]
    assert list(found.ram_pages()) == [1, 2]
    assert found.ram_within(0x1001, 0x2FFF) == []
    assert found.ram_within(0, 0x2000) == [ram(0x1000, 0x2000)]


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ([ram(0, 0x2000), ram(0x1000, 0x3000, RESERVED)], "overlap"),
        ([ram(0, 0x1000, RESERVED)], "no RAM"),
        ([ram(n * 0x2000, n * 0x2000 + 0x1000) for n in range(129)], "129 ranges"),
    ],
)
def test_bad_maps_are_refused(ranges: list[Range], words: str) -> None:
    with pytest.raises(JourneyError, match=words):
        MemoryMap.of(ranges)


@pytest.mark.parametrize(("start", "end"), [(0x1000, 0x1000), (0x2000, 0x1000), (-1, 5), (0, (1 << 64) + 1)])
def test_a_range_holds_memory(start: int, end: int) -> None:
    with pytest.raises(JourneyError, match="holds no memory"):
        ram(start, end)


def test_entries_encode_as_address_size_type_and_decode_again() -> None:
    found = default_map(64 * MIB)
    table = found.encode()
    assert len(table) == 20 * len(found.ranges)
    assert table[:20] == bytes.fromhex("0000000000000000 00fc090000000000 01000000")
    assert MemoryMap.decode(table) == found


@pytest.mark.parametrize("table", [b"\0" * 21, struct.pack("<QQI", 0, 0x1000, 99)])
def test_bad_tables_are_refused(table: bytes) -> None:
    with pytest.raises(JourneyError):
        MemoryMap.decode(table)


def test_toml_tables_take_end_or_size() -> None:
    found = MemoryMap.from_tables(
        [{"start": 0x100000, "size": 0x100000}, {"start": 0, "end": 0x1000, "type": "reserved"}]
    )
    assert found.ranges == (ram(0, 0x1000, RESERVED), ram(0x100000, 0x200000))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"start": 0}, "one of end and size"),
        ({"start": 0, "end": 1, "size": 1}, "one of end and size"),
        ({"start": "0", "end": 1}, "start is '0'"),
        ({"start": True, "end": 4096}, "start is True"),
        ({"start": 0, "end": 4096, "type": "rum"}, "unknown type 'rum'"),
        ({"start": 0, "end": 4096, "colour": 1}, "unknown key 'colour'"),
    ],
)
def test_odd_toml_is_refused_with_its_number(table: dict[str, object], words: str) -> None:
    with pytest.raises(JourneyError, match=f"range 2: .*{words}"):
        MemoryMap.from_tables([{"start": 0x100000, "end": 0x200000}, table])


def test_zero_page_has_its_fields_where_the_boot_protocol_says() -> None:
    found = default_map(64 * MIB)
    page = boot_params(found, 0x91000)
    assert len(page) == 4096
    assert page[0x1E8] == 4
    assert page[0x202:0x206] == b"HdrS"
    assert struct.unpack_from("<H", page, 0x206) == (0x020C,)
    assert page[0x210] == 0xD0
    assert struct.unpack_from("<I", page, 0x228) == (0x91000,)
    assert page[0x2D0 : 0x2D0 + 80] == found.encode()


def test_a_command_line_above_4_gib_does_not_fit() -> None:
    with pytest.raises(JourneyError, match="below 4 GiB"):
        boot_params(default_map(64 * MIB), 1 << 32)
