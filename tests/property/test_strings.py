"""String instructions done by the host leave exactly what the engine leaves: memory, registers, A and D bits, time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from emu.machine import events as ev
from emu.machine.machine import MachineSnapshot
from tests.machine_bench import DATA, Bench, guest_state

MODES = ("real", "protected", "2-level", "pae", "4-level", "compatibility")
OPCODES = {"movs": 0xA4, "stos": 0xAA, "scas": 0xAE, "cmps": 0xA6, "lods": 0xAC}
PAGES = 4
"""Pages at DATA (0xA000 for 16-bit addresses) in which the pointers start."""


@dataclass(frozen=True)
class Case:
    mode: str
    name: str
    size: int
    repeat: int
    narrow: bool
    backward: bool
    source: int
    target: int
    count: int
    value: int
    filling: int
    unmapped: int | None
    read_only: int | None
    timer: int | None
    slices: int | None

    def code(self) -> bytes:
        natural = 2 if self.mode == "real" else 4
        prefix = b"\x67" if self.narrow else b""
        if self.size == 8:
            wide = b"\x48"
        else:
            wide = b""
            prefix += b"\x66" if self.size in (2, 4) and self.size != natural else b""
        return prefix + bytes([self.repeat]) + wide + bytes([OPCODES[self.name] | (self.size > 1)])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    mode = draw(st.sampled_from(MODES))
    near_edge = st.builds(lambda page, back: page * 0x1000 - back, st.integers(1, PAGES - 1), st.integers(0, 40))
    pointer = st.one_of(st.integers(0, PAGES * 0x1000 - 1), near_edge)
    source = draw(pointer)
    close = st.integers(-64, 64).map(lambda distance: max(0, source + distance))
    paged = mode not in ("real", "protected")
    page = st.one_of(st.none(), st.integers(0, PAGES))
    return Case(
        mode=mode,
        name=draw(st.sampled_from(sorted(OPCODES))),
        size=draw(st.sampled_from((1, 2, 4, 8) if mode == "4-level" else (1, 2, 4))),
        repeat=draw(st.sampled_from((0xF3, 0xF3, 0xF2))),
        narrow=draw(st.booleans()),
        backward=draw(st.booleans()),
        source=source,
        target=draw(st.one_of(pointer, close)),
        count=draw(st.one_of(st.integers(0, 9), st.integers(0, 300), st.integers(0, 300), st.just(1024))),
        value=draw(st.sampled_from((0, 0, 0x0101010101010101, 0x1122334455667788))),
        filling=draw(st.sampled_from((0, 0, 1))),
        unmapped=draw(page) if paged else None,
        read_only=draw(page) if paged else None,
        timer=draw(st.one_of(st.none(), st.integers(1, 30))),
        slices=draw(st.one_of(st.none(), st.integers(1, 700))),
    )


@cache
def fresh(mode: str, *, plain: bool) -> tuple[Bench, MachineSnapshot]:
    """One machine for all cases of a mode: what ran before must make no difference."""
    bench = Bench(mode, "sti\nnop\nnop\nnop\n", plain_strings=plain)
    return bench, bench.machine.snapshot()


def prepare(case: Case, *, plain: bool) -> Bench:
    bench, state = fresh(case.mode, plain=plain)
    machine = bench.machine
    machine.restore(state)
    sixteen = case.mode == "real" or (case.narrow and case.mode != "4-level")
    base = 0xA000 if sixteen else DATA
    start = bench.image.end
    machine.ram.write(start, case.code() + b"\x90\xf4")
    pattern = bytes(index * 7 % 251 if case.filling else 0 for index in range(0x1000))
    for page in range(-1, PAGES + 2):
        machine.ram.write(base + page * 0x1000, pattern if page % 2 else bytes(0x1000))
    machine.ram.write(base + case.source, bytes(case.filling * 40))
    engine = machine.engine
    engine.set_gpr(6, base + case.source)
    engine.set_gpr(7, base + case.target)
    engine.set_gpr(1, case.count)
    engine.set_gpr(0, case.value if case.mode == "4-level" else case.value & 0xFFFFFFFF)
    engine.rflags = 2 | (0x400 if case.backward else 0)
    machine.cpu.rsp = 0x3F00
    if case.mode != "real":
        machine.engine.set_cr(0, machine.engine.cr(0) | (1 << 16))
        machine.engine.settle()
    for chosen, keep in ((case.unmapped, 0), (case.read_only, 5)):
        if chosen is not None:
            entry = bench.leaf(base + chosen * 0x1000)
            machine.ram.write(entry, bytes([keep]))
    if case.timer is not None:
        arm(bench, case.timer)
    return bench


def arm(bench: Bench, count: int) -> None:
    """One timer interrupt, vector 0x20, ``count`` clocks of 64 ticks from here."""
    bus = bench.machine.board.bus
    for port, value in (
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xFE),
        (0x43, 0x30),
        (0x40, count),
        (0x40, 0),
    ):
        bus.write(port, 1, value)


def run(case: Case, *, plain: bool) -> list[object]:
    bench = prepare(case, plain=plain)
    seen: list[object] = []
    if case.slices is not None:
        seen.append(bench.run(case.slices))
        seen.append((bench.machine.here(), guest_state(bench.machine)[:3]))
    seen.append(bench.run(6000))
    seen.append((bench.machine.here(), guest_state(bench.machine), bench.machine.count.iterations))
    seen.append([event for event in bench.machine.events if not isinstance(event, ev.ControlWrite)])
    seen.append({pfn: sorted(stored) for pfn, stored in bench.machine.hazards.code.state.items()})
    return seen


@settings(max_examples=int(os.environ.get("KJUMP_STRING_CASES", "300")))
@given(cases())
def test_the_host_does_what_the_engine_does(case: Case) -> None:
    assert run(case, plain=False) == run(case, plain=True)
