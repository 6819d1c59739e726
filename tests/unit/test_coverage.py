"""Edges between blocks: each told once a case, kept or not, with the mode; the same whatever ran before."""

from __future__ import annotations

import pytest

from emu.machine import coverage as module
from emu.machine import events as ev
from emu.machine.coverage import Coverage, Edge
from emu.machine.events import StepLimit
from emu.machine.reset import ResetPoint
from emu.x86.bits import Cr0
from tests.machine_bench import CODE, Bench

TEXT = """
    testl %eax, %eax
    jz zero
    movl $3, %ecx
    jmp 1f
1:  loop 1b
    hlt
zero:
    cpuid
    nop
    hlt
"""


class Course:
    """A machine whose path is chosen by EAX, with its reset point and coverage."""

    def __init__(self, mode: str = "4-level", text: str = TEXT) -> None:
        self.bench = Bench(mode, text, strict=False)
        self.point = ResetPoint(self.bench.machine)
        self.coverage = Coverage(self.bench.machine)
        self.coverage.start()

    def run(self, eax: int) -> list[Edge]:
        self.point.reset()
        self.bench.machine.engine.set_gpr(0, eax)
        self.coverage.begin()
        self.bench.run()
        self.point.learn()
        return self.coverage.news()


def test_each_edge_is_told_once_a_case() -> None:
    course = Course()
    news = course.run(1)
    loop = course.bench.image.org + 11
    assert [edge.before for edge in news] == [0, *(edge.block for edge in news[:-1])]
    assert len(news) == len(set(news))
    assert sum((edge.before, edge.block) == (loop, loop) for edge in news) == 1
    assert news[0].block == CODE


def test_a_stop_in_the_middle_of_a_block_is_no_edge() -> None:
    course = Course()
    whole = course.run(1)
    course.point.reset()
    course.bench.machine.engine.set_gpr(0, 1)
    course.coverage.begin()
    while isinstance(course.bench.machine.run(instructions=3), StepLimit):
        pass
    assert course.coverage.news() == whole


def test_news_depend_on_what_was_kept_and_not_on_the_cases_between() -> None:
    course = Course()
    one, zero = course.run(1), course.run(0)
    assert one[0] == zero[0]
    assert set(one) != set(zero)
    assert (course.run(1), course.run(0), course.run(1)) == (one, zero, one)
    course.bench.machine.engine.flush_code()
    assert course.run(1) == one
    course.coverage.keep(one)
    assert course.run(1) == []
    assert course.run(0) == [edge for edge in zero if edge not in one]
    course.coverage.forget()
    assert course.run(1) == one


def test_an_edge_from_another_process_can_be_kept() -> None:
    first, second = Course(), Course()
    second.coverage.keep(first.run(1))
    assert second.run(1) == []


def test_the_mode_is_part_of_an_edge() -> None:
    course = Course("protected")
    (mode,) = {edge.mode for edge in course.run(1)}
    assert mode & 0x90 == 0x90
    assert not mode & (1 << 15 | Cr0.PG)
    (mode,) = {edge.mode for edge in Course("4-level").run(1)}
    assert mode & (1 << 14 | 1 << 15 | Cr0.PG) == 1 << 14 | 1 << 15 | Cr0.PG


def test_blocks_are_counted_and_nothing_is_noted_when_stopped() -> None:
    course = Course()
    course.run(1)
    assert course.coverage.blocks >= 5
    before = course.coverage.blocks
    course.coverage.stop()
    assert course.run(1) == []
    assert course.coverage.blocks == before


def test_more_news_than_there_is_room_for_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NEWS", 2)
    course = Course()
    assert len(course.run(1)) == 2
    assert len(course.run(0)) == 2


def test_hooks_that_begin_anew_note_and_stop_as_before() -> None:
    course = Course(text="movl $3, %ecx\nagain: outb %al, $0xed\nloop again\nhlt\n")
    machine, found = course.bench.machine, []
    for _ in range(3):
        course.coverage.renew()
        edges = course.run(1)
        found.append((edges, machine.count.state, len(course.bench.of(ev.PortAccess)), machine.cpu.registers()))
    assert found[0] == found[1] == found[2]
    assert len(found[0][0]) == 2
    assert found[0][2] == 3
