"""The port bus: who answers, how wide accesses are split, and the order of events."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from emu.machine.devices.board import Board, pc_devices
from emu.machine.devices.bus import PortBus
from emu.machine.devices.clock import PIT_HZ, TICKS_PER_PIT_CLOCK, TICKS_PER_SECOND, Clock
from emu.machine.devices.device import StateDevice
from emu.machine.devices.post import PostPort
from emu.machine.devices.signals import ConsoleLine, DeviceSignal, ExitRequest, HostRequest, PostCode


class Alarm(StateDevice[tuple[int, ...]]):
    """Due at each tick of a list; writes its name and the tick down."""

    def __init__(self, name: str, base: int, due: tuple[int, ...], log: list[tuple[str, int]]) -> None:
        super().__init__(due)
        self.name = name
        self.base = base
        self.log = log

    def ports(self) -> Iterable[int]:
        return (self.base, self.base + 1)

    def read(self, port: int, size: int) -> int:  # noqa: ARG002
        return port & 0xFF

    def write(self, port: int, size: int, value: int) -> None:
        self.log.append((f"{self.name} {port:#x}/{size}", value))

    def next_deadline(self) -> int | None:
        return self.state[0] if self.state else None

    def advance(self, now: int) -> None:
        while self.state and self.state[0] <= now:
            self.log.append((self.name, self.state[0]))
            self.state = self.state[1:]

    def describe(self) -> list[tuple[str, str]]:
        return [("due", str(self.state))]


def board() -> tuple[Board, list[DeviceSignal], list[tuple[int, bytes, str]]]:
    signals: list[DeviceSignal] = []
    stores: list[tuple[int, bytes, str]] = []
    built = pc_devices(Clock(), dma_write=lambda *store: stores.append(store), signal=signals.append)
    return built, signals, stores


def test_the_virtual_processor_runs_at_64_ticks_a_timer_clock() -> None:
    assert TICKS_PER_SECOND == TICKS_PER_PIT_CLOCK * PIT_HZ == 76_363_648


@pytest.mark.parametrize(("size", "value"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFFFFFF)])
def test_an_unclaimed_port_reads_all_ones(size: int, value: int) -> None:
    bus = PortBus(Clock())
    bus.write(0x1234, size, 0)
    assert bus.read(0x1234, size) == value


def test_a_wide_access_to_byte_ports_is_split_and_its_gaps_read_ones() -> None:
    log: list[tuple[str, int]] = []
    bus = PortBus(Clock())
    bus.attach(Alarm("a", 0x100, (), log))
    bus.write(0x100, 4, 0x44332211)
    assert log == [("a 0x100/1", 0x11), ("a 0x101/1", 0x22)]
    assert bus.read(0x100, 4) == 0xFFFF0100


def test_a_wide_access_wraps_at_the_end_of_the_port_space() -> None:
    bus = PortBus(Clock())
    bus.attach(Alarm("a", 0x0, (), []))
    assert bus.read(0xFFFF, 2) == 0x00FF


def test_two_devices_cannot_share_a_port() -> None:
    bus = PortBus(Clock())
    bus.attach(PostPort(lambda signal: None))  # noqa: ARG005
    with pytest.raises(ValueError, match=r"port 0x80 of b already belongs to post"):
        bus.attach(Alarm("b", 0x7F, (), []))
    assert bus.device_at(0x7F) is None


def test_events_come_in_order_of_time_then_of_attachment() -> None:
    log: list[tuple[str, int]] = []
    bus = PortBus(Clock())
    bus.attach(Alarm("a", 0x100, (5, 20, 30), log))
    bus.attach(Alarm("b", 0x200, (7, 20, 21), log))
    assert bus.next_deadline() == 5
    bus.advance(29)
    assert log == [("a", 5), ("b", 7), ("a", 20), ("b", 20), ("b", 21)]
    assert bus.next_deadline() == 30


def test_a_port_access_sees_everything_due_before_it() -> None:
    log: list[tuple[str, int]] = []
    clock = Clock()
    bus = PortBus(clock)
    bus.attach(Alarm("a", 0x100, (5,), log))
    clock.now = 9
    bus.write(0x100, 1, 1)
    assert log == [("a", 5), ("a 0x100/1", 1)]


def test_a_snapshot_of_another_bus_is_refused() -> None:
    built, _, _ = board()
    with pytest.raises(TypeError, match="not a snapshot"):
        built.bus.restore(())
    with pytest.raises(TypeError, match="pic: int is not a state"):
        built.bus.restore(tuple([1] * len(built.bus.devices)))


@pytest.mark.parametrize("name", ["pic", "pit", "serial", "debugcon", "post", "cmos", "busmaster"])
def test_every_device_refuses_a_foreign_state(name: str) -> None:
    built, _, _ = board()
    device = next(device for device in built.bus.devices if device.name == name)
    with pytest.raises(TypeError, match=f"{name}: complex is not a state"):
        device.restore(1j)


def test_post_codes_are_signalled_and_read_back() -> None:
    built, signals, _ = board()
    built.bus.write(0x80, 1, 0x42)
    assert signals == [PostCode(0x42)]
    assert built.bus.read(0x80, 1) == 0x42


def test_the_debug_console_collects_bytes_and_lines() -> None:
    built, signals, _ = board()
    for byte in b"one\r\ntwo":
        built.bus.write(0xE9, 1, byte)
    assert built.bus.read(0xE9, 1) == 0xE9
    assert built.debugcon.output == b"one\r\ntwo"
    assert built.debugcon.console.unfinished == "two"
    assert signals == [ConsoleLine("debugcon", "one")]


def test_a_console_line_that_is_no_text_still_shows() -> None:
    built, signals, _ = board()
    for byte in b"\xffx\n":
        built.bus.write(0xE9, 1, byte)
    assert signals == [ConsoleLine("debugcon", "\\xffx")]


@pytest.mark.parametrize(("size", "value"), [(1, 3), (2, 0x103), (4, 0x80000001)])
def test_an_exit_request_carries_the_whole_value(size: int, value: int) -> None:
    built, signals, _ = board()
    built.bus.write(0xF4, size, value)
    assert signals == [ExitRequest(value)]
    assert built.bus.read(0xF4, 1) == 0xFF


def test_a_host_request_is_one_dword_at_its_first_port() -> None:
    built, signals, _ = board()
    built.bus.write(0x5E0, 4, 6)
    built.bus.write(0x5E0, 1, 1)
    built.bus.write(0x5E1, 4, 2)
    assert signals == [HostRequest(6)]
    assert built.bus.read(0x5E0, 4) == 0xFFFFFFFF


def test_the_board_describes_every_device() -> None:
    built, _, _ = board()
    described = built.bus.describe()
    names = ["pic", "pit", "serial", "debugcon", "post", "cmos", "busmaster", "exit", "host"]
    assert [name for name, _ in described] == names
    assert all(rows for _, rows in described)


def test_a_board_snapshot_takes_everything_back() -> None:
    built, _, stores = board()
    before = built.snapshot()
    for port, size, value in ((0x43, 1, 0x34), (0x40, 1, 10), (0x40, 1, 0), (0x80, 1, 7), (0x3F8, 1, 0x41)):
        built.bus.write(port, size, value)
    for port, value in ((0x5C0, 0x5000), (0x5C4, 8), (0x5C8, 100), (0x5CC, 1)):
        built.bus.write(port, 4, value)
    built.clock.now = 5000
    built.bus.advance(5000)
    after = built.snapshot()
    built.restore(before)
    assert (built.clock.now, built.serial.output, built.bus.next_deadline()) == (0, b"", None)
    built.restore(after)
    assert built.snapshot() == after
    assert (built.clock.now, built.serial.output, len(stores)) == (5000, b"A", 50)
