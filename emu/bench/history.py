"""The history benchmark: ten million instructions recorded, and single steps back from anywhere in them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from emu import resources
from emu.assembler import Image, assemble
from emu.debugger.timeline import Timeline
from emu.errors import EngineError
from emu.kexec.e820 import default_map
from emu.machine import events as ev
from emu.machine import start
from emu.machine.history import History
from emu.machine.machine import Machine
from emu.units import MIB
from emu.x86.segments import TableRegister

_ORIGIN = 0x100000
_STEPS_BACK = 300


def _machine(image: Image, *, strict: bool) -> Machine:
    machine = Machine(default_map(64 * MIB), strict=strict)
    machine.ram.write(image.org, image.code)
    gdt = bytes(16) + bytes.fromhex("ffff0000009bcf00 ffff00000093cf00")
    machine.ram.write(0x8000, gdt)
    start.protected_mode(machine, eip=image.symbols["start"], gdt=TableRegister(0x8000, len(gdt) - 1))
    machine.ram.rebase()
    return machine


def _timed_run(machine: Machine) -> float:
    begin = time.perf_counter()
    outcome = machine.run()
    seconds = time.perf_counter() - begin
    if outcome != ev.Exited(0):
        raise EngineError(f"the stretched run ended in {outcome}")
    return seconds


def bench_history() -> Iterator[str]:
    """Forward speed with history against fast mode with a count; size of the history; time of one step back."""
    folder = resources.asm_dir()
    image = assemble(folder / "bench" / "stretch.S", org=_ORIGIN, bits=32, include=[folder / "include"])
    plain = _machine(image, strict=False)
    fast = _timed_run(plain)
    plain.close()
    machine = _machine(image, strict=True)
    history = History(machine)
    history.start()
    recorded = _timed_run(machine)
    history.stop(ev.Exited(0))
    count = machine.count.instructions
    irqs = sum(isinstance(event, ev.Interrupt) for event in history.events)
    modes = sum(isinstance(event, ev.ModeChange) for event in history.events)
    yield (
        f"history  {count:,} instructions, {history.pages:,} pages written, {irqs:,} interrupts, {modes} mode changes: "
        f"{count / recorded / 1e6:.1f} M/s recorded, {count / fast / 1e6:.1f} M/s fast: ratio {fast / recorded:.2f}"
    )
    yield f"history  {len(history.checkpoints):,} checkpoints, {history.size / MIB:.0f} MiB of pages"
    yield _steps_back(machine, history)
    machine.close()


def _steps_back(machine: Machine, history: History) -> str:
    timeline = Timeline(machine, history)
    choose = random.Random(7)  # noqa: S311 - an order that repeats
    last = history.checkpoints[-1].instructions
    times = []
    for _ in range(_STEPS_BACK):
        timeline.goto_position(choose.randrange(1, last))
        begin = time.perf_counter()
        timeline.step_back()
        times.append(time.perf_counter() - begin)
    times.sort()
    median, worst = times[len(times) // 2] * 1e3, times[-1] * 1e3
    return f"history  rsi from {_STEPS_BACK} random places: median {median:.1f} ms, longest {worst:.1f} ms"
