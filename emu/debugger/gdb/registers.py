"""The registers that gdb sees, in its own order and widths, and how they follow from the machine's.

gdb gets one layout for the whole session, that of x86-64, whatever mode the processor is in: it cannot change its mind
between two stops.  General registers are shown as the 64 bits that they have.  ``rip`` is the *linear* address of the
next instruction, which equals RIP in 64-bit mode only: breakpoints and disassembly need the linear one.
Orders and numbers: gdb's standard features org.gnu.gdb.i386.core, .sse and .segments (gdb manual, "i386 Features").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from emu.machine.machine import Machine

RIP: Final = 16
RSP: Final = 7
RBP: Final = 6


@dataclass(frozen=True, slots=True)
class Register:
    """One register: gdb's name, its size in bits, gdb's type, and the machine's name for it (none: reads as zero)."""

    name: str
    bits: int
    type: str
    source: str
    group: str = ""

    @property
    def size(self) -> int:
        """Bytes in a ``g`` packet."""
        return self.bits // 8


@dataclass(frozen=True, slots=True)
class Feature:
    """A named set of registers."""

    name: str
    registers: tuple[Register, ...]


def _core() -> tuple[Register, ...]:
    general = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
    pointers = {"rbp": "data_ptr", "rsp": "data_ptr"}
    fpu = {"fctrl": "fcw", "fstat": "fsw", "ftag": "ftw", "fiseg": "", "fioff": "", "foseg": "", "fooff": "", "fop": ""}
    return (
        *(Register(name, 64, pointers.get(name, "int64"), name) for name in general),
        Register("rip", 64, "code_ptr", "pc"),
        Register("eflags", 32, "eflags", "rflags"),
        *(Register(name, 32, "int32", name) for name in ("cs", "ss", "ds", "es", "fs", "gs")),
        *(Register(f"st{number}", 80, "i387_ext", f"st{number}") for number in range(8)),
        *(Register(name, 32, "int", source, "float") for name, source in fpu.items()),
    )


def _system() -> tuple[Register, ...]:
    control = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer")
    kinds = {"cr0": "cr0", "cr4": "cr4", "efer": "efer"}
    tables = [f"{table}.{part}" for table in ("gdtr", "idtr") for part in ("base", "limit")]
    systems = ["ldtr", "ldtr.base", "ldtr.limit", "tr", "tr.base", "tr.limit"]
    bases = [f"{segment}.base" for segment in ("cs", "ss", "ds", "es")]
    return (
        *(Register(name, 64, kinds.get(name, "uint64"), name) for name in control),
        *(
            Register(name.replace(".", "_"), 64 if name.endswith("base") else 32, _number(name), name)
            for name in (*tables, *systems, *bases)
        ),
        Register("k_gs_base", 64, "uint64", "kernel_gs_base"),
    )


def _number(name: str) -> str:
    return "uint64" if name.endswith("base") else "uint32"


FEATURES: Final = (
    Feature("org.gnu.gdb.i386.core", _core()),
    Feature(
        "org.gnu.gdb.i386.sse",
        (
            *(Register(f"xmm{number}", 128, "vec128", f"xmm{number}") for number in range(16)),
            Register("mxcsr", 32, "i386_mxcsr", "mxcsr", "vector"),
        ),
    ),
    Feature(
        "org.gnu.gdb.i386.segments",
        (Register("fs_base", 64, "int", "fs.base"), Register("gs_base", 64, "int", "gs.base")),
    ),
    Feature("org.kjump.system", _system()),
)
REGISTERS: Final = tuple(register for feature in FEATURES for register in feature.registers)
"""All registers; the place in here is gdb's register number."""
BYTES: Final = sum(register.size for register in REGISTERS)
"""The size of a ``g`` packet in bytes (two digits each on the wire)."""


def values_of(machine: Machine) -> Mapping[str, int]:
    """What :class:`Register` names as ``source``, now."""
    values = machine.cpu.registers()
    return values | {"pc": machine.cpu.pc, "cr8": machine.instructions.cr8, "": 0}


def encode(register: Register, values: Mapping[str, int]) -> bytes:
    """A register as its bytes, least significant first."""
    return (values[register.source] & (1 << register.bits) - 1).to_bytes(register.size, "little")


def encode_all(values: Mapping[str, int]) -> bytes:
    """All registers in order, as ``g`` answers them."""
    return b"".join(encode(register, values) for register in REGISTERS)


def decode_all(data: bytes) -> list[tuple[Register, int]]:
    """Registers and values of the data of ``G``; those that ``data`` ends before are left out."""
    found, at = [], 0
    for register in REGISTERS:
        if at + register.size > len(data):
            break
        found.append((register, int.from_bytes(data[at : at + register.size], "little")))
        at += register.size
    return found


def writable(register: Register, value: int, machine: Machine) -> tuple[str, int]:
    """The machine's own name and value for setting ``register``: a linear ``rip`` becomes the offset in CS again."""
    if register.name != "rip":
        return register.source, value
    if machine.cpu.bits == 64:
        return "rip", value
    return "rip", value - machine.cpu.segment(1).base & 0xFFFFFFFF
