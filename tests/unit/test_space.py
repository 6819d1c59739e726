"""Ways through page tables that are kept: they are what a walk finds, whatever was written to the tables since."""

from __future__ import annotations

from random import Random

import pytest

from emu.machine.ram import Ram
from emu.machine.space import Space
from emu.units import PAGE_SIZE
from emu.x86.bits import Cr0, Cr4, Efer
from emu.x86.paging import PagingState, descend
from tests.machine_bench import HOLE, SMALL_MAP

ROOT, LEAF = 0x10000, 0x13000
LONG = PagingState(Cr0.PE | Cr0.PG, ROOT, Cr4.PAE, Efer.LMA)
STATES = {
    "off": PagingState(Cr0.PE, ROOT, 0, 0),
    "2-level": PagingState(Cr0.PE | Cr0.PG, ROOT, Cr4.PSE, 0),
    "pae": PagingState(Cr0.PE | Cr0.PG, ROOT, Cr4.PAE, 0, pdptes=(0x11001, 0x12001, 0, 0x10001)),
    "4-level": LONG,
}


class Counted(Ram):
    """RAM that counts the entries that walks read."""

    walked = 0

    def read_int(self, address: int, size: int) -> int:
        self.walked += 1
        return super().read_int(address, size)


@pytest.fixture
def ram() -> Counted:
    made = Counted(SMALL_MAP)
    for table in range(ROOT, LEAF, PAGE_SIZE):
        made.write(table, (table + PAGE_SIZE | 0x23).to_bytes(8, "little"))
    made.write(LEAF, b"".join((page << 12 | 0x63).to_bytes(8, "little") for page in range(16)))
    return made


def test_a_way_is_walked_once(ram: Counted) -> None:
    space = Space(ram, LONG)
    first = space.descend(0x5123)
    assert not isinstance(first, int)
    assert (first.physical, first.page_size, ram.walked) == (0x5000, PAGE_SIZE, 4)
    assert space.descend(0x5FFF) == first
    assert ram.walked == 4
    space.descend(0x6000)
    assert ram.walked == 8


@pytest.mark.parametrize("table", range(ROOT, LEAF + 1, PAGE_SIZE))
def test_an_entry_that_changes_is_seen_on_every_level(ram: Counted, table: int) -> None:
    space = Space(ram, LONG)
    assert not isinstance(space.descend(0), int)
    before = ram.read(table, 8)
    ram.write(table, bytes(8))
    assert space.descend(0) == 0, "not present"
    ram.write(table, before)
    assert not isinstance(space.descend(0), int)


@pytest.mark.parametrize("name", STATES)
def test_ways_are_what_a_walk_finds_while_tables_change_at_random(ram: Counted, name: str) -> None:
    dice, state = Random(name), STATES[name]  # noqa: S311 - no secret
    space, found = Space(ram, state), set()
    tables = [*range(ROOT, LEAF + 1, PAGE_SIZE), HOLE]
    for _ in range(3000):
        if not dice.randrange(4):
            entry = dice.choice(tables) | dice.choice([0x23, 0x67, 0xE3, 0x80000000_00000023, 0])
            ram.write(dice.choice(tables[:-1]) + dice.randrange(4) * 4, entry.to_bytes(8, "little"))
        linear = sum(dice.randrange(3) << shift for shift in (12, 21, 22, 30, 39)) | dice.randrange(PAGE_SIZE)
        here = space.descend(linear)
        assert here == descend(ram.read_int, state, linear & ~(PAGE_SIZE - 1))
        found.add(isinstance(here, int))
    assert found == ({False} if name == "off" else {False, True})


def test_an_address_that_is_not_canonical_leads_nowhere(ram: Counted) -> None:
    assert Space(ram, LONG).descend(1 << 47) == descend(ram.read_int, LONG, 1 << 47) == -1
