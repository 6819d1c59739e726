"""The memory that cases dirty: put back after each, compared with what it must be, and nothing else looked at.

A stage learns its pages once.  Host code lists the pages of RAM that are stored to; only these are looked at, and the
*quiet* ones, which change unheard: tables, where the processor sets Accessed and Dirty bits.  Tables that nobody should
use are looked for once a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from emu.machine.machine import Machine
from emu.machine.owners import intervals
from emu.units import PAGE_SHIFT, PAGE_SIZE, show_phys

_FULL = (1 << 8 * PAGE_SIZE) - 1
_ACCESSED_DIRTY = 0x60


class Rule(Enum):
    """What a page may be when a case ended anywhere but where it should."""

    FREE = "whatever whoever was running made of it"
    KEPT = "as before the case"
    MOVED = "as the model of the movement has it, or as before"


def mask_of(page: int, volatile: Sequence[tuple[int, int]]) -> int:
    """The bits of the page at physical ``page`` that lie in none of the ``volatile`` byte ranges (start, end)."""
    mask = _FULL
    for start, end in volatile:
        first, behind = max(start, page) - page, min(end, page + PAGE_SIZE) - page
        if first < behind:
            mask &= ~((1 << 8 * behind) - (1 << 8 * first))
    return mask


def table_mask(word: int) -> int:
    """The bits of a page of page-table entries that the processor does not set on its own."""
    entry = (1 << 8 * word) - 1 & ~_ACCESSED_DIRTY
    return int.from_bytes(entry.to_bytes(word, "little") * (PAGE_SIZE // word), "little")


def same(one: bytes, two: bytes, mask: int) -> bool:
    """Whether two pages agree in the bits of ``mask``."""
    if one == two:
        return True
    return mask != _FULL and not (int.from_bytes(one, "little") ^ int.from_bytes(two, "little")) & mask


@dataclass(frozen=True, slots=True)
class Known:
    """One page that a stage has learned.  ``mask`` are the bits that count."""

    pfn: int
    view: memoryview
    base: bytes
    expected: bytes
    rule: Rule
    mask: int


class Pages:
    """The learned pages of a machine that stands where every case begins; ``rules`` name them by page frame.

    ``expected`` is what a page holds when all went well (by the model), where that is not what it holds now.
    ``quiet`` are page frames that change unheard.
    """

    def __init__(
        self, machine: Machine, rules: Mapping[int, Rule], expected: Mapping[int, bytes], masks: Mapping[int, int]
    ) -> None:
        self._machine = machine
        self.known: list[Known] = []
        for pfn in sorted(rules):
            view, base = self._look(pfn)
            if view is not None:
                known = Known(pfn, view, base, expected.get(pfn, base), rules[pfn], masks.get(pfn, _FULL))
                self.known.append(known)
        self._by_pfn = {known.pfn: known for known in self.known}
        self._moved = {known.pfn for known in self.known if known.expected != known.base}
        self.quiet: set[int] = set()
        self._moves = machine.engine.moves
        self._moves.list_stores(intervals(machine.ram.pfns()))
        self._watch: int | None = machine.engine.list_stores()
        machine.cpu.on_store = lambda physical, data: self._moves.touch(physical, len(data))

    def _look(self, pfn: int) -> tuple[memoryview | None, bytes]:
        bank = self._machine.ram.bank_at(pfn << PAGE_SHIFT)
        if bank is None:
            return None, b""
        offset = (pfn << PAGE_SHIFT) - bank.start
        return bank.view[offset : offset + PAGE_SIZE], bytes(bank.base[offset : offset + PAGE_SIZE])

    def unwatch(self) -> None:
        """Hear of stores no more (benchmarks)."""
        if self._watch is not None:
            self._machine.engine.unwatch(self._watch)
            self._watch = None

    def touched(self) -> list[int] | None:
        """The page frames that were stored to since :meth:`begin`; None where nobody listens."""
        return None if self._watch is None else self._moves.touched()

    def begin(self) -> None:
        """All pages are as where cases begin."""
        self._moves.list_again()

    def _known(self, pfns: Iterable[int]) -> list[Known]:
        """The learned ones among page frames, ascending."""
        return [self._by_pfn[pfn] for pfn in sorted(pfns) if pfn in self._by_pfn]

    def suspects(self) -> list[Known]:
        """The learned pages that may not be as before."""
        return self._known(self.quiet.union(self._moves.touched()))

    def changed(self) -> list[int]:
        """The page frames that are not as before, strays behind the learned ones."""
        known = [one.pfn for one in self.suspects() if not same(bytes(one.view), one.base, one.mask)]
        return known + [address >> PAGE_SHIFT for address in self.strays()]

    def base_of(self, pfn: int) -> bytes:
        """What a page frame holds where cases begin."""
        return self._look(pfn)[1]

    def wrong(self) -> list[int]:
        """Physical addresses of pages that are not as the model has them, all having gone well; strays included."""
        bad = [
            known.pfn << PAGE_SHIFT
            for known in self._known(self._moved.union(self.quiet, self._moves.touched()))
            if not same(bytes(known.view), known.expected, known.mask)
        ]  # fmt: skip
        return bad + self.strays()

    def damaged(self, *, moving: bool = False) -> list[int]:
        """Physical addresses of pages that break their rule, strays included; ``moving``: MOVED pages are free."""
        bad = []
        for known in self.suspects():
            if known.rule is Rule.FREE or (moving and known.rule is Rule.MOVED):
                continue
            now = bytes(known.view)
            if same(now, known.base, known.mask):
                continue
            if known.rule is Rule.KEPT or not same(now, known.expected, known.mask):
                bad.append(known.pfn << PAGE_SHIFT)
        return bad + self.strays()

    def harmed(self) -> list[tuple[int, int]]:
        """Physical ranges (start, behind) that changed and must not: pages, or a byte where not all of one counts."""
        found = [(page, page + PAGE_SIZE) for page in self.strays()]
        for known in self.suspects():
            now = bytes(known.view)
            if known.rule is Rule.KEPT and not same(now, known.base, known.mask):
                start = known.pfn << PAGE_SHIFT
                if known.mask == _FULL:
                    found.append((start, start + PAGE_SIZE))
                else:
                    mask = known.mask.to_bytes(PAGE_SIZE, "little")
                    at = next(i for i in range(PAGE_SIZE) if (now[i] ^ known.base[i]) & mask[i])
                    found.append((start + at, start + at + 1))
        return found

    def strays(self) -> list[int]:
        """Physical addresses of pages outside the learned ones that were stored to and are not as before."""
        found = []
        for pfn in sorted(self._moves.touched()):
            if pfn in self._by_pfn:
                continue
            view, base = self._look(pfn)
            if view is not None and bytes(view) != base:
                found.append(pfn << PAGE_SHIFT)
        return found

    def first_difference(self, address: int) -> str:
        """The first wrong byte of the page at ``address``, in words."""
        known = self._by_pfn.get(address >> PAGE_SHIFT)
        view, base = self._look(address >> PAGE_SHIFT)
        if view is None:
            return show_phys(address)
        wanted = base if known is None else known.expected
        mask = (_FULL if known is None else known.mask).to_bytes(PAGE_SIZE, "little")
        now = bytes(view)
        at = next((i for i in range(PAGE_SIZE) if (now[i] ^ wanted[i]) & mask[i]), 0)
        return f"{show_phys(address + at)} is {now[at : at + 8].hex(' ')}, not {wanted[at : at + 8].hex(' ')}"
