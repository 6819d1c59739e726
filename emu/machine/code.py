"""Which memory holds translated code, and which instructions in it the machine must see."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from emu.assembler.lengths import lengths, memory_operands
from emu.machine.cpu import Cpu
from emu.machine.engine import Engine
from emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from emu.x86.sensitive import Sensitive, recognise

MAX_INTERCEPTS = 48
"""Each intercept costs every instruction a comparison; the oldest are dropped, and found again when they run.

All those of one block are kept, however many they are.
"""
_LONGEST = 15
_INDIRECT = frozenset({b"\xc2", b"\xc3", b"\xff"})
_BRANCH_PREFIXES = bytes((0x66, 0xF2, 0xF3, 0x3E, *range(0x40, 0x50)))
_PREFIXES = frozenset({0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3, *range(0x40, 0x50)})


def _is_call(code: bytes) -> bool:
    """CALL, near or far, direct or not, behind any prefixes."""
    at = next((index for index, byte in enumerate(code) if byte not in _PREFIXES), 0)
    return code[at] in (0xE8, 0x9A) or (code[at] == 0xFF and code[at + 1] >> 3 & 7 in (2, 3))


class CodeMap:
    """Scans each block that the engine translates.

    Intercepts at linear addresses in ``pinned`` are never dropped; ``indirect`` holds the linear addresses of
    64-bit instructions that may be near indirect branches.
    """

    def __init__(self, cpu: Cpu, engine: Engine, pinned: set[int]) -> None:
        self._cpu = cpu
        self._engine = engine
        self._pfns: set[int] = set()
        self._known: dict[int, Sensitive | None] = {}
        self._found: list[int] = []
        self.pinned = pinned
        self.indirect: set[int] = set()
        self._block: set[int] = set()
        self.on_fetch: Callable[[int, int, int], None] = lambda _linear, _physical, _size: None

    def scan(self, linear: int, size: int) -> bool:
        """A block at ``linear`` was just translated.  True: :meth:`settle` is needed before it may run.

        Called from inside the translator's loop, so nothing is changed in the engine here.
        """
        code = self._cpu.peek(linear, size + _LONGEST) or b""  # a privileged one may be only half translated at CPL 3
        first = min(size, PAGE_SIZE - (linear & PAGE_MASK))
        self._fetched(linear, first)
        if first < size:
            self._fetched(linear + first, size - first)
        at, bits = 0, self._cpu.bits
        self._block.clear()
        for length in lengths(code, bits):
            if at >= size:
                break
            insn = recognise(code[at : at + length], bits)
            address = linear + at
            if bits == 64 and code[at : at + length].lstrip(_BRANCH_PREFIXES)[:1] in _INDIRECT:
                self.indirect.add(address)
            if insn is not None:
                self._known[address] = insn
                self._block.add(address)
                if address not in self._engine.intercepts:
                    self._found.append(address)
            else:
                self._known.pop(address, None)
            at += length
        return bool(self._found)

    def _fetched(self, linear: int, size: int) -> None:
        physical = self._cpu.walk(linear).physical
        if physical is not None:
            self._pfns.add(physical >> PAGE_SHIFT)
            self.on_fetch(linear, physical, size)

    def settle(self) -> None:
        """Intercept what :meth:`scan` found; the engine is stopped."""
        for address in self._found:
            self._make_room()
            self._engine.intercept(address)
        self._found.clear()

    def _make_room(self) -> None:
        intercepts = self._engine.intercepts
        if len(intercepts) < MAX_INTERCEPTS:
            return
        old = [address for address in intercepts if address not in self.pinned and address not in self._block]
        for address in old[: MAX_INTERCEPTS // 4]:
            self._engine.remove_intercept(address)
        if old:
            self._engine.flush_code()  # blocks of other address spaces hold such instructions too

    def at(self, linear: int) -> Sensitive | None:
        """The sensitive instruction at ``linear`` under the present mapping, or None."""
        if linear not in self._known:
            self._known[linear] = self._decode(linear)
        return self._known[linear]

    def _decode(self, linear: int) -> Sensitive | None:
        bits = self._cpu.bits
        code = self._cpu.peek(linear, _LONGEST) or b""
        sizes = lengths(code, bits)
        return recognise(code[: sizes[0]], bits) if sizes else None

    def stores(self, linear: int) -> bool:
        """True if the instruction at ``linear`` stores to memory and does not end a block (calls, repeated strings)."""
        code = self._cpu.peek(linear, _LONGEST) or b""
        if recognise(code, self._cpu.bits) is not None or _is_call(code):
            return False
        operands = memory_operands(code, self._cpu.bits, lambda _index: 0, linear)
        return any(kind == "write" for _, _, kind in operands)

    def forget(self) -> None:
        """The mapping changed: what is known by linear address is void."""
        self._known.clear()

    def dropped(self) -> None:
        """Every translated block was dropped (:meth:`emu.machine.engine.Engine.flush_code`): no page has any."""
        self._pfns.clear()
        self._known.clear()

    def covers(self, physical: int, size: int) -> bool:
        """True if code was translated from a page of this physical range."""
        first, last = physical >> PAGE_SHIFT, (physical + size - 1) >> PAGE_SHIFT
        return first in self._pfns or (first < last and any(pfn in self._pfns for pfn in range(first + 1, last + 1)))

    def any_of(self, pfns: Iterable[int]) -> bool:
        """True if code was translated from any of these page frames."""
        return not self._pfns.isdisjoint(pfns)
