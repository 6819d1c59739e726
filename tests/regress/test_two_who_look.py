"""Two who look at each instruction at a time: the second took the first's place, and its leaving ended both."""

from __future__ import annotations

from emu.kexec.e820 import default_map
from emu.machine import start
from emu.machine.machine import Machine


def test_two_look_at_each_instruction_and_one_goes_on_when_the_other_leaves() -> None:
    machine = Machine(default_map(2 << 20))
    machine.ram.write(0x7C00, b"\x90" * 8)
    start.real_mode(machine)
    first: list[int] = []
    second: list[int] = []
    machine.watch_instructions(first.append)
    other = machine.watch_instructions(second.append)
    machine.run(instructions=2)
    machine.unwatch_instructions(other)
    machine.run(instructions=2)
    assert first == [0x7C00, 0x7C01, 0x7C02, 0x7C03]
    assert second == [0x7C00, 0x7C01]
    machine.close()
