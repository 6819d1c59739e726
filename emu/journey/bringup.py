"""Power-on: a kernel in fresh RAM, with what a boot loader leaves beside it.

Source: the Linux x86 boot protocol (Documentation/arch/x86/boot.rst).
"""

from __future__ import annotations

from emu.assembler import Image
from emu.errors import JourneyError
from emu.kexec.arch import Arch
from emu.kexec.e820 import boot_params
from emu.kexec.layout import (
    BOOT_GDT_ADDRESS,
    BOOT_PARAMS_ADDRESS,
    BOOT_STACK_TOP,
    BOOT_TABLES_ADDRESS,
    COMMAND_LINE_ADDRESS,
    COMMAND_LINE_SIZE,
    ENTRY64_OFFSET,
    KERNEL_BASE,
)
from emu.kexec.page_tables import build
from emu.machine import start
from emu.machine.cpustate import RSI
from emu.machine.machine import Machine
from emu.machine.owners import Owner
from emu.units import PAGE_SIZE, Phys
from emu.x86.segments import Descriptor, TableRegister

_CODE_32, _CODE_64, _DATA = 0xC09B00, 0xA09B00, 0xC09300
_FLAT = 0xFFFFFFFF


def boot_gdt(bits: int) -> bytes:
    """The loader's GDT: null, null, BOOT_CS, BOOT_DS."""
    code = Descriptor.of(limit=_FLAT, flags=_CODE_64 if bits == 64 else _CODE_32)
    return bytes(16) + code.encode() + Descriptor.of(limit=_FLAT, flags=_DATA).encode()


def command_line_bytes(line: str) -> bytes:
    """``line`` with its NUL; raises JourneyError when it does not fit the boot protocol's 2048 bytes."""
    data = line.encode("latin-1", "replace") + b"\0"
    if len(data) > COMMAND_LINE_SIZE:
        raise JourneyError(f"a command line of {len(data)} bytes with its NUL; the most is {COMMAND_LINE_SIZE}")
    return data


def boot(machine: Machine, kernel: Image, arch: Arch, command_line: str) -> None:
    """Put ``kernel`` at its link address and the processor at its entry, as the boot protocol has it."""
    ram = machine.ram
    if not machine.memory_map.ram_within(KERNEL_BASE, KERNEL_BASE + len(kernel.code)):
        raise JourneyError("RAM is too small for the kernel", hint="give more with --ram")
    ram.write(kernel.org, kernel.code)
    ram.write(BOOT_PARAMS_ADDRESS, boot_params(machine.memory_map, COMMAND_LINE_ADDRESS))
    ram.write(COMMAND_LINE_ADDRESS, command_line_bytes(command_line))
    gdt = boot_gdt(arch.bits)
    ram.write(BOOT_GDT_ADDRESS, gdt)
    table = TableRegister(BOOT_GDT_ADDRESS, len(gdt) - 1)
    if arch.bits == 32:
        start.protected_mode(machine, eip=kernel.org, gdt=table)
    else:
        pages = iter(range(BOOT_TABLES_ADDRESS, BOOT_PARAMS_ADDRESS, PAGE_SIZE))
        root = build(
            arch,
            lambda: Phys(next(pages)),
            ram.write,
            identity=[(0, machine.memory_map.end_of_ram)],
        )
        start.long_mode(machine, rip=kernel.org + ENTRY64_OFFSET, gdt=table, cr3=root, la57=arch.is_la57)
    machine.cpu.rsp = BOOT_STACK_TOP
    machine.engine.set_gpr(RSI, BOOT_PARAMS_ADDRESS)
    machine.owners.assign(machine.ram.pfns(), Owner.A)
    ram.rebase()
