"""Bringing a machine to a start state: the one that a boot loader, or the reset line, leaves.

The engine's own start state (long mode without paging) exists on no hardware, so every register that matters is
set here.
"""

from __future__ import annotations

from emu.machine.cpustate import CS, ES, GS
from emu.machine.machine import Machine
from emu.x86.bits import DR6_INITIAL, DR7_INITIAL, Cr0, Cr4, Efer
from emu.x86.segments import SegmentCache, TableRegister

_CODE_16, _DATA_16 = 0x009B00, 0x009300
_CODE_32, _DATA_32, _CODE_64 = 0xC09B00, 0xC09300, 0xA09B00
_FLAT = 0xFFFFFFFF
BOOT_CODE_SELECTOR, BOOT_DATA_SELECTOR = 0x10, 0x18


def _apply(machine: Machine, *, rip: int, cr0: int, cr3: int, cr4: int, efer: int) -> None:
    engine = machine.engine
    for index in range(16):
        engine.set_gpr(index, 0)
    engine.rip = rip
    engine.set_cr(0, cr0 | Cr0.ET)
    engine.set_cr(2, 0)
    engine.set_cr(3, cr3)
    engine.set_cr(4, cr4)
    engine.efer = efer
    null = SegmentCache(0, 0, 0xFFFF, 0x8200)
    engine.ldtr = null
    engine.tr = SegmentCache(0, 0, 0xFFFF, 0x8B00)
    engine.rflags = 2
    engine.reset_fpu()
    engine.set_dr(6, DR6_INITIAL)
    engine.set_dr(7, DR7_INITIAL)
    engine.settle()
    engine.flush_tlb()
    engine.clear_exception()
    machine.cpu.settle_pdptes()


def _segments(machine: Machine, code: SegmentCache, data: SegmentCache) -> None:
    for index in range(ES, GS + 1):
        machine.engine.set_segment(index, code if index == CS else data)


def real_mode(machine: Machine, *, cs: int = 0, ip: int = 0x7C00) -> None:
    """16-bit real mode at ``cs``:``ip``; data segments 0, IVT at 0."""
    _segments(machine, SegmentCache(cs, cs << 4, 0xFFFF, _CODE_16), SegmentCache(0, 0, 0xFFFF, _DATA_16))
    machine.engine.gdtr = TableRegister(0, 0xFFFF)
    machine.engine.idtr = TableRegister(0, 0x3FF)
    _apply(machine, rip=ip, cr0=0, cr3=0, cr4=0, efer=0)


def reset(machine: Machine) -> None:
    """The reset state, SDM 3A table 10-1: CS base 0xFFFF0000, IP 0xFFF0."""
    real_mode(machine, cs=0xF000, ip=0xFFF0)
    machine.engine.idtr = TableRegister(0, 0xFFFF)
    machine.engine.set_cr(0, Cr0.CD | Cr0.NW | Cr0.ET)
    machine.engine.set_segment(CS, SegmentCache(0xF000, 0xFFFF0000, 0xFFFF, _CODE_16))
    machine.engine.settle()


def protected_mode(machine: Machine, *, eip: int, gdt: TableRegister, cr3: int = 0, cr4: int = 0) -> None:
    """Flat 32-bit protected mode at ``eip``, as the 32-bit boot protocol has it; paging on where ``cr3`` is given.

    ``cr4`` chooses 2-level paging or PAE.  Selectors are those of the boot protocol; ``gdt`` must hold them.
    """
    _segments(
        machine,
        SegmentCache(BOOT_CODE_SELECTOR, 0, _FLAT, _CODE_32),
        SegmentCache(BOOT_DATA_SELECTOR, 0, _FLAT, _DATA_32),
    )
    machine.engine.gdtr = gdt
    machine.engine.idtr = TableRegister(0, 0)
    _apply(machine, rip=eip, cr0=Cr0.PE | (Cr0.PG if cr3 else 0), cr3=cr3, cr4=cr4, efer=0)


def long_mode(machine: Machine, *, rip: int, gdt: TableRegister, cr3: int, la57: bool = False) -> None:
    """64-bit mode at ``rip`` on the tables at physical ``cr3`` (4-level, or 5-level with ``la57``)."""
    _segments(
        machine,
        SegmentCache(BOOT_CODE_SELECTOR, 0, _FLAT, _CODE_64),
        SegmentCache(BOOT_DATA_SELECTOR, 0, _FLAT, _DATA_32),
    )
    machine.engine.gdtr = gdt
    machine.engine.idtr = TableRegister(0, 0)
    cr4 = Cr4.PAE | (Cr4.LA57 if la57 else 0)
    _apply(machine, rip=rip, cr0=Cr0.PE | Cr0.PG, cr3=cr3, cr4=cr4, efer=Efer.LME | Efer.LMA)


def compatibility_mode(machine: Machine, *, eip: int, gdt: TableRegister, cr3: int) -> None:
    """32-bit code under long mode's 4-level paging."""
    long_mode(machine, rip=eip, gdt=gdt, cr3=cr3)
    machine.engine.set_segment(CS, SegmentCache(BOOT_CODE_SELECTOR, 0, _FLAT, _CODE_32))
    machine.engine.settle()
