"""Small guest programs in a small machine: what the machine's tests share.

A :class:`Bench` has 2 MiB of RAM, mapped identically (and a hole behind it) by 4 KiB user pages where its mode pages
at all, a GDT, an IDT (or IVT) whose handlers are a HLT each, and a program at CODE.  ``bench.vector`` tells which
handler the run ended in.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from emu.assembler.program import assemble_text
from emu.kexec.e820 import E820Type, MemoryMap, Range
from emu.machine import events as ev
from emu.machine import start
from emu.machine.machine import Machine
from emu.units import Phys
from emu.x86.segments import TableRegister

GDT, IDT, TSS, HANDLERS, STACK, TSS_STACK, CODE, TABLES, DATA = (
    0x1000, 0x2000, 0x3000, 0x6000, 0x9000, 0x9800, 0x10000, 0x20000, 0x30000,
)  # fmt: skip
RAM_END = 0x200000
CODE32, USER_CODE, USER_DATA, TSS_SELECTOR, CODE64, CODE16, DATA16 = 0x40, 0x23, 0x2B, 0x30, 0x48, 0x50, 0x58
MODES = ("real", "protected", "2-level", "pae", "4-level", "5-level", "compatibility")
LONG_MODES = frozenset({"4-level", "5-level", "compatibility"})

SMALL_MAP = MemoryMap.of(
    [
        Range(Phys(0), Phys(0x9F000)),
        Range(Phys(0x9F000), Phys(0xA0000), E820Type.RESERVED),
        Range(Phys(0x100000), Phys(RAM_END)),
    ]
)
HOLE = 0xA0000
ROM = 0xF0000


def descriptor(base: int, limit: int, access: int, flags: int) -> bytes:
    """Eight bytes of a GDT entry; ``access`` is byte 5, ``flags`` the upper four bits of byte 6."""
    return struct.pack(
        "<HHBBBB", limit & 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, access, flags << 4 | limit >> 16 & 0xF, base >> 24
    )


def gdt(*, long: bool, code64: bool) -> bytes:
    wide = 0xA if code64 else 0xC
    user = 0xA if code64 else 0xC
    entries = [
        bytes(16),
        descriptor(0, 0xFFFFF, 0x9B, wide),
        descriptor(0, 0xFFFFF, 0x93, 0xC),
        descriptor(0, 0xFFFFF, 0xFB, user),
        descriptor(0, 0xFFFFF, 0xF3, 0xC),
        descriptor(TSS, 0x2FF, 0x89, 0),
        bytes(8),
        descriptor(0, 0xFFFFF, 0x9B, 0xC),
        descriptor(0, 0xFFFFF, 0x9B, 0xA if long else 0xC),
        descriptor(0, 0xFFFF, 0x9B, 0),
        descriptor(0, 0xFFFF, 0x93, 0),
    ]
    return b"".join(entries)


def gate(handler: int, *, long: bool, selector: int = 0x10, attributes: int = 0x8E, ist: int = 0) -> bytes:
    """An interrupt gate (0x8E) or trap gate (0x8F); DPL is bits 5 and 6 of ``attributes``."""
    low = struct.pack("<HHBBH", handler & 0xFFFF, selector, ist, attributes, handler >> 16 & 0xFFFF)
    return low + struct.pack("<Q", handler >> 32) if long else low


def store_tables(write: Callable[[int, bytes], None], mode: str) -> None:
    """Identity map of RAM below 4 MiB by 4 KiB pages, user and writable, at TABLES."""
    if mode == "2-level":
        write(TABLES, struct.pack("<I", TABLES + 0x1000 | 7))
        write(TABLES + 0x1000, struct.pack("<1024I", *(pfn << 12 | 7 for pfn in range(1024))))
        return
    leaf, directory, pointers = TABLES + 0x4000, TABLES + 0x3000, TABLES + 0x2000
    write(leaf, struct.pack("<1024Q", *(pfn << 12 | 7 for pfn in range(1024))))
    write(directory, struct.pack("<2Q", leaf | 7, leaf + 0x1000 | 7))
    if mode == "pae":
        write(TABLES, struct.pack("<4Q", directory | 1, 0, 0, 0))
        return
    write(pointers, struct.pack("<Q", directory | 7))
    if mode == "5-level":
        write(TABLES, struct.pack("<Q", TABLES + 0x1000 | 7))
        write(TABLES + 0x1000, struct.pack("<Q", pointers | 7))
    else:
        write(TABLES, struct.pack("<Q", pointers | 7))


class Bench:
    """A machine in ``mode`` about to run ``text`` at CODE, with ESP at STACK."""

    def __init__(
        self,
        mode: str,
        text: str,
        *,
        strict: bool = True,
        plain_strings: bool = False,
        memory_map: MemoryMap = SMALL_MAP,
    ) -> None:
        self.mode = mode
        self.machine = Machine(memory_map, strict=strict, plain_strings=plain_strings)
        self.bits = {"real": 16, "4-level": 64, "5-level": 64}.get(mode, 32)
        self.long = mode in LONG_MODES
        self.image = assemble_text(text, org=CODE, bits=self.bits)
        self.symbols = self.image.symbols
        write = self.machine.ram.write
        write(CODE, self.image.code)
        write(HANDLERS, b"\xf4\x90\x90\x90" * 256)
        write(GDT, gdt(long=self.long, code64=self.bits == 64))
        store_tables(write, mode)
        self._start()
        self.machine.cpu.rsp = STACK

    def _start(self) -> None:
        machine, table = self.machine, TableRegister(GDT, 0x5F)
        match self.mode:
            case "real":
                start.real_mode(machine, cs=CODE >> 4, ip=0)
            case "protected":
                start.protected_mode(machine, eip=CODE, gdt=table)
            case "2-level":
                start.protected_mode(machine, eip=CODE, gdt=table, cr3=TABLES)
            case "pae":
                start.protected_mode(machine, eip=CODE, gdt=table, cr3=TABLES, cr4=0x20)
            case "compatibility":
                start.compatibility_mode(machine, eip=CODE, gdt=table, cr3=TABLES)
            case _:
                start.long_mode(machine, rip=CODE, gdt=table, cr3=TABLES, la57=self.mode == "5-level")
        gates = b"".join(self._gate(HANDLERS + 4 * vector) for vector in range(256))
        machine.ram.write(0 if self.mode == "real" else IDT, gates)
        if self.mode != "real":
            machine.engine.idtr = TableRegister(IDT, 256 * (16 if self.long else 8) - 1)
        self.store_tss()

    def gate(
        self, vector: int, handler: int, *, attributes: int = 0x8E, ist: int = 0, selector: int | None = None
    ) -> None:
        """Point ``vector`` at ``handler``; 64-bit gates go to 64-bit code."""
        raw = self._gate(handler, attributes=attributes, ist=ist, selector=selector)
        self.machine.ram.write((0 if self.mode == "real" else IDT) + len(raw) * vector, raw)

    def _gate(self, handler: int, *, attributes: int = 0x8E, ist: int = 0, selector: int | None = None) -> bytes:
        if self.mode == "real":
            return struct.pack("<HH", handler & 0xFFFF, 0)
        code = (CODE64 if self.mode == "compatibility" else 0x10) if selector is None else selector
        return gate(handler, long=self.long, selector=code, attributes=attributes, ist=ist)

    def store_tss(self, *, bitmap: bytes = b"") -> None:
        """A TSS with TSS_STACK as the ring-0 stack, TSS_STACK - 0x400 as IST1 and an I/O permission map at 0x80."""
        tss = bytearray(0x80)
        if self.long:
            struct.pack_into("<Q", tss, 4, TSS_STACK)
            struct.pack_into("<Q", tss, 0x24, TSS_STACK - 0x400)
        else:
            struct.pack_into("<IH", tss, 4, TSS_STACK, 0x18)
        struct.pack_into("<H", tss, 0x66, 0x80)
        self.machine.ram.write(TSS, bytes(tss) + bitmap)

    def run(self, ticks: int = 100_000) -> ev.Outcome:
        """Run on; the answer is why it ended."""
        return self.machine.run(ticks)

    @property
    def vector(self) -> int | None:
        """The vector whose HLT handler the run ended in, or None."""
        offset = self.machine.cpu.pc - 1 - HANDLERS
        return offset // 4 if 0 <= offset < 1024 and offset % 4 == 0 else None

    @property
    def faults(self) -> list[tuple[int, int | None, int]]:
        """(vector, error code, linear address) of each exception so far."""
        return [
            (event.vector, event.error_code, event.pc) for event in self.machine.events if isinstance(event, ev.Fault)
        ]

    @property
    def reasons(self) -> str:
        """The rules of ours that were broken, one to a line."""
        return "\n".join(event.reason for event in self.machine.events if isinstance(event, ev.Fault))

    def of(self, kind: type[ev.Event]) -> list[ev.Event]:
        """The events of one kind."""
        return [event for event in self.machine.events if type(event) is kind]

    def reg(self, name: str) -> int:
        """A register by name, as :meth:`emu.machine.cpu.Cpu.registers` has it."""
        return self.machine.cpu.registers()[name]

    def stack(self, count: int, size: int | None = None) -> list[int]:
        """The topmost words of the stack (linear = physical here)."""
        width = size or self.bits // 8
        top = self.machine.cpu.rsp
        return [self.machine.ram.read_int(top + index * width, width) for index in range(count)]

    def leaf(self, linear: int) -> int:
        """Physical address of the last-level entry that maps ``linear``."""
        if self.mode == "2-level":
            return TABLES + 0x1000 + (linear >> 12) * 4
        return TABLES + 0x4000 + (linear >> 12) * 8

    def steps(self, most: int = 200) -> list[int]:
        """Single-step until something else happens; the linear address before each step."""
        seen = []
        for _ in range(most):
            seen.append(self.machine.cpu.pc)
            if self.machine.step() is not None:
                break
        return seen


def guest_state(machine: Machine) -> tuple[dict[str, int], bytes, int, int]:
    """Everything that a guest could notice: registers, RAM, virtual time, position."""
    ram = b"".join(bytes(bank.view) for bank in machine.ram.banks)
    return machine.cpu.registers(), ram, machine.count.ticks, machine.count.instructions
