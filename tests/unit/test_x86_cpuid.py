"""CPUID claims what the machine does."""

from __future__ import annotations

import pytest

from emu.machine.devices.clock import PIT_HZ, TICKS_PER_PIT_CLOCK, TICKS_PER_SECOND
from emu.x86.bits import CR4_SUPPORTED, MAXPHYADDR, Cr4
from emu.x86.control import ControlState
from emu.x86.cpuid import BRAND, Leaf, cpuid

LONG = ControlState(cr4=Cr4.PAE, efer=0x501, cs_long=True)


def ask(eax: int, ecx: int = 0, state: ControlState = LONG) -> Leaf:
    return cpuid(state, eax, ecx, TICKS_PER_SECOND)


def test_the_vendor_and_the_brand() -> None:
    leaf = ask(0)
    assert b"".join(part.to_bytes(4, "little") for part in (leaf.ebx, leaf.edx, leaf.ecx)) == b"GenuineIntel"
    text = b"".join(word.to_bytes(4, "little") for number in (2, 3, 4) for word in ask(0x80000000 | number))
    assert text.rstrip(b"\0") == BRAND


@pytest.mark.parametrize(
    ("leaf", "register", "bit", "cr4"),
    [
        (1, "edx", 13, Cr4.PGE), (1, "edx", 3, Cr4.PSE), (1, "edx", 6, Cr4.PAE), (1, "ecx", 17, Cr4.PCIDE),
        (1, "ecx", 26, Cr4.OSXSAVE), (7, "ebx", 0, Cr4.FSGSBASE), (7, "ebx", 7, Cr4.SMEP), (7, "ebx", 20, Cr4.SMAP),
        (7, "ecx", 2, Cr4.UMIP), (7, "ecx", 16, Cr4.LA57), (7, "ecx", 3, Cr4.PKE), (1, "ecx", 5, Cr4.VMXE),
    ],
)  # fmt: skip
def test_cpuid_claims_what_cr4_accepts(leaf: int, register: str, bit: int, cr4: int) -> None:
    claimed = getattr(ask(leaf), register) >> bit & 1
    assert claimed == bool(CR4_SUPPORTED & cr4)


def test_what_the_engine_does_with_sse_on_only_is_not_claimed() -> None:
    """SHLX of BMI2, ADCX of ADX: see test_shlx_wants_osfxsr."""
    assert not ask(7).ebx & (1 << 8 | 1 << 19)


def test_leaf_15h_is_the_clock_of_the_timer() -> None:
    leaf = ask(0x15)
    assert leaf.ecx * leaf.ebx // leaf.eax == PIT_HZ * TICKS_PER_PIT_CLOCK
    assert ask(0x80000007).edx == 1 << 8


def test_what_follows_from_the_mode() -> None:
    assert not ask(1).ecx >> 27 & 1
    assert ask(1, state=ControlState(cr4=Cr4.OSXSAVE)).ecx >> 27 & 1
    assert ask(0x80000001).edx >> 11 & 1
    assert not ask(0x80000001, state=ControlState()).edx >> 11 & 1


def test_leaves_that_are_not_there() -> None:
    assert ask(7, 1) == ask(0xB) == ask(0x80000005) == Leaf()
    assert ask(0x17) == ask(0x16)
    assert ask(0x80000008).eax & 0xFF == MAXPHYADDR
    assert not ask(1).edx & (1 << 9 | 1 << 12 | 1 << 7), "no APIC, no MTRRs, no machine check"
