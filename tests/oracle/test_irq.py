"""Interrupts at a marked instruction: taken right there, by the IDT in force, on our machine and on others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.errors import KjumpError
from emu.journey.scene import Scene, find_journey, make_scene
from emu.kexec.arch import Arch
from emu.oracle import command
from emu.oracle.case import unrestorable
from emu.oracle.command import compare_scene
from emu.oracle.compare import Comparison, Known, Verdict, compare
from emu.oracle.image import build_image
from emu.oracle.kvm import unusable
from emu.oracle.machines import Other, irq_probe, kvm_is_late, kvm_refuses, witness
from emu.oracle.mark import Mark, parse_mark
from emu.oracle.ours import run_ours
from emu.oracle.outcome import Ended, Run, registers
from emu.oracle.own_table import own_tables
from emu.oracle.qemu import run_qemu
from emu.oracle.record import record
from emu.x86.bits import Eflags

needs_qemu = pytest.mark.oracle("qemu-system-x86_64")


def small(arch: Arch) -> Scene:
    return make_scene(find_journey("jump"), arch=arch, ram="24M", target="2M@16M")


def counted(run: Run, arch: Arch) -> int:
    image = build_image([irq_probe(arch)], in_place=True)
    state = registers(run, image.cases[0])
    assert state is not None
    return state["rbx"] - irq_probe(arch).registers["rbx"]


def test_our_machine_takes_it_before_the_first_instruction(arch: Arch) -> None:
    run = run_ours(build_image([irq_probe(arch)], in_place=True))
    assert run.ended is Ended.DONE, run.why
    assert counted(run, arch) == 0


@needs_qemu
def test_qemu_takes_it_there_too(arch: Arch) -> None:
    image = build_image([irq_probe(arch)], in_place=True)
    theirs = run_qemu(image, limit=30.0)
    assert theirs.ended is Ended.DONE, theirs.why
    assert counted(theirs, arch) == 0
    (row,) = compare(image, run_ours(image), theirs)
    assert row.verdict is Verdict.AGREE, row.differences


@pytest.mark.oracle
def test_a_kvm_that_is_late_says_so_and_is_no_witness() -> None:
    if unusable() or kvm_refuses(Arch.X86_64):
        assert witness(Other.KVM).refuses(Arch.X86_64)
        return
    reason = kvm_is_late(Arch.X86_64)
    assert witness(Other.KVM).lacks(irq_probe(Arch.X86_64)) == reason
    assert reason == "" or "late" in reason or "takes no pending interrupt" in reason


def test_marks() -> None:
    assert parse_mark("12") == Mark("", 12)
    assert parse_mark("swap_pages") == Mark("swap_pages", 0)
    assert parse_mark("swap_pages+0x10") == Mark("swap_pages", 16)
    assert str(parse_mark("swap_pages+16")) == "swap_pages+0x10"
    for wrong in ("", "+4", "swap_pages+", "swap_pages+zz", "0x", "a b"):
        with pytest.raises(KjumpError, match="--irq"):
            parse_mark(wrong)


def rows_at(arch: Arch, mark: str) -> dict[str, Comparison]:
    rows = compare_scene(small(arch), [witness(Other.QEMU)], parse_mark(mark))
    return {row.case.rpartition(" ")[2]: row for row in rows}


@needs_qemu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "mark"),
    [
        *((one, mark) for one in (Arch.X86_64, Arch.I386_PAE) for mark in ("swap_pages", "virtual_mapped", "20")),
        *((one, "identity_mapped") for one in Arch),
        (Arch.X86_64, "relocate_new_kernel"),
    ],
)
def test_every_mark_agrees_with_qemu(arch: Arch, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "NO_END_LIMIT", 3.0)
    rows = rows_at(arch, mark)
    assert set(rows) == {"suspend", "return"}
    for name, row in rows.items():
        if mark == "virtual_mapped" and name == "suspend":
            assert row.reason == "this movement never comes to virtual_mapped"
            continue
        assert row.verdict is Verdict.AGREE, (name, row.differences)
        assert row.pages == row.pages_equal > 6000
        assert {known for known, count in row.known.items() if count} <= {
            Known.PDPTE_ACCESSED, Known.IDT_ERROR_CODE, Known.FAULT_RF,
        }  # fmt: skip


def test_an_interrupt_that_is_not_taken_is_a_difference() -> None:
    recording = record(small(Arch.X86_64), parse_mark("relocate_new_kernel"))
    case = recording.cases[0]
    assert case.irq == 0x20
    assert recording.missing == []
    masked = replace(case, irq=0, registers=dict(case.registers) | {"rflags": 2})
    images = [build_image([one], in_place=True) for one in (case, masked)]
    runs = [run_ours(image) for image in images]
    assert [run.ended for run in runs] == [Ended.DONE, Ended.DONE]
    (row,) = compare(images[0], *runs)
    assert row.verdict is Verdict.DIFFER  # A's tick counter, at least


def test_a_case_with_if_needs_an_interrupt() -> None:
    probe = irq_probe(Arch.X86_64)
    assert unrestorable(probe) == ""
    assert "IF set and no interrupt" in unrestorable(replace(probe, irq=0))
    nested = replace(probe, registers=dict(probe.registers) | {"rflags": 2 | Eflags.IF | Eflags.NT})
    assert "NT" in unrestorable(nested)
    beyond = replace(probe, registers=dict(probe.registers) | {"gdtr.limit": 0})
    assert "does not hold it" in unrestorable(beyond)


def hidden(**changes: int) -> dict[str, int]:
    state = dict.fromkeys(("cs", "ss", "ds", "es", "fs", "gs", "tr", "ldtr"), 0)
    state |= {"cs": 8, "cs.base": 0, "cs.limit": 0xFFFFFFFF, "cs.flags": 0xAF9B00}
    state |= {"tr": 0x20, "tr.base": 0xFFFFFFFF81002048, "tr.limit": 0x67, "tr.flags": 0x8B00}
    return state | changes


def test_tables_of_ones_own_hold_what_the_registers_hold() -> None:
    tables = own_tables(hidden(), 8, 0x5000)
    assert tables is not None
    assert tables[0][8:16] == bytes.fromhex("ffff0000009baf00")
    assert tables[0][0x20:0x30] == bytes.fromhex("6700482000890081ffffffff00000000")  # available
    local = hidden(gs=4) | {"gs.base": 0x1234, "gs.limit": 0xFFFF, "gs.flags": 0x9300}
    for word, base in ((4, "34120093"), (8, "00000093")):
        tables = own_tables(local, word, 0x5000)
        assert tables is not None
        assert tables[1][:8] == bytes.fromhex("ffff" + base[:4] + "00" + base[6:] + "0000")
    assert own_tables(hidden(ss=8) | {"ss.base": 0, "ss.limit": 0xFFFFFFFF, "ss.flags": 0xCF9300}, 8, 0) is None
    assert own_tables(hidden(ds=0x1F8) | {"ds.base": 0, "ds.limit": 0xFFFF, "ds.flags": 0x9300}, 8, 0) is None
