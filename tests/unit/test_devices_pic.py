"""The cascaded 8259A pair: initialisation, priorities, ends of interrupt, and what is spurious."""

from __future__ import annotations

import pytest

from emu.machine.devices.pic import Pic

EDGE, LEVEL = 0x11, 0x19


def programmed(icw1: int = EDGE, icw4: int = 0x01, masks: tuple[int, int] = (0, 0)) -> Pic:
    """Vectors 0x20 and 0x28, as a kernel sets them."""
    pic = Pic()
    for command, base, cascade in ((0x20, 0x20, 0x04), (0xA0, 0x28, 0x02)):
        pic.write(command, 1, icw1)
        for word in (base, cascade, icw4):
            pic.write(command + 1, 1, word)
    pic.write(0x21, 1, masks[0])
    pic.write(0xA1, 1, masks[1])
    return pic


def registers(pic: Pic, command: int) -> tuple[int, int, int]:
    """IRR, ISR, IMR as a guest reads them."""
    pic.write(command, 1, 0x0A)
    irr = pic.read(command, 1)
    pic.write(command, 1, 0x0B)
    return irr, pic.read(command, 1), pic.read(command + 1, 1)


def test_at_power_on_every_line_is_masked() -> None:
    pic = Pic()
    pic.set_line(0, True)
    pic.set_line(8, True)
    assert pic.pending_vector() is None
    assert (pic.read(0x21, 1), pic.read(0xA1, 1)) == (0xFF, 0xFF)


@pytest.mark.parametrize("irq", [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
def test_each_line_has_its_vector(irq: int) -> None:
    pic = programmed()
    pic.set_line(irq, True)
    assert pic.pending_vector() == 0x20 + irq
    assert pic.acknowledge() == 0x20 + irq
    assert pic.pending_vector() is None


@pytest.mark.parametrize("irq", [2, -1, 16])
def test_the_cascade_and_lines_that_do_not_exist_take_no_device(irq: int) -> None:
    with pytest.raises(ValueError, match=f"no device can drive IRQ {irq}"):
        programmed().set_line(irq, True)


def test_a_lower_level_waits_for_the_end_of_a_higher_one() -> None:
    pic = programmed()
    pic.set_line(4, True)
    assert pic.acknowledge() == 0x24
    pic.set_line(5, True)
    assert pic.pending_vector() is None
    pic.set_line(1, True)
    assert pic.acknowledge() == 0x21
    pic.write(0x20, 1, 0x20)
    assert registers(pic, 0x20) == (0x20, 0x10, 0)
    pic.write(0x20, 1, 0x20)
    assert pic.pending_vector() == 0x25


def test_a_slave_interrupt_needs_an_end_on_both_chips() -> None:
    pic = programmed()
    pic.set_line(12, True)
    assert pic.acknowledge() == 0x2C
    assert (registers(pic, 0x20)[1], registers(pic, 0xA0)[1]) == (0x04, 0x10)
    pic.set_line(14, True)
    pic.write(0x20, 1, 0x20)
    assert pic.pending_vector() is None
    pic.write(0xA0, 1, 0x20)
    assert pic.pending_vector() == 0x2E


def test_a_specific_end_clears_the_level_it_names() -> None:
    pic = programmed()
    for irq in (4, 1):
        pic.set_line(irq, True)
        pic.acknowledge()
    pic.write(0x20, 1, 0x64)
    assert registers(pic, 0x20)[1] == 0x02


def test_an_end_with_nothing_in_service_does_nothing() -> None:
    pic = programmed()
    before = pic.snapshot()
    pic.write(0x20, 1, 0x20)
    assert pic.snapshot() == before


def test_an_edge_asks_once_and_a_level_as_long_as_it_stands() -> None:
    edge, level = programmed(EDGE), programmed(LEVEL)
    for pic in (edge, level):
        pic.set_line(3, True)
        pic.acknowledge()
        pic.write(0x20, 1, 0x20)
        pic.set_line(3, True)
    assert edge.pending_vector() is None
    assert level.pending_vector() == 0x23
    level.set_line(3, False)
    assert level.pending_vector() is None


def test_a_line_that_drops_withdraws_its_request_and_the_acknowledge_is_spurious() -> None:
    pic = programmed()
    pic.set_line(3, True)
    pic.set_line(3, False)
    assert pic.pending_vector() is None
    assert pic.acknowledge() == 0x27
    assert registers(pic, 0x20)[1] == 0


def test_a_spurious_slave_interrupt_leaves_the_master_in_service() -> None:
    pic = programmed(LEVEL)
    pic.set_line(9, True)
    state = pic.state
    pic.set_line(9, False)
    pic.state = type(state)(state.master, pic.state.slave)
    assert pic.pending_vector() == 0x2F
    assert pic.acknowledge() == 0x2F
    assert (pic.state.master.isr, pic.state.slave.isr) == (0x04, 0)


def test_automatic_end_of_interrupt_keeps_nothing_in_service() -> None:
    pic = programmed(icw4=0x03)
    pic.set_line(4, True)
    assert pic.acknowledge() == 0x24
    assert registers(pic, 0x20) == (0, 0, 0)


def test_automatic_rotation_makes_the_acknowledged_level_the_lowest() -> None:
    pic = programmed(icw4=0x03)
    pic.write(0x20, 1, 0x80)
    pic.set_line(0, True)
    pic.acknowledge()
    pic.set_line(0, False)
    pic.set_line(0, True)
    pic.set_line(1, True)
    assert pic.acknowledge() == 0x21
    pic.write(0x20, 1, 0x00)
    assert pic.acknowledge() == 0x20
    assert pic.state.master.lowest == 1


def test_priorities_rotate_by_command() -> None:
    pic = programmed()
    pic.write(0x20, 1, 0xC4)
    for irq in (0, 4, 5):
        pic.set_line(irq, True)
    assert pic.acknowledge() == 0x25
    pic.write(0x20, 1, 0xA0)
    assert pic.state.master.lowest == 5
    assert pic.acknowledge() == 0x20
    pic.write(0x20, 1, 0xE0)
    assert (pic.state.master.lowest, pic.state.master.isr) == (0, 0)


def test_special_mask_mode_lets_lower_levels_through_and_is_left_alone_by_a_plain_end() -> None:
    pic = programmed()
    pic.set_line(1, True)
    pic.acknowledge()
    pic.set_line(4, True)
    pic.write(0x21, 1, 0x02)
    assert pic.pending_vector() is None
    pic.write(0x20, 1, 0x68)
    assert pic.pending_vector() == 0x24
    pic.write(0x20, 1, 0x20)
    assert registers(pic, 0x20)[1] == 0x02
    pic.write(0x20, 1, 0x48)
    assert pic.pending_vector() is None


def test_special_fully_nested_mode_lets_a_higher_slave_level_through() -> None:
    nested, plain = programmed(icw4=0x11), programmed()
    for pic in (nested, plain):
        pic.set_line(12, True)
        pic.acknowledge()
        pic.set_line(9, True)
    assert (nested.pending_vector(), plain.pending_vector()) == (0x29, None)


def test_masking_takes_a_request_back_and_unmasking_returns_it() -> None:
    pic = programmed()
    pic.set_line(10, True)
    pic.write(0xA1, 1, 0x04)
    assert pic.pending_vector() is None
    pic.write(0xA1, 1, 0)
    assert pic.pending_vector() == 0x2A


def test_a_poll_acknowledges() -> None:
    pic = programmed()
    pic.write(0x20, 1, 0x0C)
    assert pic.read(0x20, 1) == 0
    pic.set_line(6, True)
    pic.write(0x20, 1, 0x0C)
    assert pic.read(0x20, 1) == 0x86
    assert registers(pic, 0x20)[1] == 0x40


def test_initialisation_forgets_masks_service_and_edges() -> None:
    pic = programmed(masks=(0x55, 0))
    pic.write(0x20, 1, 0x68)
    pic.set_line(1, True)
    pic.acknowledge()
    pic.set_line(3, True)
    pic.write(0x20, 1, EDGE)
    for word in (0x30, 4, 1):
        pic.write(0x21, 1, word)
    assert registers(pic, 0x20) == (0, 0, 0)
    assert not pic.state.master.special_mask
    pic.set_line(3, False)
    pic.set_line(3, True)
    assert pic.acknowledge() == 0x33


@pytest.mark.parametrize(("icw1", "words"), [(0x10, 2), (0x11, 3), (0x12, 1), (0x13, 2)])
def test_icw1_says_how_many_words_follow(icw1: int, words: int) -> None:
    pic = Pic()
    pic.write(0x20, 1, icw1)
    for word in [0x40, *[0] * (words - 1)]:
        assert pic.describe()[0][1].endswith("in initialisation")
        pic.write(0x21, 1, word)
    pic.write(0x21, 1, 0xA5)
    assert (pic.state.master.base, pic.read(0x21, 1)) == (0x40, 0xA5)
