from __future__ import annotations

from emu.kexec.e820 import E820Type, MemoryMap, Range
from emu.machine.owners import Owner
from emu.report.album import cells
from emu.units import Phys

MAP = MemoryMap.of([
    Range(Phys(0), Phys(0x4000), E820Type.RAM),
    Range(Phys(0x8000), Phys(0x11000), E820Type.RAM),
])  # fmt: skip


def test_cells_cover_all_memory_up_to_the_end_of_ram_in_equal_powers_of_two() -> None:
    made = cells({}, MAP, most=5)
    assert [(cell.first, cell.pages) for cell in made] == [(0, 4), (4, 4), (8, 4), (12, 4), (16, 1)]


def test_ram_that_nobody_was_given_is_a_and_what_is_no_ram_a_hole() -> None:
    made = cells({}, MAP, most=17)
    assert [cell.owner for cell in made] == [Owner.A] * 4 + [Owner.HOLE] * 4 + [Owner.A] * 9


def test_the_commonest_owner_gives_the_colour_and_a_small_page_is_not_hidden() -> None:
    owners = {8: Owner.SOURCE, 9: Owner.SOURCE, 10: Owner.SWAP, 12: Owner.SOURCE, 13: Owner.B}
    made = {cell.first: cell for cell in cells(owners, MAP, most=5)}
    assert (made[8].owner, made[8].counts) == (Owner.SOURCE, ((Owner.SOURCE, 2), (Owner.A, 1), (Owner.SWAP, 1)))
    assert made[8].mixed
    assert not made[12].mixed
