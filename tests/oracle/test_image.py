"""The image is a file that a multiboot loader takes, and it restores exactly the state that it was made of."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import pytest
from elftools.elf.elffile import ELFFile

from emu.errors import ImageError
from emu.kexec.arch import Arch
from emu.oracle.arena import random_case
from emu.oracle.case import find_gap
from emu.oracle.image import HIGH_START, build_image, fxsave_image
from emu.oracle.machines import blank_registers, probe_case
from emu.oracle.ours import run_ours
from emu.oracle.outcome import Ended, registers
from emu.units import PAGE_SIZE


def test_the_file_is_a_multiboot_elf(arch: Arch) -> None:
    image = build_image([probe_case(arch)], in_place=True)
    raw = image.elf()
    elf = ELFFile(io.BytesIO(raw))
    (segment,) = elf.iter_segments()
    assert (elf.header.e_machine, elf.header.e_entry) == ("EM_386", image.entry)
    assert segment.header.p_paddr == HIGH_START
    assert segment.data() == bytes(image.memory)
    headers = [at for at in range(0, 8192, 4) if sum(struct.unpack_from("<3I", raw, at)) & 0xFFFFFFFF == 0]
    assert any(struct.unpack_from("<I", raw, at)[0] == 0x1BADB002 for at in headers)


def test_the_state_that_is_restored_is_the_state_recorded(arch: Arch) -> None:
    base = probe_case(arch)
    wanted = {name: 0x1111_1111 * number for number, name in enumerate(("rbx", "rcx", "rdx", "rsi", "rdi", "rbp"), 1)}
    wanted |= {f"xmm{number}": 3**70 + number for number in range(8)}
    wanted |= {"cr2": 0x1234, "fcw": 0x27F, "mxcsr": 0x5F80, "idtr.base": 0x7000, "idtr.limit": 0x17}
    case = replace(base, registers=dict(base.registers) | wanted)
    image = build_image([case], in_place=True)
    run = run_ours(image)
    assert run.ended is Ended.DONE, run.why
    state = registers(run, image.cases[0])
    assert state is not None
    for name in {*wanted, "cr0", "cr3", "cr4", "efer", "cs", "ss", "ds", "es", "fs", "gs", "gdtr.base", "gdtr.limit"}:
        assert state[name] == case.registers[name], name
    assert state["rflags"] == 2


def test_x87_registers_travel_in_stack_order() -> None:
    state = blank_registers() | {"fsw": 6 << 11, "ftw": 0x0FFF, "st6": 0x6666, "st7": 0x7777}
    raw = fxsave_image(state)
    assert raw[4] == 0b11000000
    assert int.from_bytes(raw[32:42], "little") == 0x6666
    assert int.from_bytes(raw[48:58], "little") == 0x7777


def test_each_case_of_an_image_has_its_own_result() -> None:
    cases = [random_case(Arch.X86_64, 7, number) for number in range(3)]
    together = build_image(cases, in_place=False)
    run = run_ours(together)
    assert run.ended is Ended.DONE
    for case, placed in zip(cases, together.cases, strict=True):
        alone = build_image([case], in_place=False)
        assert registers(run_ours(alone), alone.cases[0]) == registers(run, placed), case.name


def test_memory_that_no_pc_has_is_refused() -> None:
    case = probe_case(Arch.I386)
    for start in (0xA0000, 0x9F000, 0x7000_0000):
        odd = replace(case, memory=[*case.memory, (start, bytes(2 * PAGE_SIZE))])
        with pytest.raises(ImageError, match="a PC has none there"):
            build_image([odd], in_place=True)


def test_a_gap_is_zero_and_below_the_stack() -> None:
    page = bytearray(b"\xcc" * PAGE_SIZE)
    assert find_gap(bytes(page), 64) is None
    page[0x800:0x900] = bytes(0x100)
    assert find_gap(bytes(page), 64) == 0x8C0
    assert find_gap(bytes(PAGE_SIZE), 64) == 0xEC0
