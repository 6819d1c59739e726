"""The benchmarks: each the ratio of two rates measured one after the other in this process, on the same guest code."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from emu.bench.boot import bench_boot
from emu.bench.fuzz import bench_fuzz
from emu.bench.history import bench_history
from emu.bench.large import bench_large
from emu.bench.swap import bench_swap
from emu.errors import EngineError, KjumpError
from emu.journey import programs
from emu.journey.journey import Journey
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch
from emu.kexec.layout import Ind
from emu.machine import events as ev
from emu.machine.cpustate import RDI, RDX
from emu.machine.machine import Machine
from emu.machine.reset import ResetPoint
from emu.units import PAGE_SIZE

_TRIP_PAGES = 4
_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Point:
    """A machine stopped at the stub's first instruction, and the linear address where its work is done."""

    machine: Machine
    until: int


class _Reached(Exception):  # noqa: N818 - carries a journey out of its own run
    """The journey is at the stub's first instruction."""


def _at_stub(arch: Arch, ram: str, target: str, *, strict: bool = True) -> tuple[Journey, _Point]:
    """A journey that has come to the stub's first instruction."""
    journey = Journey(make_scene(find_journey("jump"), arch=arch, ram=ram, target=target, strict=strict))
    machine = journey.machine
    state: list[int] = []

    def loaded(name: str, at: Journey) -> None:
        if name == "after load":
            info = at.require_loaded()
            entry = programs.relocate_entry(info.stub) - info.stub.org
            state.append(int(info.image.control_va) + entry)
            machine.break_at(state[0])
            raise _Reached

    journey.observe = loaded
    try:
        journey.run()
    except _Reached:
        outcome = machine.run()
        machine.clear_break(state[0])
        if outcome != ev.Breakpoint(state[0]):
            raise EngineError(f"the jump did not begin: {outcome}") from None
        return journey, _Point(machine, journey.require_loaded().start)
    raise EngineError("the journey ended before it began")


def bench_run() -> Iterator[str]:
    """Instructions per second of a movement of pages with every check on, against the bare engine on the same code."""
    for arch in (Arch.I386, Arch.X86_64):
        result_time, ticks = _checked_movement(arch)
        journey, point = _at_stub(arch, "64M", "16M@16M")
        point.machine.engine.flush_code()
        begin = time.process_time()
        point.machine.engine.run_bare(point.until)
        bare = time.process_time() - begin
        journey.machine.close()
        ratio = (ticks / result_time) / (ticks / bare)
        yield (
            f"run    {arch:<12} {ticks / result_time / 1e6:7.1f} M/s checked, {ticks / bare / 1e6:7.1f} M/s "
            f"bare engine: ratio {ratio:.2f}   ({ticks:,} instructions and iterations)"
        )


def _checked_movement(arch: Arch) -> tuple[float, int]:
    """Seconds and ticks of transition `suspend`, from the stub's first instruction to its checks done."""
    marks: dict[str, tuple[float, int]] = {}
    journey = Journey(make_scene(find_journey("jump"), arch=arch))

    def observe(name: str, at: Journey) -> None:
        marks[name] = (time.process_time(), at.machine.count.ticks)

    journey.observe = observe
    result = journey.run("suspend")
    journey.machine.close()
    if not result.ok:
        raise EngineError("the run that was to be measured has findings")
    start, end = marks["suspend begins"], marks["suspend moved"]
    return end[0] - start[0], end[1] - start[1]


def _prepare_trip(journey: Journey, point: _Point) -> int:
    """Make the jump a short round trip: a list of a few pages, and a callee that only returns.  Gives A's return."""
    machine, arch = point.machine, journey.scene.arch
    spare = [pfn * PAGE_SIZE for pfn in journey.scene.target_range.pages()][-2 * _TRIP_PAGES - 2 :]
    list_page, code_page, pages = spare[0], spare[1], spare[2:]
    words = []
    for index in range(_TRIP_PAGES):
        words += [pages[index] | Ind.DESTINATION, pages[_TRIP_PAGES + index] | Ind.SOURCE]
    words.append(Ind.DONE)
    word = arch.word
    machine.ram.write(list_page, b"".join(int(value).to_bytes(word, "little") for value in words))
    machine.ram.write(code_page, b"\xc3")
    head = list_page | Ind.INDIRECTION
    if word == 8:
        machine.engine.set_gpr(RDI, head)
        machine.engine.set_gpr(RDX, code_page)
    else:
        stack = machine.cpu.rsp & 0xFFFFFFFF
        machine.ram.write(machine.cpu.translate(stack + 4), struct.pack("<I", head))
        machine.ram.write(machine.cpu.translate(stack + 12), struct.pack("<I", code_page))
    return arch.text_base + journey.kernel_a.symbols["after_jump"]


def bench_trips() -> Iterator[str]:
    """Round trips A -> B -> A per second, each from a full reset, against the bare engine on the same code."""
    for arch in (Arch.I386, Arch.X86_64):
        journey, at_stub = _at_stub(arch, "24M", "4M@16M", strict=False)
        machine = at_stub.machine
        after = _prepare_trip(journey, at_stub)
        point = ResetPoint(machine)
        machine.break_at(after)

        def trip(machine: Machine = machine, after: int = after, point: ResetPoint = point) -> None:
            point.reset()
            if machine.run(1_000_000) != ev.Breakpoint(after):
                raise EngineError("the round trip did not come back")

        trip()
        point.learn()
        ours = _rate(trip)
        if point.learn():
            raise EngineError("a round trip wrote pages that the first one had not")
        point.reset_fully()
        bare = _rate(_bare_trip(machine, after, machine.ram.copies(sorted(point.learned))))
        journey.machine.close()
        yield f"trips  {arch:<12} {ours:7,.0f} /s with reset, {bare:7,.0f} /s bare engine: ratio {ours / bare:.2f}"


def _bare_trip(machine: Machine, after: int, pages: Sequence[tuple[memoryview, bytes]]) -> Callable[[], None]:
    """A function that puts ``pages`` and the processor back and lets the engine alone run to ``after``."""
    engine = machine.engine
    context = engine.save()

    def trip() -> None:
        for view, content in pages:
            view[:] = content
        engine.restore(context)
        engine.run_bare(after)

    return trip


def _rate(once: Callable[[], None]) -> float:
    """How often a second ``once`` runs, over about two seconds after one warm-up."""
    once()
    count, start = 0, time.process_time()
    while (now := time.process_time()) - start < _SECONDS:
        for _ in range(8):
            once()
        count += 8
    return count / (now - start)


BENCHES: dict[str, Callable[[], Iterator[str]]] = {
    "run": bench_run,
    "trips": bench_trips,
    "swap": bench_swap,
    "large": bench_large,
    "history": bench_history,
    "fuzz": bench_fuzz,
    "boot": bench_boot,
}


def run_benches(names: Sequence[str]) -> Iterator[str]:
    """The lines of the named benchmarks, or of all; raises KjumpError for an unknown name."""
    for name in names:
        if name not in BENCHES:
            raise KjumpError(f"no benchmark is called {name}", hint=f"one of {', '.join(BENCHES)}")
    for name in names or BENCHES:
        yield from BENCHES[name]()
