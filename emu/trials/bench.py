"""A small machine in which the stubs run with nothing around them: a kernel A of two instructions, and what it needs.

A calls relocate_new_kernel in its own address space, where the control page is read-only and global, with every
control register bit set that the stub must take care of.  A run ends at a HLT.  What is wrong is collected in words.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from emu.assembler import Image, assemble_text
from emu.journey.memory import RamImage
from emu.kexec.arch import Arch
from emu.kexec.entry_list import Mode
from emu.kexec.layout import Ind
from emu.machine import events as ev
from emu.machine import start
from emu.machine.cpustate import RAX, RCX, RDI, RDX, RSI, RSP
from emu.machine.machine import Machine
from emu.trials import places
from emu.trials.stubs import StubSet
from emu.trials.tables import build_tables
from emu.units import PAGE_SIZE, show_phys
from emu.x86.bits import Cr4
from emu.x86.segments import TableRegister

TICK_LIMIT = 60_000
"""Ticks that a run may take: twice what the longest list here needs."""
CALLEE_SAVED = {32: ("rbx", "rsi", "rdi", "rbp"), 64: ("rbx", "rbp", "r12", "r13", "r14", "r15")}
GENERAL = {
    32: ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"),
    64: ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{number}" for number in range(8, 16))),
}
_INDEX = {"rax": 0, "rcx": 1, "rdx": 2, "rbx": 3, "rsp": 4, "rbp": 5, "rsi": 6, "rdi": 7} | {
    f"r{number}": number for number in range(8, 16)
}
_STACK_BYTES = 128
"""What the stub may use of its own stack, at the end of the control page."""
_CALL_BYTES = 8 * 9
"""What A's call and the stub may use of A's stack: arguments or return address, callee-saved registers and flags."""
_MOST_SHOWN = 3
JUNK = 0xDEADBEE2DEADBEE2
"""A register that means nothing; as a flag word of relocate_new_kernel it would copy where an exchange is wanted."""


class Bench:
    """One machine of one architecture, for trials one after the other: :meth:`reset` comes before each."""

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.at = places.places(arch)
        self.word = arch.word
        self.mask = (1 << arch.bits) - 1
        self.machine = Machine(places.memory_map(arch))
        self._furnish()
        start_state(self.machine, arch)
        self.machine.ram.rebase()
        self._clean = self.machine.snapshot()
        self.stubs = StubSet("i386" if arch.bits == 32 else "x86_64")
        self.symbols: Mapping[str, int] = {}
        self.wrong: list[str] = []
        self.outcome: ev.Outcome = ev.Outcome()
        self.called_at: dict[str, int] = {}
        self._offset = 0

    def _furnish(self) -> None:
        """Fill memory, a pattern of its own for each page, and put A's tables, code and GDT there."""
        machine, at = self.machine, self.at
        for pfn in machine.ram.pfns():
            machine.ram.write(pfn * PAGE_SIZE, struct.pack("<Q", pfn << 24 | 0xA5) * (PAGE_SIZE // 8))
        machine.ram.write(at.code, b"\xff\xd0\xf4")  # call *%rax or *%eax; hlt
        machine.ram.write(at.halt, b"\xf4")
        build_tables(machine.ram, self.arch, at)

    def reset(self, stubs: StubSet, *, offset: int = 0) -> None:
        """A machine as new, with relocate_new_kernel of ``stubs`` at ``offset`` of the control page."""
        self.machine.restore(self._clean)
        self.machine.engine.flush_code()
        self.machine.code.dropped()  # or strings into pages that held code once would be the engine's, one by one
        self.stubs, self.wrong, self.called_at, self._offset = stubs, [], {}, offset
        image = self.place("relocate_new_kernel", self.at.control + offset)
        self.fill(image, int(self.arch.direct(self.at.control)), self.at.swap)
        self.symbols = image.symbols

    def reset_memory(self) -> None:
        """Once more as after :meth:`reset`, keeping what is noted as wrong."""
        wrong = self.wrong
        self.reset(self.stubs, offset=self._offset)
        self.wrong = wrong

    # ---- memory ------------------------------------------------------------------------------------------------

    def place(self, name: str, org: int) -> Image:
        """Put a stub at physical ``org``."""
        image = self.stubs.at(name, org)
        self.machine.ram.write(org, image.code)
        return image

    def fill(self, image: Image, va: int, swap: int) -> None:
        """What the loader fills in on x86_64 (``va`` is linear); i386 has it in page_list."""
        if self.arch.bits == 64:
            self.put(image.symbols["kexec_va_control_page"], va)
            self.put(image.symbols["kexec_pa_table_page"], self.at.kexec_tables)
            self.put(image.symbols["kexec_pa_swap_page"], swap)

    def put(self, address: int, *values: int) -> None:
        """Store words of the architecture's size."""
        self.machine.ram.write(address, b"".join(value.to_bytes(self.word, "little") for value in values))

    def get(self, address: int) -> int:
        """A word of the architecture's size."""
        return self.machine.ram.read_int(address, self.word)

    def write_list(self, *entries: int) -> int:
        """Lay ``entries`` out in indirection pages, every other page of memory; the head."""
        per_page = PAGE_SIZE // self.word - 1
        for number, first in enumerate(range(0, max(len(entries), 1), per_page)):
            page = self.at.lists + number * 2 * PAGE_SIZE
            self.put(page, *entries[first : first + per_page], page + 2 * PAGE_SIZE | Ind.INDIRECTION)
        return self.at.lists | Ind.INDIRECTION

    def callee(self, text: str) -> tuple[int, Mapping[str, int]]:
        """Put a peer where a list moves it to the target pages from: the list's head, and the peer's symbols."""
        image = assemble_text(text, org=self.at.target, bits=self.arch.bits)
        self.machine.ram.write(self.at.source, image.code.ljust(PAGE_SIZE, b"\xcc"))
        entries = (
            self.at.target | Ind.DESTINATION,
            self.at.source | Ind.SOURCE,
            self.at.source + PAGE_SIZE | Ind.SOURCE,
            places.LOW_TARGET | Ind.DESTINATION,
            self.at.source + 4 * PAGE_SIZE | Ind.SOURCE,
            int(Ind.DONE),
        )
        return self.write_list(*entries), image.symbols

    # ---- running -----------------------------------------------------------------------------------------------

    def call(self, head: int, entry: int, flags: int) -> None:
        """A calls relocate_new_kernel; over when somebody halts."""
        arch, machine, at = self.arch, self.machine, self.at
        start_state(machine, arch)
        engine = machine.engine
        for number, name in enumerate(GENERAL[arch.bits]):
            engine.set_gpr(_INDEX[name], 0x1111_2222_1111 * (number + 1) & self.mask)
        stack = at.stack + PAGE_SIZE
        called = int(arch.direct(self.symbols["relocate_new_kernel"]))
        if arch.bits == 64:
            for index, value in ((RDI, head), (RSI, at.control), (RDX, entry), (RCX, flags)):
                engine.set_gpr(index, value)
        else:
            # has_pae is true when it is not 0
            self.put(at.page_list, at.control, int(arch.direct(at.control)), at.kexec_tables, at.swap)
            stack -= 20
            self.put(stack, head, int(arch.direct(at.page_list)), entry, 0x80, flags)
        engine.set_gpr(RAX, called)
        engine.set_gpr(RSP, int(arch.direct(stack)))
        self.called_at = machine.cpu.registers()
        self.run(int(arch.direct(at.code)))

    def run(self, rip: int, ticks: int = TICK_LIMIT) -> None:
        """Run from linear ``rip`` until somebody halts."""
        self.machine.engine.rip = rip
        self.machine.engine.settle()
        self.outcome = self.machine.run(ticks)

    def set(self, **values: int) -> None:
        """Set general registers by their 64-bit names."""
        for name, value in values.items():
            self.machine.engine.set_gpr(_INDEX[name], value & self.mask)

    def junk(self) -> None:
        """What a kernel that owes nothing to anybody leaves: every register, flags, a breakpoint, an IDT."""
        for name in (*GENERAL[self.arch.bits], "rsp"):
            self.set(**{name: JUNK})
        engine = self.machine.engine
        engine.rflags = 0x44402  # AC NT DF
        engine.idtr = TableRegister(JUNK & self.mask, 0x7FF)
        engine.set_cr(4, engine.cr(4) | Cr4.PGE | Cr4.OSFXSR)
        engine.settle()

    @contextmanager
    def port_writes(self) -> Iterator[list[tuple[int, int, int]]]:
        """Keep every OUT inside the block, as (port, bytes, value)."""
        bus, written = self.machine.board.bus, list[tuple[int, int, int]]()
        write = bus.write

        def spy(port: int, size: int, value: int) -> None:
            written.append((port, size, value))
            write(port, size, value)

        bus.write = spy  # type: ignore[method-assign]
        try:
            yield written
        finally:
            del bus.write

    # ---- what is checked ---------------------------------------------------------------------------------------

    def check(self, what: str, expected: object, actual: object) -> None:
        """Note that ``what`` is not as expected."""
        if expected != actual:
            shown = [f"{value:#x}" if isinstance(value, int) else str(value) for value in (expected, actual)]
            self.wrong.append(f"{what}: {shown[1]}, not {shown[0]}")

    def check_halted(self, address: int) -> bool:
        """The run ended at the HLT just before linear ``address``, and nothing was a hazard on the way."""
        if self.outcome != ev.Halted(address):
            self.wrong.append(f"the run ended in {self.outcome}, not at {address:#x}")
        for event in self.machine.events:
            if isinstance(event, ev.Hazard):
                self.wrong.append(f"hazard: {event.kind}: {event.detail}")
            elif isinstance(event, ev.Fault):
                self.wrong.append(f"exception {event.vector} at {event.pc:#x}: {event.reason}")
            elif isinstance(event, ev.BusError):
                self.wrong.append(f"{event.access} at {event.address:#x}")
        return not self.wrong

    def expect(self) -> RamImage:
        """A copy of memory, for the model to work on."""
        return RamImage(self.machine.ram)

    def carry_out(self, head: int, *, exchange: bool, swap: int | None = None) -> RamImage:
        """Memory as the list at ``head`` should leave it."""
        image = RamImage(self.machine.ram)
        steps = image.walk(head, self.word)
        image.move(steps, Mode.SWAP if exchange else Mode.COPY, (swap or self.at.swap) if exchange else None)
        return image

    def check_memory(self, expected: RamImage, *also: tuple[int, int]) -> None:
        """All of memory, but for saved context and stack of the stub, the end of A's stack, and ``also``."""
        at = self.at
        volatile = [
            (self.symbols["saved_context"], self.symbols["saved_context_end"]),
            (at.control + PAGE_SIZE - _STACK_BYTES, at.control + PAGE_SIZE),
            (at.stack + PAGE_SIZE - _CALL_BYTES, at.stack + PAGE_SIZE),
            (at.page_list, at.page_list + 16),  # written for the call
            *also,
        ]
        found = list(expected.differences(self.machine.ram, volatile))
        for one in found[:_MOST_SHOWN]:
            self.wrong.append(f"memory at {show_phys(one.address)}: {one.actual.hex()}, not {one.expected.hex()}")

    def check_back_in_a(self, returned: int) -> None:
        """A's call returned ``returned``, and all that must be as before is so."""
        arch = self.arch
        if not self.check_halted(int(arch.direct(self.at.code)) + 3):
            return
        state, before = self.machine.cpu.registers(), self.called_at
        self.check("returned value", returned, state["rax"] & self.mask)
        for name in (*CALLEE_SAVED[arch.bits], "rsp", "rflags", "cr0", "cr3", "cr4", "efer", "gdtr.base", "gdtr.limit"):
            self.check(name, before[name] & self.mask, state[name] & self.mask)
        if arch.bits == 64:
            own = {"cs": 0x10, "ss": 0x18, "ds": 0x18, "es": 0x18, "idtr.base": self.symbols["kexec_debug_idt"]}
            for name, value in own.items():
                self.check(name, value, state[name])


def start_state(machine: Machine, arch: Arch) -> None:
    """A, in its own mode, about to run."""
    at = places.places(arch)
    gdt = TableRegister(int(arch.direct(at.gdt)), places.GDT_LIMIT)
    if arch.bits == 64:
        start.long_mode(machine, rip=0, gdt=gdt, cr3=at.a_tables, la57=arch.is_la57)
    else:
        start.protected_mode(machine, eip=0, gdt=gdt, cr3=at.a_tables, cr4=places.cr4_of_a(arch))
    engine = machine.engine
    engine.efer = int(places.efer_of_a(arch))
    engine.set_cr(0, int(places.CR0_A))
    engine.set_cr(4, int(places.cr4_of_a(arch)))
    if arch is Arch.X86_64:
        engine.set_cr(3, at.a_tables | places.PCID)
    engine.rflags = places.FLAGS_A
    engine.settle()
    machine.flush_translations()
    machine.cpu.settle_pdptes()
