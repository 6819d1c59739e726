"""Power-on: a kernel in fresh RAM, with what a boot loader leaves beside it.

Source: the Linux x86 boot protocol (Documentation/arch/x86/boot.rst).
"""

from __future__ import annotations

from emu.assembler import Image
from emu.errors import JourneyError
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, boot_params
from emu.kexec.layout import COMMAND_LINE_SIZE, ENTRY64_OFFSET
from emu.kexec.page_tables import build
from emu.kexec.places import boot_table_pages, low_places
from emu.machine import start
from emu.machine.cpustate import RSI
from emu.machine.machine import Machine
from emu.machine.owners import Owner
from emu.units import Phys
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


def boot(
    machine: Machine, kernel: Image, arch: Arch, command_line: str, *, memory_map: MemoryMap, owner: Owner
) -> None:
    """Put ``kernel`` at its link address and the processor at its entry, as the boot protocol has it.

    ``memory_map`` is what the kernel is told; all of RAM belongs to ``owner`` from here on.
    """
    ram = machine.ram
    end = kernel.symbols.get("image_end", kernel.end)
    if sum(part.size for part in memory_map.ram_within(kernel.org, end)) < end - kernel.org:
        raise JourneyError(
            f"kernel {kernel.name} at p:{kernel.org:#x} to p:{end:#x} is not all in RAM", hint="give more with --ram"
        )
    places = low_places(memory_map)
    ram.write(kernel.org, kernel.code)
    ram.write(places.boot_params, boot_params(memory_map, places.command_line))
    ram.write(places.command_line, command_line_bytes(command_line))
    gdt = boot_gdt(arch.bits)
    ram.write(places.gdt, gdt)
    table = TableRegister(places.gdt, len(gdt) - 1)
    if arch.bits == 32:
        start.protected_mode(machine, eip=kernel.org, gdt=table)
    else:
        pages = iter(boot_table_pages(places))
        root = build(
            arch,
            lambda: Phys(next(pages)),
            ram.write,
            identity=[(0, machine.memory_map.end_of_ram)],
        )
        start.long_mode(machine, rip=kernel.org + ENTRY64_OFFSET, gdt=table, cr3=root, la57=arch.is_la57)
    machine.cpu.rsp = places.stack_top
    machine.engine.set_gpr(RSI, places.boot_params)
    machine.owners.assign(machine.ram.pfns(), owner)
