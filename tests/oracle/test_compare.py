"""Every difference between two machines is seen, but for the documented ones, which are counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range, default_map
from emu.oracle.arena import random_case
from emu.oracle.compare import Comparison, Known, Verdict, compare, not_comparable
from emu.oracle.image import OracleImage, build_image, collector
from emu.oracle.machines import map_refused
from emu.oracle.ours import run_ours
from emu.oracle.outcome import Ended, Run
from emu.units import MIB, Phys
from tests.oracle.conftest import HIGH, flipped


def ran(arch: Arch = Arch.X86_64, number: int = 0) -> tuple[OracleImage, Run]:
    image = build_image([random_case(arch, 2, number)], in_place=False)
    run = run_ours(image)
    assert run.ended is Ended.DONE, run.why
    return image, run


def only(rows: list[Comparison]) -> Comparison:
    (row,) = rows
    return row


def test_a_run_agrees_with_itself() -> None:
    image, run = ran()
    row = only(compare(image, run, run))
    assert (row.verdict, row.differences, row.pages) == (Verdict.AGREE, (), row.pages_equal)


@pytest.mark.parametrize("offset", [0, 7, 0x1FFF, 0x5008, 0x18FFF])
def test_one_bit_of_memory(offset: int) -> None:
    image, run = ran()
    row = only(compare(image, run, flipped(run, image.cases[0].find(HIGH + offset))))
    assert row.verdict is Verdict.DIFFER
    assert row.pages - row.pages_equal == 1
    assert row.differences[0].place == f"p:{HIGH + (offset & ~7):#x}"


@pytest.mark.parametrize("name", ["rbx", "cr0", "cr4", "efer", "gdtr", "idtr", "ss", "fpu"])
def test_one_bit_of_a_register_is_a_difference_by_name(name: str) -> None:
    image, run = ran()
    placed = image.cases[0]
    program = collector(placed.case.arch, placed.case.end)
    at = placed.case.end_phys + program.symbols[f"result_{name}"] - program.org
    row = only(compare(image, run, flipped(run, placed.find(at))))
    assert row.verdict is Verdict.DIFFER
    assert row.differences[0].place.startswith({"fpu": "fcw"}.get(name, name))
    assert row.pages == row.pages_equal


def test_an_undefined_flag_is_counted() -> None:
    image, run = ran()
    placed = image.cases[0]
    program = collector(placed.case.arch, placed.case.end)
    at = placed.find(placed.case.end_phys + program.symbols["result_rflags"] - program.org)
    assert only(compare(image, run, flipped(run, at, 0x10))).known == {Known.UNDEFINED_FLAGS: 1}
    assert only(compare(image, run, flipped(run, at, 0x40))).verdict is Verdict.DIFFER


def test_the_accessed_bit_of_a_pdpte_is_counted_and_nothing_else_of_it() -> None:
    image, run = ran(Arch.I386_PAE)
    placed = image.cases[0]
    root = placed.find(placed.case.registers["cr3"])
    row = only(compare(image, run, flipped(run, root, 0x20)))
    assert (row.verdict, row.known) == (Verdict.AGREE, {Known.PDPTE_ACCESSED: 1})
    assert only(compare(image, run, flipped(run, root, 0x40))).verdict is Verdict.DIFFER
    assert only(compare(image, run, flipped(run, root + 32, 0x20))).verdict is Verdict.DIFFER


def test_console_and_end_are_compared() -> None:
    image, run = ran()
    assert only(compare(image, run, replace(run, console="x"))).differences[0].place == "console"
    row = only(compare(image, run, replace(run, ended=Ended.RESET, why="at 0x5")))
    assert (row.verdict, row.differences[0].place) == (Verdict.DIFFER, "end")
    assert "triple fault (at 0x5)" in row.differences[0].theirs


def test_a_machine_that_cannot_do_it_is_no_witness() -> None:
    image, run = ran()
    row = only(compare(image, run, replace(run, machine="KVM", ended=Ended.UNABLE, why="cannot interpret")))
    assert (row.verdict, row.reason) == (Verdict.NOT_COMPARABLE, "this KVM cannot interpret")


def test_at_most_five_differences_are_documented_each_with_its_source() -> None:
    assert 0 < len(Known) <= 5
    assert all("SDM" in known.source for known in Known)


def test_what_is_not_comparable_has_a_reason() -> None:
    assert not_comparable("a", "KVM", "no paging").reason == "no paging"
    with pytest.raises(AssertionError):
        not_comparable("a", "KVM", "")


def test_a_map_with_holes_is_no_pc_s() -> None:
    assert map_refused(default_map(64 * MIB)) == ""
    holes = [Range(Phys(0), Phys(0x9F000)), Range(Phys(MIB), Phys(8 * MIB)), Range(Phys(16 * MIB), Phys(24 * MIB))]
    assert "p:0x1000000..p:0x1800000" in map_refused(MemoryMap.of(holes))
