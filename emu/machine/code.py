"""Which memory holds translated code, and which instructions in it the machine must see."""

from __future__ import annotations

from collections.abc import Iterable

from emu.assembler.lengths import lengths, memory_operands
from emu.machine.cpu import Cpu
from emu.machine.engine import Engine
from emu.units import PAGE_SHIFT
from emu.x86.sensitive import Sensitive, recognise

MAX_INTERCEPTS = 48
"""Each intercept costs every instruction a comparison; the oldest are dropped, and found again when they run."""
_LONGEST = 15


class CodeMap:
    """Scans each block that the engine translates."""

    def __init__(self, cpu: Cpu, engine: Engine) -> None:
        self._cpu = cpu
        self._engine = engine
        self._pfns: set[int] = set()
        self._known: dict[int, Sensitive | None] = {}
        self._found: list[int] = []
        self.pinned: set[int] = set()

    def scan(self, linear: int, size: int) -> bool:
        """A block at ``linear`` was just translated.  True: :meth:`settle` is needed before it may run.

        Called from inside the translator's loop, so nothing is changed in the engine here.
        """
        code = self._cpu.peek(linear, size) or b""
        walked = self._cpu.walk(linear)
        if walked.physical is not None:
            self._pfns.add(walked.physical >> PAGE_SHIFT)
            if (linear & 0xFFF) + size > 0x1000:
                behind = self._cpu.walk(linear + size - 1)
                if behind.physical is not None:
                    self._pfns.add(behind.physical >> PAGE_SHIFT)
        at, bits = 0, self._cpu.bits
        for length in lengths(code, bits):
            insn = recognise(code[at : at + length], bits)
            address = linear + at
            if insn is not None:
                self._known[address] = insn
                if address not in self._engine.intercepts:
                    self._found.append(address)
            else:
                self._known.pop(address, None)
            at += length
        return bool(self._found)

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
        oldest = next((address for address in intercepts if address not in self.pinned), None)
        if oldest is not None:
            self._engine.remove_intercept(oldest)

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
        """True if the instruction at ``linear`` stores to memory."""
        code = self._cpu.peek(linear, _LONGEST) or b""
        operands = memory_operands(code, self._cpu.bits, lambda _index: 0, linear)
        return any(kind == "write" for _, _, kind in operands)

    def forget(self) -> None:
        """The mapping changed: what is known by linear address is void."""
        self._known.clear()

    def covers(self, physical: int, size: int) -> bool:
        """True if code was translated from a page of this physical range."""
        first, last = physical >> PAGE_SHIFT, (physical + size - 1) >> PAGE_SHIFT
        return any(pfn in self._pfns for pfn in range(first, last + 1))

    def any_of(self, pfns: Iterable[int]) -> bool:
        """True if code was translated from any of these page frames."""
        return not self._pfns.isdisjoint(pfns)
