"""A machine goes back to a snapshot, and forth again, exactly."""

from __future__ import annotations

import pytest

from emu.machine import events as ev
from emu.machine.owners import Owner
from tests.machine_bench import DATA, MODES, Bench, guest_state

WORK = {
    "real": "movw $0x3000, %di\nmovw $300, %cx\nrep stosw\nmovw $5, 0x4000\nincw %bx\n",
    "other": f"movl ${DATA}, %edi\nmovl $300, %ecx\nrep stosw\nmovl $5, 0x4000\nincl %ebx\n",
}


def program(mode: str) -> str:
    body = WORK["real" if mode == "real" else "other"]
    return f"again: {body}movb $0x41, %al\noutb %al, $0xe9\nrdtsc\nmov %eax, 0x4010\njmp again\n"


@pytest.mark.parametrize("mode", MODES)
def test_back_and_forth_several_times(mode: str) -> None:
    bench = Bench(mode, program(mode))
    machine = bench.machine
    states, snapshots, events = [], [], []
    for ticks in (0, 5, 100, 700, 31):
        machine.run(ticks) if ticks else None
        states.append(guest_state(machine))
        snapshots.append(machine.snapshot())
        events.append(list(machine.events))
    for index in (0, 4, 2, 2, 3, 1, 4, 0):
        machine.restore(snapshots[index])
        assert guest_state(machine) == states[index]
        assert machine.events == events[index][: len(machine.events)]
    machine.run(5 + 100 + 700 + 31)
    assert guest_state(machine) == states[4]
    assert machine.events == events[4]


@pytest.mark.parametrize("mode", MODES)
def test_what_the_engine_forgets_comes_back_too(mode: str) -> None:
    bench = Bench(mode, "nop\nhlt\n")
    machine = bench.machine
    machine.instructions.cr8 = 7
    machine.instructions.msrs[0x10] = 1000
    machine.owners.assign([5], Owner.B)
    machine.inject_nmi()
    machine.cpu.nmi_blocked = True
    machine.hazards.serial = 3
    saved = machine.snapshot()
    machine.instructions.cr8 = 0
    machine.instructions.msrs[0x10] = 0
    machine.owners.assign([5], Owner.A)
    machine.nmi_pending = machine.cpu.nmi_blocked = False
    machine.hazards.serial = 9
    machine.restore(saved)
    assert (machine.instructions.cr8, machine.instructions.msrs[0x10]) == (7, 1000)
    assert machine.owners.at(0x5000) is Owner.B
    assert machine.nmi_pending
    assert machine.cpu.nmi_blocked
    assert machine.hazards.serial == 3


def test_latched_pdptes_are_part_of_it() -> None:
    bench = Bench("pae", "mov %cr3, %eax\nmov %eax, %cr3\nmovl 0x5000, %eax\nhlt\n")
    before = bench.machine.snapshot()
    bench.machine.ram.write(0x20000, bytes(8))
    bench.machine.run(2)
    bench.machine.restore(before)
    assert isinstance(bench.run(), ev.Halted)
    assert bench.vector is None


def test_code_that_changed_is_translated_anew() -> None:
    bench = Bench("4-level", "movl $1, %eax\nhlt\n")
    before = bench.machine.snapshot()
    bench.run()
    bench.machine.restore(before)
    bench.machine.ram.write(bench.image.org + 1, b"\x02")
    changed = bench.machine.snapshot()
    bench.run()
    assert bench.reg("rax") == 2
    bench.machine.restore(before)
    bench.run()
    assert bench.reg("rax") == 1
    bench.machine.restore(changed)
    bench.run()
    assert bench.reg("rax") == 2


def test_translations_are_dropped() -> None:
    bench = Bench("4-level", "movl 0x40000, %eax\nmovl 0x40000, %ebx\nhlt\n")
    bench.machine.ram.write(0x50000, b"\x55")
    before = bench.machine.snapshot()
    bench.machine.step()
    bench.machine.restore(before)
    bench.machine.ram.write(bench.leaf(0x40000), (0x50000 | 7).to_bytes(8, "little"))
    bench.run()
    assert bench.reg("rax") == bench.reg("rbx") == 0x55


@pytest.mark.parametrize("plain", [False, True])
def test_in_the_middle_of_a_repeated_instruction(plain: bool) -> None:
    bench = Bench("4-level", f"movl ${DATA}, %edi\nmovl $900, %ecx\nrep stosb\nhlt\n", plain_strings=plain)
    bench.machine.run(123)
    middle, here = bench.machine.snapshot(), bench.machine.here()
    bench.run()
    end = guest_state(bench.machine)
    bench.machine.restore(middle)
    assert bench.machine.here() == here
    bench.run()
    assert guest_state(bench.machine) == end


def test_device_time_goes_back() -> None:
    text = "movb $0x36, %al\noutb %al, $0x43\nmovb $50, %al\noutb %al, $0x40\nxor %eax, %eax\noutb %al, $0x40\n"
    text += "spin: incq %rbx\njmp spin\n"
    bench = Bench("4-level", text)
    bench.machine.run(5000)
    state = bench.machine.snapshot()
    bench.machine.run(20000)
    first = guest_state(bench.machine), bench.machine.board.snapshot()
    bench.machine.restore(state)
    assert bench.machine.board.clock.now <= 5000
    bench.machine.run(20000)
    assert (guest_state(bench.machine), bench.machine.board.snapshot()) == first
