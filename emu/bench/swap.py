"""The swap benchmark: 64 MiB exchanged page by page by our stub, on our machine with its checks on, and on QEMU.

Both get the same recorded state: registers, list and memory at the stub's first instruction.  QEMU's time is that of
the processor in user mode: what its whole run takes less what the same image takes with an empty list, so that its
start, the loading of 256 MiB and our loader's own work do not count.  That difference is small, and the operating
system tells such a time by sampling, so QEMU is given the list many times over, and has a part of what it takes.
Ours is once through the list, what the operating system does for it included.
"""

from __future__ import annotations

import resource
import shutil
import struct
import time
from collections.abc import Iterator
from dataclasses import replace

from emu.errors import EngineError
from emu.journey import movement
from emu.journey.journey import Journey
from emu.journey.scene import find_journey, make_scene
from emu.kexec import entry_list
from emu.kexec.arch import Arch
from emu.kexec.layout import Ind
from emu.machine import events as ev
from emu.machine.owners import Owner
from emu.oracle.case import Case
from emu.oracle.image import build_image
from emu.oracle.outcome import Ended
from emu.oracle.qemu import COMMAND, run_qemu
from emu.oracle.record import take
from emu.units import MIB, PAGE_SIZE, Phys

RAM, TARGET = "256M", "64M@16M"
ROUNDS = 3
TIMES_OVER = 9
"""How often QEMU does the list.  Odd: an exchange done twice would be none, and nobody at the end of the run."""
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


def _user() -> float:
    """Seconds that the processes which this one waited for spent in user mode."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def _ours(journey: Journey) -> float:
    """Seconds of the movement on our machine: owner policy and hazards on, until control leaves the stub."""
    machine = journey.machine
    machine.break_outside(movement.linear_pages(journey))
    begin = time.process_time()
    outcome = machine.run(_LIMIT)
    seconds = time.process_time() - begin
    machine.clear_break_in()
    if outcome != ev.Breakpoint(journey.require_loaded().start):
        raise EngineError(f"the movement that was to be measured ended with {outcome}")
    return seconds


def _head(case: Case) -> int:
    """The first entry of the list of a case, as it stands in a register or, on i386, as an argument on the stack."""
    if case.arch.word == 8:
        return case.registers["rdi"]
    return struct.unpack("<I", _read(case, _argument(case), 4))[0]  # type: ignore[no-any-return]


def _argument(case: Case) -> int:
    return case.registers["rsp"] + case.arch.word - int(case.arch.text_base)


def _read(case: Case, address: int, size: int) -> bytes:
    for start, content in case.memory:
        if start <= address < start + len(content):
            return bytes(content[address - start : address - start + size])
    raise EngineError(f"{address:#x} is no memory of the case")


def _with_list(case: Case, head: int, writes: dict[int, bytes]) -> Case:
    """The same case with another list, and memory that holds it."""
    writes = dict(writes)
    registers = dict(case.registers)
    if case.arch.word == 8:
        registers["rdi"] = head
    else:
        writes[_argument(case)] = struct.pack("<I", head)
    memory = [(start, bytearray(content)) for start, content in case.memory]
    for address, data in writes.items():
        for start, content in memory:
            if start <= address < start + len(content):
                content[address - start : address - start + len(data)] = data
    moved = case.moved if head != Ind.DONE else {}
    return replace(case, registers=registers, memory=memory, moved=moved)


def _over_and_over(case: Case, free: Iterator[Phys]) -> Case:
    """The same case with its list :data:`TIMES_OVER` times over, in pages of ``free``."""
    word = case.arch.word
    steps = entry_list.walk(lambda at: int.from_bytes(_read(case, at, word), "little"), _head(case), word)
    kinds = (entry_list.StepKind.DESTINATION, entry_list.StepKind.SOURCE)
    entries = [entry_list.Entry(Ind(step.entry % PAGE_SIZE), Phys(step.source)) for step in steps if step.kind in kinds]
    writes: dict[int, bytes] = {}
    builder = entry_list.ListBuilder(lambda: next(free), word, lambda at, data: writes.update({int(at): data}))
    for _ in range(TIMES_OVER):
        for entry in entries:
            builder.add(entry)
    return _with_list(case, builder.terminate(), writes)


def _free_pages(journey: Journey) -> Iterator[Phys]:
    """Pages of A that the list does not move: nobody will ask for them in a run that ends at B's first instruction."""
    moved = {page for pair in journey.require_loaded().image.pairs for page in pair}
    pages = (Phys(pfn * PAGE_SIZE) for pfn in reversed(journey.machine.owners.pfns(Owner.A)))
    return (page for page in pages if page not in moved)


def _qemu(case: Case) -> float:
    image = build_image([case], in_place=True)
    begin = _user()
    run = run_qemu(image)
    seconds = _user() - begin
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
            repeated = _over_and_over(case, _free_pages(journey))
            ours.append(_ours(journey))
            journey.machine.close()
            if shutil.which(COMMAND) is not None:
                theirs.append(_qemu(repeated))
                empty.append(_qemu(_with_list(case, int(Ind.DONE), {})))
        size = moved * PAGE_SIZE / MIB
        rate = size / min(ours)
        if not theirs:
            yield f"swap   {arch:<12} {size:.0f} MiB: {rate:,.0f} MiB/s checked; {COMMAND} is not on PATH"
            continue
        seconds = (min(theirs) - min(empty)) / TIMES_OVER
        if seconds <= 0:
            yield f"swap   {arch:<12} {size:.0f} MiB: {rate:,.0f} MiB/s checked; QEMU's time is lost in noise"
            continue
        qemu = size / seconds
        yield (
            f"swap   {arch:<12} {size:.0f} MiB in {moved:,} pages: {rate:,.0f} MiB/s checked, "
            f"{qemu:,.0f} MiB/s QEMU TCG: ratio {rate / qemu:.2f}"
        )
