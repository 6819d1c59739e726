"""The register layout: gdb's standard numbers, and values that follow the machine in every mode."""

from __future__ import annotations

import pytest

from emu.debugger.gdb.registers import (
    BYTES,
    FEATURES,
    RBP,
    REGISTERS,
    RIP,
    RSP,
    decode_all,
    encode,
    encode_all,
    values_of,
    writable,
)
from emu.kexec.arch import Arch
from tests.gdb_bench import at_the_stub

NUMBERS = {register.name: number for number, register in enumerate(REGISTERS)}


def test_the_first_registers_have_the_numbers_that_gdb_gives_them() -> None:
    first = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags cs ss ds es fs gs st0"
    assert [register.name for register in REGISTERS[:25]] == first.split()
    assert [NUMBERS["rip"], NUMBERS["rsp"], NUMBERS["rbp"]] == [RIP, RSP, RBP]
    assert NUMBERS["xmm0"] == 40
    assert NUMBERS["mxcsr"] == 56


def test_names_are_unique() -> None:
    assert len(NUMBERS) == len(REGISTERS)


def test_every_system_register_is_there() -> None:
    wanted = (
        "cr0 cr2 cr3 cr4 cr8 efer gdtr_base gdtr_limit idtr_base idtr_limit ldtr tr cs_base ss_base ds_base es_base"
    )
    assert set(wanted.split()) <= {register.name for register in FEATURES[3].registers}


@pytest.mark.parametrize("arch", [Arch.X86_64, Arch.I386])
def test_all_registers_encode_and_decode_to_the_same(arch: Arch) -> None:
    values = values_of(at_the_stub(arch).machine)
    data = encode_all(values)
    assert len(data) == BYTES
    for register, value in decode_all(data):
        assert value == values[register.source] & (1 << register.bits) - 1, register.name
    assert len(decode_all(data)) == len(REGISTERS)


def test_a_short_packet_decodes_to_the_registers_that_it_holds() -> None:
    assert [register.name for register, _ in decode_all(bytes(8 * 3 + 7))] == ["rax", "rbx", "rcx"]


def test_a_register_is_little_endian() -> None:
    assert encode(REGISTERS[RIP], {"pc": 0x1122334455667788}) == bytes.fromhex("8877665544332211")


@pytest.mark.parametrize("arch", [Arch.X86_64, Arch.I386])
def test_rip_is_linear_and_goes_back_to_the_offset(arch: Arch) -> None:
    session = at_the_stub(arch)
    values = values_of(session.machine)
    assert values["pc"] == session.pc
    assert writable(REGISTERS[RIP], session.pc, session.machine) == ("rip", session.machine.cpu.rip)
    assert writable(REGISTERS[0], 5, session.machine) == ("rax", 5)


def test_system_registers_show_what_the_machine_has() -> None:
    session = at_the_stub()
    values = values_of(session.machine)
    cpu = session.machine.cpu
    shown = {register.name: values[register.source] for register in REGISTERS}
    assert shown["cr3"] == cpu.cr3
    assert shown["efer"] == cpu.efer
    assert shown["gdtr_base"] == cpu.gdtr.base
    assert shown["idtr_limit"] == cpu.idtr.limit
    assert shown["fs_base"] == cpu.segment(4).base
    assert shown["tr"] == cpu.tr.selector
