"""The engine's wall: private state that is calibrated, intercepts, counted runs, hooks, host exceptions."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator

import pytest

from emu.errors import EngineError
from emu.machine import binding, cpustate
from emu.machine.cpustate import CS, RAX, RCX, RDI, SS
from emu.machine.engine import Engine
from emu.machine.stops import StopKind
from emu.x86.segments import SegmentCache, TableRegister

AT = 0x1000


@pytest.fixture
def bare() -> Iterator[tuple[Engine, mmap.mmap]]:
    """An engine with 64 KiB of RAM at 0, all NOPs."""
    engine, ram = Engine(), mmap.mmap(-1, 0x10000)
    ram[:] = b"\x90" * len(ram)
    engine.map_ram(0, len(ram), ctypes.addressof(ctypes.c_char.from_buffer(ram)))
    engine.rip = AT
    yield engine, ram
    engine.close()


def test_general_registers_and_rip_are_the_engines_own(bare: tuple[Engine, mmap.mmap]) -> None:
    engine, ram = bare
    ram[AT : AT + 6] = bytes.fromhex("48ffc0 48ffc1")
    engine.set_gpr(RAX, 41)
    engine.set_gpr(RCX, (1 << 64) - 1)
    engine.run(2)
    assert (engine.gpr(RAX), engine.gpr(RCX), engine.rip) == (42, 0, AT + 6)
    assert engine.rflags & 0x40


def test_hidden_segment_parts_and_table_registers_can_be_set(bare: tuple[Engine, mmap.mmap]) -> None:
    engine, ram = bare
    cache = SegmentCache(0x1234, 0x8000, 0xFFFF, 0x009300)
    engine.set_segment(SS, cache)
    engine.gdtr = TableRegister(0x5000, 0x2F)
    ram[AT : AT + 4] = bytes.fromhex("0f010425")
    ram[AT + 4 : AT + 8] = (0x3000).to_bytes(4, "little")
    engine.run(1)
    assert engine.segment(SS) == cache
    assert ram[0x3000:0x3006] == bytes.fromhex("2f0000500000")


def test_the_mode_follows_what_was_set(bare: tuple[Engine, mmap.mmap]) -> None:
    engine, ram = bare
    ram[AT : AT + 3] = bytes.fromhex("b83412")  # mov $0x1234, %ax in 16-bit code
    for index in range(6):
        engine.set_segment(index, SegmentCache(0, 0, 0xFFFF, 0x009B00 if index == CS else 0x009300))
    engine.set_cr(0, 0x10)
    engine.set_cr(4, 0)
    engine.efer = 0
    engine.settle()
    engine.run(1)
    assert engine.gpr(RAX) & 0xFFFF == 0x1234
    assert engine.rip == AT + 3


def test_a_run_retires_exactly_its_count(bare: tuple[Engine, mmap.mmap]) -> None:
    engine, _ = bare
    for count in (1, 2, 100, 999):
        before = engine.rip
        stop = engine.run(count)
        assert (stop.kind, stop.executed, engine.rip - before) == (StopKind.COUNT, count, count)


def test_an_intercept_is_asked_and_may_stop_before_its_instruction(bare: tuple[Engine, mmap.mmap]) -> None:
    engine, _ = bare
    asked: list[int] = []

    def ask(linear: int) -> bool:
        asked.append(linear)
        return linear == AT + 5

    engine.on_intercept = ask
    for linear in (AT + 2, AT + 5):
        engine.intercept(linear)
    stop = engine.run(100)
    assert (asked, stop.kind, stop.executed, engine.rip) == ([AT + 2, AT + 5], StopKind.INTERCEPT, 5, AT + 5)
    stop = engine.run(3, passing=AT + 5)
    assert (stop.kind, engine.rip) == (StopKind.COUNT, AT + 8)
    engine.remove_intercept(AT + 2)
    assert list(engine.intercepts) == [AT + 5]


def test_two_hooks_on_one_instruction_ask_once(bare: tuple[Engine, mmap.mmap]) -> None:
    engine, _ = bare
    asked: list[int] = []

    def ask(linear: int) -> bool:
        asked.append(linear)
        return False

    engine.on_intercept = ask
    engine.intercept(AT + 2)
    engine.intercept_range(AT + 1, AT + 3)
    engine.run(6)
    assert asked == [AT + 1, AT + 2, AT + 3]


def test_iterations_that_the_host_did_use_up_the_count(bare: tuple[Engine, mmap.mmap]) -> None:
    engine, ram = bare
    ram[AT + 1 : AT + 3] = b"\xf3\xaa"
    engine.set_gpr(RCX, 100)
    engine.set_gpr(RDI, 0x4000)

    def host(_linear: int) -> bool:
        engine.set_gpr(RCX, engine.gpr(RCX) - 10)
        engine.add_ticks(10)
        return False

    engine.on_intercept = host
    engine.intercept(AT + 1)
    stop = engine.run(34)
    assert stop.executed == 34
    assert engine.gpr(RCX) == 100 - 33


def test_end_behind_ends_the_run_when_the_instruction_retired(bare: tuple[Engine, mmap.mmap]) -> None:
    engine, _ = bare

    def soon(_linear: int) -> bool:
        engine.end_behind()
        return False

    engine.on_intercept = soon
    engine.intercept(AT + 4)
    stop = engine.run(1000)
    assert (stop.kind, stop.executed, engine.rip) == (StopKind.COUNT, 5, AT + 5)


def test_an_exception_in_a_callback_is_raised_when_the_engine_has_stopped(bare: tuple[Engine, mmap.mmap]) -> None:
    engine, _ = bare

    def fail(_linear: int) -> bool:
        raise KeyboardInterrupt

    engine.on_intercept = fail
    engine.intercept(AT + 4)
    with pytest.raises(KeyboardInterrupt):
        engine.run(1000)
    engine.on_intercept = lambda _linear: False
    assert engine.run(3).executed == 3


def test_stores_into_a_watched_range_are_heard_of_before_they_happen(bare: tuple[Engine, mmap.mmap]) -> None:
    engine, ram = bare
    ram[AT : AT + 16] = bytes.fromhex("c6042500300000 77 c6042500400000 78")
    heard: list[tuple[int, int, int, bytes]] = []
    handle = engine.watch_writes(
        0x3000, 0x3FFF, lambda at, size, value: heard.append((at, size, value, ram[at : at + 1]))
    )
    engine.run(2)
    assert heard == [(0x3000, 1, 0x77, b"\x90")]
    engine.unwatch(handle)
    engine.rip = AT
    engine.run(2)
    assert len(heard) == 1


def test_saved_state_comes_back_whole(bare: tuple[Engine, mmap.mmap]) -> None:
    engine, _ = bare
    engine.set_gpr(RAX, 5)
    saved = engine.save()
    engine.set_gpr(RAX, 6)
    engine.rip = 0x2000
    engine.restore(saved)
    assert (engine.gpr(RAX), engine.rip) == (5, AT)


def test_an_engine_whose_private_state_is_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpustate, "_ERROR_CODE", 0x1510)
    with pytest.raises(EngineError, match="calibration"):
        Engine()


def test_a_counter_that_is_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "_COUNTER_IN_UC", 0x550)
    with pytest.raises(EngineError):
        Engine()


def test_the_state_is_not_found_where_there_is_none() -> None:
    memory = mmap.mmap(-1, 0x2000)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    with pytest.raises(EngineError, match="not found"):
        cpustate.locate(address, None, lambda _address: True)
    assert cpustate.process_memory(1, 8) == b""


def test_efer_must_be_somewhere() -> None:
    memory = mmap.mmap(-1, 0x8000)
    state = cpustate.CpuState(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    with pytest.raises(EngineError, match="not found"):
        state.find_efer(0x501, lambda: 0x502)


def test_a_stray_copy_of_efer_behind_the_state_is_not_taken_for_it() -> None:
    memory = mmap.mmap(-1, 0x8000)
    state = cpustate.CpuState(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    places = (0x2000, 0x5000)

    def put(value: int) -> int:
        for place in places:
            memory[place : place + 8] = value.to_bytes(8, "little")
        return value

    put(0x501)
    state.find_efer(0x501, lambda: put(0x502))
    memory[places[0] : places[0] + 8] = (0x503).to_bytes(8, "little")
    assert state.efer == 0x503


def test_a_closed_engine_may_be_closed_again() -> None:
    engine = Engine()
    engine.close()
    engine.close()
    assert engine.intercepts == {}
