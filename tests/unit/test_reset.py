"""A reset point brings everything back that a guest can change, and says what it did not know of."""

from __future__ import annotations

import pytest

from emu.machine import events as ev
from emu.machine import reset
from emu.machine.reset import ResetPoint
from tests.machine_bench import DATA, MODES, Bench, guest_state

BUSY = f"""
    movb $0x55, {DATA}
    movl $0x1234, {DATA + 0x2004}
    movb $0x36, %al
    outb %al, $0x43
    movb $9, %al
    outb %al, $0x40
    outb %al, $0x40
    outb %al, $0xe9
    mov %cr0, %eax
    xor $0x10000, %eax
    mov %eax, %cr0
    movl $100, %ecx
1:  loop 1b
    hlt
"""
LONG_BUSY = BUSY.replace("%eax", "%rax")


def whole_state(bench: Bench) -> tuple[object, ...]:
    machine = bench.machine
    return (
        guest_state(machine), machine.board.bus.snapshot(), machine.count.state, machine.instructions.state,
        machine.owners.snapshot(), len(machine.events), machine.deliveries, machine.nmi_pending,
    )  # fmt: skip


def busy(mode: str, *, strict: bool = False) -> Bench:
    return Bench(mode, LONG_BUSY if mode in ("4-level", "5-level") else BUSY, strict=strict)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "real"])
def test_a_reset_brings_back_all_that_the_guest_changed(mode: str, strict: bool) -> None:
    bench = busy(mode, strict=strict)
    point = ResetPoint(bench.machine)
    before = whole_state(bench)
    runs = []
    for _ in range(3):
        bench.run()
        runs.append((whole_state(bench), list(bench.machine.events)))
        point.learn()
        point.reset()
        assert whole_state(bench) == before
    assert runs[0][0] != before
    assert runs[0] == runs[1] == runs[2]


def test_pages_are_learned_once_and_put_back_when_they_are_found() -> None:
    bench = busy("4-level")
    point = ResetPoint(bench.machine)
    bench.run()
    strays = point.learn()
    assert {DATA >> 12, (DATA >> 12) + 2} <= set(strays)
    assert point.changed() == []
    assert point.learn() == []
    point.reset()
    bench.run()
    assert {DATA >> 12, (DATA >> 12) + 2} <= set(point.changed())
    assert point.learn() == []


def test_what_a_case_wrote_outside_the_learned_pages_is_told() -> None:
    bench = Bench("4-level", "movb %al, (%rdi)\nhlt\n", strict=False)
    bench.machine.engine.set_gpr(7, DATA)
    point = ResetPoint(bench.machine)
    bench.machine.engine.set_gpr(0, 1)
    bench.run()
    point.learn()
    point.reset()
    bench.machine.engine.set_gpr(0, 1)
    bench.machine.engine.set_gpr(7, DATA + 0x5000)
    bench.run()
    assert point.learn() == [(DATA >> 12) + 5]
    assert bench.machine.ram.read_int(DATA + 0x5000, 1) == 0


def test_blocks_of_code_that_a_case_changed_are_not_run_again() -> None:
    text = "call patch\nmovl $0xc3, patch\nmovl $0xc3c28948, patch\ncall patch\nhlt\npatch: movl %ecx, %edx\nret\n"
    bench = Bench("4-level", text, strict=False)
    bench.machine.engine.set_gpr(0, 7)
    bench.machine.engine.set_gpr(1, 5)
    point = ResetPoint(bench.machine)
    for _ in range(3):
        bench.machine.break_at(bench.symbols["patch"])
        bench.run()
        bench.machine.clear_break(bench.symbols["patch"])
        bench.run()
        assert bench.reg("rdx") == 7
        point.learn()
        point.reset()
    bench.run(4)
    assert bench.reg("rdx") == 5


def test_code_that_did_not_change_is_not_translated_again() -> None:
    bench = busy("4-level")
    point = ResetPoint(bench.machine)
    blocks: list[int] = []
    bench.run()
    point.learn()
    point.reset()
    scan = bench.machine.engine.on_new_code

    def note(linear: int, size: int) -> bool:
        blocks.append(linear)
        return scan(linear, size)

    bench.machine.engine.on_new_code = note
    bench.machine.engine.flush_code()
    bench.run()
    assert len(blocks) > 2
    point.reset()
    blocks.clear()
    bench.run()
    assert blocks == []


def test_a_full_reset_finds_every_page() -> None:
    bench = busy("2-level")
    point = ResetPoint(bench.machine)
    before = whole_state(bench)
    bench.run()
    point.reset_fully()
    assert whole_state(bench) == before
    assert point.learned == frozenset()


def test_translated_code_is_dropped_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reset, "FLUSH_EVERY", 2)
    bench = busy("4-level")
    point = ResetPoint(bench.machine)
    covered = []
    told: list[bool] = []
    point.on_flush = lambda: told.append(bench.machine.code.covers(bench.image.org, 1))
    for _ in range(4):
        bench.run()
        point.learn()
        point.reset()
        covered.append(bench.machine.code.covers(bench.image.org, 1))
    assert covered == [True, False, True, False]
    assert told == [False, False]


def test_breakpoints_stay() -> None:
    bench = Bench("4-level", "nop\nhere: nop\nhlt\n", strict=False)
    point = ResetPoint(bench.machine)
    bench.machine.break_at(bench.symbols["here"])
    for _ in range(2):
        assert bench.run() == ev.Breakpoint(bench.symbols["here"])
        point.reset()
