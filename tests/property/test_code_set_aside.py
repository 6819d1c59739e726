"""Code whose page is overwritten and put back: whether its blocks are set aside or dropped, the guest does the same."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emu.machine import events as ev
from emu.machine.coverage import Coverage, Edge
from emu.machine.reset import ResetPoint
from tests.machine_bench import DATA, Bench, guest_state

PAGES, FIRST, ALIAS = 4, 0x40000, 0x300000
ROUTINE, ASTRIDE = 8, 0xFFE
Step = tuple[str, int, int, int]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(0, PAGES - 1), st.booleans().map(int), st.just(ROUTINE)),
        st.tuples(st.just("call"), st.integers(0, PAGES - 2), st.booleans().map(int), st.just(ASTRIDE)),
        st.tuples(
            st.just("move"),
            st.integers(0, PAGES - 1),
            st.integers(0, PAGES - 1),
            st.sampled_from((4096, 4096, 64, 4000)),
        ),
        st.tuples(st.just("store"), st.integers(0, PAGES - 1), st.integers(1, 99), st.sampled_from((2, ROUTINE + 4))),
    ),
    min_size=2,
    max_size=12,
)


def page(number: int) -> bytes:
    """EAX = EAX * 31 + number by the routine in its middle; EBX += a number by one that ends in the page behind it."""
    text = bytearray(4096)
    text[:5] = number.to_bytes(4, "little") + b"\xc3"
    text[ROUTINE : ROUTINE + 9] = b"\x6b\xc0\x1f\x05" + number.to_bytes(4, "little") + b"\xc3"
    text[ASTRIDE:] = b"\x81\xc3"
    return bytes(text)


def program(chosen: list[Step], width: str) -> str:
    """Calls, moves of pages over each other, and stores into them."""
    lines = []
    for what, one, other, last in chosen:
        at = FIRST + 0x1000 * one
        if what == "call":
            where = (ALIAS if other else FIRST) + 0x1000 * one + last
            lines.append(f"movl ${where}, %edx\ncall *%{'r' if width == 'q' else 'e'}dx")
        elif what == "move":
            count = last // (8 if width == "q" else 4)
            lines.append(
                f"movl ${FIRST + 0x1000 * other}, %esi\nmovl ${at}, %edi\nmovl ${count}, %ecx\nrep movs{width}"
            )
        else:
            lines.append(f"movb ${other}, {at + last:#x}")
    return "\n".join([*lines, f"movl %eax, {DATA}", "hlt", ""])


class Case:
    """A program on a fast machine that can be put back; ``keeps``: blocks are set aside."""

    def __init__(self, mode: str, chosen: list[Step], *, keeps: bool) -> None:
        self.bench = Bench(mode, program(chosen, "q" if mode == "4-level" else "l"), strict=False)
        machine = self.bench.machine
        for index in range(PAGES):
            machine.ram.write(FIRST + 0x1000 * index, page(index + 1))
            entry = self.bench.leaf(ALIAS + 0x1000 * index)
            machine.ram.write(entry, (FIRST + 0x1000 * index | 7).to_bytes(4, "little"))
        machine.flush_translations()
        machine.code.keeps = keeps
        self.point = ResetPoint(machine)
        self.point.learn(range(0x200))
        self.coverage = Coverage(machine)
        self.coverage.start()

    def run(self) -> tuple[object, list[Edge]]:
        """From the beginning: all that a guest could notice at the end, and the edges."""
        self.point.reset()
        self.coverage.begin()
        assert isinstance(self.bench.run(), ev.Halted)
        return guest_state(self.bench.machine), self.coverage.news()


@pytest.mark.parametrize("mode", ["4-level", "2-level"])
@settings(max_examples=60, deadline=None)
@given(chosen=steps)
@example([("call", 0, 0, ROUTINE), ("move", 0, 1, 4096), ("call", 0, 0, ROUTINE)])
@example([("call", 0, 0, ROUTINE), ("move", 0, 1, 4096), ("call", 0, 1, ROUTINE), ("move", 0, 2, 64)])
@example([("call", 1, 0, ASTRIDE), ("move", 2, 1, 4096), ("call", 1, 0, ASTRIDE), ("call", 2, 0, ROUTINE)])
@example([("store", 0, 9, ROUTINE + 4), ("call", 0, 0, ROUTINE), ("move", 0, 1, 4096)])
def test_blocks_that_were_set_aside_make_no_difference(mode: str, chosen: list[Step]) -> None:
    plain, kept = Case(mode, chosen, keeps=False), Case(mode, chosen, keeps=True)
    for _ in range(3):
        assert kept.run() == plain.run()
    for case in (plain, kept):
        case.bench.machine.close()


def test_code_that_comes_back_is_not_translated_again() -> None:
    case = Case("4-level", [("call", 0, 0, ROUTINE), ("move", 0, 1, 4096), ("call", 1, 0, ROUTINE)], keeps=True)
    first = case.run()
    blocks: list[int] = []
    scan = case.bench.machine.engine.on_new_code

    def on_new_code(linear: int, size: int) -> bool:
        blocks.append(linear)
        return scan(linear, size)

    case.bench.machine.engine.on_new_code = on_new_code
    assert case.run() == first
    assert blocks == []
    case.bench.machine.code.keeps = False
    assert case.run() == first
    assert case.run() == first
    assert blocks == [FIRST + ROUTINE]
    case.bench.machine.close()


def test_a_page_in_which_a_block_of_the_page_before_ends_is_not_set_aside() -> None:
    """Nobody would look before the instruction that begins in the other page."""
    case = Case("4-level", [("call", 0, 0, ASTRIDE), ("call", 3, 0, ROUTINE)], keeps=True)
    case.run()
    code = case.bench.machine.code
    case.bench.machine.engine.running = True  # as for a device that stores
    for index in range(PAGES):
        code.overwritten(FIRST + 0x1000 * index, 0x1000)
    case.bench.machine.engine.running = False
    assert [pfn in code._aside for pfn in range(FIRST >> 12, (FIRST >> 12) + PAGES)] == [True, False, False, True]
    assert not code.covers(FIRST + 0x1000, 0x1000)
    case.bench.machine.close()


def test_blocks_are_dropped_where_memory_came_back_otherwise() -> None:
    """They were translated from what the guest itself had stored, and the reset undoes that store."""
    there: Step = ("call", 0, 0, ROUTINE)
    case = Case("4-level", [there, ("move", 0, 2, 4096), there, ("move", 0, 1, 4096)], keeps=True)
    results = [case.run() for _ in range(3)]
    assert results[0] == results[1] == results[2]
    assert case.bench.machine.ram.read_int(DATA, 4) == 1 * 31 + 3
    case.bench.machine.close()
