"""Who every physical page belongs to, and who may write whose pages now: the address sanitizer of kexec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import groupby

from emu.units import PAGE_SHIFT


class Owner(Enum):
    """Whom a physical page belongs to at this moment."""

    A = "A"
    B = "B"
    C = "C"
    CONTROL = "control"
    SWAP = "swap"
    LIST = "list"
    PAGE_TABLE = "page table"
    JUMP_PAGE = "jump page"
    SOURCE = "source"
    BACKUP = "backup"
    FREE = "free"
    RESERVED = "reserved"
    HOLE = "hole"

    def __str__(self) -> str:
        return self.value


class Owners:
    """Page frame -> owner.  Frames never named belong to ``default``."""

    def __init__(self, default: Owner = Owner.HOLE) -> None:
        self.default = default
        self._owner: dict[int, Owner] = {}
        self._shared = False

    def assign(self, pfns: Iterable[int], owner: Owner) -> None:
        """Give page frames to ``owner``."""
        if self._shared:
            self._owner, self._shared = dict(self._owner), False
        self._owner.update(dict.fromkeys(pfns, owner))

    def at(self, address: int) -> Owner:
        """The owner of the page that holds physical ``address``."""
        return self._owner.get(address >> PAGE_SHIFT, self.default)

    def pfns(self, owner: Owner) -> list[int]:
        """All page frames of ``owner``, ascending."""
        return sorted(pfn for pfn, who in self._owner.items() if who is owner)

    def snapshot(self) -> dict[int, Owner]:
        """What :meth:`restore` takes; it does not follow later changes."""
        self._shared = True
        return self._owner

    def restore(self, state: dict[int, Owner]) -> None:
        """Go back to a :meth:`snapshot`."""
        self._owner, self._shared = state, True

    def ranges(self) -> Iterator[tuple[int, int, Owner]]:
        """Runs (first pfn, pfn behind the last, owner) of equal owner, ascending."""

        def run_key(item: tuple[int, tuple[int, Owner]]) -> tuple[int, str]:
            index, (pfn, owner) = item
            return pfn - index, owner.value

        for _, group in groupby(enumerate(sorted(self._owner.items(), key=lambda pair: pair[0])), run_key):
            members = [pair for _, pair in group]
            yield members[0][0], members[-1][0] + 1, members[0][1]


def intervals(pfns: Iterable[int]) -> list[tuple[int, int]]:
    """Page frames as sorted runs (first, behind the last)."""
    runs: list[tuple[int, int]] = []
    for pfn in sorted(pfns):
        if runs and runs[-1][1] == pfn:
            runs[-1] = (runs[-1][0], pfn + 1)
        elif not runs or pfn > runs[-1][1] - 1:
            runs.append((pfn, pfn + 1))
    return runs
