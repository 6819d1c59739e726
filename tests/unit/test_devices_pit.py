"""The 8254: output and count of each mode, the byte interface, IRQ 0, and port 0x61."""

from __future__ import annotations

import pytest

from emu.machine.devices.clock import TICKS_PER_PIT_CLOCK, Clock
from emu.machine.devices.pit import Pit
from emu.machine.devices.pit_counter import Counter, Mode


class Bench:
    """A timer, its clock, and the tick of every change of IRQ 0."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pit = Pit(self.clock, self._irq)
        self.edges: list[tuple[int, bool]] = []
        self._due = 0

    def _irq(self, number: int, level: bool) -> None:
        assert number == 0
        self.edges.append((self._due // TICKS_PER_PIT_CLOCK, level))

    def write(self, *accesses: tuple[int, int]) -> None:
        for port, value in accesses:
            self._due = self.clock.now
            self.pit.write(port, 1, value)

    def to(self, pit_clock: int) -> None:
        """Go to an input clock, event by event."""
        now = pit_clock * TICKS_PER_PIT_CLOCK
        while (due := self.pit.next_deadline()) is not None and due <= now:
            self._due = due
            self.pit.advance(due)
        self.clock.now = now

    def count(self, channel: int = 0) -> int:
        """The count as a guest latches and reads it, low byte first."""
        self.write((0x43, channel << 6))
        return self.pit.read(0x40 + channel, 1) | self.pit.read(0x40 + channel, 1) << 8


def levels(mode: Mode, count: int, clocks: int, *, modulus: int = 0x10000) -> str:
    """OUT from the write of a count at time 0, one letter a clock."""
    counter = Counter(mode=mode, modulus=modulus).loaded(count, 0)
    if mode in (Mode.ONE_SHOT, Mode.HARDWARE_STROBE):
        counter = counter.with_gate(False, 0).with_gate(True, 0)
    return "".join("H" if counter.out(clock) else "L" for clock in range(clocks))


@pytest.mark.parametrize(
    ("mode", "count", "expected"),
    [
        (Mode.TERMINAL_COUNT, 4, "LLLLLHHHHH"),
        (Mode.ONE_SHOT, 3, "HLLLHHHHHH"),
        (Mode.RATE, 3, "HHHLHHLHHL"),
        (Mode.SQUARE, 4, "HHHLLHHLLH"),
        (Mode.SQUARE, 5, "HHHHLLHHHL"),
        (Mode.SOFTWARE_STROBE, 3, "HHHHLHHHHH"),
        (Mode.HARDWARE_STROBE, 2, "HHHLHHHHHH"),
        (Mode.RATE, 1, "HHLHLHLHLH"),
    ],
)
def test_out_follows_the_data_sheets_diagrams(mode: Mode, count: int, expected: str) -> None:
    assert levels(mode, count, len(expected)) == expected


@pytest.mark.parametrize(
    ("mode", "count", "expected"),
    [
        (Mode.TERMINAL_COUNT, 3, [3, 3, 2, 1, 0, 0xFFFF]),
        (Mode.RATE, 3, [3, 3, 2, 1, 3, 2]),
        (Mode.SQUARE, 4, [4, 4, 2, 4, 2, 4]),
        (Mode.SQUARE, 5, [4, 4, 2, 0, 4, 2, 4]),
    ],
)
def test_the_count_follows_the_data_sheets_diagrams(mode: Mode, count: int, expected: list[int]) -> None:
    counter = Counter(mode=mode).loaded(count, 0)
    assert [counter.count(clock) for clock in range(len(expected))] == expected


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("count", [2, 3, 7, 8])
def test_next_edge_agrees_with_out(mode: Mode, count: int) -> None:
    counter = Counter(mode=mode, gate=False).loaded(count, 0).with_gate(True, 0)
    changes = [clock for clock in range(1, 60) if counter.out(clock) != counter.out(clock - 1)]
    edges, now = [], 0
    while (edge := counter.next_edge(now)) is not None and edge < 60:
        if counter.out(edge) != counter.out(edge - 1):
            edges.append(edge)
        now = edge
    assert edges == changes


def test_a_new_rate_waits_for_the_end_of_the_period() -> None:
    counter = Counter(mode=Mode.RATE).loaded(4, 0).loaded(2, 2)
    assert counter.null_count(3)
    settled = counter.settled(5)
    assert (counter.settled(4), settled.start, settled.reload) == (counter, 5, 2)


def test_a_new_square_wave_waits_for_the_end_of_the_half_period() -> None:
    counter = Counter(mode=Mode.SQUARE).loaded(8, 0).loaded(4, 2)
    shape = "".join("H" if counter.settled(clock).out(clock) else "L" for clock in range(12))
    assert shape == "HHHHHLLHHLLH"


def test_before_programming_nothing_is_due_and_the_line_is_low() -> None:
    bench = Bench()
    bench.to(100_000)
    assert (bench.pit.next_deadline(), bench.edges) == (None, [])


def test_a_thousand_hertz_gives_an_edge_every_1193_clocks() -> None:
    bench = Bench()
    bench.write((0x43, 0x34), (0x40, 1193 & 0xFF), (0x40, 1193 >> 8))
    bench.to(1193 * 4)
    rises = [clock for clock, level in bench.edges if level]
    assert rises == [0, 1194, 1194 + 1193, 1194 + 2 * 1193]
    assert [clock for clock, level in bench.edges if not level] == [1193, 1193 * 2, 1193 * 3, 1193 * 4]


def test_mode_0_interrupts_once() -> None:
    bench = Bench()
    bench.write((0x43, 0x10), (0x40, 5))
    bench.to(1000)
    assert bench.edges == [(6, True)]
    bench.write((0x40, 5))
    bench.to(2000)
    assert bench.edges == [(6, True), (1000, False), (1006, True)]


def test_a_mode_0_control_word_stops_the_timer() -> None:
    bench = Bench()
    bench.write((0x43, 0x34), (0x40, 100), (0x40, 0))
    bench.to(150)
    bench.write((0x43, 0x30))
    assert (bench.edges[-1], bench.pit.next_deadline()) == ((150, False), None)


def test_the_first_byte_of_a_mode_0_count_stops_counting() -> None:
    bench = Bench()
    bench.write((0x43, 0x30), (0x40, 10), (0x40, 0))
    bench.to(5)
    bench.write((0x40, 20))
    assert bench.pit.next_deadline() is None
    bench.write((0x40, 0))
    assert bench.pit.next_deadline() == (6 + 20) * TICKS_PER_PIT_CLOCK


@pytest.mark.parametrize(("access", "written", "reload"), [(0x14, 0x34, 0x34), (0x24, 0x12, 0x1200)])
def test_one_byte_access_modes(access: int, written: int, reload: int) -> None:
    bench = Bench()
    bench.write((0x43, access), (0x40, written))
    assert bench.pit.state.channels[0].counter.reload == reload
    bench.to(1)
    assert bench.pit.read(0x40, 1) == written


@pytest.mark.parametrize(("control", "reload"), [(0x34, 0x10000), (0x35, 10_000)])
def test_a_count_of_zero_is_the_longest(control: int, reload: int) -> None:
    bench = Bench()
    bench.write((0x43, control), (0x40, 0), (0x40, 0))
    assert bench.pit.state.channels[0].counter.reload == reload


def test_bcd_counts_in_decimal_digits() -> None:
    bench = Bench()
    bench.write((0x43, 0x31), (0x40, 0x00), (0x40, 0x10))
    bench.to(2)
    assert bench.count() == 0x0999
    bench.to(1 + 1001)
    assert bench.count() == 0x9999


def test_a_latched_count_holds_until_both_bytes_are_read() -> None:
    bench = Bench()
    bench.write((0x43, 0x34), (0x40, 0), (0x40, 0x20))
    bench.to(1 + 0x10)
    bench.write((0x43, 0x00))
    bench.to(1 + 0x210)
    bench.write((0x43, 0x00))
    assert [bench.pit.read(0x40, 1) for _ in range(4)] == [0xF0, 0x1F, 0xF0, 0x1D]


def test_read_back_latches_status_then_count_of_several_channels() -> None:
    bench = Bench()
    bench.write((0x43, 0x34), (0x40, 9), (0x40, 0), (0x43, 0x50), (0x41, 7))
    bench.write((0x43, 0xC6))
    assert bench.pit.read(0x40, 1) == 0x80 | 0x40 | 0x34
    assert (bench.pit.read(0x40, 1), bench.pit.read(0x40, 1)) == (9, 0)
    assert bench.pit.read(0x41, 1) == 0x40 | 0x10
    assert bench.pit.read(0x41, 1) == 7
    bench.to(2)
    bench.write((0x43, 0xE2))
    assert bench.pit.read(0x40, 1) == 0x80 | 0x34
    bench.write((0x43, 0xD2))
    assert bench.pit.read(0x40, 1) == 8


def test_the_control_port_is_write_only() -> None:
    assert Bench().pit.read(0x43, 1) == 0xFF


def test_port_61_gates_channel_2_and_shows_its_output() -> None:
    bench = Bench()
    bench.write((0x43, 0xB0), (0x42, 100), (0x42, 0))
    bench.to(500)
    assert (bench.pit.read(0x61, 1) & 0x2F, bench.count(2)) == (0, 100)
    bench.write((0x61, 1))
    bench.to(550)
    bench.write((0x61, 0))
    bench.to(700)
    assert bench.count(2) == 51
    bench.write((0x61, 3))
    bench.to(751)
    assert bench.pit.read(0x61, 1) & 0x2F == 0x03
    bench.to(752)
    assert bench.pit.read(0x61, 1) & 0x2F == 0x23


def test_a_gate_that_rises_restarts_a_square_wave() -> None:
    counter = Counter(mode=Mode.SQUARE).loaded(4, 0).with_gate(False, 3)
    assert (counter.out(3), counter.out(9)) == (True, True)
    again = counter.with_gate(True, 10)
    assert "".join("H" if again.out(clock) else "L" for clock in range(10, 16)) == "HHHLLH"


def test_the_refresh_bit_of_port_61_toggles() -> None:
    bench = Bench()
    seen = []
    for clock in (0, 17, 18, 35, 36):
        bench.to(clock)
        seen.append(bench.pit.read(0x61, 1) >> 4 & 1)
    assert seen == [0, 0, 1, 1, 0]


def test_a_late_access_first_does_what_was_due() -> None:
    bench = Bench()
    bench.write((0x43, 0x34), (0x40, 10), (0x40, 0))
    bench.clock.now = 25 * TICKS_PER_PIT_CLOCK
    bench.pit.read(0x40, 1)
    assert [level for _, level in bench.edges] == [True, False, True, False, True]


def test_a_late_control_word_does_not_undo_what_was_due() -> None:
    bench = Bench()
    bench.write((0x43, 0x34), (0x40, 10), (0x40, 0))
    bench.clock.now = 15 * TICKS_PER_PIT_CLOCK
    bench.write((0x43, 0x30))
    assert [level for _, level in bench.edges] == [True, False, True, False]


def test_a_running_timer_takes_a_new_rate_after_its_period() -> None:
    bench = Bench()
    bench.write((0x43, 0x34), (0x40, 10), (0x40, 0))
    bench.to(5)
    bench.write((0x40, 20), (0x40, 0))
    bench.to(60)
    assert [clock for clock, level in bench.edges if level] == [0, 11, 31, 51]


def test_describe_names_mode_and_reload() -> None:
    bench = Bench()
    bench.write((0x43, 0x34), (0x40, 10), (0x40, 0))
    assert bench.pit.describe()[0] == ("channel 0", "mode 2, reload 10, count 10, out high")
    assert "not programmed" in bench.pit.describe()[1][1]
