"""The CMOS clock: a date that only virtual time moves."""

from __future__ import annotations

import pytest

from emu.machine.devices.clock import TICKS_PER_SECOND, Clock
from emu.machine.devices.cmos import Cmos


def register(cmos: Cmos, index: int) -> int:
    cmos.write(0x70, 1, index)
    return cmos.read(0x71, 1)


def set_register(cmos: Cmos, index: int, value: int) -> None:
    cmos.write(0x70, 1, index)
    cmos.write(0x71, 1, value)


def date(cmos: Cmos) -> tuple[int, ...]:
    """Century, year, month, day, weekday, hours, minutes, seconds."""
    return tuple(register(cmos, index) for index in (0x32, 9, 8, 7, 6, 4, 2, 0))


def test_power_on_is_always_the_same_moment() -> None:
    assert date(Cmos(Clock())) == (0x20, 0x07, 0x07, 0x12, 5, 0, 0, 0)


def test_the_date_advances_with_virtual_time_alone() -> None:
    clock = Clock()
    cmos = Cmos(clock)
    clock.now = (20 * 86400 + 13 * 3600 + 45 * 60 + 59) * TICKS_PER_SECOND + TICKS_PER_SECOND - 1
    assert date(cmos) == (0x20, 0x07, 0x08, 0x01, 4, 0x13, 0x45, 0x59)
    clock.now += 1
    assert register(cmos, 0) == 0


@pytest.mark.parametrize(
    ("mode", "hour", "expected"), [(2, 13, 0x13), (6, 13, 13), (0, 13, 0x81), (4, 0, 12), (4, 12, 0x8C), (0, 11, 0x11)]
)
def test_register_b_chooses_the_format(mode: int, hour: int, expected: int) -> None:
    cmos = Cmos(Clock(hour * 3600 * TICKS_PER_SECOND))
    set_register(cmos, 0x0B, mode)
    assert register(cmos, 4) == expected


def test_ram_keeps_what_is_written_and_time_registers_do_not() -> None:
    cmos = Cmos(Clock())
    for index, value in ((0x0F, 0x0A), (0x7F, 0x33), (0x09, 0x99), (0x0D, 0x00), (0x0A, 0xA6)):
        set_register(cmos, index, value)
    assert [register(cmos, index) for index in (0x0F, 0x7F, 0x09, 0x0D, 0x0A)] == [0x0A, 0x33, 0x07, 0x80, 0x26]


def test_bit_7_of_the_index_closes_the_nmi_gate() -> None:
    cmos = Cmos(Clock())
    cmos.write(0x70, 1, 0x8F)
    assert (cmos.nmi_disabled, cmos.read(0x70, 1), cmos.describe()[1:]) == (
        True,
        0xFF,
        [("index", "0x0f"), ("nmi", "disabled")],
    )
    cmos.write(0x70, 1, 0x0F)
    assert not cmos.nmi_disabled
