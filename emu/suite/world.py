"""The machine in which a claim begins: memory with a pattern, the claim's program, page tables, stubs in their pages.

The layout is what ``asm/tests/claims.inc`` and ``stubs.inc`` say: their symbols are read, never repeated.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from emu.assembler import Image
from emu.errors import ImageError
from emu.journey import programs
from emu.journey.stubs import volatile_of_stub
from emu.kexec.arch import Arch
from emu.kexec.e820 import E820Type, MemoryMap, Range
from emu.kexec.layout import RelocateFlag
from emu.kexec.page_tables import TableTree, build, paging_state, set_rox
from emu.machine import start
from emu.machine.cpu import READ
from emu.machine.cpustate import RSP
from emu.machine.machine import Machine, MachineSnapshot
from emu.suite.claim_file import ClaimFile
from emu.suite.modes import Mode
from emu.units import PAGE_SIZE, Linear, Phys
from emu.x86.bits import Cr0, Cr4, Efer
from emu.x86.paging.modes import Entry
from emu.x86.paging.walk import walk
from emu.x86.segments import TableRegister

StubPaths = Mapping[str, Path]
"""Where each stub of :data:`emu.suite.claim_file.STUB_NAMES` is taken from."""
_CELLS = {"relocate": "relocate_new_kernel", "second": "second", "entry": "jump_entry", "purgatory": "purgatory"}
_MEANINGLESS = 0xA11A_0000


@dataclass(slots=True)
class World:
    """A machine at the first instruction of ``program``, and the state to come back to."""

    mode: Mode
    program: Image
    machine: Machine
    stubs: dict[str, Image]
    state: MachineSnapshot

    def rewind(self) -> None:
        """Back to the beginning."""
        self.machine.restore(self.state)

    def page(self, name: str) -> int:
        """The physical address that ``NAME_PAGE`` or another constant of the program has."""
        return self.program.constants[name]

    def ranges(self) -> dict[str, list[tuple[int, int]]]:
        """What the stubs may write of their own pages, saved context and stack; and the words that cells point to."""
        arch = self.mode.arch
        words = {"context": "relocate_new_kernel", "second_context": "second"}
        if arch is None or not self.stubs:
            return {}
        known = {word: volatile_of_stub(self.stubs[name], arch) for word, name in words.items()}
        for name, address in self.program.symbols.items():
            if name.partition(".")[0] in _CELLS:
                at = self.machine.ram.read_int(address, 8)
                known[f"*{name}"] = [(at, at + arch.word)]
        return known

    def close(self) -> None:
        """Give the machine's memory back."""
        self.machine.close()


def memory_map(program: Image) -> MemoryMap:
    """RAM of the claims' machine."""
    at = program.constants
    low, high = (0, at["LOW_END"]), (at["HIGH_BEGIN"], at["HIGH_END"])
    return MemoryMap.of([Range(Phys(start), Phys(end), E820Type.RAM) for start, end in (low, high)])


def make_world(file: ClaimFile, mode: Mode, stubs: StubPaths) -> World:
    """A machine with the claims of ``file`` in ``mode``.

    Raises:
        AssemblyError: the file or a stub does not assemble.
        ImageError: a stub does not fit.
    """
    program = file.image(mode)
    machine = Machine(memory_map(program))
    builder = _Builder(machine, program, mode)
    builder.pattern()
    placed = builder.place_stubs(file, stubs) if file.stubs else {}
    builder.tables()
    machine.ram.write(program.org, builder.program_bytes(placed))
    builder.start(as_kernel=bool(file.stubs))
    machine.ram.rebase()
    return World(mode, program, machine, placed, machine.snapshot())


class _Builder:
    def __init__(self, machine: Machine, program: Image, mode: Mode) -> None:
        self.machine = machine
        self.ram = machine.ram
        self.program = program
        self.at = program.constants
        self.mode = mode
        self.words: dict[str, bytes] = {}
        self.root = 0

    def pattern(self) -> None:
        """Every dword its own physical address, but where tables are built."""
        for part in self.machine.memory_map.ram_ranges:
            words = range(part.start, part.end, 4)
            self.ram.write(part.start, struct.pack(f"<{len(words)}I", *words))
        zero = [("IVT_BEGIN", "IVT_END"), ("TABLES_BEGIN", "TABLES_END"), ("FREE_BEGIN", "FREE_END")]
        for first, end in [*zero, ("KEXEC_TABLES_BEGIN", "KEXEC_TABLES_END")]:
            if first in self.at:
                self.ram.write(self.at[first], bytes(self.at[end] - self.at[first]))

    def program_bytes(self, stubs: Mapping[str, Image]) -> bytes:
        """The program with the cells that the loader fills."""
        code = bytearray(self.program.code)
        for name, address in self.program.symbols.items():
            value = self.words.get(name, b"")
            prefix, _, symbol = name.partition(".")
            if prefix == "entry_of":
                value = struct.pack("<Q", self._entry_of(self.at[f"{symbol.upper()}_PAGE"]))
            stub = stubs.get(_CELLS.get(prefix, ""))
            if stub is not None and symbol in stub.symbols:
                value = stub.symbols[symbol].to_bytes(8, "little")
            at = address - self.program.org
            code[at : at + len(value)] = value
        return bytes(code)

    def _entry_of(self, linear: int) -> int:
        """The physical address of the last-level entry that A's tables have for ``linear``."""
        arch = self.mode.arch
        if arch is None:
            return 0
        return walk(self.ram.read_int, paging_state(arch, self.root), linear, READ).steps[-1].address

    # ---- the start state ---------------------------------------------------------------------------------------

    def tables(self) -> None:
        """The page tables in force, where there are any and no stub asked for its own."""
        if self.mode.arch is not None and not self.root:
            self.root = self._identity(self.mode.arch, leave_out=()).root

    def start(self, *, as_kernel: bool) -> None:
        machine, symbols = self.machine, self.program.symbols
        gdt = TableRegister(symbols["gdt"], symbols["gdt_end"] - symbols["gdt"] - 1)
        arch = self.mode.arch
        if self.mode.bits == 64:
            start.long_mode(machine, rip=symbols["begin"], gdt=gdt, cr3=self.root, la57=arch is Arch.X86_64_LA57)
        else:
            cr4 = int(Cr4.PAE) if arch is Arch.I386_PAE else 0
            start.protected_mode(machine, eip=symbols["begin"], gdt=gdt, cr3=self.root, cr4=cr4)
        engine = machine.engine
        for number in range(16 if self.mode.bits == 64 else 8):
            engine.set_gpr(number, _MEANINGLESS | number * 0x111)
        engine.set_gpr(RSP, self.at["STACK_TOP"])
        if as_kernel and arch is not None:
            engine.set_cr(0, engine.cr(0) | Cr0.WP | Cr0.AM | Cr0.NE | Cr0.MP)
            engine.set_cr(4, engine.cr(4) | Cr4.PGE | Cr4.OSFXSR)
            if arch is not Arch.I386:
                engine.efer = engine.efer | Efer.NXE
        engine.settle()
        engine.flush_tlb()
        machine.cpu.settle_pdptes()

    def _pages(self, first: str, end: str) -> Iterator[int]:
        yield from range(self.at[first], self.at[end], PAGE_SIZE)

    def _identity(self, arch: Arch, leave_out: tuple[int, ...], window: tuple[int, int] | None = None) -> TableTree:
        """A's tables: everything at its own address in small pages, and ``window`` (linear, physical)."""
        pages = self._pages("TABLES_BEGIN", "TABLES_END")
        tree = TableTree(arch, lambda: Phys(next(pages)))
        for page in range(0, self.at["MAPPED_END"], PAGE_SIZE):
            if page not in leave_out:
                tree.map_page(page, page)
        if window is not None:
            tree.map_page(*window)
        tree.store(self.ram.write)
        return tree

    # ---- stubs -------------------------------------------------------------------------------------------------

    def place_stubs(self, file: ClaimFile, paths: StubPaths) -> dict[str, Image]:
        arch = self.mode.arch
        if arch is None:
            raise ImageError(f"claims about stubs cannot run in mode {self.mode}", where=str(file.path))
        control, second = self.at["CONTROL_PAGE"], self.at["SECOND_PAGE"]
        window = int(arch.direct(control)), control
        self.root = self._identity(arch, (control,), window).root
        entry = set_rox(self.ram.read_int, self.ram.write, self.root, arch, Linear(window[0]))
        self.ram.write(entry, bytes([self.ram.read(entry, 1)[0], self.ram.read(entry + 1, 1)[0] | Entry.G >> 8]))
        pages = self._pages("KEXEC_TABLES_BEGIN", "KEXEC_TABLES_END")

        def alloc() -> Phys:
            return Phys(next(pages))

        if arch.bits == 64:
            kexec = build(arch, alloc, self.ram.write, identity=[(0, self.at["HIGH_END"])], pages=[window])
            flat = kexec
        else:
            kexec = build(arch, alloc, self.ram.write, pages=[window, (control, control)])
            flat = build(arch, alloc, self.ram.write, pages=[(second, second)])
        return self._place(arch, paths, kexec, flat)

    def _place(self, arch: Arch, paths: StubPaths, kexec: int, flat: int) -> dict[str, Image]:
        where = {
            "relocate_new_kernel": self.at["CONTROL_PAGE"],
            "second": self.at["SECOND_PAGE"],
            "jump_entry": self.at["ENTRY_PAGE"],
            "purgatory": self.at["PURGATORY_PAGE"],
        }
        placed = {}
        for name, page in where.items():
            path = paths["relocate_new_kernel" if name == "second" else name]
            placed[name] = programs.load(path, page, arch)
            if len(placed[name].code) > PAGE_SIZE:
                raise ImageError(f"is {len(placed[name].code)} bytes; its page has {PAGE_SIZE}", where=str(path))
            self.ram.write(page, placed[name].code.ljust(PAGE_SIZE, b"\0"))
        control_va = int(arch.direct(self.at["CONTROL_PAGE"]))
        relocate = placed["relocate_new_kernel"]
        entry = control_va + programs.relocate_entry(relocate) - relocate.org
        self.words = {
            "entry_va": struct.pack("<Q", entry),
            "control_va": struct.pack("<Q", control_va),
            "kexec_root": struct.pack("<Q", kexec),
            "page_list": struct.pack("<4I", relocate.org, control_va & 0xFFFFFFFF, kexec, self.at["SWAP_PAGE"]),
        }
        self._fill(relocate, control_va, kexec, self.at["SWAP_PAGE"])
        self._fill(placed["second"], placed["second"].org, kexec, self.at["SECOND_SWAP_PAGE"])
        self._fill_entry(arch, placed, flat)
        return placed

    def _fill(self, stub: Image, linear: int, table: int, swap: int) -> None:
        """The words that the loader fills in a control page of x86_64; i386 gets them as arguments."""
        words = {"kexec_va_control_page": linear, "kexec_pa_table_page": table, "kexec_pa_swap_page": swap}
        for name, value in words.items():
            if name in stub.symbols:
                self.ram.write(stub.symbols[name], struct.pack("<Q", value))

    def _fill_entry(self, arch: Arch, placed: Mapping[str, Image], flat: int) -> None:
        stub, second, entry = placed["relocate_new_kernel"], placed["second"], placed["jump_entry"]
        words: dict[str, tuple[int, ...]] = {
            "je_relocate": (programs.relocate_entry(second),),
            "je_pa_control": (second.org,),
            "je_flags": (int(RelocateFlag.SWAP) if arch.bits == 64 else 0,),
            "je_has_pae": (int(arch.is_pae),),
            "je_page_list": (second.org, second.org, flat, self.at["SECOND_SWAP_PAGE"]),
        }
        for name, routine in (("je_start_saved", "restore_after_save"), ("je_start_resumed", "restore_after_resume")):
            if routine in stub.symbols:
                words[name] = (stub.symbols[routine],)
        for name, values in words.items():
            if name in entry.symbols:
                data = b"".join(value.to_bytes(arch.word, "little") for value in values)
                self.ram.write(entry.symbols[name], data)
