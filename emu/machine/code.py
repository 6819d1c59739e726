"""Which memory holds translated code, and which instructions in it the machine must see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from emu.assembler.lengths import lengths, memory_operands
from emu.machine.breakpoints import Breakpoints
from emu.machine.cpu import Cpu
from emu.machine.engine import Engine
from emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from emu.x86.sensitive import NEVER_SENSITIVE, Sensitive, recognise

MAX_INTERCEPTS = 48
"""Most intercepts with a hook of their own, for which the table of all others had no room.

Each costs every instruction a comparison; the oldest are dropped, and found again when they run.

All those of one block are kept, however many they are.
"""
_LONGEST = 15
_INDIRECT = frozenset({b"\xc2", b"\xc3", b"\xff"})
_BRANCH_PREFIXES = bytes((0x66, 0xF2, 0xF3, 0x3E, *range(0x40, 0x50)))
_QUIET = NEVER_SENSITIVE - {0xC2, 0xC3, 0xFF}
_PREFIXES = frozenset({0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3, *range(0x40, 0x50)})


def _is_call(code: bytes) -> bool:
    """CALL, near or far, direct or not, behind any prefixes."""
    opcode = code.lstrip(bytes(_PREFIXES))
    if opcode[:1] == b"\xff":
        return len(opcode) > 1 and opcode[1] >> 3 & 7 in (2, 3)
    return opcode[:1] in (b"\xe8", b"\x9a")


@lru_cache(maxsize=1024)
def _decoded(code: bytes, size: int, bits: int) -> tuple[tuple[int, Sensitive | None, bool], ...]:
    """The instructions that begin in the first ``size`` bytes of ``code``.

    As (offset, what it is if it is sensitive, whether it may be a near indirect branch of 64-bit code).
    """
    found = []
    at = 0
    for length in lengths(code, bits):
        if at >= size:
            break
        one = code[at : at + length]
        quiet = code[at] in _QUIET
        indirect = not quiet and bits == 64 and one.lstrip(_BRANCH_PREFIXES)[:1] in _INDIRECT
        found.append((at, None if quiet else recognise(one, bits), indirect))
        at += length
    return tuple(found)


@lru_cache(maxsize=1024)
def _stores(code: bytes, bits: int) -> bool:
    """Whether the first instruction of ``code`` stores to memory and does not end a block."""
    if recognise(code, bits) is not None or _is_call(code):
        return False
    return any(kind == "write" for _, _, kind in memory_operands(code, bits, lambda _index: 0, 0))


@dataclass(slots=True)
class _Page:
    """Translated bytes of a page as runs (first offset, behind the last), and known addresses with their offsets.

    ``linear`` are the pages through which they were fetched; ``astride``: a block of the page before ends here.
    """

    runs: list[tuple[int, int]] = field(default_factory=list)
    known: dict[int, int] = field(default_factory=dict)
    linear: set[int] = field(default_factory=set)
    astride: bool = False

    def add(self, first: int, behind: int) -> None:
        kept = []
        for low, high in self.runs:
            if low <= first and behind <= high:
                return
            if low <= behind and first <= high:
                first, behind = min(first, low), max(behind, high)
            else:
                kept.append((low, high))
        self.runs = sorted([*kept, (first, behind)])

    def remove(self, first: int, behind: int) -> None:
        """Nothing that touched these offsets is translated any more; what else a run holds may be."""
        parts = [part for low, high in self.runs for part in ((low, min(high, first)), (max(low, behind), high))]
        self.runs = [(low, high) for low, high in parts if low < high]
        if not self.runs:
            self.linear.clear()
            self.astride = False

    def meets(self, first: int, behind: int) -> bool:
        return any(low < behind and first < high for low, high in self.runs)


class CodeMap:
    """Scans each block that the engine translates.

    Intercepts where a run stops (``breaks``) are never dropped, and Python decides there; ``indirect`` holds the linear
    addresses of 64-bit instructions that may be near indirect branches.

    ``keeps``: blocks of a page that the host writes in a run are *set aside*, for those who put memory back before the
    next: they are in force again once :meth:`take_back` finds what they were translated from, and dropped where one of
    their linear pages is to be run before that.
    """

    def __init__(self, cpu: Cpu, engine: Engine, breaks: Breakpoints) -> None:
        self._cpu = cpu
        self._engine = engine
        self._by_page: dict[int, _Page] = {}
        self._known: dict[int, tuple[int, int, Sensitive]] = {}
        self._unsure: set[int] = set()
        self._decoded: dict[int, Sensitive | None] = {}
        self._found: list[int] = []
        self._breaks = breaks
        self.indirect: set[int] = set()
        self._block: set[int] = set()
        self.keeps = False
        self._aside: dict[int, tuple[_Page, bytes]] = {}
        self.on_fetch: Callable[[int, int, int], None] = lambda _linear, _physical, _size: None

    def scan(self, linear: int, size: int) -> bool:
        """A block at ``linear`` was just translated.  True: :meth:`settle` is needed before it may run.

        Called from inside the translator's loop, so nothing is changed in the engine here.
        """
        physical, room = self._engine.fetched_from(linear), PAGE_SIZE - (linear & PAGE_MASK)
        if physical is None:
            physical = self._cpu.seen(linear)
        whole = size + _LONGEST  # a privileged one may be only half translated at CPL 3
        if physical is None or whole > room:
            code = self._cpu.peek(linear, whole) or b""
        else:
            code = self._cpu.ram.read(physical, whole)
        pfn = self._fetched(linear, physical, min(size, room))
        if size > room:
            other = self._fetched(linear + room, self._cpu.seen(linear + room), size - room)
            self._by_page[other].astride = True
        bits = self._cpu.bits
        self._block.clear()
        for at, insn, indirect in _decoded(code, size, bits):
            address = linear + at
            if indirect:
                self.indirect.add(address)
            if insn is not None:
                self._learn(address, bits, pfn, insn)
                self._block.add(address)
                if address not in self._engine.intercepts and not self._engine.intercept_now(address):
                    self._found.append(address)
            elif address in self._known:
                self._unsure.add(address)
                self._engine.moves.forget(address)
        return bool(self._found)

    def _learn(self, address: int, bits: int, pfn: int, insn: Sensitive) -> None:
        """Every block that can run was scanned: an address with one meaning in all of them needs no second look."""
        seen = self._known.get(address)
        if seen is not None and seen[:2] != (bits, pfn):
            self._unsure.add(address)
        self._known[address] = bits, pfn, insn
        if address in self._unsure or self._breaks.at(address):
            self._engine.moves.forget(address)
        else:
            self._engine.moves.learn(address, bits, insn)
        self._by_page[pfn].known[address] = address & PAGE_MASK

    def _fetched(self, linear: int, physical: int | None, size: int) -> int:
        if physical is None:
            self._by_page.setdefault(-1, _Page())
            return -1
        low, pfn = physical & PAGE_MASK, physical >> PAGE_SHIFT
        page = self._by_page.get(pfn)
        if page is None:
            page = self._by_page[pfn] = _Page()
        if not page.runs:
            self._engine.moves.has_code(pfn)
        page.add(low, low + size)
        page.linear.add(linear >> PAGE_SHIFT)
        self.on_fetch(linear, physical, size)
        return pfn

    def settle(self) -> None:
        """Intercept what :meth:`scan` found; the engine is stopped."""
        for address in self._found:
            self._make_room()
            self._engine.intercept(address)
        self._found.clear()

    def _make_room(self) -> None:
        hooked = [address for address, handle in self._engine.intercepts.items() if handle]
        if len(hooked) < MAX_INTERCEPTS:
            return
        pinned = self._breaks.addresses
        old = [address for address in hooked if address not in pinned and address not in self._block]
        for address in old[: MAX_INTERCEPTS // 4]:
            self._engine.remove_intercept(address)
        if old:
            self._engine.flush_code()  # blocks of other address spaces hold such instructions too

    def at(self, linear: int) -> Sensitive | None:
        """The sensitive instruction at ``linear`` under the present mapping, or None."""
        known = self._known.get(linear)
        if known is not None and linear not in self._unsure and known[0] == self._cpu.bits:
            return known[2]
        if linear not in self._decoded:
            self._decoded[linear] = self._decode(linear)
        return self._decoded[linear]

    def drop_needless(self, linear: int) -> None:
        """Nothing sensitive is at ``linear`` now: if no translated block has any there, nobody need be asked."""
        if linear not in self._known and linear not in self._unsure and not self._breaks.at(linear):
            self._engine.drop_intercept(linear)

    def _decode(self, linear: int) -> Sensitive | None:
        bits = self._cpu.bits
        code = self._cpu.peek(linear, _LONGEST) or b""
        sizes = lengths(code, bits)
        return recognise(code[: sizes[0]], bits) if sizes else None

    def stores(self, linear: int) -> bool:
        """True if the instruction at ``linear`` stores to memory and does not end a block (calls, repeated strings)."""
        return _stores(self._cpu.peek(linear, _LONGEST) or b"", self._cpu.bits)

    def forget(self) -> None:
        """The mapping changed: what was decoded by linear address is void."""
        self._decoded.clear()

    def dropped(self) -> None:
        """Every translated block was dropped (:meth:`emu.machine.engine.Engine.flush_code`): no page has any."""
        self._engine.moves.forget_all()
        for pfn in self._by_page:
            self._engine.moves.has_no_code(pfn)
        self._by_page.clear()
        self._aside.clear()
        self._engine.moves.set_aside(())
        self._known.clear()
        self._unsure.clear()
        self._decoded.clear()

    def pfns(self) -> set[int]:
        """The page frames that code was translated from since all of it was dropped last."""
        return {pfn for pfn in self._by_page if pfn >= 0}

    def runs(self, pfn: int) -> Sequence[tuple[int, int]]:
        """The translated bytes of a page frame: runs of offsets (first, behind the last)."""
        page = self._by_page.get(pfn)
        return () if page is None else page.runs

    def overwritten(self, physical: int, size: int) -> None:
        """The host writes this physical range: blocks that were translated from it are dropped, or set aside."""
        behind = physical + size
        while physical < behind:
            step = min(behind - physical, PAGE_SIZE - (physical & PAGE_MASK))
            page = self._by_page.get(physical >> PAGE_SHIFT)
            if page is not None and not self._set_aside(physical >> PAGE_SHIFT, page):
                self._drop(page, physical, physical & PAGE_MASK, step)
            physical += step

    def _set_aside(self, pfn: int, page: _Page) -> bool:
        """Keep the blocks of a page that is about to change; False where they have to be dropped."""
        if not (self.keeps and self._engine.running and page.runs) or page.astride or pfn in self._aside:
            return False
        if not self._engine.moves.set_aside({*self._pages_aside(), *page.linear}):
            return False
        self._aside[pfn] = page, self._cpu.ram.page(pfn)
        del self._by_page[pfn]
        self._engine.moves.has_no_code(pfn)
        return True

    def _pages_aside(self) -> set[int]:
        """The linear pages of blocks that are set aside."""
        return {linear for page, _ in self._aside.values() for linear in page.linear}

    def needed(self, linear: int) -> bool:
        """Before the instruction at ``linear``: whether blocks of its page are set aside.  They are dropped."""
        found = [pfn for pfn, (page, _) in self._aside.items() if linear >> PAGE_SHIFT in page.linear]
        for pfn in found:
            self._end_aside(pfn, valid=False)
        if found:
            self._engine.moves.set_aside(self._pages_aside())
        return bool(found)

    def take_back(self) -> None:
        """Memory may be what it was: blocks that were set aside are in force again, or dropped."""
        if not self._aside:
            return
        for pfn, (page, content) in list(self._aside.items()):
            now = self._cpu.ram.page(pfn)
            self._end_aside(pfn, valid=all(now[low:high] == content[low:high] for low, high in page.runs))
        self._engine.moves.set_aside(())

    def _end_aside(self, pfn: int, *, valid: bool) -> None:
        page, _ = self._aside.pop(pfn)
        since = self._by_page.get(pfn, _Page())
        if valid:
            for run in since.runs:
                page.add(*run)
            page.known |= since.known
            page.linear |= since.linear
            page.astride |= since.astride
            self._by_page[pfn] = page
            self._engine.moves.has_code(pfn)
            return
        for one in (since, page):
            self._drop(one, pfn << PAGE_SHIFT, 0, PAGE_SIZE)

    def _drop(self, page: _Page, physical: int, low: int, size: int) -> None:
        if not page.meets(low, low + size):
            return
        self._engine.invalidate_code(physical, size)
        pfn = physical >> PAGE_SHIFT
        page.remove(low, low + size)
        if not page.runs:
            self._engine.moves.has_no_code(pfn)
        for address, offset in list(page.known.items()):
            known = self._known.get(address, (0, -1, None))
            length = known[2].size if known[2] is not None and known[1] == pfn else _LONGEST
            if low - length < offset < low + size:
                del page.known[address]
                self._engine.moves.forget(address)
                if address not in self._unsure and known[1] == pfn:
                    del self._known[address]
        self._decoded.clear()

    def covers(self, physical: int, size: int) -> bool:
        """True if code was translated from this physical range."""
        first, behind = physical & PAGE_MASK, (physical & PAGE_MASK) + size
        page = self._by_page.get(physical >> PAGE_SHIFT)
        if page is not None and page.meets(first, behind):
            return True
        rest = PAGE_SIZE - first
        return size > rest and self.covers(physical + rest, size - rest)

    def any_of(self, pfns: Iterable[int]) -> bool:
        """True if code was translated from any of these page frames."""
        return any(pfn in self._by_page or pfn in self._aside for pfn in pfns)
