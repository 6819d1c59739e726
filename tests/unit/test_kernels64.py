"""The x86_64 kernels as programs: what they must export and how they lie in memory. That they run is for journeys."""

from __future__ import annotations

from functools import lru_cache

import pytest

from emu import resources
from emu.assembler import Image, assemble
from emu.journey.programs import hostile_names
from emu.kexec.layout import COOKIE_MAGIC, COOKIE_SIZE, ENTRY64_OFFSET, KERNEL_BASE, CookieKind, KexecParams
from emu.kexec.params import BUSY_MAP_SIZE
from emu.units import MIB, PAGE_SIZE

LA57 = pytest.mark.parametrize("la57", [0, 1], ids=["x86_64", "x86_64-la57"])
SMALLEST_TARGET_AREA = 2 * MIB
HLT = 0xF4
EVERY_HOSTILE = [name for name, number in hostile_names().items() if number]


@lru_cache(maxsize=8)
def kernel(letter: str, la57: int, hostile: int = 0) -> Image:
    """Kernel ``letter`` at its link address."""
    defines = {"LA57": la57} | ({"HOSTILE": hostile} if letter == "b" else {})
    folder = resources.kernels_dir()
    include = [resources.asm_dir() / "include", folder]
    return assemble(folder / f"{letter}64.S", org=KERNEL_BASE, bits=64, defines=defines, include=include)


def pages(image: Image) -> set[bytes]:
    """The different pages of an image that hold anything."""
    chunks = {image.code[at : at + PAGE_SIZE].ljust(PAGE_SIZE, b"\0") for at in range(0, len(image.code), PAGE_SIZE)}
    return chunks - {bytes(PAGE_SIZE)}


def dword(image: Image, address: int) -> int:
    """The dword at link address ``address``."""
    return int.from_bytes(image.code[address - image.org : address - image.org + 4], "little")


@LA57
def test_a_exports_what_loader_and_journey_look_for(la57: int) -> None:
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
    assert wanted <= set(kernel("a", la57).symbols)


@LA57
def test_b_exports_what_loader_and_journey_look_for(la57: int) -> None:
    assert {"parsed", "resume_entry", "image_end"} <= set(kernel("b", la57).symbols)


@LA57
def test_c_exports_what_loader_and_journey_look_for(la57: int) -> None:
    assert {"parsed", "kexec_params", "call_relocate", "image_end"} <= set(kernel("c", la57).symbols)


@LA57
def test_the_call_is_the_instruction_before_after_jump(la57: int) -> None:
    a = kernel("a", la57)
    at, after = a.symbols["call_relocate"], a.symbols["after_jump"]
    assert a.code[at - a.org : at - a.org + 2] == bytes.fromhex("ff15")  # call *displacement(%rip)
    assert after - at == 6
    target = after + int.from_bytes(a.code[at - a.org + 2 : at - a.org + 6], "little", signed=True)
    assert target == a.symbols["kexec_params"] + KexecParams.ENTRY_VA


@LA57
@pytest.mark.parametrize("letter", ["a", "b", "c"])
def test_the_32_bit_entry_halts_and_the_64_bit_entry_is_code(letter: str, la57: int) -> None:
    image = kernel(letter, la57)
    assert image.code[0] == HLT
    assert image.symbols["entry64"] == image.org + ENTRY64_OFFSET
    assert image.code[ENTRY64_OFFSET] == 0xFA  # cli


@LA57
@pytest.mark.parametrize("letter", ["a", "b", "c"])
def test_the_image_ends_with_its_last_byte_and_fits_the_smallest_target_area(letter: str, la57: int) -> None:
    image = kernel(letter, la57)
    size = image.symbols["image_end"] - image.org
    assert len(image.code) == size <= SMALLEST_TARGET_AREA
    assert size % PAGE_SIZE == 0


@LA57
def test_volatile_range_is_small_and_holds_what_changes(la57: int) -> None:
    symbols = kernel("a", la57).symbols
    begin, end = symbols["volatile_begin"], symbols["volatile_end"]
    assert 0 < end - begin < 8 << 10
    assert all(begin <= symbols[name] < end for name in ("ticks", "seal_errors", "expected", "arrived", "back_value"))
    assert all(begin < symbols[name] <= end for name in ("stack_top", "ist_nmi", "ist_double_fault"))


@LA57
def test_text_has_pages_of_its_own(la57: int) -> None:
    symbols = kernel("a", la57).symbols
    data = symbols["gdt"]
    assert data % PAGE_SIZE == 0
    assert all(symbols[name] < data for name in ("suspend_begin", "verify_kept", "trap", "prefix"))
    assert all(symbols[name] > data for name in ("idt", "tss", "kexec_params", "busy_map", "pml4", "volatile_begin"))


@LA57
def test_data_lies_where_the_processor_and_the_loader_want_it(la57: int) -> None:
    symbols = kernel("a", la57).symbols
    assert symbols["busy_map"] + BUSY_MAP_SIZE <= symbols["pml5"]
    assert symbols["kexec_params"] + KexecParams.SIZE <= symbols["command_line"]
    assert {symbols[name] % 16 for name in ("saved_fpu", "fpu_now", "stack_top", "ist_nmi", "ist_double_fault")} == {0}
    tables = ("pml5", "pml4", "direct_pdpt", "text_pdpt", "direct_pd", "text_pd", "pool", "kept_copy")
    assert {symbols[name] % PAGE_SIZE for name in tables} == {0}


@LA57
def test_the_copy_of_the_kept_pages_has_room_for_all_of_them(la57: int) -> None:
    a = kernel("a", la57)
    kept = (a.symbols["kept_copy"] - a.org) // PAGE_SIZE
    assert kept <= a.constants["KEPT_MAX"]
    assert a.symbols["kept_sums"] - a.symbols["kept_copy"] == a.constants["KEPT_MAX"] * PAGE_SIZE


@LA57
def test_resume_entry_has_its_cookie(la57: int) -> None:
    b = kernel("b", la57)
    cookie = b.symbols["resume_entry"] - COOKIE_SIZE
    assert (dword(b, cookie), dword(b, cookie + 4)) == (COOKIE_MAGIC, CookieKind.RESUME_SLOT)


@LA57
def test_a_and_b_share_no_page(la57: int) -> None:
    assert not pages(kernel("a", la57)) & pages(kernel("b", la57))


@pytest.mark.parametrize("letter", ["a", "b"])
def test_5_level_paging_makes_another_kernel(letter: str) -> None:
    assert kernel(letter, 0).code != kernel(letter, 1).code


@pytest.mark.parametrize("name", EVERY_HOSTILE)
def test_each_hostile_b_is_a_kernel_of_its_own_that_tells_its_name(name: str) -> None:
    number = hostile_names()[name]
    b = kernel("b", number & 1, number)
    told = b.symbols["hostile_names"] + number * b.constants["HOSTILE_NAME_SIZE"] - b.org
    assert b.code[told:].startswith(name.encode() + b"\0")
    assert b.code != kernel("b", number & 1).code
