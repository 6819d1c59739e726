"""The plain path: relocate_new_kernel with preserve_context off enters the next kernel, and nobody can come back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu.journey import movement, programs
from emu.journey.journey import Journey
from emu.journey.registers import entry_state
from emu.journey.scene import Scene
from emu.kexec.arch import Arch
from emu.kexec.layout import RelocateFlag
from emu.machine import events as ev
from emu.machine.cpustate import RCX

PRESERVE_CONTEXT_ARGUMENT = 20  # bytes above the stack pointer at the i386 stub's first instruction


@pytest.mark.parametrize("arch", list(Arch))
def test_the_next_kernel_finds_zeros_and_no_way_back(arch: Arch, scene_of: Callable[..., Scene]) -> None:
    journey = Journey(scene_of(arch))
    assert journey.run("load").ok
    loaded, machine = journey.require_loaded(), journey.machine
    entry = int(loaded.image.control_va) + programs.relocate_entry(loaded.stub) - loaded.stub.org
    machine.break_at(entry)
    assert machine.run(100_000_000) == ev.Breakpoint(entry)
    machine.clear_break(entry)
    if arch.bits == 64:
        machine.engine.set_gpr(RCX, RelocateFlag.SWAP)
    else:
        machine.ram.write(machine.cpu.translate(machine.cpu.rsp + PRESERVE_CONTEXT_ARGUMENT), bytes(4))
    move = movement.begin(journey, "suspend", movement.leaving(journey))
    pages = movement.stub_pages(journey)
    machine.break_outside([*pages, *(int(arch.direct(page)) for page in pages)])
    assert machine.run(100_000_000) == ev.Breakpoint(loaded.start)

    state = machine.cpu.registers()
    general = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"} | {f"r{number}" for number in range(8, 16)}
    assert {name: state[name] for name in general if state.get(name)} == {}
    assert machine.ram.read_int(state["rsp"], arch.word) == 0
    assert loaded.stub.org < state["rsp"] < loaded.stub.org + 0x1000
    assert entry_state(arch, state) == []
    assert list(move.expected.differences(machine.ram, move.volatile)) == []
