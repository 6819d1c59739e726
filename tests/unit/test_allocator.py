from errno import ENOMEM

import pytest

from emu.errors import LoadError
from emu.kexec.allocator import Order, PageAllocator, PageOwner, PagePool
from emu.kexec.e820 import default_map
from emu.units import MIB, PAGE_SIZE, Phys, phys_of

Moves = list[tuple[int, int]]


def allocator(
    free: list[int], destinations: list[tuple[int, int]], control_limit: int = 1 << 32, source_limit: int = 1 << 32
) -> tuple[PageAllocator, PagePool, Moves]:
    """Page frames everywhere: free ones in the order of giving away, destinations as (first, behind the last)."""
    moves: Moves = []
    pool = PagePool(free)
    pages = PageAllocator(
        pool,
        [(first * PAGE_SIZE, last * PAGE_SIZE) for first, last in destinations],
        control_limit=control_limit,
        source_limit=source_limit,
        on_move=lambda old, new: moves.append((old >> 12, new >> 12)),
    )
    return pages, pool, moves


def take(pages: PageAllocator, destination: int) -> int:
    source = pages.source_page(phys_of(destination))
    pages.listed(phys_of(destination), source)
    return source >> 12


def test_a_pool_gives_from_the_top_from_the_bottom_or_as_its_seed_says() -> None:
    found = default_map(4 * MIB)
    assert PagePool.of_map(found).take() == 1023
    assert PagePool.of_map(found, busy=[0, 1023], order=Order.BOTTOM).take() == 1
    first = PagePool.of_map(found, order=Order.SHUFFLED, seed=1).snapshot()
    assert first == PagePool.of_map(found, order=Order.SHUFFLED, seed=1).snapshot()
    assert first != PagePool.of_map(found, order=Order.SHUFFLED, seed=2).snapshot()
    assert sorted(first) == list(found.ram_pages())


def test_pages_given_back_come_first_and_a_snapshot_brings_back_the_order() -> None:
    pool = PagePool([1, 2, 3])
    before = pool.snapshot()
    taken = [pool.take(), pool.take()]
    pool.give_back(taken)
    assert pool.snapshot() == (2, 1, 3)
    pool.restore(before)
    assert pool.snapshot() == (1, 2, 3)
    assert len(pool) == 3


def test_an_empty_pool_is_enomem() -> None:
    with pytest.raises(LoadError, match="no free page") as caught:
        PagePool([]).take()
    assert caught.value.errno == ENOMEM


def test_ranges_of_destinations_are_exact_to_the_page() -> None:
    pages, _, _ = allocator([], [(10, 12), (20, 21)])
    assert [pfn for pfn in range(30) if pages.is_destination(pfn)] == [10, 11, 20]


def test_control_pages_avoid_destinations_and_the_limit_and_their_rejects_come_back() -> None:
    pages, pool, _ = allocator([10, 99, 5, 6], [(10, 12)], control_limit=50 * PAGE_SIZE)
    assert pages.control_page() == phys_of(5)
    assert pool.snapshot() == (6,)
    pages.release_rejects()
    assert pool.snapshot() == (10, 99, 6)


def test_a_page_may_be_its_own_source() -> None:
    pages, _, _ = allocator([10, 5], [(10, 12)])
    assert take(pages, 10) == 10
    assert take(pages, 11) == 5


def test_a_destination_that_comes_too_early_is_parked_until_its_turn() -> None:
    pages, pool, moves = allocator([11, 5, 6], [(10, 12)])
    assert take(pages, 10) == 5
    assert take(pages, 11) == 11
    assert moves == []
    pages.finish()
    assert pool.snapshot() == (6,)


def test_a_destination_that_comes_too_late_takes_over_from_its_source() -> None:
    pages, _, moves = allocator([5, 10, 6], [(10, 12)])
    assert take(pages, 10) == 5
    assert take(pages, 11) == 5
    assert moves == [(5, 10)]
    assert pages.pages_by_owner() == {PageOwner.SOURCE: [5, 10]}


def test_a_source_without_its_entry_in_the_list_is_not_moved() -> None:
    pages, pool, moves = allocator([5, 10, 6], [(10, 12)])
    assert pages.source_page(phys_of(10)) == phys_of(5)
    assert pages.list_page() == phys_of(6)
    assert moves == []
    pages.finish()
    assert pool.snapshot() == (10,)


def test_list_pages_are_never_destinations() -> None:
    pages, pool, _ = allocator([10, 11, 7], [(10, 12)])
    assert pages.list_page() == phys_of(7)
    pages.finish()
    assert sorted(pool.snapshot()) == [10, 11]


def test_pages_above_the_source_limit_are_set_aside_and_freed_at_the_end() -> None:
    pages, pool, _ = allocator([90, 5], [(10, 11)], source_limit=50 * PAGE_SIZE)
    assert take(pages, 10) == 5
    pages.finish()
    assert pool.snapshot() == (90,)


def test_empty_destinations_hold_no_page() -> None:
    pages, _, _ = allocator([10], [(10, 10)])
    assert pages.control_page(PageOwner.SWAP) == Phys(10 * PAGE_SIZE)
    assert pages.pages_by_owner() == {PageOwner.SWAP: [10]}
