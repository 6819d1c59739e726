"""An NMI that no table takes ended the machine, and who ran to the next handler was told that it had been entered.

The run after that went on as if there had been no NMI: so did the debugger, step by step, and every case of target
`irq` with an NMI between two descriptor tables.
"""

from __future__ import annotations

import pytest

from emu.machine import events as ev
from emu.x86.bits import Eflags
from emu.x86.segments import TableRegister
from tests.machine_bench import MODES, Bench


@pytest.mark.parametrize("mode", MODES[1:])
def test_an_nmi_that_no_table_takes_ends_whoever_runs_to_the_next_handler(mode: str) -> None:
    bench = Bench(mode, "nop\nnop\nhlt\n")
    bench.machine.engine.idtr = TableRegister(0, 0)
    bench.machine.inject_nmi()
    assert isinstance(bench.machine.run(10, until_delivery=True), ev.TripleFault)
    bench.machine.close()


def test_an_nmi_that_no_table_takes_is_the_end_of_a_step() -> None:
    bench = Bench("4-level", "nop\nnop\nhlt\n")
    bench.machine.engine.idtr = TableRegister(0, 0)
    bench.machine.inject_nmi()
    assert isinstance(bench.machine.step(), ev.TripleFault)
    bench.machine.close()


def test_nothing_is_delivered_to_a_machine_that_an_nmi_has_shut_down() -> None:
    bench = Bench("4-level", "nop\nnop\nhlt\n")
    bench.machine.engine.idtr = TableRegister(0, 0)
    bench.machine.cpu.rflags |= Eflags.IF
    bench.machine.board.ask(0)
    bench.machine.inject_nmi()
    assert isinstance(bench.machine.run(10), ev.TripleFault)
    assert [event.vector for event in bench.machine.events if isinstance(event, ev.Interrupt)] == [2]
    bench.machine.close()
