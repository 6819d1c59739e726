"""Linear memory under one state of the paging registers, for those who ask for the same pages again and again."""

from __future__ import annotations

from emu.machine.ram import Ram
from emu.units import PAGE_SHIFT
from emu.x86.paging import PagingState, Reached, descend

_MOST_WAYS = 512


class Space:
    """Where linear addresses lead under ``state``.

    A way through the tables is kept with the entries that it took.  Tables change at any time, by anybody, but a look
    at each entry tells whether the way still leads there, at a fraction of the cost of a walk.
    """

    def __init__(self, ram: Ram, state: PagingState) -> None:
        self._ram = ram
        self.state = state
        self._size = state.levels[0].entry_size if state.levels else 8
        self._ways: dict[int, tuple[list[tuple[memoryview, int, int]], Reached]] = {}

    def descend(self, linear: int) -> Reached | int:
        """What :func:`emu.x86.paging.descend` finds for the first byte of the 4096 that ``linear`` is in."""
        page = linear >> PAGE_SHIFT
        way = self._ways.get(page)
        if way is not None:
            for words, index, value in way[0]:
                if words[index] != value:
                    break
            else:
                return way[1]
        found = descend(self._ram.read_int, self.state, page << PAGE_SHIFT)
        if not isinstance(found, int):
            self._keep(page, found)
        return found

    def _keep(self, page: int, found: Reached) -> None:
        """Remember a way, and what of it can change: not latched entries, nor those in holes."""
        taken = [
            (bank.words[self._size], (address - bank.start) // self._size, value)
            for address, value in found.entries
            if (bank := self._ram.bank_at(address)) is not None
        ]
        if len(self._ways) >= _MOST_WAYS:
            self._ways.clear()
        self._ways[page] = taken, found
