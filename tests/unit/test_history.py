"""Checkpoints: what they keep, how they thin out, and that a past cut off can be joined again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emu import resources
from emu.assembler import assemble
from emu.errors import EngineError
from emu.kexec.e820 import default_map
from emu.machine import events as ev
from emu.machine import start
from emu.machine.history import History, Instant
from emu.machine.machine import Machine
from emu.units import MIB
from emu.x86.segments import TableRegister


@pytest.fixture
def machine() -> Iterator[Machine]:
    folder = resources.asm_dir()
    image = assemble(folder / "bench" / "stretch.S", org=0x100000, bits=32, include=[folder / "include"])
    made = Machine(default_map(64 * MIB))
    made.ram.write(image.org, image.code)
    made.ram.write(0x8000, bytes(16) + bytes.fromhex("ffff0000009bcf00 ffff00000093cf00"))
    start.protected_mode(made, eip=image.symbols["start"], gdt=TableRegister(0x8000, 31))
    made.ram.rebase()
    yield made
    made.close()


def pages(machine: Machine) -> list[bytes]:
    return [bytes(bank.view) for bank in machine.ram.banks]


def test_each_checkpoint_can_be_gone_to_in_any_order(machine: Machine) -> None:
    history = History(machine, every=20_000)
    history.start()
    kept = []
    for _ in range(6):
        assert isinstance(machine.run(35_000), ev.StepLimit)
        history.mark(barrier=False)
        kept.append((len(history.checkpoints) - 1, machine.cpu.registers(), pages(machine)))
    history.stop(None)
    for index, registers, memory in (kept[3], kept[0], kept[5], kept[1], kept[4], kept[2]):
        history.restore(index)
        assert machine.cpu.registers() == registers
        assert pages(machine) == memory


def test_thinning_keeps_what_is_left_exact(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu.machine.history.MOST_BYTES", 40 * 4096)
    history = History(machine, every=5_000)
    history.start()
    seen = {}
    for _ in range(30):
        machine.run(5_000)
        seen[history.now()] = (machine.cpu.registers(), pages(machine))
        history.mark(barrier=False)
    history.stop(None)
    assert history.every > 5_000
    left = [index for index, one in enumerate(history.checkpoints) if one.at in seen]
    assert 2 <= len(left) < 30
    for index in reversed(left):
        history.restore(index)
        assert (machine.cpu.registers(), pages(machine)) == seen[history.checkpoints[index].at]


def test_a_past_that_was_cut_off_comes_back(machine: Machine) -> None:
    history = History(machine, every=10_000)
    history.start()
    machine.run(60_000)
    history.stop(None)
    end, after = history.end, (machine.cpu.registers(), pages(machine))
    history.restore(2)
    tail = history.cut()
    machine.ram.write(0x2000000, b"another past")
    history.mark(barrier=True)
    machine.run(30_000)
    history.mark(barrier=False)
    assert pages(machine) != after[1]
    history.rejoin(tail)
    assert history.end == end
    history.restore(len(history.checkpoints) - 1)
    assert (machine.cpu.registers(), pages(machine)) == after


def test_nothing_lies_before_the_first_checkpoint(machine: Machine) -> None:
    machine.run(1_000)
    history = History(machine)
    history.start()
    with pytest.raises(EngineError, match="nothing was recorded before"):
        history.before(Instant(5, 0))
