"""A point of a machine's life to come back to in microseconds, for those who run thousands of short cases from it.

The pages that the cases write are *learned*: they alone are copied back, by one ``memmove`` a run of pages, or of
them only those that somebody heard of (:meth:`emu.machine.moves.Moves.touched`).  What else a case dirtied is found by
asking the operating system, which costs as much as a case: do that once in a batch (:meth:`ResetPoint.learn`,
:meth:`ResetPoint.missed`).  A case of the batch may then have seen what another left in such a page: whoever wants
exact results runs the batch again, which now knows the page, or each case from :meth:`ResetPoint.reset_fully`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emu.machine.owners import intervals
from emu.units import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from emu.machine.machine import Machine

FLUSH_EVERY = 5_000
"""Resets between two flushes of translated code: wild cases fill the engine's buffer, which would never shrink."""

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memmove = ctypes.memmove


@dataclass(frozen=True, slots=True)
class _Run:
    """Learned pages side by side: host address of their memory and of their base contents, and bytes."""

    pfn: int
    memory: int
    base: int
    size: int


class ResetPoint:
    """The machine as it stands when this is made.  Memory's base is set here: older snapshots are void.

    What a guest can do is undone by :meth:`reset`.  Breakpoints, watches, policy and listeners stay as they are.
    ``quiet`` are page frames that change and nobody hears of it, as page tables do: they are always put back.
    ``on_flush`` is called when translated code has been dropped, every few thousand resets.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        machine.ram.rebase()
        self.state = machine.snapshot()
        self._learned: set[int] = set()
        self._runs: list[_Run] = []
        self._pages: dict[int, list[_Run]] = {}
        self.quiet: set[int] = set()
        self.on_flush: Callable[[], None] = lambda: None
        self._resets = 0

    @property
    def learned(self) -> frozenset[int]:
        """The page frames that :meth:`reset` puts back."""
        return frozenset(self._learned)

    def reset(self, touched: Iterable[int] | None = None) -> None:
        """Put back learned pages, processor, devices and time: exact while no other page is dirty.

        ``touched``: of all pages, learned or not, only these page frames and the quiet ones may have changed.
        """
        machine = self._machine
        self._resets += 1
        if self._resets % FLUSH_EVERY == 0:
            machine.engine.flush_code()
            self.on_flush()
        if touched is None:
            self._put_back(self._runs)
        else:
            self._put_back([run for pfn in self.quiet.union(touched) for run in self._page(pfn)])
        machine.restore(self.state, changed=())

    def _page(self, pfn: int) -> list[_Run]:
        """One page frame as a run; empty where nothing is."""
        runs = self._pages.get(pfn)
        if runs is None:
            runs = self._pages[pfn] = list(self._placed([(pfn, pfn + 1)]))
        return runs

    def _put_back(self, runs: Iterable[_Run]) -> None:
        code = self._machine.code
        for run in runs:
            if not _memcmp(run.memory, run.base, run.size):
                continue
            for pfn in range(run.pfn, run.pfn + (run.size >> PAGE_SHIFT)):
                if translated := code.runs(pfn):
                    self._forget_code(run, pfn, translated)
            _memmove(run.memory, run.base, run.size)

    def _forget_code(self, run: _Run, pfn: int, translated: Sequence[tuple[int, int]]) -> None:
        """Blocks translated from bytes that differ now are void; all others are right, and stay.

        ``translated`` is ascending, and not empty: mostly all of it is as it was.
        """
        page = pfn - run.pfn << PAGE_SHIFT
        first, behind = translated[0][0], translated[-1][1]
        if not _memcmp(run.memory + page + first, run.base + page + first, behind - first):
            return
        for low, high in tuple(translated):
            if _memcmp(run.memory + page + low, run.base + page + low, high - low):
                self._machine.code.overwritten((pfn << PAGE_SHIFT) + low, high - low)

    def reset_fully(self) -> None:
        """Put everything back, whatever was written where, and drop all translated code."""
        self._machine.engine.flush_code()
        self._machine.restore(self.state)

    def learn(self, pfns: Iterable[int] = ()) -> list[int]:
        """Learn ``pfns`` and every page that is dirty now; the answer is those that differ and were not learned.

        They are put back.  An empty answer: every :meth:`reset` since the last call was exact.
        """
        machine = self._machine
        dirty = {*machine.ram.dirty_pfns(), *pfns} - self._learned
        strays = [pfn for pfn in sorted(dirty) if self._differs(pfn)]
        self._learned |= dirty
        self._runs = list(self._placed(intervals(self._learned)))
        for pfn in strays:
            machine.ram.put_back(pfn)
        return strays

    def missed(self) -> list[int]:
        """Behind a :meth:`reset` of what was heard of: the page frames that differ all the same.

        They are put back, learned, and quiet from now on.  An empty answer: every reset since the last call was exact.
        """
        changed = self.changed()
        for pfn in changed:
            self._put_back(self._page(pfn))
        found = self.learn() + changed
        self.quiet.update(found)
        return found

    def _differs(self, pfn: int) -> bool:
        return any(_memcmp(run.memory, run.base, run.size) for run in self._page(pfn))

    def changed(self) -> list[int]:
        """The learned page frames that differ from the point now, ascending."""
        return [
            run.pfn + (offset >> PAGE_SHIFT)
            for run in self._runs
            if _memcmp(run.memory, run.base, run.size)
            for offset in range(0, run.size, PAGE_SIZE)
            if _memcmp(run.memory + offset, run.base + offset, PAGE_SIZE)
        ]

    def _placed(self, runs: Iterable[tuple[int, int]]) -> Iterator[_Run]:
        for first, behind in runs:
            for bank in self._machine.ram.banks:
                start, end = max(bank.start, first << PAGE_SHIFT), min(bank.end, behind << PAGE_SHIFT)
                if start < end:
                    offset = start - bank.start
                    yield _Run(start >> PAGE_SHIFT, bank.host + offset, bank.base_host + offset, end - start)
