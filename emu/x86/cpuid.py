"""What CPUID says: the one processor model of the machine, leaf by leaf (SDM 2A CPUID).

It claims what the machine does and nothing more: no APIC, no MTRRs, no machine check, no performance counters, nothing
wider than SSE.  Family 6 model 36H is an Intel core without speculative execution, and neither has the machine any.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from emu.x86.bits import MAXPHYADDR, Cr4
from emu.x86.control import ControlState

VENDOR: Final = b"GenuineIntel"
BRAND: Final = b"kjump x86 processor, in order"
SIGNATURE: Final = 0x00030661
"""CPUID.1:EAX: family 6, model 36H, stepping 1."""
_MOST_BASIC: Final = 0x16
_MOST_EXTENDED: Final = 0x80000008
_LINEAR_BITS: Final = 57
_XSAVE_SIZE: Final = 576
_LINE: Final = 8  # CLFLUSH line in quadwords


class Feature1Edx(IntEnum):
    """CPUID.1:EDX."""

    FPU = 1 << 0
    DE = 1 << 2
    PSE = 1 << 3
    TSC = 1 << 4
    MSR = 1 << 5
    PAE = 1 << 6
    CX8 = 1 << 8
    SEP = 1 << 11
    PGE = 1 << 13
    CMOV = 1 << 15
    PAT = 1 << 16
    PSE36 = 1 << 17
    CLFSH = 1 << 19
    MMX = 1 << 23
    FXSR = 1 << 24
    SSE = 1 << 25
    SSE2 = 1 << 26


class Feature1Ecx(IntEnum):
    """CPUID.1:ECX; OSXSAVE follows CR4."""

    SSE3 = 1 << 0
    PCLMULQDQ = 1 << 1
    SSSE3 = 1 << 9
    CX16 = 1 << 13
    PCID = 1 << 17
    SSE41 = 1 << 19
    SSE42 = 1 << 20
    MOVBE = 1 << 22
    POPCNT = 1 << 23
    AES = 1 << 25
    XSAVE = 1 << 26


_OSXSAVE: Final = 1 << 27


class Feature7Ebx(IntEnum):
    """CPUID.(7,0):EBX.  BMI2 and ADX are left out: the engine wants CR4.OSFXSR for SHLX and ADCX, hardware does not."""

    FSGSBASE = 1 << 0
    BMI1 = 1 << 3
    SMEP = 1 << 7
    SMAP = 1 << 20


class Feature7Ecx(IntEnum):
    """CPUID.(7,0):ECX."""

    UMIP = 1 << 2
    LA57 = 1 << 16


class ExtendedEdx(IntEnum):
    """CPUID.80000001H:EDX; SYSCALL shows in 64-bit mode only, as on Intel."""

    NX = 1 << 20
    PAGE1GB = 1 << 26
    RDTSCP = 1 << 27
    LM = 1 << 29


_SYSCALL: Final = 1 << 11


class ExtendedEcx(IntEnum):
    """CPUID.80000001H:ECX."""

    LAHF = 1 << 0
    LZCNT = 1 << 5


_INVARIANT_TSC: Final = 1 << 8


class Leaf(NamedTuple):
    """The four registers that CPUID loads."""

    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0


def _words(text: bytes) -> list[int]:
    return [int.from_bytes(text[at : at + 4], "little") for at in range(0, len(text), 4)]


def cpuid(state: ControlState, eax: int, ecx: int, tsc_hz: int) -> Leaf:
    """What CPUID gives for leaf ``eax``, subleaf ``ecx``; a leaf beyond the last gives the last basic one."""
    highest = _MOST_EXTENDED if eax >> 31 else _MOST_BASIC
    leaf = eax if eax <= highest else _MOST_BASIC
    if leaf >> 31:
        return _extended(state, leaf)
    match leaf:
        case 0:
            first, second, third = _words(VENDOR)
            return Leaf(_MOST_BASIC, first, third, second)
        case 1:
            osxsave = _OSXSAVE if state.cr4 & Cr4.OSXSAVE else 0
            return Leaf(SIGNATURE, _LINE << 8, sum(Feature1Ecx) | osxsave, sum(Feature1Edx))
        case 2:
            return Leaf(1)
        case 7 if ecx == 0:
            return Leaf(0, sum(Feature7Ebx), sum(Feature7Ecx))
        case 0xD if ecx == 0:
            return Leaf(3, _XSAVE_SIZE, _XSAVE_SIZE)
        case 0x15:
            return Leaf(1, 1, tsc_hz)
        case 0x16:
            mhz = round(tsc_hz / 1_000_000)
            return Leaf(mhz, mhz)
        case _:
            return Leaf()


def _extended(state: ControlState, leaf: int) -> Leaf:
    match leaf & 0xFF:
        case 0:
            return Leaf(_MOST_EXTENDED)
        case 1:
            return Leaf(0, 0, sum(ExtendedEcx), sum(ExtendedEdx) | (_SYSCALL if state.in_64bit else 0))
        case 2 | 3 | 4 as part:
            return Leaf(*_words(BRAND.ljust(48, b"\0"))[4 * (part - 2) : 4 * (part - 1)])
        case 7:
            return Leaf(0, 0, 0, _INVARIANT_TSC)
        case 8:
            return Leaf(_LINEAR_BITS << 8 | MAXPHYADDR)
        case _:
            return Leaf()
