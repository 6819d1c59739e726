"""Events and outcomes are values."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from emu.machine import events as ev
from emu.machine.events import Position
from tests.machine_bench import Bench


def test_every_event_is_frozen_and_begins_with_its_place() -> None:
    kinds = [kind for _, kind in inspect.getmembers(ev, inspect.isclass) if issubclass(kind, ev.Event)]
    assert len(kinds) > 8
    for kind in kinds:
        assert [field.name for field in dataclasses.fields(kind)][:3] == ["position", "tick", "pc"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        ev.Hazard(Position(1), 1, 0, "kind", "detail").kind = "other"  # type: ignore[misc]


def test_every_outcome_is_a_value() -> None:
    assert ev.Halted(5) == ev.Halted(5)
    assert ev.TripleFault(1, (), "real") != ev.TripleFault(2, (), "real")
    assert len({ev.StepLimit(5), ev.StepLimit(5), ev.Exited(0)}) == 2


def test_listeners_hear_every_event_in_order() -> None:
    bench = Bench("4-level", "outb %al, $0xed\nmov %cr3, %rax\nmov %cr0, %rax\nbts $16, %rax\nmov %rax, %cr0\nint3\n")
    heard: list[ev.Event] = []
    bench.machine.listeners.append(heard.append)
    bench.run()
    assert heard == bench.machine.events
    assert [type(event) for event in heard] == [ev.PortAccess, ev.ControlWrite, ev.Fault]
    assert [event.tick for event in heard] == [0, 5, 5]


def test_the_exit_port_and_the_host_port_end_a_run() -> None:
    bench = Bench("4-level", "movl $3, %eax\nmovw $0x5e0, %dx\noutl %eax, %dx\nmovl $7, %eax\noutl %eax, $0xf4\nnop\n")
    assert bench.run() == ev.HostCall(3)
    assert bench.run() == ev.Exited(7)
    assert bench.machine.count.instructions == 5


def test_console_lines_come_from_their_devices() -> None:
    text = (
        "".join(f"movb ${ord(letter)}, %al\noutb %al, $0xe9\n" for letter in "hi\n")
        + "movb $0x42, %al\noutb %al, $0x80\nhlt\n"
    )
    bench = Bench("4-level", text)
    bench.run()
    lines = [(event.device, event.text) for event in bench.machine.events if isinstance(event, ev.ConsoleLine)]
    assert lines == [("debugcon", "hi"), ("post", "42")]
