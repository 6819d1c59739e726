"""What Python and host code share when instructions are counted by blocks, and which stores are looked at.

That the count is right is tests/property/test_blocks.py's.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emu import resources
from emu.machine import blocks, start
from emu.machine import events as ev
from emu.machine.gated import GatedMachine
from tests.machine_bench import CODE, DATA, ROM, SMALL_MAP

LOOKED_AT = 0x400
SOURCE = resources.asm_dir() / "host" / "blocks.S"


def constants(source: Path) -> dict[str, int]:
    """The numbers that ``source`` gives names to, in order."""
    found: dict[str, int] = {}
    for name, value in re.findall(r"^\.set (\w+), (\d+)(?: - HEADER)?(?=\s)", source.read_text("utf-8"), re.MULTILINE):
        found[name] = int(value)
    return found


@pytest.mark.parametrize(
    ("structure", "prefix"),
    [
        (blocks._Fields, ""),
        (blocks.Record, "GATE_"),
        (blocks._Bank, "BANK_"),
    ],
)
def test_fields_are_where_host_code_looks(structure: type, prefix: str) -> None:
    known = constants(SOURCE)
    for name, _ in structure._fields_:  # type: ignore[attr-defined]
        assert getattr(structure, name).offset == known[prefix + name.upper()], name


def test_the_header_of_a_block_is_the_same_to_both() -> None:
    known = constants(SOURCE)
    assert known["HEADER"] == blocks._HEADER
    assert known["TB_INSTRUCTIONS"] - known["HEADER"] == blocks._INSTRUCTIONS_AT
    assert known["TB_SIZE"] - known["HEADER"] == blocks._HOST_SIZE_AT


@pytest.fixture
def machine() -> GatedMachine:
    """Real mode: every page can be executed."""
    made = GatedMachine(SMALL_MAP)
    start.real_mode(made, cs=CODE >> 4, ip=0)
    return made


def looked_at(machine: GatedMachine, linear: int) -> bool:
    """Is a store into this page looked at by the engine?"""
    write = machine.engine.translation(linear)[1]
    assert write & ~0xFFF == linear & ~0xFFF, "the engine remembers the page"
    return bool(write & LOOKED_AT)


def store(segment: int, offset: int) -> bytes:
    """MOV of an immediate word to DS, and MOV to memory."""
    return b"\xb8" + segment.to_bytes(2, "little") + b"\x8e\xd8\xa3" + offset.to_bytes(2, "little")


def test_a_page_without_code_is_not_looked_at_for_ever(machine: GatedMachine) -> None:
    """The first store finds the page, the second that it holds no code."""
    machine.ram.write(CODE, store(DATA >> 4, 0x20) + store(DATA >> 4, 0x10) + b"\xf4")
    assert isinstance(machine.run(100), ev.Halted)
    assert machine.by_blocks
    assert machine.ram.read_int(DATA + 0x10, 2) == DATA >> 4
    assert not looked_at(machine, DATA)


def test_a_page_with_code_is_looked_at_again_and_again(machine: GatedMachine) -> None:
    machine.ram.write(CODE, store(CODE >> 4, 0x800) * 3 + b"\xf4")
    assert isinstance(machine.run(100), ev.Halted)
    assert machine.ram.read_int(CODE + 0x800, 2) == CODE >> 4
    assert looked_at(machine, CODE)


def test_a_page_that_got_code_is_looked_at_from_then_on(machine: GatedMachine) -> None:
    machine.ram.write(DATA, b"\x90\xf4")
    machine.ram.write(CODE, store(DATA >> 4, 0x10) * 3 + b"\xea\x00\x00" + (DATA >> 4).to_bytes(2, "little"))
    assert isinstance(machine.run(100), ev.Halted)
    assert machine.cpu.pc == DATA + 2
    assert looked_at(machine, DATA)


def test_rom_is_looked_at_and_stays_as_it_is(machine: GatedMachine) -> None:
    machine.ram.write(CODE, store(ROM >> 4, 0) + store(ROM >> 4, 2) + b"\xf4")
    before = machine.ram.read(ROM, 4)
    seen: list[ev.Event] = []
    machine.listeners.append(seen.append)
    assert isinstance(machine.run(100), ev.Halted)
    assert machine.ram.read(ROM, 4) == before
    errors = [event for event in seen if isinstance(event, ev.BusError)]
    assert [(event.position.n, event.address, event.access) for event in errors] == [
        (2, ROM, "store into ROM"),
        (5, ROM + 2, "store into ROM"),
    ]


def test_a_run_ends_behind_the_block_at_hand(machine: GatedMachine) -> None:
    """OUT is made a block of its own; what comes behind it in its old block is not run."""
    machine.ram.write(CODE, b"\x40\xe6\xe9\x40\x40\xf4")
    machine.board.bus.write = lambda *_: machine.stop(ev.StopRequested())  # type: ignore[method-assign]
    assert machine.run(100) == ev.StopRequested()
    assert (machine.cpu.pc, machine.count.ticks, machine.engine.gpr(0) & 0xFFFF) == (CODE + 3, 2, 1)
