"""The rules for writing control registers and MSRs and for I/O privilege, which the engine does not check.

Every function is pure: it looks at the registers as they are and at what is to be written, and returns None or the
exception that the processor raises, with its reason.  Sources: SDM 2B MOV to CRn, 3A 2.5, 4.1.2,
4.10.1, 4.4.1 and 10.8.5, volume 1 19.5, volume 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from emu.x86.bits import (
    CR4_SUPPORTED,
    EFER_SUPPORTED,
    IOPL_MASK,
    IOPL_SHIFT,
    MAXPHYADDR,
    PHYS_MASK,
    U32,
    U64,
    Cr0,
    Cr3,
    Cr4,
    Efer,
    Eflags,
    Msr,
    decode,
    msr_name,
)
from emu.x86.exceptions import Vector
from emu.x86.paging import PagingMode, is_canonical_base, mode_of
from emu.x86.paging.modes import Entry


@dataclass(frozen=True, slots=True)
class Refusal:
    """The exception that an instruction raises instead of doing its work."""

    vector: Vector
    error_code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class ControlState:
    """The registers that the rules depend on.

    ``cs_long`` and ``cs_db`` are the L and D bits of CS; ``tss16``: TR holds a 16-bit TSS.
    """

    cr0: int = Cr0.PE | Cr0.ET
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    eflags: int = 2
    cpl: int = 0
    cs_long: bool = False
    cs_db: bool = True
    tss16: bool = False

    @property
    def long_active(self) -> bool:
        """IA-32e mode (EFER.LMA=1), compatibility mode included."""
        return bool(self.efer & Efer.LMA)

    @property
    def in_64bit(self) -> bool:
        """64-bit mode: IA-32e mode with CS.L=1."""
        return self.long_active and self.cs_long

    @property
    def iopl(self) -> int:
        """EFLAGS.IOPL."""
        return (self.eflags & IOPL_MASK) >> IOPL_SHIFT


def check_cr_access(state: ControlState, number: int) -> Refusal | None:
    """MOV to or from control register ``number``: it exists, and CPL is 0, SDM 2B MOV to/from control registers."""
    if number not in {0, 2, 3, 4, 8}:
        return Refusal(Vector.UD, None, f"there is no CR{number} (SDM 2B MOV CRn)")
    return _privilege(state, f"MOV with CR{number}")


def check_cr0_write(state: ControlState, new: int) -> Refusal | None:
    """MOV to CR0; reserved bits below bit 32 are dropped by the processor and are no error, SDM 3A 2.5."""
    return (
        _privilege(state, "MOV to CR0")
        or _gp(new >> 32, f"reserved bits {new & ~U32:#x} of CR0 set (SDM 3A 2.5)")
        or _gp(new & Cr0.PG and not new & Cr0.PE, "CR0.PG=1 with CR0.PE=0 (SDM 3A 2.5)")
        or _gp(new & Cr0.NW and not new & Cr0.CD, "CR0.NW=1 with CR0.CD=0 (SDM 3A 2.5, table 12-5)")
        or _paging_on(state, new)
        or _paging_off(state, new)
        or _gp(
            not new & Cr0.WP and state.cr4 & Cr4.CET,
            "CR0.WP cleared while CR4.CET=1: clear CET first (SDM 3A 2.5)",
        )
    )


def _paging_on(state: ControlState, new: int) -> Refusal | None:
    if not new & Cr0.PG or state.cr0 & Cr0.PG or not state.efer & Efer.LME:
        return None
    return (
        _gp(not state.cr4 & Cr4.PAE, "CR0.PG set with EFER.LME=1 and CR4.PAE=0 (SDM 3A 4.1.2, 10.8.5)")
        or _gp(state.cs_long, "CR0.PG set with EFER.LME=1 while CS.L=1 (SDM 3A 10.8.5.1)")
        or _gp(state.tss16, "CR0.PG set with EFER.LME=1 while TR holds a 16-bit TSS (SDM 3A 10.8.5.1)")
    )


def _paging_off(state: ControlState, new: int) -> Refusal | None:
    if new & Cr0.PG or not state.cr0 & Cr0.PG:
        return None
    return _gp(state.in_64bit, "CR0.PG cleared in 64-bit mode: go to compatibility mode first (SDM 3A 4.1.2)") or _gp(
        state.cr4 & Cr4.PCIDE, "CR0.PG cleared while CR4.PCIDE=1 (SDM 3A 4.1.2)"
    )


def check_cr3_write(state: ControlState, new: int) -> Refusal | None:
    """MOV to CR3, SDM 2B; the PDPTEs that a load under PAE paging reads have their own :func:`check_pdptes`."""
    allowed = PHYS_MASK | (Cr3.NO_FLUSH if state.cr4 & Cr4.PCIDE else 0)
    extra = new & U64 & ~allowed
    return _privilege(state, "MOV to CR3") or _gp(
        extra, f"reserved bits {extra:#x} of CR3 set, MAXPHYADDR is {MAXPHYADDR} (SDM 3A 2.5, 4.5)"
    )


def check_cr4_write(state: ControlState, new: int) -> Refusal | None:
    """MOV to CR4, SDM 2B and 3A 2.5."""
    extra = new & ~CR4_SUPPORTED
    changed = state.cr4 ^ new
    starts_pcid = changed & new & Cr4.PCIDE
    return (
        _privilege(state, "MOV to CR4")
        or _gp(extra, f"CR4 bits that this processor does not have: {decode(extra, Cr4)} (SDM 3A 2.5)")
        or _gp(state.long_active and not new & Cr4.PAE, "CR4.PAE cleared in IA-32e mode (SDM 3A 4.1.2)")
        or _gp(state.long_active and changed & Cr4.LA57, "CR4.LA57 changed in IA-32e mode (SDM 3A 4.1.2)")
        or _gp(starts_pcid and not state.long_active, "CR4.PCIDE set outside IA-32e mode (SDM 3A 4.10.1)")
        or _gp(
            starts_pcid and state.cr3 & 0xFFF,
            f"CR4.PCIDE set while CR3[11:0] is {state.cr3 & 0xFFF:#x}, not 0 (SDM 3A 4.10.1)",
        )
        or _gp(
            new & Cr4.CET and not state.cr0 & Cr0.WP,
            "CR4.CET set while CR0.WP=0: set WP first (SDM 3A 2.5)",
        )
    )


def check_efer_write(state: ControlState, new: int) -> Refusal | None:
    """WRMSR to IA32_EFER at CPL 0, SDM 3A 2.2.1 and 4.1.2; see :func:`efer_after_write` for what it leaves."""
    extra = new & U64 & ~EFER_SUPPORTED
    return _gp(extra, f"reserved bits {extra:#x} of EFER set (SDM 3A 2.2.1)") or _gp(
        (state.efer ^ new) & Efer.LME and state.cr0 & Cr0.PG,
        "EFER.LME changed while CR0.PG=1 (SDM 3A 4.1.2)",
    )


def efer_after_write(state: ControlState, new: int) -> int:
    """EFER after an accepted WRMSR: LMA is read-only and keeps its value, SDM 3A table 2-1."""
    return (new & ~Efer.LMA) | (state.efer & Efer.LMA)


_CANONICAL: Final = frozenset(
    {Msr.SYSENTER_ESP, Msr.SYSENTER_EIP, Msr.LSTAR, Msr.CSTAR, Msr.FS_BASE, Msr.GS_BASE, Msr.KERNEL_GS_BASE}
)
_READ_ONLY: Final = frozenset({Msr.MTRRCAP, Msr.MCG_CAP})
_RESERVED: Final = {
    Msr.APIC_BASE: U64 & ~(PHYS_MASK & ~0xFFF | 0x900),
    Msr.TSC_AUX: U64 & ~U32,
}
_MEMORY_TYPES: Final = frozenset({0, 1, 4, 5, 6, 7})


def check_rdmsr(state: ControlState, number: int) -> Refusal | None:
    """RDMSR: CPL 0 and an MSR that this processor has, SDM 2B RDMSR."""
    return _privilege(state, "RDMSR") or _known(number)


def check_wrmsr(state: ControlState, number: int, value: int) -> Refusal | None:
    """WRMSR of a 64-bit ``value``: CPL 0, an MSR that exists and takes it, SDM 2B WRMSR."""
    refused = _privilege(state, "WRMSR") or _known(number)
    if refused:
        return refused
    msr = Msr(number)
    if msr is Msr.EFER:
        return check_efer_write(state, value)
    reserved = value & _RESERVED.get(msr, 0)
    return (
        _gp(msr in _READ_ONLY, f"MSR {msr.name} is read-only (SDM 4)")
        or _gp(
            msr in _CANONICAL and not is_canonical_base(value),
            f"{value:#x} for MSR {msr.name} is not canonical (SDM 2B WRMSR)",
        )
        or _gp(
            msr is Msr.PAT and not _valid_pat(value), f"PAT {value:#x} holds a reserved memory type (SDM 3A 12.12.2)"
        )
        or _gp(reserved, f"reserved bits {reserved:#x} of MSR {msr.name} set (SDM 4)")
    )


def _valid_pat(value: int) -> bool:
    return all(memory_type in _MEMORY_TYPES for memory_type in value.to_bytes(8, "little"))


def check_pdptes(values: Iterable[int]) -> Refusal | None:
    """The four PDPTEs that a load of CR3 (or of CR0, CR4) latches under PAE paging, SDM 3A 4.4.1."""
    reserved = 0x1E6 | U64 & ~PHYS_MASK
    for index, value in enumerate(values):
        if value & Entry.P and value & reserved:
            return Refusal(Vector.GP, 0, f"PDPTE {index} has reserved bits {value & reserved:#x} set (SDM 3A 4.4.1)")
    return None


def loads_pdptes(state: ControlState, register: int, new: int) -> bool:
    """Whether an accepted MOV of ``new`` to CR0, CR3 or CR4 (re)loads the PDPTEs, SDM 3A 4.4.1."""
    cr0 = new if register == 0 else state.cr0
    cr4 = new if register == 4 else state.cr4
    if not cr0 & Cr0.PG or not cr4 & Cr4.PAE or state.efer & Efer.LME:
        return False
    if register == 0:
        return bool((state.cr0 ^ new) & (Cr0.CD | Cr0.NW | Cr0.PG))
    if register == 4:
        return bool((state.cr4 ^ new) & (Cr4.PAE | Cr4.PGE | Cr4.PSE | Cr4.SMEP))
    return register == 3


@dataclass(frozen=True, slots=True)
class PortAccess:
    """An access to ``size`` (1, 2, 4) consecutive I/O ports."""

    port: int
    size: int


def check_io(state: ControlState, access: PortAccess, bitmap: bytes | None) -> Refusal | None:
    """IN, OUT, INS or OUTS, SDM 1 19.5.2.

    ``bitmap`` is the I/O permission map of the TSS: its bytes from the map base to the TSS limit, both included; None
    or empty if the TSS has none.  The processor reads two bytes of it, so the byte after the one in question counts.
    """
    if not state.cr0 & Cr0.PE or (state.cpl <= state.iopl and not state.eflags & Eflags.VM):
        return None
    where = f"I/O port {access.port:#x} at CPL {state.cpl}, IOPL {state.iopl}"
    first = access.port >> 3
    if bitmap is None or first + 2 > len(bitmap):
        return Refusal(Vector.GP, 0, f"{where}: the TSS has no permission map for it (SDM 1 19.5.2)")
    bits = int.from_bytes(bitmap[first : first + 2], "little") >> (access.port & 7)
    return _gp(bits & ((1 << access.size) - 1), f"{where}: the permission map of the TSS forbids it (SDM 1 19.5.2)")


def check_cli_sti(state: ControlState) -> Refusal | None:
    """CLI or STI outside virtual-8086 mode, without PVI: CPL may not exceed IOPL, SDM 2A CLI."""
    return _gp(
        state.cr0 & Cr0.PE and state.cpl > state.iopl,
        f"IF changed at CPL {state.cpl} with IOPL {state.iopl} (SDM 2A CLI)",
    )


class CpuMode(Enum):
    """Every combination of operating mode, width and paging; the value is its short label."""

    REAL_16 = "16-bit real"
    REAL_32 = "32-bit real"
    V86 = "virtual-8086"
    PROTECTED_16 = "16-bit protected"
    PROTECTED_16_TWO_LEVEL = "16-bit protected 2-level"
    PROTECTED_16_PAE = "16-bit protected PAE"
    PROTECTED_32 = "32-bit protected"
    PROTECTED_32_TWO_LEVEL = "32-bit protected 2-level"
    PROTECTED_32_PAE = "32-bit protected PAE"
    COMPATIBILITY_16_FOUR_LEVEL = "16-bit compatibility 4-level"
    COMPATIBILITY_16_FIVE_LEVEL = "16-bit compatibility 5-level"
    COMPATIBILITY_32_FOUR_LEVEL = "32-bit compatibility 4-level"
    COMPATIBILITY_32_FIVE_LEVEL = "32-bit compatibility 5-level"
    LONG_FOUR_LEVEL = "64-bit long 4-level"
    LONG_FIVE_LEVEL = "64-bit long 5-level"

    def __str__(self) -> str:
        """The short label, as panes show it."""
        return self.value

    @property
    def label(self) -> str:
        """The short label, as panes show it."""
        return self.value

    @property
    def bits(self) -> int:
        """The default operand width of code: 16, 32 or 64; virtual-8086 code has 16."""
        head = self.value[:2]
        return int(head) if head.isdecimal() else 16

    @property
    def is_long(self) -> bool:
        """IA-32e mode, compatibility mode included."""
        return "compatibility" in self.value or "long" in self.value

    @property
    def is_real(self) -> bool:
        """Real-address mode, whatever the width of CS."""
        return self in {CpuMode.REAL_16, CpuMode.REAL_32}


def cpu_mode(state: ControlState) -> CpuMode:
    """The mode that the processor is in."""
    width = "32-bit" if state.cs_db else "16-bit"
    if not state.cr0 & Cr0.PE:
        return CpuMode(f"{width} real")
    if state.eflags & Eflags.VM and not state.long_active:
        return CpuMode.V86
    paging = mode_of(state.cr0, state.cr4, state.efer)
    if not state.long_active:
        return CpuMode(f"{width} protected" if paging is PagingMode.NONE else f"{width} protected {paging.value}")
    if state.cs_long:
        return CpuMode(f"64-bit long {paging.value}")
    return CpuMode(f"{width} compatibility {paging.value}")


def _privilege(state: ControlState, what: str) -> Refusal | None:
    return _gp(state.cpl, f"{what} at CPL {state.cpl}")


def _known(number: int) -> Refusal | None:
    return _gp(number not in set(Msr), f"this processor has no MSR {msr_name(number)} (SDM 4)")


def _gp(broken: object, reason: str) -> Refusal | None:
    return Refusal(Vector.GP, 0, reason) if broken else None
