"""Stores that the policy of the phase forbids, with the exact instruction that did them."""

from __future__ import annotations

import pytest

from emu.machine import events as ev
from emu.machine.events import Position
from emu.machine.owners import Owner
from emu.machine.policy import MOST_REPORTED
from tests.machine_bench import DATA, MODES, STACK, Bench


def violations(bench: Bench) -> list[ev.OwnerViolation]:
    return [event for event in bench.machine.events if isinstance(event, ev.OwnerViolation)]


def forbid(bench: Bench, *pfns: int, writer: str = "B") -> None:
    bench.machine.owners.assign(pfns, Owner.A)
    bench.machine.policy.forbid(pfns, writer)


@pytest.mark.parametrize("mode", MODES)
def test_a_forbidden_store_has_its_exact_pc_position_and_value(mode: str) -> None:
    bench = Bench(mode, "nop\nmovl $1, 0x4000\nbad: movw $0x1234, 0x5010\nnop\nhlt\n")
    forbid(bench, 5)
    bench.run()
    (found,) = violations(bench)
    assert (found.pc, found.position, found.tick) == (bench.symbols["bad"], Position(2), 2)
    assert (found.address, found.size, found.value) == (0x5010, 2, 0x1234)
    assert (found.owner, found.writer) == ("A", "B")
    assert bench.machine.ram.read_int(0x5010, 2) == 0x1234, "it is reported, not prevented"


@pytest.mark.parametrize("plain", [False, True])
def test_a_string_store_into_a_forbidden_page_is_caught_at_its_first_iteration_there(plain: bool) -> None:
    text = f"movl ${DATA}, %edi\nmovl $0x2000, %ecx\nmovb $0x77, %al\nbad: rep stosb\nhlt\n"
    bench = Bench("4-level", text, plain_strings=plain)
    forbid(bench, (DATA >> 12) + 1)
    bench.run()
    found = violations(bench)
    assert found[0].position == Position(3, 0x1000)
    assert found[0].address == DATA + 0x1000
    assert found[0].pc == bench.symbols["bad"]
    assert len(found) == MOST_REPORTED, "a runaway copy is reported so many times and no more"


def test_a_push_into_a_forbidden_page_is_a_violation() -> None:
    """A stack outside the page meant for it."""
    bench = Bench("4-level", "movl $0x5008, %esp\npushq %rax\nbad: call next\nnext: hlt\n")
    forbid(bench, 4)
    bench.run()
    (found,) = violations(bench)
    assert (found.pc, found.address, found.size) == (bench.symbols["bad"], 0x4FF8, 8)


def test_an_exception_frame_in_a_forbidden_page_is_a_violation() -> None:
    bench = Bench("4-level", "bad: int3\n")
    forbid(bench, (STACK >> 12) - 1)
    bench.run()
    (found,) = violations(bench)  # five words, stored at once
    assert (found.pc, found.size) == (bench.symbols["bad"], 40)


def test_a_store_through_another_linear_address_is_caught_too() -> None:
    bench = Bench("4-level", "movl $5, 0x40000\nhlt\n")
    bench.machine.ram.write(bench.leaf(0x40000), (0x50000 | 7).to_bytes(8, "little"))
    forbid(bench, 0x50)
    bench.run()
    assert [found.address for found in violations(bench)] == [0x50000]


def test_what_is_allowed_again_is_no_violation() -> None:
    bench = Bench("4-level", "movl $5, 0x5000\nnop\nmovl $6, 0x5000\nhlt\n")
    forbid(bench, 5)
    bench.machine.step()
    bench.machine.policy.clear()
    bench.run()
    assert len(violations(bench)) == 1


def test_a_device_breaks_the_policy_by_its_own_name() -> None:
    text = """
        movw $0x5c0, %dx
        movl $0x5000, %eax
        outl %eax, %dx
        movw $0x5c4, %dx
        movl $64, %eax
        outl %eax, %dx
        movw $0x5c8, %dx
        movl $10, %eax
        outl %eax, %dx
        movw $0x5cc, %dx
        movl $1, %eax
        outl %eax, %dx
    spin: jmp spin
    """
    bench = Bench("4-level", text)
    forbid(bench, 5)
    bench.run(60)
    found = violations(bench)
    assert found
    assert {one.writer for one in found} == {bench.machine.board.busmaster.name}
    assert [one.tick for one in found] == sorted({one.tick for one in found})
    assert found[1].tick - found[0].tick == 10


def test_a_fast_machine_reports_nothing() -> None:
    bench = Bench("4-level", "movl $5, 0x5000\nhlt\n", strict=False)
    forbid(bench, 5)
    bench.run()
    assert violations(bench) == []
    assert not bench.machine.policy.allows(0x5000, 4)


def test_a_store_into_its_own_block_is_reported_once() -> None:
    bench = Bench("4-level", "bad: movb $0x90, patch\nnop\npatch: nop\nhlt\n")
    forbid(bench, 0x10)
    bench.run()
    (found,) = violations(bench)
    assert found.pc == bench.symbols["bad"]
    assert bench.machine.count.instructions == 4
