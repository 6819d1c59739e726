"""The whole of RAM, copied, moved by the model, compared."""

from __future__ import annotations

import pytest

from emu.journey.memory import RamImage
from emu.kexec.e820 import default_map
from emu.kexec.entry_list import ListBuilder, Mode
from emu.machine.ram import Ram
from emu.units import MIB, PAGE_SIZE, Phys


@pytest.fixture
def ram() -> Ram:
    return Ram(default_map(4 * MIB))


def test_a_copy_is_equal_until_something_changes(ram: Ram) -> None:
    ram.write(0x5000, b"before")
    image = RamImage(ram)
    assert list(image.differences(ram, [])) == []
    ram.write(0x7FFE, b"\x01\x02\x03")
    found = list(image.differences(ram, []))
    assert [(one.address, one.pfn, one.wrong_bytes) for one in found] == [(0x7FFE, 7, 2), (0x8000, 8, 1)]
    assert (found[0].expected, found[0].actual) == (bytes(2), b"\x01\x02")
    assert image.read(0x7FFE, 2) == bytes(2)


def test_volatile_bytes_and_skipped_pages_do_not_count(ram: Ram) -> None:
    image = RamImage(ram)
    ram.write(0x5010, b"\xff" * 0x20)
    assert list(image.differences(ram, [(0x5010, 0x5030)])) == []
    assert [one.address for one in image.differences(ram, [(0x5010, 0x502F)])] == [0x502F]
    assert list(image.differences(ram, [], frozenset({5}))) == []


def test_outside_ram_reads_all_ones_and_drops_writes(ram: Ram) -> None:
    image = RamImage(ram)
    image.write(0xA0000, b"gone")
    assert image.read(0xA0000, 4) == b"\xff" * 4
    assert image.read(64 * MIB, 2) == b"\xff\xff"


def test_a_list_in_memory_is_walked_and_moved(ram: Ram) -> None:
    ram.write(0x5000, b"five")
    ram.write(0x6000, b"six!")
    builder = ListBuilder(lambda: Phys(0x8000), 8, ram.write)
    builder.add_pairs([(Phys(0x5000), Phys(0x6000))])
    head = builder.terminate()
    image = RamImage(ram)
    assert image.move(image.walk(head, 8), Mode.SWAP, 0x9000) == 1
    assert (image.read(0x5000, 4), image.read(0x6000, 4)) == (b"six!", b"five")
    assert image.page(9) == b"six!".ljust(PAGE_SIZE, b"\0")
