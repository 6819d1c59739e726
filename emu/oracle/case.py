"""What all machines are given to run: memory, registers, and where the run ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emu.kexec.arch import Arch
from emu.oracle.own_table import own_tables
from emu.units import PAGE_SIZE
from emu.x86.bits import Cr0, Eflags

MARGIN = 0x100
"""Bytes at the top of a page that are left alone: the stub's stack."""
_BREAKPOINTS = 0xFF
_LONG_CODE = 1 << 21
_SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs", "tr", "ldtr")
_NULL_RPL = 3


@dataclass(frozen=True, slots=True)
class Case:
    """One run from a recorded state to linear address ``end``.

    ``memory`` are (physical start, contents); ``registers`` are named as :meth:`emu.machine.cpu.Cpu.registers` names
    them, ``rip`` linear.  ``entry`` is the linear address of a gap in the page of the first instruction and
    ``entry_phys`` where that lies.  ``end_phys`` is where ``end`` is mapped when the run is over; ``moved`` tells where
    the contents of a page (physical addresses) come from, for pages that the run moves.  ``pdpts`` are the tables that
    CR3 holds under PAE paging, wherever they lie before or after.  ``shared`` is memory that no case of an image may
    change and all have in common.  ``irq`` is the vector at which an IRQ 0 is pending from the start (a multiple of 8;
    0: there is none): with IF set in ``rflags`` it is taken before the first instruction.
    """

    name: str
    arch: Arch
    memory: Sequence[tuple[int, bytes | bytearray]]
    registers: Mapping[str, int]
    end: int
    end_phys: int
    moved: Mapping[int, int]
    entry: int
    entry_phys: int
    pdpts: frozenset[int] = frozenset()
    shared: tuple[tuple[int, bytes], ...] = ()
    irq: int = 0

    @property
    def takes_irq(self) -> bool:
        """Whether an interrupt is taken before the first instruction."""
        return bool(self.irq and self.registers["rflags"] & Eflags.IF)

    @property
    def paging(self) -> bool:
        """Whether the case begins with paging on."""
        return bool(self.registers["cr0"] & Cr0.PG)

    @property
    def long_mode(self) -> bool:
        """Whether the case begins in 64-bit mode."""
        return self.arch.word == 8


def unrestorable(case: Case) -> str:
    """Why no image can begin with the state of ``case``; empty where one can."""
    state = case.registers
    if state["rflags"] & (Eflags.TF | Eflags.VM):
        return "the case begins with TF or VM set, which would act before its first instruction"
    if state["rflags"] & Eflags.IF and not case.irq:
        return "the case begins with IF set and no interrupt to take"
    if case.takes_irq and state["rflags"] & Eflags.NT:
        return "the case begins with NT set, with which IRET does not return"
    if state.get("dr7", 0) & _BREAKPOINTS:
        return "the case begins with breakpoints armed in DR7, which an image does not restore"
    if case.long_mode and not state.get("cs.flags", _LONG_CODE) & _LONG_CODE:
        return "the case begins in compatibility mode"
    if own_tables(state, case.arch.word, 0) is not None:
        return ""
    limit = state["gdtr.limit"]
    for name in _SELECTORS:
        if state[name] & ~_NULL_RPL and state[name] | 7 > limit:
            return f"{name.upper()} is {state[name]:#x}, and the GDT in force (limit {limit:#x}) does not hold it"
    return ""


def find_gap(page: bytes, size: int) -> int | None:
    """The offset of ``size`` zero bytes in a page, aligned to 16, high up but below the stack; None without one."""
    for offset in range((PAGE_SIZE - MARGIN - size) & ~15, -1, -16):
        if not any(page[offset : offset + size]):
            return offset
    return None


def pieces_before(case: Case, size: int) -> list[tuple[int, int, int]]:
    """Where the ``size`` bytes at the case's end are before the run: (offset, physical, size), page by page."""
    found, done = [], 0
    while done < size:
        at = case.end_phys + done
        step = min(size - done, PAGE_SIZE - at % PAGE_SIZE)
        page = at & -PAGE_SIZE
        found.append((done, case.moved.get(page, page) + at % PAGE_SIZE, step))
        done += step
    return found
