"""Paging: one small table tree for each rule."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import pytest

from emu.x86.bits import Cr0, Cr4, Efer
from emu.x86.exceptions import Vector
from emu.x86.paging import (
    Access,
    Mapping,
    NotCanonical,
    PageFault,
    PagingMode,
    PagingState,
    Rights,
    decode_entry,
    explain,
    is_canonical,
    is_canonical_base,
    mappings,
    mode_of,
    translate,
    walk,
)

READ, WRITE, FETCH = Access(), Access(write=True), Access(execute=True)
USER_READ, USER_WRITE, USER_FETCH = (replace(access, user=True) for access in (READ, WRITE, FETCH))
LONG = PagingState(Cr0.PE | Cr0.PG | Cr0.WP, 0x1000, Cr4.PAE, Efer.LME | Efer.LMA | Efer.NXE)
FIVE = replace(LONG, cr4=Cr4.PAE | Cr4.LA57)
PAE = replace(LONG, efer=int(Efer.NXE))
TWO = PagingState(Cr0.PE | Cr0.PG | Cr0.WP, 0x1000, Cr4.PSE, 0)
OFF = PagingState(Cr0.PE, 0x1000, 0, 0)
XD = 1 << 63
P, W, U, PS, G = 1, 2, 4, 0x80, 0x100


class Tables:
    """Physical memory that holds the entries of a test and zeros elsewhere."""

    def __init__(self, entries: dict[int, int]) -> None:
        self.entries = entries

    def read(self, address: int, size: int) -> int:
        assert size in {4, 8}
        return self.entries.get(address, 0)


def leaf(flags: int, table_flags: int = P | W | U) -> Tables:
    """Four-level tables that map linear 0 to p:0x5000 with these flags, and 2 MiB up a hole."""
    return Tables(
        {0x1000: 0x2000 | table_flags, 0x2000: 0x3000 | P | W | U, 0x3000: 0x4000 | P | W | U, 0x4000: 0x5000 | flags}
    )


def code(tables: Tables, state: PagingState, access: Access, linear: int = 0) -> int | None:
    """The #PF error code of an access, None if it is allowed."""
    fault = walk(tables.read, state, linear, access).fault
    return fault.error_code if isinstance(fault, PageFault) else None


@pytest.mark.parametrize(
    ("state", "mode"),
    [(OFF, PagingMode.NONE), (TWO, PagingMode.TWO_LEVEL), (PAE, PagingMode.PAE), (LONG, PagingMode.FOUR_LEVEL),
     (FIVE, PagingMode.FIVE_LEVEL), (replace(PAE, efer=int(Efer.LME)), PagingMode.PAE)],
    ids=lambda each: each.name if isinstance(each, PagingMode) else "",
)  # fmt: skip
def test_modes(state: PagingState, mode: PagingMode) -> None:
    assert mode_of(state.cr0, state.cr4, state.efer) is mode
    assert len(state.levels) == {"NONE": 0, "TWO_LEVEL": 2, "PAE": 3, "FOUR_LEVEL": 4, "FIVE_LEVEL": 5}[mode.name]


def test_paging_off_is_the_identity() -> None:
    done = walk(Tables({}).read, OFF, 0x1_2345_6789, WRITE)
    assert (done.physical, done.steps, done.fault) == (0x23456789, (), None)
    assert explain(done) == ["paging is off: linear 0x23456789 is p:0x23456789"]
    assert list(mappings(Tables({}).read, OFF)) == []


def test_write_protection_binds_the_supervisor_only_with_wp() -> None:
    read_only = leaf(P | U)
    relaxed = replace(LONG, cr0=Cr0.PE | Cr0.PG)
    assert code(read_only, LONG, WRITE) == 0x3
    assert code(read_only, relaxed, WRITE) is None
    assert code(read_only, relaxed, USER_WRITE) == 0x7
    assert code(leaf(P | W | U), LONG, WRITE) is None
    assert code(read_only, LONG, READ) is None


def test_write_protection_of_any_level_counts() -> None:
    assert code(leaf(P | W | U, table_flags=P | U), LONG, WRITE) == 0x3
    assert code(leaf(P | W | U, table_flags=P | W), LONG, USER_READ) == 0x5


def test_user_access_to_a_supervisor_page() -> None:
    assert code(leaf(P | W), LONG, USER_READ) == 0x5
    assert code(leaf(P | W), LONG, USER_WRITE) == 0x7
    assert code(leaf(P | W), LONG, USER_FETCH) == 0x15
    assert code(leaf(P | W | U), LONG, USER_WRITE) is None


def test_not_present_reports_the_access() -> None:
    empty = Tables({})
    assert code(empty, LONG, READ) == 0x0
    assert code(empty, LONG, USER_WRITE) == 0x6
    assert code(empty, LONG, FETCH) == 0x10


def test_fetch_bit_needs_nx_or_smep() -> None:
    empty = Tables({})
    assert code(empty, TWO, FETCH) == 0x0
    assert code(empty, replace(TWO, cr4=Cr4.SMEP), FETCH) == 0x10
    assert code(empty, replace(LONG, efer=Efer.LME | Efer.LMA), FETCH) == 0x0


def test_execute_disable() -> None:
    data = leaf(P | W | U | XD)
    assert code(data, LONG, FETCH) == 0x11
    assert code(data, LONG, READ) is None
    assert code(leaf(P | W | U), LONG, FETCH) is None
    assert code(leaf(P | W | U, table_flags=P | W | U | XD), LONG, FETCH) == 0x11


def test_execute_disable_is_reserved_without_nxe() -> None:
    without = replace(LONG, efer=Efer.LME | Efer.LMA)
    assert code(leaf(P | W | U | XD), without, READ) == 0x9
    assert code(leaf(P | W | U), without, READ) is None


def test_smep() -> None:
    smep = replace(LONG, cr4=Cr4.PAE | Cr4.SMEP)
    assert code(leaf(P | W | U), smep, FETCH) == 0x11
    assert code(leaf(P | W), smep, FETCH) is None
    assert code(leaf(P | W | U), smep, USER_FETCH) is None


def test_smap_and_its_flag() -> None:
    smap = replace(LONG, cr4=Cr4.PAE | Cr4.SMAP)
    lifted = replace(smap, ac=True)
    user_page = leaf(P | W | U)
    assert code(user_page, smap, READ) == 0x1
    assert code(user_page, smap, WRITE) == 0x3
    assert code(user_page, lifted, WRITE) is None
    assert code(user_page, lifted, replace(WRITE, implicit=True)) == 0x3
    assert code(user_page, smap, USER_WRITE) is None
    assert code(leaf(P | W), smap, WRITE) is None


@pytest.mark.parametrize("bit", [40, 45, 51])
def test_address_bits_above_maxphyaddr_are_reserved(bit: int) -> None:
    assert code(leaf(P | W | U | 1 << bit), LONG, READ) == 0x9
    assert code(leaf(P | W | U | 1 << 39), LONG, READ) is None


@pytest.mark.parametrize("bit", [52, 58, 62])
def test_bits_62_to_52_are_ignored_in_long_mode_and_reserved_under_pae(bit: int) -> None:
    pae = Tables({0x1000: 0x2001, 0x2000: 0x3007, 0x3000: 0x5007 | 1 << bit})
    assert code(leaf(P | W | U | 1 << bit), LONG, READ) is None
    assert code(pae, PAE, READ) == 0x9


def test_page_size_bit_is_reserved_at_the_top() -> None:
    assert code(leaf(P | W | U, table_flags=P | W | U | PS), LONG, READ) == 0x9
    assert code(leaf(P | W | U), LONG, READ) is None


def test_one_gigabyte_and_two_megabyte_pages() -> None:
    giant = Tables({0x1000: 0x2007, 0x2000: 0xC000_0000 | P | W | PS})
    done = walk(giant.read, LONG, 0x12345678)
    assert (done.physical, done.page_size) == (0xD234_5678, 1 << 30)
    large = Tables({0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x60_0000 | P | W | PS})
    assert walk(large.read, LONG, 0x12345).physical == 0x61_2345
    misplaced = Tables({0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x60_2000 | P | W | PS})
    assert code(misplaced, LONG, READ) == 0x9


def test_five_levels() -> None:
    tables = Tables({0x1008: 0x2007, 0x2000: 0x3007, 0x3000: 0x4007, 0x4000: 0x6007, 0x6000: 0x7003})
    done = walk(tables.read, FIVE, 1 << 48 | 0x123)
    assert done.physical == 0x7123
    assert [step.level for step in done.steps] == ["PML5E", "PML4E", "PDPTE", "PDE", "PTE"]
    assert isinstance(walk(tables.read, LONG, 1 << 48 | 0x123).fault, NotCanonical)


def test_two_level_pages_and_their_pse_36_address_bits() -> None:
    small = Tables({0x1004: 0x2007, 0x2008: 0x9007})
    assert walk(small.read, TWO, 0x402123).physical == 0x9123
    large = Tables({0x1004: 0x40_0000 | P | W | PS | 0x5 << 13})
    done = walk(large.read, TWO, 0x412345)
    assert (done.physical, done.page_size) == (0x5_0041_2345, 1 << 22)
    assert code(Tables({0x1004: 0x40_0000 | P | PS | 1 << 21}), TWO, READ, 0x400000) == 0x9


def test_without_pse_the_bit_is_ignored() -> None:
    tables = Tables({0x1004: 0x2007 | PS, 0x2008: 0x9007})
    assert walk(tables.read, replace(TWO, cr4=0), 0x402123).physical == 0x9123


def test_pae_pages_and_latched_pdptes() -> None:
    tables = Tables({0x1020: 0x2001, 0x2000: 0x3007, 0x3000: 0x9003})
    state = replace(PAE, cr3=0x1020)
    assert walk(tables.read, state, 0x123).physical == 0x9123
    tables.entries[0x1020] = 0
    assert walk(tables.read, state, 0x123).physical is None
    latched = replace(state, pdptes=(0x2001, 0, 0, 0))
    done = walk(tables.read, latched, 0x123)
    assert done.physical == translate(tables.read, latched, 0x123) == 0x9123
    assert [step.latched for step in done.steps] == [True, False, False]
    assert "latched when CR3 was loaded" in explain(done)[1]
    assert [each.linear for each in mappings(tables.read, latched)] == [0]


def test_pae_pdptes_have_no_rights() -> None:
    tables = Tables({0x1000: 0x2001, 0x2000: 0x3007, 0x3000: 0x9007})
    assert code(tables, PAE, USER_WRITE) is None


def test_pcid_bits_are_not_part_of_the_root() -> None:
    assert walk(leaf(P | W).read, replace(LONG, cr3=0x1005), 0).physical == 0x5000


def test_rights_add_up_and_global_needs_pge() -> None:
    tables = leaf(P | W | G | XD)
    assert walk(tables.read, LONG, 0).rights == Rights(writable=True, user=False, executable=False, is_global=False)
    pge = replace(LONG, cr4=Cr4.PAE | Cr4.PGE)
    rights = walk(tables.read, pge, 0).rights
    assert rights is not None
    assert rights.is_global
    assert str(rights) == "rw--g"


def test_canonical_addresses() -> None:
    assert is_canonical(0x7FFF_FFFF_FFFF, PagingMode.FOUR_LEVEL)
    assert not is_canonical(0x8000_0000_0000, PagingMode.FOUR_LEVEL)
    assert is_canonical(0xFFFF_8000_0000_0000, PagingMode.FOUR_LEVEL)
    assert is_canonical(0x8000_0000_0000, PagingMode.FIVE_LEVEL)
    assert not is_canonical(1 << 56, PagingMode.FIVE_LEVEL)
    assert is_canonical(1 << 56, PagingMode.PAE)
    assert is_canonical_base(1 << 55)
    assert not is_canonical_base(1 << 56)


def test_a_non_canonical_access_reads_no_table() -> None:
    done = walk(leaf(P | W).read, LONG, 1 << 47)
    assert isinstance(done.fault, NotCanonical)
    assert (done.fault.vector, done.fault.error_code, done.steps) == (Vector.GP, 0, ())
    assert explain(done) == [
        "0x800000000000 is not canonical: bits 63 to 47 differ: #GP(0), or #SS(0) through the stack"
    ]


def test_a_table_of_all_ones_faults_on_its_reserved_bits() -> None:
    done = walk(lambda _address, size: (1 << 8 * size) - 1, LONG, 0)
    assert isinstance(done.fault, PageFault)
    assert done.fault.error_code == 0x9


def test_explanation_of_a_read_only_user_page() -> None:
    smap = replace(LONG, cr4=Cr4.PAE | Cr4.SMAP)
    assert explain(walk(leaf(P | U | XD).read, smap, 0x10)) == [
        "4-level paging, CR3 0x1000: tables begin at p:0x1000",
        "PML4E p:0x1000 = 0x0000000000002007 P W U: entry 0 (PML4E) refers to the table at p:0x2000",
        "PDPTE p:0x2000 = 0x0000000000003007 P W U: entry 0 (PDPTE) refers to the table at p:0x3000",
        "PDE   p:0x3000 = 0x0000000000004007 P W U: entry 0 (PDE) refers to the table at p:0x4000",
        "PTE   p:0x4000 = 0x8000000000005005 P U XD: entry 0 (PTE) maps the 4 KiB at p:0x5000",
        "4 KiB page, together r--u-",
        "#PF(0x1) supervisor read: CR4.SMAP=1 and this is a user page, EFLAGS.AC=0",
        "#PF(0x3) supervisor write: CR4.SMAP=1 and this is a user page, EFLAGS.AC=0",
        "#PF(0x11) supervisor execute: XD is set in an entry on the way",
        "user read: allowed",
        "#PF(0x7) user write: R/W is 0 in an entry on the way",
        "#PF(0x15) user execute: XD is set in an entry on the way",
    ]


def test_explanation_of_a_hole() -> None:
    lines = explain(walk(leaf(P | W).read, LONG, 1 << 21))
    assert lines[-2:] == [
        "PDE   p:0x3008 = 0x0000000000000000 not present: entry 1 (PDE) is not present",
        "every access faults here",
    ]


def test_entry_flags() -> None:
    pml4, _, pde, pte = LONG.levels
    assert decode_entry(0x1 | 1 << 45, pml4) == "P RSVD=0x200000000000"
    assert decode_entry(0x1E7, pde) == "P W U A D PS G"
    assert decode_entry(0x167, pde) == "P W U A"
    assert decode_entry(0x1E7, pte) == "P W U A D G"
    assert decode_entry(0xFFE, pte) == "not present"


def all_of(listing: Generator[Mapping, None, bool]) -> tuple[list[tuple[int, int]], bool]:
    """What a listing yields as (linear, physical), and whether it is complete."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            each = next(listing)
        except StopIteration as end:
            return found, bool(end.value)
        found.append((each.linear, each.physical))


def test_mappings_say_whether_they_are_complete() -> None:
    self_referring = Tables({0x1000: 0x1007})
    assert all_of(mappings(self_referring.read, LONG, max_tables=100)) == ([(0, 0x1000)], True)
    endless = mappings(lambda _address, _size: 0x1003, LONG, max_tables=3)
    assert all_of(endless) == ([], False)
