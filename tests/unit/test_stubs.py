"""The stubs of asm/, assembled and run as they are on a bare engine, against small models of their own.

The engine here knows nothing of kjump: A is a call and a hlt with page tables around them, the peer a few
instructions.  What may not change is compared over the whole of RAM.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import capstone
import pytest
import unicorn
from unicorn import x86_const

from emu.assembler import Image, assemble, assemble_text
from emu.resources import asm_dir

PAGE = 0x1000
RAM = 20 << 20
CONTROL, SWAP, SECOND, SECOND_SWAP, ENTRY_PAGE, PURGATORY = 0x40000, 0x41000, 0x44000, 0x45000, 0x46000, 0x48000
KEXEC_TABLES, A_TABLES = 0x50000, 0x60000
A_CODE, A_STACK, A_GDT, HALT, LISTS = 0x70000, 0x71000, 0x72000, 0x73000, 0x80000
SOURCE, TARGET = 0x400000, 0xC00000
VOLATILE = {CONTROL, SWAP, A_STACK}

DESTINATION, INDIRECTION, DONE, MOVE = 1, 2, 4, 8  # kimage entry flags
PRESERVE, INCOHERENT, EXCHANGE, COPY = 1, 2, 4, 8  # relocate_new_kernel flags
CP_PA_INVERSE_MAP = 0x830  # in the i386 control page
CR0_A, CR0_DROPPED, CR0_PG = 0x80010033, 0x5000C, 1 << 31
PSE, PAE, MCE, PGE, OSFXSR, LA57 = 0x10, 0x20, 0x40, 0x80, 0x200, 0x1000
MSR_EFER, SCE, LME_LMA, NXE = 0xC0000080, 1, 0x500, 0x800
GDT_LIMIT = 0x47
FLAGS_A = 0x44CD7  # AC NT OF DF SF ZF AF PF CF
JUNK_FLAGS = 0x44402  # AC NT DF

CALLEE_SAVED = {32: ("ebx", "esi", "edi", "ebp"), 64: ("rbx", "rbp", "r12", "r13", "r14", "r15")}
GENERAL = {
    32: ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp"),
    64: ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{number}" for number in range(8, 16))),
}


@dataclass(frozen=True, slots=True)
class Arch:
    name: str
    bits: int
    base: int  # A's direct map
    shifts: tuple[int, ...]  # of the linear address, top level first
    entry_size: int
    cr4: int
    efer: int

    @property
    def word(self) -> int:
        return self.bits // 8

    @property
    def folder(self) -> str:
        return "x86_64" if self.bits == 64 else "i386"


I386 = Arch("i386", 32, 0xC0000000, (22, 12), 4, PGE | OSFXSR | PSE, 0)
I386_PAE = Arch("i386-pae", 32, 0xC0000000, (30, 21, 12), 8, PGE | OSFXSR | PAE, NXE)
X86_64 = Arch("x86_64", 64, 0xFFFF888000000000, (39, 30, 21, 12), 8, PGE | OSFXSR | PAE | MCE, NXE | LME_LMA | SCE)
X86_64_LA57 = Arch(
    "x86_64-la57", 64, 0xFF11000000000000, (48, 39, 30, 21, 12), 8, PGE | OSFXSR | PAE | LA57, NXE | LME_LMA | SCE
)
every_arch = pytest.mark.parametrize("arch", [I386, I386_PAE, X86_64, X86_64_LA57], ids=lambda arch: arch.name)
one_of_each_width = pytest.mark.parametrize("arch", [I386, X86_64], ids=lambda arch: arch.folder)


@functools.cache
def stub(folder: str, name: str, org: int = 0) -> Image:
    bits = 64 if folder == "x86_64" else 32
    return assemble(asm_dir() / folder / f"{name}.S", org=org, bits=bits, include=(asm_dir() / "include",))


@functools.cache
def every_page_its_own() -> bytes:
    """What fills RAM from 1 MiB up."""
    return b"".join(struct.pack("<Q", pfn << 32 | 0xA5) * 512 for pfn in range(0x100, RAM // PAGE))


def words(arch: Arch, *values: int) -> bytes:
    return b"".join(value.to_bytes(arch.word, "little") for value in values)


class Bench:
    """A bare engine with the stub in a control page, the kexec tables, and an A that can call it."""

    def __init__(self, arch: Arch, control: int = CONTROL, offset: int = 0) -> None:
        self.arch, self.control = arch, control
        mode = unicorn.UC_MODE_64 if arch.bits == 64 else unicorn.UC_MODE_32
        binding: Any = unicorn  # half typed
        self.engine = binding.Uc(unicorn.UC_ARCH_X86, mode)
        self.engine.mem_map(0, RAM)
        self.write(0x100000, every_page_its_own())
        self.write(SWAP + PAGE, b"\xee" * PAGE)
        self.write(A_CODE, b"\xff\xd0\xf4")  # call *%eax or *%rax; hlt
        self.write(HALT, b"\xf4")

        self.symbols = self.place("relocate_new_kernel", control + offset)
        self.fill(self.symbols, control, SWAP)
        self.next_table = 0
        for page in range(0, 0x100000, PAGE):
            self.map(A_TABLES, arch.base + page, page, 0x161 if page == control else 0x163)  # P, RW, A, D, G
        self.next_table = 0
        for page in (control, SECOND):
            self.map(KEXEC_TABLES, arch.base + page, page, 0x63)
            if arch.bits == 32:
                self.map(KEXEC_TABLES, page, page, 0x63)
        if arch.bits == 64:
            for page in range(0, RAM, 1 << 21):
                self.map(KEXEC_TABLES, page, page, 0xE3, leaf=21)

    def place(self, name: str, at: int) -> dict[str, int]:
        image = stub(self.arch.folder, name, at)
        self.write(at, image.code)
        return dict(image.symbols)

    def fill(self, symbols: dict[str, int], control: int, swap: int) -> None:
        """What the loader fills in; i386 has most of it in page_list."""
        if self.arch.bits == 32:
            self.write(control + CP_PA_INVERSE_MAP, words(self.arch, 0))
        else:
            self.write(symbols["kexec_va_control_page"], words(self.arch, self.arch.base + control))
            self.write(symbols["kexec_pa_table_page"], words(self.arch, KEXEC_TABLES))
            self.write(symbols["kexec_pa_swap_page"], words(self.arch, swap))

    def map(self, top: int, linear: int, page: int, flags: int, leaf: int = 12) -> None:
        size, table = self.arch.entry_size, top
        for shift in self.arch.shifts:
            index = linear >> shift & (0x3FF if size == 4 else 0x3 if self.arch.bits == 32 and shift == 30 else 0x1FF)
            at = table + index * size
            if shift == leaf:
                self.engine.mem_write(at, (page | flags).to_bytes(size, "little"))
                return
            entry = int.from_bytes(self.engine.mem_read(at, size), "little")
            if not entry:
                self.next_table += PAGE
                entry = top + self.next_table | (1 if self.arch.bits == 32 and shift == 30 else 0x63)
                self.engine.mem_write(at, entry.to_bytes(size, "little"))
            table = entry & -PAGE

    def write(self, at: int, data: bytes) -> None:
        self.engine.mem_write(at, data)
        self.engine.ctl_flush_tb()

    def word(self, at: int) -> int:
        return int.from_bytes(self.engine.mem_read(at, self.arch.word), "little")

    def ram(self) -> bytearray:
        return bytearray(self.engine.mem_read(0, RAM))

    def get(self, name: str) -> int:
        value: int = self.engine.reg_read(getattr(x86_const, f"UC_X86_REG_{name.upper()}"))
        return value

    def set(self, **values: int) -> None:
        for name, value in values.items():
            self.engine.reg_write(getattr(x86_const, f"UC_X86_REG_{name.upper()}"), value)

    def named(self, name: str) -> str:
        return ("r" if self.arch.bits == 64 else "e") + name

    def table_register(self, name: str) -> tuple[int, int]:
        _, base, limit, _ = self.engine.reg_read(getattr(x86_const, f"UC_X86_REG_{name.upper()}"))
        return base, limit

    def call(self, head: int, start: int, flags: int) -> None:
        """A, in its own mode, calls relocate_new_kernel; over when somebody halts."""
        arch = self.arch
        self.engine.msr_write(MSR_EFER, arch.efer)
        self.set(cr4=arch.cr4, cr3=A_TABLES, cr0=CR0_A)
        self.engine.reg_write(x86_const.UC_X86_REG_GDTR, (0, arch.base + A_GDT, GDT_LIMIT, 0))
        for number, name in enumerate(CALLEE_SAVED[arch.bits]):
            self.set(**{name: 0x1111 * (number + 1)})
        entry, stack = arch.base + self.symbols["relocate_new_kernel"], A_STACK + PAGE
        if arch.bits == 64:
            self.set(rax=entry, rdi=head, rsi=self.control, rdx=start, rcx=flags)
        else:
            # has_pae is true when it is not 0; the flag word has two bits here.
            self.write(A_STACK, words(arch, self.control, arch.base + self.control, KEXEC_TABLES, SWAP))
            stack -= 20
            self.write(stack, words(arch, head, arch.base + A_STACK, start, 0x80, flags & (PRESERVE | COPY)))
            self.set(eax=entry)
        self.call_stack = arch.base + stack
        self.set(**{self.named("sp"): self.call_stack}, eflags=FLAGS_A)
        self.run(arch.base + A_CODE)

    def run(self, at: int) -> None:
        self.engine.emu_start(at, 0, count=50_000_000)
        self.pc = self.get(self.named("ip"))

    def junk(self) -> None:
        """What a kernel that owes us nothing may leave."""
        for name in (*GENERAL[self.arch.bits], self.named("sp")):
            self.set(**{name: 0xDEADBEEC})
        self.set(eflags=JUNK_FLAGS, cr4=self.get("cr4") | PGE | OSFXSR)

    def assert_back_in_a(self, returned: int) -> None:
        bits, arch = self.arch.bits, self.arch
        assert self.pc == arch.base + A_CODE + 3
        assert self.get(self.named("ax")) == returned
        assert self.get(self.named("sp")) == self.call_stack
        assert [self.get(name) for name in CALLEE_SAVED[bits]] == [
            0x1111 * (number + 1) for number in range(len(CALLEE_SAVED[bits]))
        ]
        assert self.get("eflags") == FLAGS_A
        assert (self.get("cr0"), self.get("cr3"), self.get("cr4")) == (CR0_A, A_TABLES, arch.cr4)
        assert self.engine.msr_read(MSR_EFER) == arch.efer
        assert self.table_register("gdtr") == (arch.base + A_GDT, GDT_LIMIT)

    def write_list(self, *entries: int) -> int:
        """Lay ``entries`` out in indirection pages; the head."""
        per_page = PAGE // self.arch.word - 1
        for number, first in enumerate(range(0, len(entries), per_page)):
            page = LISTS + number * PAGE
            self.write(page, words(self.arch, *entries[first : first + per_page], page + PAGE | INDIRECTION))
        return LISTS | INDIRECTION

    def callee(self, text: str) -> tuple[int, dict[str, int]]:
        """Put a callee where a list moves it to TARGET from; the list's head and the callee's symbols."""
        image = assemble_text(text, org=TARGET, bits=self.arch.bits)
        self.write(SOURCE, image.code.ljust(PAGE, b"\xcc"))
        return self.write_list(TARGET | DESTINATION, SOURCE | MOVE, SOURCE + PAGE | MOVE, DONE), dict(image.symbols)


def different_pages(one: bytes | bytearray, other: bytes | bytearray, ignored: set[int] = VOLATILE) -> list[str]:
    return [
        hex(page)
        for page in range(0, RAM, PAGE)
        if page not in ignored and one[page : page + PAGE] != other[page : page + PAGE]
    ]


def carry_out(ram: bytearray, head: int, word: int, *, exchange: bool) -> None:
    """What swap_pages does, in Python, on a copy of RAM."""
    at = cursor = 0
    entry = head
    while True:
        page = entry & -PAGE
        if entry & DESTINATION:
            cursor = page
        elif entry & INDIRECTION:
            at = page
        elif entry & DONE:
            return
        elif entry & MOVE:
            source = bytes(ram[page : page + PAGE])
            if exchange:
                ram[SWAP : SWAP + PAGE] = source
                ram[page : page + PAGE] = ram[cursor : cursor + PAGE]
            ram[cursor : cursor + PAGE] = source
            cursor += PAGE
        entry = int.from_bytes(ram[at : at + word], "little")
        at += word


# ---- The code as it stands ----


@dataclass(frozen=True, slots=True)
class Contract:
    name: str
    symbols: str
    end_of_code: str


RELOCATE = (
    "relocate_new_kernel identity_mapped swap_pages virtual_mapped back_from_peer restore_after_save "
    "restore_after_resume saved_cr0 saved_cr3 saved_cr4 saved_efer saved_gdt"
)
RELOCATE_64 = (
    "saved_rsp kexec_va_control_page kexec_pa_table_page kexec_pa_swap_page pa_backup_pages_map "
    "kexec_debug_gdt kexec_debug_idt"
)
ENTRY = "after_resume after_image_save je_head je_relocate je_start_saved je_start_resumed"
BEFORE = "purgatory_start kernel_entry boot_params jump_back_entry callee_stack"
CONTRACTS = (
    ("x86_64", Contract("relocate_new_kernel", f"{RELOCATE} {RELOCATE_64}", "vector_text")),
    ("i386", Contract("relocate_new_kernel", f"{RELOCATE} saved_esp", "saved_context")),
    ("x86_64", Contract("jump_entry", f"{ENTRY} je_pa_control je_flags", "je_head")),
    ("i386", Contract("jump_entry", f"{ENTRY} je_page_list je_has_pae", "je_head")),
    ("x86_64", Contract("purgatory", BEFORE, "kernel_entry")),
    ("i386", Contract("purgatory", BEFORE, "kernel_entry")),
)
every_stub = pytest.mark.parametrize(
    ("folder", "contract"), CONTRACTS, ids=[f"{folder}-{contract.name}" for folder, contract in CONTRACTS]
)


def instructions(folder: str, image: Image, start: int, end: int) -> Iterator[Any]:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if folder == "x86_64" else capstone.CS_MODE_32)
    decoder.detail = True
    yield from decoder.disasm(image.code[start - image.org : end - image.org], start)


@every_stub
def test_stub_has_its_symbols_and_fits_its_page(folder: str, contract: Contract) -> None:
    image = stub(folder, contract.name)
    assert set(contract.symbols.split()) <= set(image.symbols)
    room_for_a_stack = 512
    assert len(image.code) <= PAGE - room_for_a_stack


def test_i386_saved_context_is_where_the_contract_says() -> None:
    image = stub("i386", "relocate_new_kernel")
    fields = "saved_esp saved_cr0 saved_cr3 saved_cr4 cp_va_control_page cp_pa_pgd cp_pa_swap_page"
    assert [image.symbols[name] for name in fields.split()] == list(range(0x800, 0x81C, 4))
    assert image.symbols["cp_pa_backup_pages_map"] == 0x81C
    assert (image.symbols["saved_efer"], image.symbols["saved_gdt"]) == (0x820, 0x828)
    assert (image.symbols["cp_pa_inverse_map"], len(image.code)) == (0x830, 0x834)


@every_stub
def test_no_branch_leaves_the_page(folder: str, contract: Contract) -> None:
    image = stub(folder, contract.name)
    end = image.symbols[contract.end_of_code]
    seen = list(instructions(folder, image, image.org, end))
    assert sum(instruction.size for instruction in seen) == end - image.org, "not all of it decodes"
    direct = [
        instruction.operands[0].imm
        for instruction in seen
        if instruction.group(capstone.CS_GRP_JUMP) or instruction.group(capstone.CS_GRP_CALL)
        if instruction.operands[0].type == capstone.x86.X86_OP_IMM
    ]
    assert [hex(target) for target in direct if not image.org <= target < end] == []


@pytest.mark.parametrize(("folder", "register"), [("x86_64", "cr4"), ("i386", "cr3")])
def test_nothing_is_stored_through_a_mapping_of_a(folder: str, register: str) -> None:
    # A stale global translation of the control page would be read-only.
    image = stub(folder, "relocate_new_kernel")
    stores = []
    for instruction in instructions(folder, image, image.org, image.symbols["swap_pages"]):
        if instruction.mnemonic == "mov" and instruction.op_str.startswith(f"{register},"):
            break
        stores += [op for op in instruction.operands[:1] if op.type == capstone.x86.X86_OP_MEM and op.access & 2]
    else:
        pytest.fail(f"{register} is never loaded")
    assert stores == []


@one_of_each_width
def test_cookies_stand_before_the_entries(arch: Arch) -> None:
    image = stub(arch.folder, "jump_entry")
    for kind, name in ((1, "after_resume"), (2, "after_image_save")):
        at = image.symbols[name]
        assert struct.unpack("<II", image.code[at - 8 : at]) == (0x504D4A4B, kind)


# ---- The list ----


def pages(count: int) -> list[int]:
    return [TARGET | DESTINATION, *(SOURCE + PAGE * number | MOVE for number in range(count))]


SHAPES: dict[str, list[int]] = {
    "empty": [],
    "null image": [0 | DESTINATION],
    "1 page": pages(1),
    "2 pages": pages(2),
    "511 pages": pages(511),
    "512 pages": pages(512),
    "2000 pages": pages(2000),
    "no destination yet": [SOURCE | MOVE],
    "segments": [
        *(TARGET + 0x300000 | DESTINATION, SOURCE + 7 * PAGE | MOVE, SOURCE | MOVE),
        *(TARGET | DESTINATION, TARGET + PAGE | DESTINATION, SOURCE + 3 * PAGE | MOVE),
        *(0x9000 | DESTINATION, SOURCE + 9 * PAGE | MOVE),
    ],
    "its own source": [TARGET | DESTINATION, TARGET | MOVE, SOURCE | MOVE, TARGET + 2 * PAGE | MOVE],
    "ignored": [TARGET | DESTINATION, 0, PAGE, 0x10, TARGET + 0xFF0, SOURCE | MOVE, 0, SOURCE + PAGE | MOVE],
    "lowest flag wins": [
        *(TARGET | DESTINATION | MOVE | DONE, SOURCE | MOVE | 0xFF0),
        *(TARGET + 5 * PAGE | DESTINATION | INDIRECTION, SOURCE + PAGE | MOVE, DONE | MOVE, SOURCE + 2 * PAGE | MOVE),
    ],
    "indirection before done": [TARGET | DESTINATION, LISTS + PAGE | INDIRECTION | DONE | MOVE],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("arch", "exchange"),
    [(I386, True), (X86_64, True), (X86_64, False)],
    ids=["i386", "x86_64 exchange", "x86_64 copy"],
)
def test_list_is_carried_out_as_the_model_says(arch: Arch, exchange: bool, shape: str) -> None:
    bench = Bench(arch)
    if shape == "indirection before done":
        bench.write(LISTS + PAGE, words(arch, SOURCE | MOVE, DONE))
    head = bench.write_list(*SHAPES[shape], DONE) if SHAPES[shape] else DONE
    expected = bench.ram()
    carry_out(expected, head, arch.word, exchange=exchange)

    bench.call(head, HALT, EXCHANGE if exchange else 0)

    assert bench.pc == HALT + 1
    assert different_pages(bench.ram(), expected, {CONTROL, A_STACK}) == []


# ---- Out ----


@every_arch
def test_plain_path_enters_with_nothing_and_nobody_to_go_back_to(arch: Arch) -> None:
    bench = Bench(arch)
    bench.call(DONE, HALT, 0)
    assert bench.pc == HALT + 1
    assert {name: bench.get(name) for name in GENERAL[arch.bits]} == dict.fromkeys(GENERAL[arch.bits], 0)
    stack = bench.get(bench.named("sp"))
    assert stack == CONTROL + PAGE - arch.word
    assert bench.word(stack) == 0


@pytest.mark.parametrize("flags", [0, INCOHERENT, PRESERVE, PRESERVE | INCOHERENT])
def test_caches_are_written_back_before_the_pages_move_when_flagged(flags: int) -> None:
    bench = Bench(X86_64)
    image = stub("x86_64", "relocate_new_kernel", CONTROL)
    code = instructions("x86_64", image, image.org, image.symbols["swap_pages"])
    wbinvd = next(instruction.address for instruction in code if instruction.mnemonic == "wbinvd")
    before = bench.word(TARGET)
    seen: list[int] = []
    bench.engine.hook_add(unicorn.UC_HOOK_CODE, lambda *_: seen.append(bench.word(TARGET)), begin=wbinvd, end=wbinvd)
    bench.call(bench.write_list(*pages(2), DONE), HALT, flags)
    assert seen == ([before] if flags & INCOHERENT else [])
    assert bench.word(TARGET) != before


def assert_next_kernels_mode(bench: Bench) -> None:
    if bench.arch.bits == 64:
        assert bench.get("cr0") == CR0_A & ~CR0_DROPPED
        assert bench.get("cr4") == bench.arch.cr4 & (PAE | LA57 | MCE)
        assert bench.get("cr3") == KEXEC_TABLES
        assert bench.table_register("gdtr") == (bench.symbols["kexec_debug_gdt"], 0x1F)
        assert bench.table_register("idtr") == (bench.symbols["kexec_debug_idt"], 0xFF)
        assert [bench.get(name) for name in ("cs", "ss", "ds", "es")] == [0x10, 0x18, 0x18, 0x18]
    else:
        assert bench.get("cr0") == CR0_A & ~CR0_DROPPED & ~CR0_PG
        assert bench.get("cr4") == 0
    assert bench.get("eflags") & 0x44700 == 0


@every_arch
def test_preserve_path_calls_start_with_its_slot(arch: Arch) -> None:
    bench = Bench(arch)
    bench.call(DONE, HALT, PRESERVE)
    assert bench.pc == HALT + 1
    stack = bench.get(bench.named("sp"))
    assert stack == SWAP + PAGE - 2 * arch.word
    assert (bench.word(stack), bench.word(stack + arch.word)) == (bench.symbols["back_from_peer"], HALT)
    assert_next_kernels_mode(bench)


# ---- And back ----

SPOIL = {
    64: """
        movl $0xaaa8, %ebx; movl %ebx, %ebp; movl %ebx, %r12d; movl %ebx, %r13d; movl %ebx, %r14d; movl %ebx, %r15d
        movl %ebx, %r10d; movl %ebx, %r11d
        movl $0xc0000080, %ecx; rdmsr; andl $0xfffff7fe, %eax; wrmsr
        movq %cr4, %rax; orl $0x680, %eax; movq %rax, %cr4
        movq %cr0, %rax; orl $0x5000c, %eax; movq %rax, %cr0
        lgdt nothing(%rip)
        lidt nothing(%rip)
        pushq $0x44400; popfq
        ret
        nothing: .word 0; .quad 0
    """,
    32: """
        movl $0xaaa8, %ebx; movl %ebx, %ebp; movl %ebx, %esi; movl %ebx, %edi
        movl $0xc0000080, %ecx; rdmsr; xorl $0x800, %eax; wrmsr
        movl $0x4b0, %eax; movl %eax, %cr4
        movl %cr0, %eax; orl $0x5000c, %eax; movl %eax, %cr0
        call here; here: popl %eax; lgdt nothing - here(%eax)
        pushl $0x44400; popfl
        ret
        nothing: .word 0; .long 0
    """,
}


@every_arch
def test_everything_is_as_before_when_the_callee_only_rets(arch: Arch) -> None:
    bench = Bench(arch)
    head, _ = bench.callee(SPOIL[arch.bits])
    before = bench.ram()
    bench.call(head, TARGET, PRESERVE)
    bench.assert_back_in_a(TARGET)
    assert different_pages(bench.ram(), before) == []


@every_arch
def test_callee_may_write_where_to_be_entered_next_time(arch: Arch) -> None:
    bench = Bench(arch)
    store = "movq $0x1234560, 8(%rsp); ret" if arch.bits == 64 else "movl $0x1234560, 4(%esp); ret"
    head, _ = bench.callee(store)
    before = bench.ram()
    bench.call(head, TARGET, PRESERVE)
    bench.assert_back_in_a(0x1234560)
    assert different_pages(bench.ram(), before) == []


CALL_BACK = {
    64: """
        movq (%rsp), %rax; leaq stack(%rip), %rsp
        incl visits(%rip); std; call *%rax
        again: addl $0x10, visits(%rip); popq %rax; call *%rax
        third: hlt
        .balign 8; visits: .long 0; .fill 64, 1, 0; stack:
    """,
    32: """
        movl (%esp), %eax; movl $stack, %esp
        incl visits; std; call *%eax
        again: addl $0x10, visits; popl %eax; call *%eax
        third: hlt
        .balign 8; visits: .long 0; .fill 64, 1, 0; stack:
    """,
}


@every_arch
def test_callee_that_calls_back_is_entered_again_where_it_left(arch: Arch) -> None:
    bench = Bench(arch)
    head, symbols = bench.callee(CALL_BACK[arch.bits])
    before = bench.ram()
    start, visits = TARGET, []
    for _ in range(2):
        bench.call(head, start, PRESERVE)
        start = bench.get(bench.named("ax"))
        bench.assert_back_in_a(start)
        visits.append((start, bench.word(symbols["visits"] - TARGET + SOURCE) & 0xFF))
        assert different_pages(bench.ram(), before, VOLATILE | {SOURCE}) == []
    assert visits == [(symbols["again"], 1), (symbols["third"], 0x11)]


def suspended(arch: Arch) -> tuple[Bench, int, bytearray]:
    """A bench in which A has jumped and B stands, the list's head, and RAM as it was before."""
    bench = Bench(arch)
    head, _ = bench.callee("hlt")
    before = bench.ram()
    bench.call(head, TARGET, PRESERVE)
    assert bench.pc == TARGET + 1
    return bench, head, before


@every_arch
def test_restore_routines_bring_a_back_any_number_of_times(arch: Arch) -> None:
    bench, head, before = suspended(arch)
    ram = bench.ram()
    carry_out(ram, head, arch.word, exchange=True)
    bench.write(0, bytes(ram))  # what C does
    context = slice(bench.symbols["saved_context"], bench.symbols["saved_context_end"])
    as_kernel = {name: bench.get(name) for name in ("cr0", "cr3", "cr4")}
    for name, returned in (("restore_after_save", 1), ("restore_after_resume", 2), ("restore_after_resume", 2)):
        stack = bytes(bench.engine.mem_read(A_STACK, PAGE))
        bench.set(cr0=as_kernel["cr0"], cr4=as_kernel["cr4"], cr3=as_kernel["cr3"])
        bench.junk()
        bench.run(bench.symbols[name])
        bench.assert_back_in_a(returned)
        after = bench.ram()
        assert different_pages(after, before) == []
        assert after[context] == ram[context]
        bench.write(A_STACK, stack)


@every_arch
@pytest.mark.parametrize(("entry", "returned"), [("after_image_save", 1), ("after_resume", 2)])
def test_jump_entry_puts_the_pages_back_and_returns_to_a(arch: Arch, entry: str, returned: int) -> None:
    bench, head, before = suspended(arch)
    second = bench.place("relocate_new_kernel", SECOND)
    bench.fill(second, SECOND, SECOND_SWAP)
    symbols = bench.place("jump_entry", ENTRY_PAGE)
    filled: dict[str, tuple[int, ...]] = {
        "je_head": (head,),
        "je_relocate": (second["relocate_new_kernel"],),
        "je_start_saved": (bench.symbols["restore_after_save"],),
        "je_start_resumed": (bench.symbols["restore_after_resume"],),
    }
    if arch.bits == 64:
        filled |= {"je_pa_control": (SECOND,), "je_flags": (EXCHANGE,)}
    else:
        filled |= {"je_page_list": (SECOND, SECOND, KEXEC_TABLES, SECOND_SWAP), "je_has_pae": (1,)}
    for name, values in filled.items():
        bench.write(symbols[name], words(arch, *values))
    context = slice(bench.symbols["saved_context"], bench.symbols["saved_context_end"])
    saved = bench.ram()[context]

    bench.set(dr7=0x401)
    bench.junk()
    bench.run(symbols[entry])

    bench.assert_back_in_a(returned)
    assert bench.get("dr7") & 0xFF == 0
    after = bench.ram()
    assert after[context] == saved
    assert different_pages(after, before, VOLATILE | {SECOND, SECOND_SWAP, ENTRY_PAGE}) == []


@every_arch
def test_code_that_runs_where_it_is_linked_is_not_changed(arch: Arch) -> None:
    bench = Bench(arch)
    code = slice(CONTROL, bench.symbols["saved_context"])
    before = bench.ram()[code]
    head, _ = bench.callee("ret")
    bench.call(head, TARGET, PRESERVE)
    assert bench.ram()[code] == before


@pytest.mark.parametrize("org", [0, 0x123000])
def test_i386_stub_runs_elsewhere_than_linked(org: int) -> None:
    bench = Bench(I386)
    bench.write(CONTROL, stub("i386", "relocate_new_kernel", org).code)
    head, _ = bench.callee("ret")
    before = bench.ram()
    bench.call(head, TARGET, PRESERVE)
    bench.assert_back_in_a(TARGET)
    assert different_pages(bench.ram(), before) == []


@every_arch
@pytest.mark.parametrize(("control", "offset"), [(0x4A000, 0), (0x4A000, 0x40)])
def test_stub_runs_in_any_page_and_anywhere_in_it(arch: Arch, control: int, offset: int) -> None:
    bench = Bench(arch, control, offset)
    head, _ = bench.callee(SPOIL[arch.bits])
    before = bench.ram()
    bench.call(head, TARGET, PRESERVE)
    bench.assert_back_in_a(TARGET)
    assert different_pages(bench.ram(), before, VOLATILE | {control}) == []


# ---- Purgatory ----


@every_arch
@pytest.mark.parametrize("flags", [0, PRESERVE], ids=["plain", "preserve"])
def test_purgatory_enters_as_the_boot_protocol_says(arch: Arch, flags: int) -> None:
    bench = Bench(arch)
    symbols = bench.place("purgatory", PURGATORY)
    bench.write(symbols["kernel_entry"], words(arch, HALT))
    bench.write(symbols["boot_params"], words(arch, 0x90000))

    bench.call(bench.write_list(*pages(1), DONE), symbols["purgatory_start"], flags)

    assert bench.pc == HALT + 1
    assert [bench.get(name) for name in ("cs", "ds", "es", "ss")] == [0x10, 0x18, 0x18, 0x18]
    assert [bench.get(bench.named(name)) for name in ("si", "bx", "di", "bp")] == [0x90000, 0, 0, 0]
    top = symbols["purgatory_stack_top"]
    assert bench.get(bench.named("sp")) == top - 2 * arch.word <= PURGATORY + PAGE
    assert bench.get("eflags") & 0x44700 == 0
    back, stack = bench.word(symbols["jump_back_entry"]), bench.word(symbols["callee_stack"])
    if flags == PRESERVE:
        assert (back, stack) == (bench.symbols["back_from_peer"], SWAP + PAGE - 2 * arch.word)
    else:
        assert (back, stack) == (0, CONTROL + PAGE - arch.word)
    assert (bench.word(top - 2 * arch.word), bench.word(top - arch.word)) == (back, stack)
    base, limit = bench.table_register("gdtr")
    assert (base, limit) == (symbols["gdt"], 0x1F)


# ---- Exceptions (x86_64) ----


def console(bench: Bench) -> list[str]:
    """Listen on COM1, whose transmitter is busy every other time that it is asked."""
    written: list[str] = []
    polls = iter(range(1 << 30))

    def read(_engine: Any, port: int, _size: int, _data: Any) -> int:
        assert port == 0x3FD
        return 0x20 if next(polls) % 2 else 0

    def write(_engine: Any, port: int, _size: int, value: int, _data: Any) -> None:
        assert port == 0x3F8
        written.append(chr(value))

    hooks: Sequence[tuple[Callable[..., Any], int]] = (
        (read, x86_const.UC_X86_INS_IN),
        (write, x86_const.UC_X86_INS_OUT),
    )
    for hook, instruction in hooks:
        bench.engine.hook_add(unicorn.UC_HOOK_INSN, hook, None, 1, 0, instruction)
    return written


def deliver(bench: Bench, vector: int, error: int | None = None) -> None:
    """Take an exception through the IDT in force, as the processor does in long mode."""
    base, limit = bench.table_register("idtr")
    assert vector * 16 + 15 <= limit
    low, selector, kind, middle, high = struct.unpack("<HHHHQ", bench.engine.mem_read(base + vector * 16, 16))
    assert (selector, kind) == (0x10, 0x8E00)
    rsp = bench.get("rsp")
    frame = words(bench.arch, bench.pc, bench.get("cs"), bench.get("eflags"), rsp, bench.get("ss"))
    if error is not None:
        frame = words(bench.arch, error) + frame
    stack = (rsp & -16) - len(frame)
    bench.write(stack, frame)
    bench.set(rsp=stack)
    bench.run(high << 32 | middle << 16 | low)


def report(**numbers: int) -> str:
    return "relocate_new_kernel: " + " ".join(f"{name} {value:016x}" for name, value in numbers.items()) + "\r\n"


def test_breakpoint_is_reported_and_returned_from() -> None:
    bench = Bench(X86_64)
    head, _ = bench.callee("std; int3; hlt")
    bench.engine.hook_add(unicorn.UC_HOOK_INTR, lambda engine, _vector, _data: engine.emu_stop())
    text = console(bench)
    bench.call(head, TARGET, PRESERVE)
    assert bench.pc == TARGET + 2
    registers = {name: bench.get(name) for name in (*GENERAL[64], "rsp", "ss", "eflags")}
    deliver(bench, 3)
    assert "".join(text) == report(vector=3, error=0, rip=TARGET + 2, cr2=0)
    assert bench.pc == TARGET + 3
    assert {name: bench.get(name) for name in registers} == registers


@pytest.mark.parametrize("vector", [vector for vector in range(16) if vector != 3])
def test_any_other_exception_is_reported_and_the_last(vector: int) -> None:
    bench = Bench(X86_64)
    text = console(bench)
    bench.call(DONE, HALT, PRESERVE)
    bench.set(cr2=0xFEDCBA9876543210)
    error = 0xE0 + vector if vector in {8, 10, 11, 12, 13, 14} else None
    deliver(bench, vector, error)
    assert bench.pc == bench.symbols["halt"] + 1
    assert "".join(text) == report(vector=vector, error=error or 0, rip=HALT + 1, cr2=0xFEDCBA9876543210)
