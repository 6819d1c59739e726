"""Every start state runs code, at once and in the mode that it names."""

from __future__ import annotations

import pytest

from emu.machine import events as ev
from emu.machine import start
from emu.machine.machine import Machine
from emu.x86.paging import PagingMode
from tests.machine_bench import CODE, MODES, SMALL_MAP, Bench

LABELS = {
    "real": "16-bit real",
    "protected": "32-bit protected",
    "2-level": "32-bit protected 2-level",
    "pae": "32-bit protected PAE",
    "4-level": "64-bit long 4-level",
    "5-level": "64-bit long 5-level",
    "compatibility": "32-bit compatibility 4-level",
}


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_is_the_one_asked_for_and_its_first_block_is_seen(mode: str) -> None:
    bench = Bench(mode, "mov %cs, %ax\nmovb $0x5a, 0x5000\nhlt\nnop\n")
    assert bench.machine.cpu.mode() == LABELS[mode]
    assert bench.machine.cpu.bits == bench.bits
    outcome = bench.run()
    assert isinstance(outcome, ev.Halted)
    assert bench.machine.count.instructions == 3
    assert bench.machine.ram.read(0x5000, 1) == b"\x5a"
    assert bench.reg("rax") & 0xFFFF == (CODE >> 4 if mode == "real" else 0x10)


@pytest.mark.parametrize("mode", MODES)
def test_operands_have_the_width_of_the_mode(mode: str) -> None:
    bench = Bench(mode, "push %cs\nhlt\n" if bench_is_16(mode) else "push $-1\nhlt\n")
    before = bench.machine.cpu.rsp
    bench.run()
    assert before - bench.machine.cpu.rsp == bench.bits // 8


def bench_is_16(mode: str) -> bool:
    return mode == "real"


@pytest.mark.parametrize(
    ("mode", "paging"),
    [
        ("protected", PagingMode.NONE),
        ("2-level", PagingMode.TWO_LEVEL),
        ("pae", PagingMode.PAE),
        ("4-level", PagingMode.FOUR_LEVEL),
        ("5-level", PagingMode.FIVE_LEVEL),
        ("compatibility", PagingMode.FOUR_LEVEL),
    ],
)
def test_the_paging_structures_are_walked(mode: str, paging: PagingMode) -> None:
    bench = Bench(mode, "movb $1, 0x5000\nmovb 0x6000, %al\nhlt\n")
    bench.run()
    assert bench.machine.cpu.paging().mode is paging
    if paging is not PagingMode.NONE:
        assert bench.machine.ram.read_int(bench.leaf(0x5000), 4) & 0x60 == 0x60
        assert bench.machine.ram.read_int(bench.leaf(0x6000), 4) & 0x60 == 0x20
        assert bench.machine.ram.read_int(bench.leaf(0x7000), 4) & 0x60 == 0


def test_reset_begins_under_4_gib_with_the_documented_registers() -> None:
    machine = Machine(SMALL_MAP)
    start.reset(machine)
    state = machine.cpu.registers()
    assert machine.cpu.pc == 0xFFFFFFF0
    assert (state["cs"], state["cs.base"], state["rip"], state["rflags"]) == (0xF000, 0xFFFF0000, 0xFFF0, 2)
    assert (state["cr0"], state["cr3"], state["cr4"], state["efer"]) == (0x60000010, 0, 0, 0)
    assert (state["idtr.base"], state["idtr.limit"]) == (0, 0xFFFF)


@pytest.mark.parametrize("mode", MODES)
def test_the_fpu_begins_as_after_reset(mode: str) -> None:
    state = Bench(mode, "hlt\n").machine.cpu.registers()
    assert (state["fcw"], state["fsw"], state["ftw"], state["mxcsr"]) == (0x40, 0, 0x5555, 0x1F80)


def test_reset_fetches_from_a_hole_where_no_rom_is_mapped() -> None:
    machine = Machine(SMALL_MAP)
    start.reset(machine)
    machine.ram.write(6 * 4, (0x500).to_bytes(2, "little") + bytes(2))
    machine.ram.write(0x500, b"\xf4")
    outcome = machine.run(10)
    assert outcome == ev.Halted(0x501)
    fetches = [event for event in machine.events if isinstance(event, ev.BusError)]
    assert [(event.address, event.access) for event in fetches] == [(0xFFFFFFF0, "fetch from a hole")]


def test_a_machine_can_be_started_again_in_another_mode() -> None:
    bench = Bench("5-level", "hlt\n")
    bench.run()
    start.real_mode(bench.machine, cs=0, ip=0x7C00)
    bench.machine.ram.write(0x7C00, bytes.fromhex("b8 34 12 f4"))
    bench.run()
    assert bench.machine.cpu.mode() == "16-bit real"
    assert bench.reg("rax") == 0x1234
