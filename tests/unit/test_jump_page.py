import struct
from dataclasses import fields, replace
from itertools import pairwise

import pytest

from emu.errors import JumpPageError
from emu.kexec.jump_page import FIELDS, SPARE, JumpPage, describe, diff, dword_sum, read_fields

# Written by hand from the table in docs/GUEST_ABI.md.  The other dwords sum to 0x8291d092, added up on paper.
DUMP = """
00  4b 4a 55 4d 50 50 47 31  01 00 00 00 6e 2f 6e 7d
10  07 00 00 00 00 00 00 00  3e 00 00 00 0b 00 00 00
20  10 00 01 02 00 00 00 00  28 00 01 02 00 00 00 00
30  00 10 00 01 00 00 00 00  ef be ad de 78 56 34 12
40  00 20 01 02 00 00 00 00  00 30 01 02 00 00 00 00
50  02 40 01 02 00 00 00 00  02 40 01 02 00 00 00 00
60  00 00 00 01 00 00 00 00  00 00 00 01 00 00 00 00
70  00 00 00 00 00 00 00 00  00 f0 09 00 00 00 00 00
80  00 00 01 02 00 00 00 00  00 50 01 02 00 00 00 00
90  03 00 00 00 00 00 00 00
"""
BY_HAND = bytes.fromhex("".join(line[4:] for line in DUMP.strip().splitlines())).ljust(4096, b"\0")

PAGE = JumpPage(
    sequence=7,
    arch=62,
    mode=0xB,
    after_resume=0x2010010,
    after_image_save=0x2010028,
    resume_slot=0x1001000,
    image_id=0x12345678DEADBEEF,
    control_page=0x2012000,
    swap_page=0x2013000,
    list_head=0x2014002,
    inverse_head=0x2014002,
    target_start=0x1000000,
    target_size=0x1000000,
    low_start=0,
    low_size=0x9F000,
    entry_page=0x2010000,
    safe_list=0x2015000,
    safe_count=3,
)


def test_the_page_is_the_dump_written_by_hand() -> None:
    assert PAGE.pack()[:SPARE].hex(" ", 8) == BY_HAND[:SPARE].hex(" ", 8)
    assert PAGE.pack() == BY_HAND


def test_unpack_reads_what_pack_wrote() -> None:
    assert JumpPage.unpack(BY_HAND) == PAGE
    PAGE.verify()


def test_the_layout_has_no_gaps_and_every_field_is_in_the_dataclass() -> None:
    assert FIELDS[0].offset == 0
    assert all(left.offset + left.size == right.offset for left, right in pairwise(FIELDS))
    assert SPARE == 0x98
    assert {field.name for field in fields(JumpPage)} | {"magic", "checksum"} == {field.name for field in FIELDS}


def test_the_dwords_sum_to_zero() -> None:
    assert sum(struct.unpack("<1024I", PAGE.pack())) % (1 << 32) == 0
    assert dword_sum(b"\xff" * 4096) == (1024 * 0xFFFFFFFF) % (1 << 32)


def with_byte(at: int, value: int) -> bytes:
    page = bytearray(BY_HAND)
    page[at] = value
    return bytes(page)


def with_right_sum(at: int, value: int) -> bytes:
    """The page with one byte changed and the checksum made right again."""
    page = bytearray(with_byte(at, value))
    page[12:16] = bytes(4)
    page[12:16] = (-dword_sum(page) & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(page)


@pytest.mark.parametrize(
    ("page", "field"),
    [
        (BY_HAND[:-1], "length"),
        (BY_HAND + b"\0", "length"),
        (with_right_sum(7, 0x32), "magic"),
        (with_right_sum(8, 2), "version"),
        (with_byte(0x30, 1), "checksum"),
        (with_byte(0xC, 0), "checksum"),
        (with_byte(4095, 1), "checksum"),
        (with_right_sum(SPARE, 1), "spare"),
        (with_right_sum(4095, 1), "spare"),
    ],
)
def test_a_bad_page_names_its_field(page: bytes, field: str) -> None:
    with pytest.raises(JumpPageError) as caught:
        JumpPage.unpack(page)
    assert caught.value.field == field


def test_any_single_bit_is_noticed() -> None:
    for at in range(0, 4096, 61):
        with pytest.raises(JumpPageError):
            JumpPage.unpack(with_byte(at, BY_HAND[at] ^ 0x10))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"arch": 40}, "arch"),
        ({"mode": 0}, "mode"),
        ({"mode": 0x13}, "mode"),
        ({"mode": 7}, "mode"),
        ({"arch": 3, "mode": 0xB}, "mode"),
        ({"sequence": 0}, "sequence"),
        ({"control_page": 0x2012001}, "control_page"),
        ({"control_page": 0}, "control_page"),
        ({"swap_page": 8}, "swap_page"),
        ({"target_start": 1}, "target_start"),
        ({"target_size": 0}, "target_size"),
        ({"low_size": 0x9FC00}, "low_size"),
        ({"after_resume": 0x2011000}, "after_resume"),
        ({"after_image_save": 0}, "after_image_save"),
        ({"list_head": 0x2014008, "inverse_head": 0x2014008}, "list_head"),
        ({"inverse_head": 4}, "inverse_head"),
        ({"safe_count": 0}, "safe_count"),
        ({"safe_list": 0}, "safe_count"),
    ],
)
def test_fields_that_make_no_sense_are_named(changes: dict[str, int], field: str) -> None:
    with pytest.raises(JumpPageError) as caught:
        replace(PAGE, **changes).verify()
    assert caught.value.field == field


def test_addresses_outside_ram_are_named() -> None:
    PAGE.verify(lambda pfn: pfn < 0x4000)
    with pytest.raises(JumpPageError, match="not in RAM") as caught:
        PAGE.verify(lambda pfn: pfn != 0x1001)
    assert caught.value.field == "resume_slot"


def test_a_value_that_does_not_fit_is_refused() -> None:
    with pytest.raises(JumpPageError, match="does not fit 4 bytes") as caught:
        replace(PAGE, mode=1 << 32).pack()
    assert caught.value.field == "mode"
    with pytest.raises(JumpPageError, match="does not fit 8 bytes"):
        replace(PAGE, image_id=-1).pack()


def test_describe_shows_every_field_for_people() -> None:
    shown = {name: value for name, value, _ in describe(BY_HAND)}
    assert len(shown) == len(FIELDS)
    assert shown["magic"] == "'KJUMPPG1'"
    assert shown["mode"] == "swap, LA57"
    assert shown["arch"] == "62 (x86_64)"
    assert shown["after_resume"] == "p:0x2010010"
    assert shown["target_size"] == "16 MiB"
    assert shown["sequence"] == "7"
    assert {name: value for name, value, _ in describe(bytes(4096))}["mode"] == "no transfer"


def test_diff_names_the_fields_that_changed() -> None:
    after = bytearray(replace(PAGE, sequence=8, resume_slot=0).pack())
    after[200] = 9
    changes = diff(BY_HAND, bytes(after))
    assert [change.field for change in changes] == ["checksum", "sequence", "resume_slot", "spare"]
    assert (changes[1].before, changes[1].after) == ("7", "8")
    assert changes[3].after == "+0xc8: 0x9"
    assert diff(BY_HAND, BY_HAND) == []


def test_read_fields_takes_garbage() -> None:
    assert read_fields(b"\xff" * 4096)["sequence"] == (1 << 64) - 1
