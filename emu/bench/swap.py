"""The swap benchmark: 64 MiB exchanged page by page by our stub, on our machine with its checks on, and on QEMU.

Both get the same recorded state: registers, list and memory at the stub's first instruction.  QEMU's time is what its
whole run takes less what the same image takes with an empty list, the least of a few runs each, so that its start, the
loading of 256 MiB and our loader's own work do not count.  Both times are the processor's, in user mode: what else the
host does is kept out.
"""

from __future__ import annotations

import resource
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace

from emu.errors import EngineError
from emu.journey import movement
from emu.journey.journey import Journey
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch
from emu.kexec.layout import Ind
from emu.machine import events as ev
from emu.oracle.case import Case
from emu.oracle.image import build_image
from emu.oracle.outcome import Ended
from emu.oracle.qemu import COMMAND, run_qemu
from emu.oracle.record import take
from emu.units import MIB, PAGE_SIZE

RAM, TARGET = "256M", "64M@16M"
ROUNDS = 3
_LIMIT = 200_000_000


class _Begun(Exception):  # noqa: N818 - carries a journey out of its own run
    """The journey is at the stub's first instruction, with the movement's policy in force."""


def _begin(arch: Arch, *, ram: str, target: str, plain_strings: bool = False) -> tuple[Journey, Case]:
    """A journey at the beginning of its first movement, and the recorded case."""
    cases: list[Case] = []

    def observe(moment: str, journey: Journey) -> None:
        if moment == "suspend begins":
            cases.append(take(journey, "suspend", a_root=journey.machine.cpu.cr3))
            raise _Begun

    scene = make_scene(find_journey("jump"), arch=arch, ram=ram, target=target)
    journey = Journey(replace(scene, plain_strings=plain_strings), observe)
    try:
        journey.run()
    except _Begun:
        return journey, cases[0]
    raise EngineError("the journey ended before its first movement")


def _user(who: int) -> float:
    """Seconds that this process, or those it waited for, spent in user mode."""
    return resource.getrusage(who).ru_utime


def _ours(journey: Journey) -> float:
    """Seconds of the movement on our machine: owner policy and hazards on, until control leaves the stub."""
    machine = journey.machine
    machine.break_outside(movement.linear_pages(journey))
    begin = _user(resource.RUSAGE_SELF)
    outcome = machine.run(_LIMIT)
    seconds = _user(resource.RUSAGE_SELF) - begin
    machine.clear_break_in()
    if outcome != ev.Breakpoint(journey.require_loaded().start):
        raise EngineError(f"the movement that was to be measured ended with {outcome}")
    return seconds


def _without_list(case: Case) -> Case:
    """The same case with nothing to move."""
    done = int(Ind.DONE)
    if case.arch.word == 8:
        return replace(case, registers=dict(case.registers) | {"rdi": done}, moved={})
    stack = case.registers["rsp"]
    at = stack + 4 - int(case.arch.text_base)
    memory = [(start, bytearray(content)) for start, content in case.memory]
    for start, content in memory:
        if start <= at < start + len(content):
            struct.pack_into("<I", content, at - start, done)
    return replace(case, memory=memory, moved={})


def _qemu(case: Case) -> float:
    image = build_image([case], in_place=True)
    begin = _user(resource.RUSAGE_CHILDREN)
    run = run_qemu(image)
    seconds = _user(resource.RUSAGE_CHILDREN) - begin
    if run.ended is not Ended.DONE:
        raise EngineError(f"QEMU's run ended: {run.ended.value} {run.why}")
    return seconds


def bench_swap() -> Iterator[str]:
    """MiB/s of a 64 MiB scatter swap by our stub, checks on, against QEMU TCG on the same stub and list."""
    for arch in (Arch.I386, Arch.X86_64):
        ours: list[float] = []
        theirs: list[float] = []
        empty: list[float] = []
        for _ in range(ROUNDS):
            journey, case = _begin(arch, ram=RAM, target=TARGET)
            moved = len(journey.require_loaded().image.pairs)
            ours.append(_ours(journey))
            journey.machine.close()
            if shutil.which(COMMAND) is not None:
                theirs.append(_qemu(case))
                empty.append(_qemu(_without_list(case)))
        size = moved * PAGE_SIZE / MIB
        rate = size / min(ours)
        if not theirs:
            yield f"swap   {arch:<12} {size:.0f} MiB: {rate:,.0f} MiB/s checked; {COMMAND} is not on PATH"
            continue
        seconds = min(theirs) - min(empty)
        if seconds <= 0:
            yield f"swap   {arch:<12} {size:.0f} MiB: {rate:,.0f} MiB/s checked; QEMU's time is lost in noise"
            continue
        qemu = size / seconds
        yield (
            f"swap   {arch:<12} {size:.0f} MiB in {moved:,} pages: {rate:,.0f} MiB/s checked, "
            f"{qemu:,.0f} MiB/s QEMU TCG: ratio {rate / qemu:.2f}"
        )
