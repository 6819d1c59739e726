"""The bus master: it stores until somebody stops it."""

from __future__ import annotations

import pytest

from emu.machine.devices.busmaster import BusMaster
from emu.machine.devices.clock import Clock

Store = tuple[int, int, str]


def started(length: int = 12, period: int = 100, ring: int = 0x5000) -> tuple[BusMaster, Clock, list[Store]]:
    stores: list[Store] = []
    clock = Clock(1000)
    master = BusMaster(
        clock, lambda address, data, name: stores.append((address, int.from_bytes(data, "little"), name))
    )
    for port, value in ((0x5C0, ring), (0x5C4, length), (0x5C8, period), (0x5CC, 1)):
        master.write(port, 4, value)
    return master, clock, stores


def test_it_counts_round_its_ring() -> None:
    master, _, stores = started()
    assert master.next_deadline() == 1100
    master.advance(1099)
    assert stores == []
    master.advance(1450)
    assert stores == [
        (0x5000, 1, "busmaster"),
        (0x5004, 2, "busmaster"),
        (0x5008, 3, "busmaster"),
        (0x5000, 4, "busmaster"),
    ]
    assert master.next_deadline() == 1500


def test_its_registers_read_back() -> None:
    master, _, _ = started()
    assert [master.read(port, 4) for port in (0x5C0, 0x5C4, 0x5C8, 0x5CC, 0x5C2)] == [0x5000, 12, 100, 1, 0xFFFFFFFF]


def test_it_stops_when_told() -> None:
    master, _, stores = started()
    master.write(0x5CC, 4, 0)
    master.advance(10_000)
    assert (stores, master.next_deadline(), master.read(0x5CC, 4)) == ([], None, 0)
    assert master.describe() == [("state", "stopped")]


def test_new_registers_count_from_the_next_start() -> None:
    master, clock, stores = started()
    master.write(0x5C0, 4, 0x9000)
    master.advance(1100)
    clock.now = 1150
    master.write(0x5CC, 4, 1)
    master.advance(1250)
    assert [(address, value) for address, value, _ in stores] == [(0x5000, 1), (0x9000, 1)]


@pytest.mark.parametrize(("length", "period"), [(0, 1), (6, 1), (4100, 1), (8, 0)])
def test_an_unusable_ring_never_starts(length: int, period: int) -> None:
    master, _, _ = started(length=length, period=period)
    assert (master.running, master.next_deadline()) == (False, None)


def test_a_whole_page_is_the_longest_ring() -> None:
    master, _, _ = started(length=4096)
    assert master.describe()[1] == ("ring", "p:0x5000, 4096 bytes")
