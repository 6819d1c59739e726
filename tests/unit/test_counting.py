"""Ticks, instructions and iterations."""

from __future__ import annotations

import pytest

from emu.machine import events as ev
from emu.machine.counting import Counting, CountState
from emu.machine.events import Position
from emu.machine.moves import Meter
from tests.machine_bench import DATA, Bench


def rep(count: int, insn: str = "rep stosb") -> str:
    return f"movl ${DATA}, %edi\nmovl ${DATA + 0x8000}, %esi\nmovl ${count}, %ecx\nrepeated: {insn}\nnop\nhlt\n"


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 100, 5000])
@pytest.mark.parametrize("insn", ["rep stosb", "rep movsl", "rep lodsw", "repne scasb", "repe cmpsb"])
def test_a_repeated_instruction_is_one_and_a_tick_for_each_iteration(insn: str, count: int, plain: bool) -> None:
    bench = Bench("4-level", "movb $1, %al\n" + rep(count, insn), plain_strings=plain)
    bench.machine.ram.write(DATA, bytes(0x10000))
    bench.run()
    assert bench.machine.count.instructions == 7
    assert bench.machine.count.ticks == 7 + bench.machine.count.iterations
    assert bench.machine.count.iterations == count
    assert bench.reg("rcx") == 0


@pytest.mark.parametrize("plain", [False, True])
def test_positions_inside_a_repeated_instruction_count_its_iterations(plain: bool) -> None:
    bench = Bench("4-level", rep(10), plain_strings=plain)
    seen = []
    for _ in range(16):
        seen.append(bench.machine.here()[0])
        bench.machine.run(1)
    assert seen[:5] == [Position(0), Position(1), Position(2), Position(3), Position(3, 1)]
    assert seen[12:] == [Position(3, 9), Position(3, 10), Position(4), Position(5)]


@pytest.mark.parametrize("plain", [False, True])
def test_a_position_does_not_depend_on_how_the_run_was_cut(plain: bool) -> None:
    cut = []
    for sizes in ([37], [1] * 37, [5, 30, 2], [36, 1]):
        bench = Bench("4-level", rep(100), plain_strings=plain)
        for size in sizes:
            bench.machine.run(size)
        cut.append((bench.machine.here(), bench.reg("rcx")))
    assert len(set(cut)) == 1
    assert cut[0][0] == (Position(3, 34), 37, bench.symbols["repeated"])


def test_a_fault_in_an_iteration_has_its_position_and_is_not_counted() -> None:
    for plain in (False, True):
        bench = Bench("4-level", rep(0x2000), plain_strings=plain)
        bench.machine.ram.write(bench.leaf(DATA + 0x1000), bytes(8))
        bench.run()
        fault = next(event for event in bench.machine.events if isinstance(event, ev.Fault))
        assert fault.position == Position(3, 0x1000)
        assert fault.tick == 3 + 0x1000
        assert bench.reg("rcx") == 0x1000
        assert bench.machine.count.instructions == 4, "three MOVs and the HLT of the handler"


def test_the_state_is_a_value() -> None:
    count = Counting(Meter())
    count.pass_time(5)
    count.before_iteration(0x1000, 5, 3, engine_next=True)
    saved = count.state
    count.pass_time(40)
    count.idle(7)
    assert count.instructions == 5 + 40 - 3
    count.state = saved
    assert count.state == saved == CountState(5, 3, 0, 0x1000, 9, executed=True, done=3)


def test_waiting_is_time_but_no_instruction() -> None:
    count = Counting(Meter())
    count.pass_time(2)
    count.idle(100)
    assert (count.ticks, count.instructions) == (102, 2)


def test_a_position_reads_as_people_write_it() -> None:
    assert str(Position(1234567)) == "1,234,567"
    assert str(Position(1234567, 8)) == "1,234,567.8"
    assert Position(5) < Position(5, 1) < Position(6)
