"""Physical memory: banks, holes, ROM, dirty pages, snapshots over a base."""

from __future__ import annotations

import pytest

from emu.errors import EngineError
from emu.kexec.e820 import MemoryMap, Range
from emu.machine.ram import Ram
from emu.units import Phys
from tests.machine_bench import HOLE, RAM_END, ROM, SMALL_MAP


@pytest.fixture
def ram() -> Ram:
    return Ram(SMALL_MAP)


def test_banks_are_ram_ranges_and_the_rom(ram: Ram) -> None:
    assert [(bank.start, bank.end, bank.rom) for bank in ram.banks] == [
        (0, 0x9F000, False),
        (ROM, 0x100000, True),
        (0x100000, RAM_END, False),
    ]
    assert list(ram.holes(0x500000)) == [(0x9F000, ROM), (RAM_END, 0x500000)]


def test_only_whole_pages_of_the_map_are_ram_and_neighbours_are_one_bank() -> None:
    half = Ram(MemoryMap.of([Range(Phys(0), Phys(0x9FC00)), Range(Phys(0x9FC00), Phys(0xA0800))]))
    assert half.is_ram(0x9FFFF)
    assert not half.is_ram(0xA0000)


def test_a_read_over_a_hole_gives_all_ones_there(ram: Ram) -> None:
    ram.write(0x9EFFC, b"abcd")
    assert ram.read(0x9EFFC, 8) == b"abcd\xff\xff\xff\xff"
    assert ram.read_int(HOLE, 4) == 0xFFFFFFFF
    assert ram.page(HOLE >> 12) == b"\xff" * 4096


def test_writes_to_rom_and_holes_are_dropped(ram: Ram) -> None:
    ram.write(ROM - 2, b"1234")
    assert ram.read(ROM - 2, 4) == b"\xff\xff\0\0"
    ram.write_rom(ROM, b"bios")
    assert ram.read(ROM, 4) == b"bios"
    with pytest.raises(EngineError):
        ram.write_rom(HOLE, b"x")


def test_a_write_over_the_end_of_a_bank_keeps_what_fits(ram: Ram) -> None:
    ram.write(0x9EFFE, b"wxyz")
    assert ram.read(0x9EFFE, 4) == b"wx\xff\xff"


def test_dirty_pages_are_those_that_were_written(ram: Ram) -> None:
    assert ram.dirty_pfns() == []
    ram.write(0x5000, b"1")
    ram.write(0x100FFF, b"12")
    ram.read(0x7000, 4096)
    assert ram.dirty_pfns() == [0x5, 0x100, 0x101]


def test_restore_goes_back_and_says_what_changed(ram: Ram) -> None:
    ram.write(0x5000, b"old")
    first = ram.snapshot()
    ram.write(0x5000, b"new")
    ram.write(0x6000, b"more")
    second = ram.snapshot()
    assert ram.restore(first) == [5, 6]
    assert (ram.read(0x5000, 3), ram.read(0x6000, 4)) == (b"old", bytes(4))
    assert ram.restore(second) == [5, 6]
    assert (ram.read(0x5000, 3), ram.read(0x6000, 4)) == (b"new", b"more")
    assert ram.restore(second) == []


def test_rebase_makes_the_present_the_base(ram: Ram) -> None:
    ram.write(0x5000, b"base")
    ram.rebase()
    assert ram.dirty_pfns() == []
    empty = ram.snapshot()
    ram.write(0x5000, b"gone")
    ram.restore(empty)
    assert ram.read(0x5000, 4) == b"base"


def test_host_writes_are_announced(ram: Ram) -> None:
    heard: list[tuple[int, bytes]] = []
    ram.on_host_write = lambda address, data: heard.append((address, data))
    ram.write(0x5000, b"123")
    ram.write_rom(ROM, b"1")
    assert heard == [(0x5000, b"123"), (ROM, b"1")]


def test_pfns_are_ram_only(ram: Ram) -> None:
    pfns = list(ram.pfns())
    assert pfns[0] == 0
    assert ROM >> 12 not in pfns
    assert len(pfns) == 0x9F + 0x100


def test_close_may_be_repeated(ram: Ram) -> None:
    ram.close()
    ram.close()
    assert ram.bank_at(0) is None
