"""One multiboot ELF that puts cases into place and runs them, on any x86 machine that a boot loader can start.

Memory below 1 MiB is dirtied by firmware, so its contents travel above RAM and are copied down by our own loader
(``asm/oracle/``), which runs after the firmware.  A case that is alone has its memory from 1 MiB up in place;
of several, each has its memory in a store of its own, to which the results are copied back.  The multiboot header
lies behind the ELF header, in the file only (Multiboot Specification 0.6.96, 3.1).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from emu import resources
from emu.assembler import Image, assemble
from emu.errors import ImageError
from emu.kexec.arch import Arch
from emu.kexec.page_tables import build
from emu.oracle.case import Case, pieces_before
from emu.oracle.own_table import LOCAL_TABLE_SELECTOR, TABLE_SIZE, own_tables
from emu.units import MIB, PAGE_SIZE, Phys, page_up
from emu.x86.bits import Cr0, Cr4, Efer, Eflags

LOW_END = 0xA0000
HIGH_START = MIB
RAM_LIMIT = 0x60000000
LOADER_SPACE = 16 * PAGE_SIZE
DONE = 0x444E454B
EXIT_PORT = 0xF4
_RECORD = struct.Struct("<8IQII")
_HEADER_MAGIC = 0x1BADB002
_MSRS = {
    "star": 0xC0000081, "lstar": 0xC0000082, "cstar": 0xC0000083, "sfmask": 0xC0000084, "sysenter_cs": 0x174,
    "sysenter_esp": 0x175, "sysenter_eip": 0x176,
}  # fmt: skip
_STATE_DWORDS = ("es", "ss", "ds", "fs", "gs", "ldtr", "tr")
_STATE_TABLES = ("gdtr", "idtr", "load_gdtr", "load_ldtr", "table", "local_table")
_MODE_CR4 = Cr4.PAE | Cr4.LA57 | Cr4.PSE


@lru_cache(maxsize=256)
def _program(name: str, org: int, bits: int, defines: tuple[tuple[str, int], ...]) -> Image:
    folder = resources.asm_dir()
    return assemble(folder / "oracle" / name, org=org, bits=bits, defines=dict(defines), include=[folder / "include"])


def _org(arch: Arch, linear: int) -> int:
    """64-bit code is position independent but for its alignment: one assembly serves every page."""
    return linear if arch.word == 4 else linear % PAGE_SIZE


def entry_program(arch: Arch, linear: int, *, takes_irq: bool = False) -> Image:
    """The code that loads a case's registers, to run at ``linear``."""
    defines = (("TAKE_IRQ", int(takes_irq)),)
    return _program(f"enter{arch.bits}.S", _org(arch, linear), arch.bits, defines)


def collector(arch: Arch, linear: int, back: int = 0) -> Image:
    """The code that writes registers down at the end of a case, to run at ``linear``; it goes to ``back``, or exits."""
    return _program(f"collect{arch.bits}.S", _org(arch, linear), arch.bits, (("BACK", back),))


@dataclass(frozen=True, slots=True)
class Placed:
    """A case in an image: where each piece of its memory is after the run, as (address, where, size), all physical."""

    case: Case
    stored: tuple[tuple[int, int, int], ...]

    def find(self, address: int) -> int:
        """Where the byte of physical ``address`` is after the run."""
        for start, where, size in self.stored:
            if start <= address < start + size:
                return where + address - start
        raise ImageError(f"{address:#x} is no memory of the case", where=self.case.name)


@dataclass(frozen=True)
class OracleImage:
    """``memory`` is what the boot loader puts at physical ``base``; the machine has ``size`` bytes of RAM."""

    arch: Arch
    cases: tuple[Placed, ...]
    base: int
    memory: bytearray
    entry: int
    next_case: int
    size: int

    def elf(self) -> bytes:
        """The file."""
        header = struct.pack(
            "<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 2, 3, 1, self.entry, 52, 0, 0, 52, 32, 1, 0, 0, 0
        )
        program = struct.pack(
            "<8I", 1, PAGE_SIZE, self.base, self.base, len(self.memory), len(self.memory), 7, PAGE_SIZE
        )
        multiboot = struct.pack("<3I", _HEADER_MAGIC, 0, -_HEADER_MAGIC & 0xFFFFFFFF)
        return (header + program + b"\0" * 12 + multiboot).ljust(PAGE_SIZE, b"\0") + bytes(self.memory)


class _Builder:
    """Lays out an image from physical ``base`` up."""

    def __init__(self, arch: Arch, base: int, start: int) -> None:
        self.arch = arch
        self.base = base
        self.memory = bytearray()
        self.cursor = start

    def take(self, size: int) -> int:
        """The next ``size`` bytes, from a page on."""
        at = self.cursor
        self.cursor += page_up(size)
        return at

    def write(self, address: int, data: bytes | bytearray) -> None:
        end = address - self.base + len(data)
        if end > len(self.memory):
            self.memory.extend(bytes(page_up(end) - len(self.memory)))
        self.memory[address - self.base : end] = data

    def page(self) -> Phys:
        return Phys(self.take(PAGE_SIZE))


def build_image(cases: Sequence[Case], *, in_place: bool) -> OracleImage:
    """An image of ``cases``, all of one architecture.

    ``in_place``: one case, whose memory from 1 MiB up is where it belongs from the start.  Otherwise all cases use the
    same memory, which begins at 1 MiB, one after the other, and none may touch more.

    Raises:
        ImageError: a case has no gap for its entry code, or memory that no PC has.
    """
    arch = cases[0].arch
    top = max(start + len(data) for case in cases for start, data in (*case.memory, *case.shared))
    check_memory(cases)
    maker = _Builder(arch, HIGH_START, max(page_up(top), HIGH_START))
    loader_at = maker.take(LOADER_SPACE)
    records_at = maker.take(_RECORD.size * len(cases))
    records_end = records_at + _RECORD.size * len(cases)
    defines = {"CASES": records_at, "CASES_END": records_end}
    loader = _program(f"loader{arch.bits}.S", loader_at, 32, tuple(defines.items()))
    maker.write(loader_at, loader.code)
    shared = dict(part for case in cases for part in case.shared)
    for start, data in shared.items():
        maker.write(start, data)
    back = 0 if in_place else loader.symbols[f"back{arch.bits}"]
    placed = []
    roots: dict[tuple[int, int], int] = {}
    # Tables that map everything need to know where everything ends: stores come first, tables last.
    stores = [_store(maker, case, back, in_place=in_place) for case in cases]
    limit = maker.cursor + len(cases) * PAGE_SIZE + 4 * MIB
    records = bytearray()
    for case, (copies, stored) in zip(cases, stores, strict=True):
        records += _record(maker, case, copies, roots, limit)
        placed.append(Placed(case, stored))
    placed[-1] = Placed(cases[-1], (*stores[-1][1], *((start, start, len(data)) for start, data in shared.items())))
    maker.write(records_at, records)
    if maker.cursor > limit:
        raise ImageError("the image's own tables do not cover it", where=cases[0].name)
    size = (max(limit, maker.cursor) + 4 * MIB) & -(2 * MIB)
    return OracleImage(
        arch, tuple(placed), maker.base, maker.memory, loader.symbols["entry"], loader.symbols["next_case"], size
    )


def check_memory(cases: Sequence[Case]) -> None:
    """Raise ImageError for memory that a PC cannot have as RAM, or too much of it."""
    for case in cases:
        for start, data in case.memory:
            end = start + len(data)
            if (start < HIGH_START and end > LOW_END) or end > RAM_LIMIT:
                raise ImageError(f"RAM at p:{start:#x} to p:{end:#x}: a PC has none there", where=case.name)


def _store(
    maker: _Builder, case: Case, back: int, *, in_place: bool
) -> tuple[list[tuple[int, int, int]], tuple[tuple[int, int, int], ...]]:
    """Put a case's memory into the image; the answer is what the loader copies, and where all of it ends up."""
    memory = [(start, bytearray(data)) for start, data in case.memory]
    _patch(memory, case, back)
    copies, stored = [], []
    for start, data in memory:
        if in_place and start >= HIGH_START:
            maker.write(start, data)
            stored.append((start, start, len(data)))
            continue
        at = maker.take(len(data))
        maker.write(at, data)
        copies.append((at, start, len(data) // case.arch.word))
        stored.append((start, start if in_place else at, len(data)))
    return copies, tuple(stored)


def _patch(memory: list[tuple[int, bytearray]], case: Case, back: int) -> None:
    """Entry code, collector and an available TSS, into a case's memory."""

    def put(address: int, data: bytes) -> None:
        for start, content in memory:
            if start <= address < start + len(content):
                content[address - start : address - start + len(data)] = data
                return
        raise ImageError(f"{address:#x} is no memory of the case", where=case.name)

    put(case.entry_phys, _entry_bytes(case))
    code = collector(case.arch, case.end, back).code
    for offset, physical, size in pieces_before(case, len(code)):
        put(physical, code[offset : offset + size])


def _entry_bytes(case: Case) -> bytes:
    program = entry_program(case.arch, case.entry, takes_irq=case.takes_irq)
    word = case.arch.word
    code = bytearray(program.code)

    def put(name: str, value: int, size: int, offset: int = 0) -> None:
        at = program.symbols[f"state_{name}"] - program.org + offset
        code[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    registers = dict(case.registers)
    local = program.symbols["state_local_table"]
    own = own_tables(registers, word, case.entry + local - program.org)
    registers |= {"load_gdtr.limit": registers["gdtr.limit"], "load_gdtr.base": registers["gdtr.base"]}
    if own is not None:
        at = program.symbols["state_table"] - program.org
        code[at : at + TABLE_SIZE], code[local - program.org :] = own
        registers |= {"load_gdtr.limit": TABLE_SIZE - 1, "load_gdtr.base": case.entry + at}
    frame = ("rip", "cs", "rflags", "rsp", "ss")[: 5 if word == 8 else 3]
    for number, register in enumerate(frame):
        put("frame", registers[register], word, number * word)
    registers["rflags"] &= ~Eflags.IF  # set with the rest of the frame, or not at all
    for name in program.symbols:
        register = name.removeprefix("state_")
        if name.startswith("state_") and register not in (*_STATE_DWORDS, "cs", *_STATE_TABLES, "frame"):
            put(register, registers[register], word)
    for register in _STATE_DWORDS:
        put(register, registers[register], 4)
    put("load_ldtr", registers["ldtr"] if own is None else LOCAL_TABLE_SELECTOR, 4)
    put("cs", case.entry + program.symbols["in_its_code_segment"] - program.org, word)
    put("cs", registers["cs"], word, word)
    for table in ("gdtr", "idtr", "load_gdtr"):
        put(table, registers[f"{table}.limit"], 2)
        put(table, registers[f"{table}.base"], word, 2)
    return bytes(code)


def _record(
    maker: _Builder, case: Case, copies: Sequence[tuple[int, int, int]], roots: dict[tuple[int, int], int], limit: int
) -> bytes:
    registers = case.registers
    root = 0
    if case.paging:
        key = (case.entry & -PAGE_SIZE, case.entry_phys & -PAGE_SIZE)
        if key not in roots:
            pages = [] if key[0] == key[1] else [key]
            roots[key] = build(case.arch, maker.page, maker.write, identity=[(0, limit)], pages=pages)
        root = roots[key]
    efer = registers["efer"] & ~Efer.LMA
    msrs = [(0xC0000080, efer)]
    msrs += [(number, registers[name]) for name, number in _MSRS.items() if case.long_mode or number < 0x1000]
    raw_msrs = b"".join(struct.pack("<3I", number, value & 0xFFFFFFFF, value >> 32) for number, value in msrs)
    raw_copies = b"".join(struct.pack("<3I", *copy) for copy in copies)
    area = maker.take(512 + len(raw_msrs) + len(raw_copies))
    maker.write(area, fxsave_image(registers) + raw_msrs + raw_copies)
    cr4 = (registers["cr4"] & _MODE_CR4 | Cr4.OSFXSR) if case.paging else int(Cr4.OSFXSR)
    return _RECORD.pack(
        area + 512 + len(raw_msrs), len(copies), area + 512, len(msrs), area, root, cr4,
        Cr0.PG if case.paging else 0, case.entry, case.irq, 0,
    )  # fmt: skip


def fxsave_image(registers: Mapping[str, int]) -> bytes:
    """The 512 bytes that FXRSTOR takes (SDM 1 10.5.1); x87 registers in stack order, instruction pointers zero."""
    status, tags = registers["fsw"], registers["ftw"]
    top = status >> 11 & 7
    valid = sum(1 << i for i in range(8) if tags >> 2 * i & 3 != 3)
    head = struct.pack("<HHBxH8x8xII", registers["fcw"], status, valid, 0, registers["mxcsr"], 0xFFFF)
    x87 = b"".join(registers[f"st{(top + i) % 8}"].to_bytes(16, "little") for i in range(8))
    sse = b"".join(registers[f"xmm{i}"].to_bytes(16, "little") for i in range(16))
    return (head + x87 + sse).ljust(512, b"\0")
