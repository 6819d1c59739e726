"""SYSCALL, SYSRET, SYSENTER and SYSEXIT on paper."""

from __future__ import annotations

import pytest

from emu.x86.bits import Cr0, Efer, Eflags
from emu.x86.control import ControlState, Refusal
from emu.x86.system_calls import CallRegisters, Transfer, syscall, sysenter, sysexit, sysret

LONG = ControlState(cr0=Cr0.PE | Cr0.PG, cr4=0x20, efer=Efer.SCE | Efer.LME | Efer.LMA, cpl=0, cs_long=True)
FAR = 0x4000_0000_0000_0000
CALLS = CallRegisters(
    next_rip=0x401002, rflags=0x10646, rcx=0x401002, rdx=0x402000, r11=0x3F7FD7, star=0x0023_0010 << 32,
    lstar=0xFFFF_8000_0000_1000, fmask=0x600, sysenter_cs=0x60, sysenter_esp=0x9000, sysenter_eip=0xC0001000,
)  # fmt: skip


def done(result: Refusal | Transfer) -> Transfer:
    assert isinstance(result, Transfer)
    return result


def refused(result: Refusal | Transfer) -> tuple[int, int | None]:
    assert isinstance(result, Refusal)
    return result.vector, result.error_code


def rings(one: Transfer) -> tuple[int, int, bool, bool]:
    """DPL of CS and SS, L and D of CS."""
    return one.cs.flags >> 13 & 3, one.ss.flags >> 13 & 3, bool(one.cs.flags >> 21 & 1), bool(one.cs.flags >> 22 & 1)


class TestSyscall:
    def test_what_it_loads(self) -> None:
        one = done(syscall(LONG, CALLS))
        assert (one.cs.selector, one.ss.selector, one.rip) == (0x10, 0x18, CALLS.lstar)
        assert (one.rcx, one.r11, one.rsp) == (0x401002, 0x10646, None)
        assert one.rflags == 0x46, "FMASK and RF are gone"
        assert rings(one) == (0, 0, True, False)

    def test_where_it_is_undefined(self) -> None:
        for state in (ControlState(efer=Efer.SCE), ControlState(efer=Efer.LMA | Efer.LME, cs_long=True)):
            assert refused(syscall(state, CALLS)) == (6, None)
            assert refused(sysret(state, CALLS, wide=True)) == (6, None)


class TestSysret:
    @pytest.mark.parametrize(("wide", "cs", "bits"), [(True, 0x33, (True, False)), (False, 0x23, (False, True))])
    def test_both_widths(self, wide: bool, cs: int, bits: tuple[bool, bool]) -> None:
        one = done(sysret(LONG, CALLS, wide=wide))
        assert (one.cs.selector, one.ss.selector, one.rip) == (cs, 0x2B, 0x401002)
        assert rings(one) == (3, 3, *bits)
        assert one.rflags == CALLS.r11 & 0x3C7FD7 | 2

    def test_what_it_refuses(self) -> None:
        assert refused(sysret(LONG, CallRegisters(rcx=FAR), wide=True)) == (13, 0)
        assert done(sysret(LONG, CallRegisters(rcx=FAR), wide=False)).rip == 0
        in_ring_3 = ControlState(cr0=LONG.cr0, efer=LONG.efer, cpl=3, cs_long=True)
        assert refused(sysret(in_ring_3, CALLS, wide=True)) == (13, 0)


class TestSysenter:
    def test_what_it_loads(self) -> None:
        one = done(sysenter(ControlState(), CALLS))
        assert (one.cs.selector, one.ss.selector, one.rip, one.rsp) == (0x60, 0x68, 0xC0001000, 0x9000)
        assert not one.rflags & (Eflags.IF | Eflags.VM)
        assert rings(one) == (0, 0, False, True)
        assert rings(done(sysenter(LONG, CALLS))) == (0, 0, True, False)

    def test_what_it_refuses(self) -> None:
        assert refused(sysenter(ControlState(), CallRegisters(sysenter_cs=3))) == (13, 0)
        assert refused(sysenter(ControlState(cr0=0), CALLS)) == (13, 0)


class TestSysexit:
    @pytest.mark.parametrize(("wide", "cs", "ss"), [(False, 0x73, 0x7B), (True, 0x83, 0x8B)])
    def test_both_widths(self, wide: bool, cs: int, ss: int) -> None:
        one = done(sysexit(LONG, CALLS, wide=wide))
        assert (one.cs.selector, one.ss.selector, one.rip, one.rsp) == (cs, ss, 0x402000, 0x401002)
        assert rings(one) == (3, 3, wide, not wide)

    def test_what_it_refuses(self) -> None:
        assert refused(sysexit(ControlState(cpl=3), CALLS, wide=False)) == (13, 0)
        assert refused(sysexit(ControlState(), CallRegisters(), wide=False)) == (13, 0)
        assert refused(sysexit(LONG, CallRegisters(sysenter_cs=0x60, rdx=FAR), wide=True)) == (13, 0)
        assert refused(sysexit(ControlState(cr0=0), CALLS, wide=False)) == (13, 0)
