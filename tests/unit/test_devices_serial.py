"""The 16550A: registers, loopback, FIFO, and the causes of IRQ 4."""

from __future__ import annotations

import pytest

from emu.machine.devices.serial import Serial
from emu.machine.devices.signals import ConsoleLine, DeviceSignal

BASE = 0x3F8


class Bench:
    """A port with its signals and the changes of its request line."""

    def __init__(self) -> None:
        self.signals: list[DeviceSignal] = []
        self.irqs: list[bool] = []
        self.port = Serial(self._irq, self.signals.append)

    def _irq(self, number: int, level: bool) -> None:
        assert number == 4
        self.irqs.append(level)

    def write(self, *accesses: tuple[int, int]) -> None:
        for register, value in accesses:
            self.port.write(BASE + register, 1, value)

    def read(self, register: int) -> int:
        return self.port.read(BASE + register, 1)


def test_the_transmitter_is_always_empty() -> None:
    bench = Bench()
    for byte in b"A| up\r\n":
        assert bench.read(5) == 0x60
        bench.write((0, byte))
    assert bench.port.output == b"A| up\r\n"
    assert bench.signals == [ConsoleLine("serial", "A| up")]


def test_the_divisor_latch_hides_data_and_ier() -> None:
    bench = Bench()
    bench.write((3, 0x83), (0, 0x02), (1, 0x01), (3, 0x03), (1, 0x05))
    assert (bench.port.output, bench.read(1), bench.port.state.divisor) == (b"", 0x05, 0x102)
    bench.write((3, 0x80))
    assert (bench.read(0), bench.read(1), bench.read(3)) == (0x02, 0x01, 0x80)


def test_the_scratch_register_remembers() -> None:
    bench = Bench()
    bench.write((7, 0xA5))
    assert bench.read(7) == 0xA5


@pytest.mark.parametrize("register", [5, 6])
def test_status_registers_take_no_writes(register: int) -> None:
    bench = Bench()
    before = bench.port.state
    bench.write((register, 0xFF))
    assert bench.port.state == before


def test_loopback_returns_bytes_and_modem_lines() -> None:
    bench = Bench()
    bench.write((4, 0x1E), (0, 0x5A))
    assert (bench.read(5), bench.read(0), bench.port.output) == (0x61, 0x5A, b"")
    assert bench.read(6) & 0xF0 == 0xD0
    assert bench.irqs == []


def test_loopback_overruns_a_receiver_without_fifo() -> None:
    bench = Bench()
    bench.write((4, 0x10), (0, 1), (0, 2))
    assert (bench.read(5), bench.read(5), bench.read(0)) == (0x63, 0x61, 1)


def test_input_waits_until_there_is_room() -> None:
    bench = Bench()
    bench.port.feed(b"hello")
    assert bytes(bench.read(0) for _ in range(6)) == b"hello\0"
    assert bench.read(5) == 0x60


def test_loopback_cuts_the_wire() -> None:
    bench = Bench()
    bench.write((4, 0x10))
    bench.port.feed(b"x")
    assert bench.read(5) == 0x60
    bench.write((4, 0x00))
    assert bench.read(0) == ord("x")


def test_the_receive_interrupt_stands_while_there_is_data() -> None:
    bench = Bench()
    bench.write((4, 0x08), (1, 0x01))
    bench.port.feed(b"ab")
    assert (bench.read(2), bench.irqs) == (0x04, [True])
    bench.read(0)
    assert bench.irqs == [True]
    bench.read(0)
    assert (bench.read(2), bench.irqs) == (0x01, [True, False])


def test_out2_gates_the_request_line() -> None:
    bench = Bench()
    bench.write((1, 0x01))
    bench.port.feed(b"a")
    assert (bench.read(2), bench.irqs) == (0x04, [])
    bench.write((4, 0x08))
    assert bench.irqs == [True]


def test_in_loopback_causes_show_but_the_request_line_is_cut() -> None:
    bench = Bench()
    bench.write((4, 0x18), (1, 0x01), (0, 0x55))
    assert (bench.read(2), bench.irqs) == (0x04, [])


def test_a_thre_interrupt_is_over_once_read_and_comes_again_with_each_byte() -> None:
    bench = Bench()
    bench.write((4, 0x08), (1, 0x02))
    assert (bench.read(2), bench.read(2), bench.irqs) == (0x02, 0x01, [True, False])
    bench.write((0, ord("x")), (0, ord("y")))
    assert bench.irqs == [True, False, True, False, True]


def test_enabling_thre_twice_asks_once() -> None:
    bench = Bench()
    bench.write((4, 0x08), (1, 0x02))
    bench.read(2)
    bench.write((1, 0x02))
    assert bench.read(2) == 0x01


@pytest.mark.parametrize(("fcr", "trigger"), [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_below_its_trigger_level_a_fifo_reports_a_timeout(fcr: int, trigger: int) -> None:
    bench = Bench()
    bench.write((2, fcr), (1, 0x01))
    bench.port.feed(bytes(trigger))
    assert bench.read(2) == 0xC4
    bench.read(0)
    assert bench.read(2) == (0xCC if trigger > 1 else 0xC1)


def test_fifo_control_empties_the_receiver() -> None:
    bench = Bench()
    bench.write((2, 0x01))
    bench.port.feed(bytes(16))
    bench.write((2, 0x03))
    assert bench.read(5) == 0x60
    assert bench.read(2) == 0xC1


def test_causes_have_priorities() -> None:
    bench = Bench()
    bench.write((4, 0x10), (1, 0x0F), (0, 1), (0, 2), (4, 0x13))
    causes = [bench.read(2)]
    bench.read(5)
    causes.append(bench.read(2))
    bench.read(0)
    causes += [bench.read(2), bench.read(2)]
    bench.read(6)
    causes.append(bench.read(2))
    assert causes == [0x06, 0x04, 0x02, 0x00, 0x01]


def test_a_snapshot_holds_registers_input_and_output() -> None:
    bench = Bench()
    bench.write((0, ord("\n")), (0, ord("a")))
    bench.port.feed(b"in")
    state = bench.port.snapshot()
    bench.write((0, ord("\n")), (7, 9))
    bench.read(0)
    bench.port.restore(state)
    assert (bench.port.output, bench.read(0), bench.read(7)) == (b"\na", ord("i"), 0)
    bench.write((0, ord("\n")))
    assert bench.signals[-1] == ConsoleLine("serial", "a")
