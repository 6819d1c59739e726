"""The i386 kernels as programs: what they must export and how they lie in memory. That they run is for journeys."""

from __future__ import annotations

from functools import lru_cache

import pytest

from emu import resources
from emu.assembler import Image, assemble
from emu.errors import AssemblyError
from emu.kexec.layout import COOKIE_MAGIC, COOKIE_SIZE, I386_BASE, KERNEL_BASE, CookieKind, KexecParams
from emu.units import MIB, PAGE_SIZE

PAE = pytest.mark.parametrize("pae", [0, 1], ids=["i386", "i386-pae"])
BUSY_MAP_SIZE = 32 << 10
SMALLEST_TARGET_AREA = 2 * MIB
LONG_MODE_ONLY = {9, 17}
EVERY_HOSTILE = [number for number in range(1, 20) if number not in LONG_MODE_ONLY]


@lru_cache(maxsize=8)
def kernel(letter: str, pae: int, hostile: int = 0) -> Image:
    """Kernel ``letter`` at its link address."""
    defines = {"PAE": pae} | ({"HOSTILE": hostile} if letter == "b" else {})
    folder = resources.kernels_dir()
    include = [resources.asm_dir() / "include", folder]
    return assemble(folder / f"{letter}32.S", org=KERNEL_BASE, bits=32, defines=defines, include=include)


def pages(image: Image) -> set[bytes]:
    """The different pages of an image that hold anything."""
    chunks = {image.code[at : at + PAGE_SIZE].ljust(PAGE_SIZE, b"\0") for at in range(0, len(image.code), PAGE_SIZE)}
    return chunks - {bytes(PAGE_SIZE)}


def dword(image: Image, address: int) -> int:
    """The dword at link address ``address``."""
    return int.from_bytes(image.code[address - image.org : address - image.org + 4], "little")


@PAE
def test_a_exports_what_loader_and_journey_look_for(pae: int) -> None:
    wanted = {
        "suspend_begin",
        "call_relocate",
        "after_jump",
        "kexec_params",
        "busy_map",
        "parsed",
        "image_end",
        "volatile_begin",
        "volatile_end",
        "seal_errors",
    }
    assert wanted <= set(kernel("a", pae).symbols)


@PAE
def test_b_exports_what_loader_and_journey_look_for(pae: int) -> None:
    assert {"parsed", "resume_entry", "image_end"} <= set(kernel("b", pae).symbols)


@PAE
def test_the_call_is_the_instruction_before_after_jump(pae: int) -> None:
    a = kernel("a", pae)
    at = a.symbols["call_relocate"]
    assert a.code[at - a.org : a.symbols["after_jump"] - a.org] == bytes.fromhex("ffd0")  # call *%eax


@PAE
@pytest.mark.parametrize("letter", ["a", "b"])
def test_code_begins_at_offset_0(letter: str, pae: int) -> None:
    first = kernel(letter, pae).code[0]
    assert first in {0xFA, 0xFC}  # cli or cld, not the hlt of a 64-bit image


@PAE
@pytest.mark.parametrize("letter", ["a", "b"])
def test_the_image_ends_with_its_last_byte_and_fits_the_smallest_target_area(letter: str, pae: int) -> None:
    image = kernel(letter, pae)
    size = image.symbols["image_end"] - image.org
    assert len(image.code) <= size <= SMALLEST_TARGET_AREA


@PAE
def test_volatile_range_is_small_and_holds_what_changes(pae: int) -> None:
    symbols = kernel("a", pae).symbols
    begin, end = symbols["volatile_begin"], symbols["volatile_end"]
    assert 0 < end - begin < 8 << 10
    assert all(begin <= symbols[name] < end for name in ("ticks", "seal_errors", "found", "back_value"))
    assert begin < symbols["stack_top"] <= end


@PAE
def test_text_has_pages_of_its_own(pae: int) -> None:
    symbols = kernel("a", pae).symbols
    data = symbols["data"]
    assert data % PAGE_SIZE == 0
    assert all(symbols[name] < data for name in ("suspend_begin", "verify_kept", "trap", "state_names", "name_seed"))
    assert all(symbols[name] >= data for name in ("gdt", "idt", "tss", "kexec_params", "busy_map", "ring", "tables"))


@PAE
def test_tables_and_maps_do_not_overlap(pae: int) -> None:
    symbols = kernel("a", pae).symbols
    assert symbols["busy_map"] + BUSY_MAP_SIZE <= symbols["ring"] < symbols["tables"]
    assert symbols["kexec_params"] + KexecParams.SIZE <= symbols["fpu_state"]
    assert symbols["kexec_params"] % 8 == symbols["parsed"] % 8 == symbols["seal_errors"] % 8 == 0
    assert {symbols[name] % 16 for name in ("fpu_state", "fpu_found")} == {0}  # as FXSAVE wants it
    assert {symbols[name] % PAGE_SIZE for name in ("tables", "directory", "page_tables")} == {0}


@PAE
def test_both_copies_fit_however_much_ram_there_is(pae: int) -> None:
    a = kernel("a", pae)
    before_tables = (a.symbols["page_tables"] - a.org) // PAGE_SIZE
    kept = before_tables + a.constants["PAGE_TABLES"]
    assert kept <= a.constants["KEPT_MAX"]
    assert a.org + 3 * kept * PAGE_SIZE <= a.symbols["volatile_begin"]


@PAE
def test_a_runs_at_its_linear_address(pae: int) -> None:
    a = kernel("a", pae)
    assert a.constants["V"] == I386_BASE
    names = dword(a, a.symbols["state_names"])
    assert names == I386_BASE + a.symbols["what_cr0"]


@PAE
def test_resume_entry_has_its_cookie(pae: int) -> None:
    b = kernel("b", pae)
    cookie = b.symbols["resume_entry"] - COOKIE_SIZE
    assert (dword(b, cookie), dword(b, cookie + 4)) == (COOKIE_MAGIC, CookieKind.RESUME_SLOT)


@PAE
def test_a_and_b_share_no_page(pae: int) -> None:
    assert not pages(kernel("a", pae)) & pages(kernel("b", pae))


def test_pae_makes_another_kernel() -> None:
    assert kernel("a", 0).code != kernel("a", 1).code
    assert kernel("b", 0).code != kernel("b", 1).code


@pytest.mark.parametrize("hostile", EVERY_HOSTILE)
def test_each_hostile_b_is_a_kernel_of_its_own(hostile: int) -> None:
    b = kernel("b", hostile & 1, hostile)
    assert b.constants["HOSTILE"] == hostile
    assert b.code != kernel("b", hostile & 1).code


@pytest.mark.parametrize("hostile", sorted(LONG_MODE_ONLY))
def test_a_hostile_b_that_needs_long_mode_is_refused(hostile: int) -> None:
    with pytest.raises(AssemblyError, match="long mode"):
        kernel("b", 0, hostile)
