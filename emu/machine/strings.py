"""REP string instructions done by the host, where nothing that the guest could notice differs.

A page moved by ``rep movsq`` is 512 trips through the engine; here it is one copy.  The instruction is left to the
engine whenever something about it is out of the ordinary: DF set, a fault ahead, a hole or ROM, overlapping source and
destination, operands that straddle pages.  Iterations still tick virtual time, and the move stops at the next
timer deadline, so that an interrupt arrives between the same two iterations either way.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import memmove, string_at

from emu.machine.cpu import PLAIN, SEGMENT_NAMES, Cpu
from emu.machine.cpustate import DS, ES, RAX, RCX, RDI, RSI
from emu.units import PAGE_MASK, PAGE_SIZE
from emu.x86.sensitive import Sensitive

_MOVS, _STOS = (0xA4, 0xA5), (0xAA, 0xAB)
_CMPS, _SCAS = (0xA6, 0xA7), (0xAE, 0xAF)
_ARITHMETIC, _EQUAL = 0x8D5, 0x44  # OF SF ZF AF PF CF; what a comparison of equals leaves
STORING = frozenset({*_MOVS, *_STOS})
"""Opcodes of the string instructions that store."""


class StringMover:
    """Runs whole chunks of MOVS, STOS, CMPS, SCAS.  ``written(physical, size, linear)`` hears of each store range."""

    def __init__(self, cpu: Cpu, written: Callable[[int, int, int], bool]) -> None:
        self._cpu = cpu
        self._written = written

    def run(self, insn: Sensitive, budget: int) -> int:
        """Do at most ``budget`` iterations of ``insn``, the instruction at RIP; the answer is how many were done.

        0 means that the engine has to do it.  RCX, RSI and RDI are updated; RIP stays; the last comparison of a
        CMPS or SCAS is always left to the engine, which sets the flags.
        """
        mask = (1 << 8 * insn.address) - 1
        count = self._cpu.engine.gpr(RCX) & mask
        if count < 2 or budget < 2 or self._cpu.engine.backward:
            return 0
        limit = min(count, budget)
        if insn.opcode in _MOVS:
            done = self._movs(insn, limit, mask)
        elif insn.opcode in _STOS:
            done = self._stos(insn, limit, mask)
        elif insn.opcode in _SCAS and insn.repeat == 0xF3:
            done = self._scas(insn, min(limit, count - 1), mask)
        elif insn.opcode in _CMPS and insn.repeat == 0xF3:
            done = self._cmps(insn, min(limit, count - 1), mask)
        else:
            return 0
        return done

    def left(self, insn: Sensitive) -> bool:
        """True where ``insn`` has iterations to do."""
        return bool(self._cpu.engine.gpr(RCX) & ((1 << 8 * insn.address) - 1))

    def tell_last(self, insn: Sensitive, stored: Callable[[int, int, int], None]) -> None:
        """Tell ``stored(physical, size, linear)`` what the engine's last iteration of MOVS or STOS stored.

        Asked behind it: one that faults has stored nothing.
        """
        mask = (1 << 8 * insn.address) - 1
        back = -insn.operand if not self._cpu.engine.backward else insn.operand
        linear = self._segment_base(ES) + (self._cpu.engine.gpr(RDI) + back & mask)
        linear = linear if self._cpu.bits == 64 else linear & 0xFFFFFFFF
        physical = self._cpu.seen_at(linear, PLAIN[self._cpu.cpl == 3, True])
        if physical is not None:
            stored(physical, min(insn.operand, PAGE_SIZE - (physical & PAGE_MASK)), linear)

    def _segment_base(self, index: int) -> int:
        if self._cpu.bits == 64 and index not in (4, 5):
            return 0
        return self._cpu.engine.segment_base(index)

    def _linear(self, register: int, segment: int, mask: int) -> int:
        linear = self._segment_base(segment) + (self._cpu.engine.gpr(register) & mask)
        return linear if self._cpu.bits == 64 else linear & 0xFFFFFFFF

    def _room(self, linear: int, insn: Sensitive, register: int, mask: int, limit: int) -> int:
        """Iterations until the page, or the address size, ends.

        Asked before anything is translated: what the host does not do must leave no Accessed or Dirty bit.
        """
        in_page = (PAGE_SIZE - (linear & PAGE_MASK)) // insn.operand
        in_space = (mask + 1 - (self._cpu.engine.gpr(register) & mask)) // insn.operand
        return min(limit, in_page, in_space)

    def _two_operands(self, insn: Sensitive, limit: int, mask: int) -> tuple[int, int, int]:
        """The linear addresses by RSI and RDI, and the iterations that both have room for."""
        segment = SEGMENT_NAMES.index(insn.segment) if insn.segment else DS
        first, second = self._linear(RSI, segment, mask), self._linear(RDI, ES, mask)
        return first, second, self._room(second, insn, RDI, mask, self._room(first, insn, RSI, mask, limit))

    def _advance(self, insn: Sensitive, register: int, mask: int, amount: int) -> None:
        engine = self._cpu.engine
        value = engine.gpr(register)
        moved = (value + amount) & mask
        # A 16-bit address size leaves the upper bits; a 32-bit one clears them in 64-bit mode.
        engine.set_gpr(register, value & ~0xFFFF | moved if insn.address == 2 else moved)

    def _movs(self, insn: Sensitive, limit: int, mask: int) -> int:
        read_at, write_at, n = self._two_operands(insn, limit, mask)
        if n < 2:
            return 0
        source = self._cpu.plain_page(read_at, write=False)
        target = self._cpu.plain_page(write_at, write=True) if source is not None else None
        if source is None or target is None:
            return 0
        size, from_offset, to_offset = n * insn.operand, read_at & PAGE_MASK, write_at & PAGE_MASK
        same = source[1] == target[1]
        if same and from_offset != to_offset and abs(from_offset - to_offset) < size:
            return 0
        if not self._written(target[1] + to_offset, size, write_at):
            return 0
        memmove(target[0] + to_offset, source[0] + from_offset, size)
        self._advance(insn, RSI, mask, size)
        self._advance(insn, RDI, mask, size)
        self._advance(insn, RCX, mask, -n)
        return n

    def _element(self, insn: Sensitive) -> bytes:
        """AL, AX, EAX or RAX."""
        return (self._cpu.engine.gpr(RAX) & ((1 << 8 * insn.operand) - 1)).to_bytes(insn.operand, "little")

    def _stos(self, insn: Sensitive, limit: int, mask: int) -> int:
        linear = self._linear(RDI, ES, mask)
        n = self._room(linear, insn, RDI, mask, limit)
        target = self._cpu.plain_page(linear, write=True) if n > 1 else None
        size, offset = n * insn.operand, linear & PAGE_MASK
        if target is None or not self._written(target[1] + offset, size, linear):
            return 0
        memmove(target[0] + offset, self._element(insn) * n, size)
        self._advance(insn, RDI, mask, size)
        self._advance(insn, RCX, mask, -n)
        return n

    def _scas(self, insn: Sensitive, limit: int, mask: int) -> int:
        """REPE SCAS over equal elements only: the first mismatch, and the last element, are the engine's."""
        linear = self._linear(RDI, ES, mask)
        n = self._room(linear, insn, RDI, mask, limit)
        source = self._cpu.plain_page(linear, write=False) if n > 1 else None
        if source is None:
            return 0
        actual = string_at(source[0] + (linear & PAGE_MASK), n * insn.operand)
        n = _equal(self._element(insn) * n, actual, insn.operand)
        return self._compared(insn, n, mask, RDI)

    def _cmps(self, insn: Sensitive, limit: int, mask: int) -> int:
        """REPE CMPS over equal elements only, as :meth:`_scas`."""
        first, second, n = self._two_operands(insn, limit, mask)
        if n < 2:
            return 0
        other = self._cpu.plain_page(second, write=False)  # the engine's order, for a fault between the two
        one = self._cpu.plain_page(first, write=False) if other is not None else None
        if one is None or other is None:
            return 0
        size = n * insn.operand
        here, there = string_at(one[0] + (first & PAGE_MASK), size), string_at(other[0] + (second & PAGE_MASK), size)
        return self._compared(insn, _equal(here, there, insn.operand), mask, RSI, RDI)

    def _compared(self, insn: Sensitive, n: int, mask: int, *registers: int) -> int:
        """``n`` elements were equal: the registers and flags behind them."""
        if n < 2:
            return 0
        engine = self._cpu.engine
        engine.rflags = engine.rflags & ~_ARITHMETIC | _EQUAL
        for register in registers:
            self._advance(insn, register, mask, n * insn.operand)
        self._advance(insn, RCX, mask, -n)
        return n


def _equal(one: bytes, other: bytes, size: int) -> int:
    """How many elements of ``size`` bytes are equal from the first on; both have the same length."""
    if one == other:
        return len(one) // size
    return next(at for at in range(0, len(one), size) if one[at : at + size] != other[at : at + size]) // size
