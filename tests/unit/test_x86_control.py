"""The rules for control registers, MSRs and I/O: each with what is refused and what is accepted beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.x86.bits import Cr0, Cr4, Efer, Eflags, Msr
from emu.x86.control import (
    ControlState,
    CpuMode,
    PortAccess,
    Refusal,
    check_cli_sti,
    check_cr0_write,
    check_cr3_write,
    check_cr4_write,
    check_cr_access,
    check_io,
    check_pdptes,
    check_rdmsr,
    check_wrmsr,
    cpu_mode,
    efer_after_write,
    loads_pdptes,
)
from emu.x86.exceptions import Vector

ON = Cr0.PE | Cr0.PG | Cr0.WP | Cr0.ET
PROTECTED = ControlState(cr0=Cr0.PE | Cr0.ET)
PAGED = ControlState(cr0=ON)
ARMED = ControlState(cr0=Cr0.PE, cr4=Cr4.PAE, efer=Efer.LME)
"""Protected mode, ready to enter IA-32e mode by setting PG."""
LONG = ControlState(cr0=ON, cr4=Cr4.PAE, efer=Efer.LME | Efer.LMA, cs_long=True, cs_db=False)
COMPATIBILITY = replace(LONG, cs_long=False, cs_db=True)


def refused(result: Refusal | None, words: str) -> bool:
    """Whether ``result`` is a #GP(0) whose reason has these words."""
    return result is not None and (result.vector, result.error_code) == (Vector.GP, 0) and words in result.reason


class TestCr0:
    """MOV to CR0."""

    def test_pg_needs_pe(self) -> None:
        assert refused(check_cr0_write(PROTECTED, Cr0.PG), "CR0.PE=0")
        assert check_cr0_write(PROTECTED, Cr0.PG | Cr0.PE) is None
        assert refused(check_cr0_write(PAGED, PAGED.cr0 & ~Cr0.PE), "CR0.PE=0")

    def test_nw_needs_cd(self) -> None:
        assert refused(check_cr0_write(PROTECTED, Cr0.PE | Cr0.NW), "CR0.CD=0")
        assert check_cr0_write(PROTECTED, Cr0.PE | Cr0.NW | Cr0.CD) is None
        assert check_cr0_write(PROTECTED, Cr0.PE | Cr0.CD) is None

    def test_upper_half_is_reserved_and_other_reserved_bits_are_dropped(self) -> None:
        assert refused(check_cr0_write(LONG, LONG.cr0 | 1 << 32), "0x100000000")
        assert check_cr0_write(LONG, LONG.cr0 | 1 << 28 | 1 << 7) is None

    def test_pg_with_lme_needs_pae(self) -> None:
        assert refused(check_cr0_write(replace(ARMED, cr4=0), Cr0.PE | Cr0.PG), "CR4.PAE=0")
        assert check_cr0_write(ARMED, Cr0.PE | Cr0.PG) is None
        assert check_cr0_write(replace(ARMED, cr4=0, efer=0), Cr0.PE | Cr0.PG) is None

    def test_pg_with_lme_needs_a_cs_without_l(self) -> None:
        assert refused(check_cr0_write(replace(ARMED, cs_long=True), Cr0.PE | Cr0.PG), "CS.L=1")
        assert check_cr0_write(replace(ARMED, cs_long=True, efer=0), Cr0.PE | Cr0.PG) is None

    def test_pg_with_lme_needs_no_16_bit_tss(self) -> None:
        assert refused(check_cr0_write(replace(ARMED, tss16=True), Cr0.PE | Cr0.PG), "16-bit TSS")
        assert check_cr0_write(replace(ARMED, tss16=True, efer=0), Cr0.PE | Cr0.PG) is None

    def test_pg_cannot_be_cleared_in_64_bit_mode(self) -> None:
        assert refused(check_cr0_write(LONG, LONG.cr0 & ~Cr0.PG), "64-bit mode")
        assert check_cr0_write(COMPATIBILITY, LONG.cr0 & ~Cr0.PG) is None

    def test_pg_cannot_be_cleared_with_pcide(self) -> None:
        state = replace(COMPATIBILITY, cr4=Cr4.PAE | Cr4.PCIDE)
        assert refused(check_cr0_write(state, state.cr0 & ~Cr0.PG), "PCIDE")
        assert check_cr0_write(state, state.cr0) is None

    def test_wp_cannot_be_cleared_with_cet(self) -> None:
        state = replace(LONG, cr4=Cr4.PAE | Cr4.CET)
        assert refused(check_cr0_write(state, state.cr0 & ~Cr0.WP), "clear CET first")
        assert check_cr0_write(LONG, LONG.cr0 & ~Cr0.WP) is None


class TestCr3:
    """MOV to CR3."""

    def test_bits_above_maxphyaddr(self) -> None:
        assert refused(check_cr3_write(LONG, 1 << 40), "MAXPHYADDR is 40")
        assert check_cr3_write(LONG, (1 << 40) - 0x1000) is None

    def test_no_flush_needs_pcide(self) -> None:
        assert refused(check_cr3_write(LONG, 1 << 63 | 0x1000), "0x8000000000000000")
        assert check_cr3_write(replace(LONG, cr4=Cr4.PAE | Cr4.PCIDE), 1 << 63 | 0x1005) is None

    def test_low_bits_are_no_error(self) -> None:
        assert check_cr3_write(PAGED, 0x1FFF) is None


class TestCr4:
    """MOV to CR4."""

    @pytest.mark.parametrize("bit", [Cr4.VMXE, Cr4.SMXE, Cr4.PKE, 1 << 15, 1 << 31, 1 << 40])
    def test_bits_that_this_processor_lacks(self, bit: int) -> None:
        assert refused(check_cr4_write(PAGED, bit), "does not have")

    @pytest.mark.parametrize("bit", [Cr4.PSE, Cr4.PGE, Cr4.SMEP, Cr4.SMAP, Cr4.UMIP, Cr4.FSGSBASE, Cr4.OSFXSR, Cr4.MCE])
    def test_bits_that_it_has(self, bit: int) -> None:
        assert check_cr4_write(PAGED, bit) is None

    def test_pae_stays_in_long_mode(self) -> None:
        assert refused(check_cr4_write(LONG, 0), "PAE cleared")
        assert refused(check_cr4_write(COMPATIBILITY, 0), "PAE cleared")
        assert check_cr4_write(replace(PAGED, cr4=Cr4.PAE), 0) is None

    def test_la57_stays_in_long_mode(self) -> None:
        assert refused(check_cr4_write(LONG, Cr4.PAE | Cr4.LA57), "LA57 changed")
        five = replace(LONG, cr4=Cr4.PAE | Cr4.LA57)
        assert refused(check_cr4_write(five, Cr4.PAE), "LA57 changed")
        assert check_cr4_write(five, Cr4.PAE | Cr4.LA57 | Cr4.PGE) is None
        assert check_cr4_write(ARMED, Cr4.PAE | Cr4.LA57) is None

    def test_pcide_needs_long_mode(self) -> None:
        assert refused(check_cr4_write(ARMED, Cr4.PAE | Cr4.PCIDE), "outside IA-32e mode")
        assert check_cr4_write(LONG, Cr4.PAE | Cr4.PCIDE) is None

    def test_pcide_needs_clear_low_bits_of_cr3(self) -> None:
        state = replace(LONG, cr3=0x1005)
        assert refused(check_cr4_write(state, Cr4.PAE | Cr4.PCIDE), "CR3[11:0] is 0x5")
        already = replace(state, cr4=Cr4.PAE | Cr4.PCIDE)
        assert check_cr4_write(already, Cr4.PAE | Cr4.PCIDE | Cr4.PGE) is None
        assert check_cr4_write(already, Cr4.PAE) is None

    def test_cet_needs_wp(self) -> None:
        assert refused(check_cr4_write(replace(LONG, cr0=ON & ~Cr0.WP), Cr4.PAE | Cr4.CET), "WP=0")
        assert check_cr4_write(LONG, Cr4.PAE | Cr4.CET) is None


class TestPrivilege:
    """CPL, and control registers that do not exist."""

    @pytest.mark.parametrize("number", [1, 5, 6, 7, 9, 15])
    def test_control_registers_that_do_not_exist(self, number: int) -> None:
        result = check_cr_access(replace(LONG, cpl=3), number)
        assert result is not None
        assert (result.vector, result.error_code) == (Vector.UD, None)

    @pytest.mark.parametrize("number", [0, 2, 3, 4, 8])
    def test_control_registers_at_each_privilege(self, number: int) -> None:
        assert check_cr_access(LONG, number) is None
        assert refused(check_cr_access(replace(LONG, cpl=3), number), "CPL 3")

    def test_writes_and_msrs_at_cpl_3(self) -> None:
        user = replace(LONG, cpl=3)
        assert refused(check_cr0_write(user, user.cr0), "CPL 3")
        assert refused(check_cr3_write(user, 0), "CPL 3")
        assert refused(check_cr4_write(user, user.cr4), "CPL 3")
        assert refused(check_rdmsr(user, Msr.EFER), "RDMSR at CPL 3")
        assert refused(check_wrmsr(user, Msr.EFER, 0), "WRMSR at CPL 3")


class TestMsr:
    """RDMSR and WRMSR."""

    def test_unknown_numbers(self) -> None:
        assert refused(check_rdmsr(LONG, 0x1234), "no MSR 0x1234")
        assert refused(check_wrmsr(LONG, 0x1234, 0), "no MSR 0x1234")
        assert check_rdmsr(LONG, Msr.PAT) is None

    def test_efer_reserved_bits(self) -> None:
        assert refused(check_wrmsr(LONG, Msr.EFER, LONG.efer | 1 << 12), "0x1000")
        assert check_wrmsr(LONG, Msr.EFER, LONG.efer | Efer.NXE | Efer.SCE) is None

    def test_lme_stays_while_paging(self) -> None:
        assert refused(check_wrmsr(LONG, Msr.EFER, Efer.NXE), "LME changed")
        assert refused(check_wrmsr(PAGED, Msr.EFER, Efer.LME), "LME changed")
        assert check_wrmsr(PROTECTED, Msr.EFER, Efer.LME) is None

    def test_lma_is_read_only(self) -> None:
        assert efer_after_write(LONG, Efer.LME | Efer.NXE) == Efer.LME | Efer.LMA | Efer.NXE
        assert efer_after_write(PROTECTED, Efer.LME | Efer.LMA) == Efer.LME

    @pytest.mark.parametrize("msr", [Msr.FS_BASE, Msr.GS_BASE, Msr.KERNEL_GS_BASE, Msr.LSTAR, Msr.SYSENTER_ESP])
    def test_bases_are_canonical(self, msr: Msr) -> None:
        assert refused(check_wrmsr(LONG, msr, 1 << 57), "not canonical")
        assert check_wrmsr(LONG, msr, 0xFFFF_8000_0000_0000) is None
        assert check_wrmsr(LONG, msr, 1 << 50) is None

    def test_pat_types(self) -> None:
        assert refused(check_wrmsr(LONG, Msr.PAT, 0x0007040600070402), "reserved memory type")
        assert check_wrmsr(LONG, Msr.PAT, 0x0007040600070406) is None

    def test_reserved_and_read_only(self) -> None:
        assert refused(check_wrmsr(LONG, Msr.TSC_AUX, 1 << 32), "reserved bits")
        assert check_wrmsr(LONG, Msr.TSC_AUX, 7) is None
        assert refused(check_wrmsr(LONG, Msr.MTRRCAP, 0), "read-only")
        assert refused(check_wrmsr(LONG, Msr.APIC_BASE, 0xFEE00901), "reserved bits 0x1")
        assert check_wrmsr(LONG, Msr.APIC_BASE, 0xFEE00900) is None


class TestPdptes:
    """Page-directory-pointer entries under PAE paging."""

    def test_reserved_bits_count_in_present_entries_only(self) -> None:
        assert check_pdptes([0x1001, 0x2001, 0, 0x19]) is None
        assert check_pdptes([0x1001, 0x3006 & ~1, 0, 0]) is None
        assert refused(check_pdptes([0x1001, 0x2003, 0, 0]), "PDPTE 1")
        assert refused(check_pdptes([1 << 63 | 1, 0, 0, 0]), "PDPTE 0")
        assert refused(check_pdptes([0, 0, 0, 1 << 40 | 1]), "PDPTE 3")

    def test_what_loads_them(self) -> None:
        pae = replace(PAGED, cr4=Cr4.PAE)
        assert loads_pdptes(pae, 3, 0x1000)
        assert not loads_pdptes(PAGED, 3, 0x1000)
        assert not loads_pdptes(LONG, 3, 0x1000)
        assert loads_pdptes(replace(PROTECTED, cr4=Cr4.PAE), 0, ON)
        assert not loads_pdptes(pae, 0, pae.cr0 ^ Cr0.WP)
        assert loads_pdptes(pae, 4, Cr4.PAE | Cr4.PGE)
        assert not loads_pdptes(pae, 4, Cr4.PAE | Cr4.OSFXSR)
        assert not loads_pdptes(pae, 4, 0)


class TestIo:
    """I/O privilege and the permission map."""

    USER = ControlState(cr0=ON, cpl=3)
    MAP = bytes([0b1111_1011, 0b0111_1111, 0xFF])

    def test_privileged_enough(self) -> None:
        assert check_io(PAGED, PortAccess(0x80, 1), None) is None
        assert check_io(replace(self.USER, eflags=3 << 12), PortAccess(0x80, 4), None) is None
        assert check_io(replace(self.USER, cr0=0), PortAccess(0x80, 1), None) is None

    def test_without_a_map(self) -> None:
        assert refused(check_io(self.USER, PortAccess(0x80, 1), None), "no permission map")
        assert refused(check_io(replace(self.USER, eflags=2 << 12), PortAccess(0x80, 1), None), "IOPL 2")

    def test_each_bit_of_the_access_must_be_clear(self) -> None:
        assert check_io(self.USER, PortAccess(2, 1), self.MAP) is None
        assert refused(check_io(self.USER, PortAccess(2, 2), self.MAP), "forbids")
        assert refused(check_io(self.USER, PortAccess(3, 1), self.MAP), "forbids")
        assert check_io(self.USER, PortAccess(15, 1), self.MAP) is None
        assert refused(check_io(self.USER, PortAccess(15, 2), self.MAP), "forbids")

    def test_the_byte_after_must_be_inside_the_tss(self) -> None:
        assert check_io(self.USER, PortAccess(15, 1), self.MAP) is None
        assert refused(check_io(self.USER, PortAccess(15, 1), self.MAP[:2]), "no permission map")

    def test_virtual_8086_mode_always_asks_the_map(self) -> None:
        state = replace(self.USER, eflags=Eflags.VM | 3 << 12)
        assert refused(check_io(state, PortAccess(0x80, 1), None), "no permission map")
        assert check_io(state, PortAccess(2, 1), self.MAP) is None

    def test_interrupt_flag(self) -> None:
        assert refused(check_cli_sti(self.USER), "CPL 3")
        assert check_cli_sti(replace(self.USER, eflags=3 << 12)) is None
        assert check_cli_sti(PAGED) is None


@pytest.mark.parametrize(
    ("state", "label", "bits"),
    [
        (ControlState(cr0=0, cs_db=False), "16-bit real", 16),
        (ControlState(cr0=0), "32-bit real", 32),
        (replace(PAGED, eflags=Eflags.VM), "virtual-8086", 16),
        (PROTECTED, "32-bit protected", 32),
        (replace(PROTECTED, cs_db=False), "16-bit protected", 16),
        (PAGED, "32-bit protected 2-level", 32),
        (replace(PAGED, cr4=Cr4.PAE), "32-bit protected PAE", 32),
        (ARMED, "32-bit protected", 32),
        (LONG, "64-bit long 4-level", 64),
        (replace(LONG, cr4=Cr4.PAE | Cr4.LA57), "64-bit long 5-level", 64),
        (COMPATIBILITY, "32-bit compatibility 4-level", 32),
        (replace(COMPATIBILITY, cs_db=False, cr4=Cr4.PAE | Cr4.LA57), "16-bit compatibility 5-level", 16),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_mode_labels(state: ControlState, label: str, bits: int) -> None:
    mode = cpu_mode(state)
    assert mode.label == str(mode) == label
    assert mode.bits == bits
    assert mode.is_long is state.long_active
    assert mode.is_real is (not state.cr0 & Cr0.PE)


def test_every_mode_is_reached() -> None:
    reached = {
        cpu_mode(ControlState(cr0=cr0, cr4=cr4, efer=efer, eflags=eflags, cs_long=cs_long, cs_db=cs_db))
        for cr0 in (0, 1, ON)
        for cr4 in (0, Cr4.PAE, Cr4.PAE | Cr4.LA57)
        for efer in (0, Efer.LMA)
        for eflags in (2, Eflags.VM)
        for cs_long in (False, True)
        for cs_db in (False, True)
        if not efer or (cr0 == ON and cr4)
    }
    assert reached == set(CpuMode)
