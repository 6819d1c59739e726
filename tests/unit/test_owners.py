"""Who owns which page."""

from __future__ import annotations

from emu.machine.owners import Owner, Owners, intervals


def test_pages_have_the_owner_last_assigned() -> None:
    owners = Owners()
    owners.assign(range(10), Owner.A)
    owners.assign([3, 4], Owner.CONTROL)
    assert owners.at(0x3FFF) is Owner.CONTROL
    assert owners.at(0x5000) is Owner.A
    assert owners.at(0x100000) is Owner.HOLE
    assert owners.pfns(Owner.CONTROL) == [3, 4]


def test_ranges_are_runs_of_equal_owner() -> None:
    owners = Owners()
    owners.assign([0, 1, 2, 7], Owner.A)
    owners.assign([3], Owner.B)
    assert list(owners.ranges()) == [(0, 3, Owner.A), (3, 4, Owner.B), (7, 8, Owner.A)]


def test_a_snapshot_is_a_copy() -> None:
    owners = Owners(Owner.FREE)
    owners.assign([1], Owner.A)
    state = owners.snapshot()
    owners.assign([1, 2], Owner.B)
    owners.restore(state)
    assert owners.pfns(Owner.A) == [1]
    assert owners.at(0x2000) is Owner.FREE


def test_intervals_join_neighbours() -> None:
    assert intervals([5, 1, 2, 3, 9, 9, 10]) == [(1, 4), (5, 6), (9, 11)]
    assert intervals([]) == []
    assert str(Owner.JUMP_PAGE) == "jump page"
