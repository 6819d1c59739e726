"""Stores that span two pages: the second page is wherever the tables have it, and everybody hears of it."""

from __future__ import annotations

import pytest

from emu.machine import events as ev
from emu.machine.straddling import Piece, pieces
from tests.machine_bench import TABLES, Bench

PAGING = ["2-level", "pae", "4-level"]
VALUE = 0x44332211
SPANNING = f"movl ${VALUE:#x}, 0x30ffe\nhlt\n"
FIRST, BEHIND, ELSEWHERE = 0x30000, 0x31000, 0x35000


def remapped(mode: str, text: str = SPANNING, *, strict: bool = False, to: int | None = ELSEWHERE) -> Bench:
    """Linear page BEHIND leads to physical page ``to``, or nowhere."""
    bench = Bench(mode, text, strict=strict)
    entry, leaf = (4, TABLES + 0x1000) if mode == "2-level" else (8, TABLES + 0x4000)
    bench.machine.write_tables(
        [(leaf + entry * (BEHIND >> 12), (0 if to is None else to | 7).to_bytes(entry, "little"))]
    )
    return bench


def heard(bench: Bench, begin: int, end: int) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    bench.machine.watch(begin, end, lambda at, size, value, write: found.append((at, size, value * write)))
    return found


@pytest.mark.parametrize("mode", PAGING)
def test_a_watch_hears_of_a_store_that_ends_in_it_through_the_tables(mode: str) -> None:
    bench = remapped(mode)
    there, not_there = heard(bench, ELSEWHERE + 1, ELSEWHERE + 1), heard(bench, BEHIND, BEHIND + 0xFFF)
    bench.run()
    assert there == [(ELSEWHERE, 2, VALUE >> 16)]
    assert not_there == []
    assert bench.machine.ram.read_int(ELSEWHERE, 2) == VALUE >> 16


@pytest.mark.parametrize("offset", range(4))
def test_a_watch_on_any_byte_of_a_store_hears_of_it(offset: int) -> None:
    bench = Bench("4-level", "movl $0x1234, 0x30100\nmovl 0x30100, %eax\nhlt\n")
    seen: list[tuple[int, int, bool]] = []
    at = 0x30100 + offset
    bench.machine.watch(at, at, lambda address, size, _value, write: seen.append((address, size, write)), reads=True)
    beside = heard(bench, 0x300FF, 0x300FF) + heard(bench, 0x30104, 0x30104)
    bench.run()
    assert seen == [(0x30100, 4, True), (0x30100, 4, False)]
    assert beside == []


@pytest.mark.parametrize("mode", PAGING)
def test_a_watch_for_reads_hears_of_a_read_that_ends_in_it(mode: str) -> None:
    bench = remapped(mode, "movl 0x30ffd, %eax\nmovl 0x30ffc, %eax\nhlt\n")
    found: list[tuple[int, int, bool]] = []
    bench.machine.watch(
        ELSEWHERE, ELSEWHERE, lambda at, size, _value, write: found.append((at, size, write)), reads=True
    )
    stores = heard(bench, ELSEWHERE, ELSEWHERE)
    bench.run()
    assert found == [(ELSEWHERE, 1, False)]
    assert stores == []


def test_nothing_is_heard_any_more_behind_unwatch() -> None:
    bench = remapped("4-level", SPANNING.replace("hlt", "nop") * 2 + "hlt\n")
    found: list[int] = []
    handle = bench.machine.watch(ELSEWHERE, ELSEWHERE, lambda at, _size, _value, _write: found.append(at))
    bench.machine.run(1)
    bench.machine.unwatch(handle)
    bench.run()
    assert found == [ELSEWHERE]


@pytest.mark.parametrize("mode", PAGING)
def test_the_policy_is_that_of_the_page_that_is_really_behind(mode: str) -> None:
    for forbidden, wanted in ((ELSEWHERE, [(ELSEWHERE, 2, VALUE >> 16)]), (BEHIND, [])):
        bench = remapped(mode, strict=True)
        bench.machine.policy.forbid([forbidden >> 12], "B")
        bench.run()
        found = [event for event in bench.machine.events if isinstance(event, ev.OwnerViolation)]
        assert [(event.address, event.size, event.value) for event in found] == wanted


@pytest.mark.parametrize("mode", PAGING)
def test_both_pages_are_listed(mode: str) -> None:
    bench = remapped(mode)
    moves = bench.machine.engine.moves
    moves.list_stores([(0, 0x200)])
    bench.machine.engine.list_stores()
    bench.run()
    assert sorted(moves.touched()) == [FIRST >> 12, ELSEWHERE >> 12]


def test_without_paging_the_last_byte_of_the_address_space_is_followed_by_the_first() -> None:
    bench = Bench("protected", "movl $0xfffffffe, %eax\nmovl $0x44332211, (%eax)\nhlt\n", strict=False)
    moves = bench.machine.engine.moves
    moves.list_stores([(0, 0x200)])
    bench.machine.engine.list_stores()
    found = heard(bench, 1, 1)
    bench.run()
    assert bench.machine.ram.read_int(0, 2) == VALUE >> 16
    assert moves.touched() == [0]
    assert found == [(0, 2, VALUE >> 16)]


def test_a_store_that_faults_in_its_second_page_leaves_nothing_there() -> None:
    bench = remapped("4-level", to=None)
    found = heard(bench, BEHIND, BEHIND + 0xFFF)
    bench.run()
    assert bench.vector == 14
    assert found == []


def test_the_pieces_of_a_store() -> None:
    bench = remapped("4-level", "movb $1, 0x30000\nhlt\n")
    bench.run()
    machine = bench.machine
    assert pieces(machine.engine, machine.cpu, 0x30FFC, 4) == [Piece(0x30FFC, 0, 4)]
    first, second = pieces(machine.engine, machine.cpu, 0x30FFD, 8)
    assert (first, second) == (Piece(0x30FFD, 0, 3), Piece(ELSEWHERE, 3, 5))
    assert (first.of(0x0807060504030201), second.of(0x0807060504030201)) == (0x030201, 0x0807060504)
