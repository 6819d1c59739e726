import pytest

from emu.errors import BadCommandLine
from emu.kexec.e820 import MemoryMap, Range, default_map
from emu.kexec.target import Preference, parse_target, place_target
from emu.units import GIB, MIB, Phys


def chosen(text: str, ram: int) -> tuple[int, int | None] | None:
    choice = parse_target(text).choose(ram)
    return None if choice is None else (choice.size, choice.offset)


@pytest.mark.parametrize(
    ("text", "ram", "result"),
    [
        ("16M", 64 * MIB, (16 * MIB, None)),
        ("16M@16M", 64 * MIB, (16 * MIB, 16 * MIB)),
        ("0x1000000@0x2000000", 64 * MIB, (16 * MIB, 32 * MIB)),
        ("16M@0", 64 * MIB, (16 * MIB, None)),
        ("16M,high", 64 * MIB, (16 * MIB, None)),
        ("0-128M:8M,128M-:16M", 64 * MIB, (16 * MIB, None)),
        ("0-129M:8M,129M-:16M", 64 * MIB, (8 * MIB, None)),
        ("128M-256M:8M,256M-:32M@48M", 255 * MIB, (32 * MIB, 48 * MIB)),
        ("128M-256M:8M,256M-:32M@48M", 128 * MIB, (8 * MIB, 48 * MIB)),
        ("1G-:64M", 512 * MIB, None),
        ("0-:0", 512 * MIB, None),
        ("0-1G:8M,1G-2G:600M,1G-:8M", 512 * MIB, (8 * MIB, None)),
    ],
)
def test_the_grammar_of_crashkernel(text: str, ram: int, result: tuple[int, int | None] | None) -> None:
    assert chosen(text, ram) == result


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 1, "a size expected"),
        ("@16M", 1, "a size expected"),
        ("+16M", 1, "a size expected"),
        ("0", 1, "0 bytes"),
        ("K", 1, "0 bytes"),
        ("100", 1, "not whole pages"),
        ("16M16", 4, "unrecognised '1'"),
        ("16M@", 5, "an address expected"),
        ("16M@100", 5, "not whole pages"),
        ("16M@16M,high", 8, "unrecognised ','"),
        ("16M,higher", 4, "unrecognised ','"),
        ("16M,cma", 4, "CMA"),
        ("16Mx", 4, "unrecognised 'x'"),
        ("99999999E", 1, "64 bits"),
        ("1G:16M", 3, "'-' expected, not ':'"),
        (":16M", 1, "the start of a range expected"),
        ("1G-x:16M", 4, "the end of a range expected"),
        ("1G-1G:16M", 4, "not after its start"),
        ("2G-1G:16M", 4, "not after its start"),
        ("1G-2G:", 7, "a size expected"),
        ("1G-:16M,", 9, "the start of a range expected"),
        ("1G-2G:16M;", 10, "'@' expected, not ';'"),
        ("1G-2G:16M@16M,", 14, "unrecognised ','"),
        ("1G-:1M,2G-3G", 13, "':' expected, not the end"),
    ],
)
def test_malformed_values_name_their_column(text: str, column: int, words: str) -> None:
    with pytest.raises(BadCommandLine, match=words) as caught:
        parse_target(text)
    assert caught.value.column == column
    assert caught.value.option == "kexec_jump="


@pytest.mark.parametrize(
    ("text", "ram", "column"),
    [
        ("64M", 64 * MIB, 11),
        ("0-64M:200M,64M-:8M", 64 * MIB, 17),
        ("0-:100M", 64 * MIB, 14),
    ],
)
def test_a_target_area_is_smaller_than_ram(text: str, ram: int, column: int) -> None:
    spec = parse_target(text, 11)
    with pytest.raises(BadCommandLine, match="not less than RAM") as caught:
        spec.choose(ram)
    assert caught.value.column == column


def place(text: str, memory_map: MemoryMap) -> tuple[int, int]:
    choice = parse_target(text).choose(memory_map.total_ram)
    assert choice is not None
    area = place_target(choice, memory_map)
    return area.start, area.size


def test_size_alone_goes_where_kernels_are_linked() -> None:
    assert place("16M", default_map(64 * MIB)) == (16 * MIB, 16 * MIB)


def test_size_alone_goes_to_the_first_ram_that_holds_it_when_the_link_address_does_not() -> None:
    holed = MemoryMap.of([Range(Phys(MIB), Phys(20 * MIB)), Range(Phys(33 * MIB), Phys(64 * MIB))])
    assert place("8M", holed) == (2 * MIB, 8 * MIB)
    assert place("24M", holed) == (34 * MIB, 24 * MIB)


def test_preferences_choose_the_highest_and_the_lowest_place() -> None:
    assert place("16M,high", default_map(64 * MIB)) == (48 * MIB, 16 * MIB)
    assert place("16M,low", default_map(64 * MIB)) == (2 * MIB, 16 * MIB)
    assert parse_target("16M,low").preference is Preference.LOW


def test_a_fixed_place_may_contain_a_hole_but_not_begin_or_end_in_one() -> None:
    holed = MemoryMap.of([Range(Phys(MIB), Phys(20 * MIB)), Range(Phys(24 * MIB), Phys(64 * MIB))])
    assert place("16M@16M", holed) == (16 * MIB, 16 * MIB)
    with pytest.raises(BadCommandLine, match="does not begin and end in RAM"):
        place("4M@18M", holed)
    with pytest.raises(BadCommandLine, match="does not begin and end in RAM"):
        place("4M@22M", holed)


def test_no_room_is_an_error() -> None:
    with pytest.raises(BadCommandLine, match="no RAM holds 62 MiB"):
        place("62M", default_map(63 * MIB))
    assert place("62M", default_map(1 * GIB)) == (16 * MIB, 62 * MIB)
