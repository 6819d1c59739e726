import pytest

from emu.kexec.memparse import memparse, parse_number


@pytest.mark.parametrize(
    ("text", "value", "end"),
    [
        ("0", 0, 1),
        ("10", 10, 2),
        ("010", 8, 3),
        ("08", 0, 1),
        ("0x10", 16, 4),
        ("0XfF", 255, 4),
        ("0x", 0, 1),
        ("0xg", 0, 1),
        ("9a", 9, 1),
        ("", 0, 0),
        ("-1", 0, 0),
        (" 1", 0, 0),
        ("+1", 0, 0),
        ("18446744073709551616", 1 << 64, 20),
    ],
)
def test_numbers_follow_c(text: str, value: int, end: int) -> None:
    assert parse_number(text) == (value, end)


@pytest.mark.parametrize(
    ("text", "value", "end"),
    [
        ("1K", 1 << 10, 2),
        ("1k", 1 << 10, 2),
        ("2M", 2 << 20, 2),
        ("3G", 3 << 30, 2),
        ("4t", 4 << 40, 2),
        ("5P", 5 << 50, 2),
        ("6E", 6 << 60, 2),
        ("0x10M@", 16 << 20, 5),
        ("010K", 8 << 10, 4),
        ("1KK", 1 << 10, 2),
        ("1B", 1, 1),
        ("K", 0, 1),
        ("@", 0, 0),
        ("0xEE", 0xEE, 4),
    ],
)
def test_one_suffix_of_2_to_the_10th_steps(text: str, value: int, end: int) -> None:
    assert memparse(text) == (value, end)


def test_reading_begins_at_the_position_given() -> None:
    assert memparse("16M@32M", 4) == (32 << 20, 7)
