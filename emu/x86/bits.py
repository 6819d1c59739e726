"""Bits of the control, flag and debug registers, and the numbers of the model-specific registers.

The tables are ``IntEnum`` classes, so ``cr0 & Cr0.PG`` is a plain ``int`` and iteration gives every name in
order of its bit.  Sources: Intel SDM volume 3A 2.3 (EFLAGS), 2.5 (CR0 to CR4), 2.2.1 (EFER), volume 3B 18.2
(debug registers), volume 4 table 2-2 (MSR numbers).

The processor that kjump models: an Intel CPU with long mode, NX, PAE, PSE with PSE-36, PGE, FXSR, SSE2, SYSCALL,
1-GByte pages, PCID, SMEP, SMAP, LA57, FSGSBASE, UMIP, XSAVE and 40 physical address bits.  CR4.CET is accepted,
for the sake of its rule with CR0.WP; shadow stacks themselves are not modelled.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

MAXPHYADDR: Final = 40
"""Width of a physical address of this CPU in bits (CPUID.80000008H:EAX[7:0])."""
PHYS_MASK: Final = (1 << MAXPHYADDR) - 1
"""Every bit that a physical address may have."""
U16: Final = (1 << 16) - 1
U32: Final = (1 << 32) - 1
U64: Final = (1 << 64) - 1


class Cr0(IntEnum):
    """CR0, SDM 3A 2.5."""

    PE = 1 << 0
    MP = 1 << 1
    EM = 1 << 2
    TS = 1 << 3
    ET = 1 << 4
    NE = 1 << 5
    WP = 1 << 16
    AM = 1 << 18
    NW = 1 << 29
    CD = 1 << 30
    PG = 1 << 31


class Cr3(IntEnum):
    """The bits of CR3 that are no address, SDM 3A 2.5; NO_FLUSH only in the operand of a MOV with CR4.PCIDE=1."""

    PWT = 1 << 3
    PCD = 1 << 4
    NO_FLUSH = 1 << 63


class Cr4(IntEnum):
    """CR4, SDM 3A 2.5."""

    VME = 1 << 0
    PVI = 1 << 1
    TSD = 1 << 2
    DE = 1 << 3
    PSE = 1 << 4
    PAE = 1 << 5
    MCE = 1 << 6
    PGE = 1 << 7
    PCE = 1 << 8
    OSFXSR = 1 << 9
    OSXMMEXCPT = 1 << 10
    UMIP = 1 << 11
    LA57 = 1 << 12
    VMXE = 1 << 13
    SMXE = 1 << 14
    FSGSBASE = 1 << 16
    PCIDE = 1 << 17
    OSXSAVE = 1 << 18
    KL = 1 << 19
    SMEP = 1 << 20
    SMAP = 1 << 21
    PKE = 1 << 22
    CET = 1 << 23
    PKS = 1 << 24
    UINTR = 1 << 25


class Efer(IntEnum):
    """IA32_EFER, SDM 3A 2.2.1."""

    SCE = 1 << 0
    LME = 1 << 8
    LMA = 1 << 10
    NXE = 1 << 11


class Eflags(IntEnum):
    """EFLAGS without its two-bit IOPL (see :data:`IOPL_MASK`), SDM 3A 2.3 and 1 3.4.3."""

    CF = 1 << 0
    PF = 1 << 2
    AF = 1 << 4
    ZF = 1 << 6
    SF = 1 << 7
    TF = 1 << 8
    IF = 1 << 9
    DF = 1 << 10
    OF = 1 << 11
    NT = 1 << 14
    RF = 1 << 16
    VM = 1 << 17
    AC = 1 << 18
    VIF = 1 << 19
    VIP = 1 << 20
    ID = 1 << 21


EFLAGS_FIXED: Final = 1 << 1
"""Bit 1 of EFLAGS, which always reads 1."""
IOPL_SHIFT: Final = 12
IOPL_MASK: Final = 3 << IOPL_SHIFT


class Dr6(IntEnum):
    """DR6, SDM 3B 18.2.3."""

    B0 = 1 << 0
    B1 = 1 << 1
    B2 = 1 << 2
    B3 = 1 << 3
    BD = 1 << 13
    BS = 1 << 14
    BT = 1 << 15


class Dr7(IntEnum):
    """The one-bit fields of DR7, SDM 3B 18.2.4; the condition and length fields sit above bit 16."""

    L0 = 1 << 0
    G0 = 1 << 1
    L1 = 1 << 2
    G1 = 1 << 3
    L2 = 1 << 4
    G2 = 1 << 5
    L3 = 1 << 6
    G3 = 1 << 7
    LE = 1 << 8
    GE = 1 << 9
    GD = 1 << 13


DR6_INITIAL: Final = 0xFFFF0FF0
"""DR6 after reset, SDM 3A table 10-1."""
DR7_INITIAL: Final = 0x400
"""DR7 after reset, SDM 3A table 10-1: no breakpoint armed."""
DR7_ARMED: Final = Dr7.L0 | Dr7.G0 | Dr7.L1 | Dr7.G1 | Dr7.L2 | Dr7.G2 | Dr7.L3 | Dr7.G3
"""The enable bits of DR7: any of them arms a breakpoint."""


class Msr(IntEnum):
    """The model-specific registers that this CPU has, SDM 4 table 2-2; every other number is a #GP(0)."""

    TSC = 0x10
    APIC_BASE = 0x1B
    BIOS_SIGN_ID = 0x8B
    MTRRCAP = 0xFE
    SYSENTER_CS = 0x174
    SYSENTER_ESP = 0x175
    SYSENTER_EIP = 0x176
    MCG_CAP = 0x179
    MCG_STATUS = 0x17A
    MISC_ENABLE = 0x1A0
    PAT = 0x277
    MTRR_DEF_TYPE = 0x2FF
    U_CET = 0x6A0
    S_CET = 0x6A2
    EFER = 0xC000_0080
    STAR = 0xC000_0081
    LSTAR = 0xC000_0082
    CSTAR = 0xC000_0083
    FMASK = 0xC000_0084
    FS_BASE = 0xC000_0100
    GS_BASE = 0xC000_0101
    KERNEL_GS_BASE = 0xC000_0102
    TSC_AUX = 0xC000_0103


CR0_SUPPORTED: Final = sum(Cr0)
"""Every defined bit of CR0.  Reserved bits below 32 are ignored when written, those above give #GP(0)."""

CR4_SUPPORTED: Final = (
    (Cr4.VME | Cr4.PVI | Cr4.TSD | Cr4.DE | Cr4.PSE | Cr4.PAE | Cr4.MCE | Cr4.PGE | Cr4.PCE | Cr4.OSFXSR)
    | (Cr4.OSXMMEXCPT | Cr4.UMIP | Cr4.LA57 | Cr4.FSGSBASE | Cr4.PCIDE | Cr4.OSXSAVE)
    | (Cr4.SMEP | Cr4.SMAP | Cr4.CET)
)
"""The CR4 bits of this CPU; setting any other is a #GP(0), SDM 3A 2.5."""

EFER_SUPPORTED: Final = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE
"""The EFER bits of this CPU; setting any other is a #GP(0).  LMA is read-only: what is written there is ignored."""


def decode(value: int, table: type[IntEnum]) -> str:
    """The names of the bits of ``value`` from bit 0 up, as ``"PE WP PG"``; bits without a name follow as ``+0x..``."""
    names = [bit.name for bit in table if value & bit]
    rest = value & ~sum(table)
    return " ".join([*names, f"+{rest:#x}"] if rest else names)


def decode_eflags(value: int) -> str:
    """EFLAGS as ``"ZF IF IOPL=3"``: the fixed bit 1 is left out and IOPL is shown when it is not 0."""
    text = decode(value & ~(IOPL_MASK | EFLAGS_FIXED), Eflags)
    iopl = (value & IOPL_MASK) >> IOPL_SHIFT
    return f"{text} IOPL={iopl}".strip() if iopl else text


def decode_cr3(value: int) -> str:
    """CR3 as its table's physical address and its low flags, as ``"p:0x1000 PCD"``."""
    flags = decode(value & (Cr3.PWT | Cr3.PCD), Cr3)
    return f"p:{value & PHYS_MASK & ~0xFFF:#x} {flags}".strip()


def msr_name(number: int) -> str:
    """The name of a model-specific register of this CPU, or its number in hexadecimal."""
    try:
        return Msr(number).name
    except ValueError:
        return f"{number:#x}"
