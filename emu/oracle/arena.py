"""Random calls of relocate_new_kernel in a small piece of RAM that many cases share, one after the other.

A case is a whole context of a caller: its tables, GDT, stack, flags and control registers, an entry list over a few
data pages, and a peer that ends the case or comes back.  Lists may carry flags and bits that mean nothing (the lowest
flag of an entry counts), but never lead out of the data pages.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from emu import resources
from emu.assembler import Image
from emu.journey import programs
from emu.kexec.arch import Arch
from emu.kexec.layout import Ind, PageList, RelocateFlag
from emu.kexec.page_tables import TableTree, set_rox
from emu.oracle.case import Case, find_gap
from emu.oracle.image import HIGH_START, entry_program
from emu.oracle.machines import blank_registers
from emu.units import MIB, PAGE_SIZE, Linear, Phys
from emu.x86.bits import Cr0, Cr4, Efer, Eflags
from emu.x86.paging.modes import Entry

PAGES = 48
MAPPED_END = 4 * MIB
_CONTROL, _SWAP, _CODE, _STACK, _GDT, _PEER, _LISTS, _DATA, _TABLES = 0, 1, 2, 3, 4, 5, 6, 9, 25
_LIST_PAGES, _DATA_PAGES = 3, 16
_CODE_SELECTOR, _DATA_SELECTOR, _TSS_SELECTOR = 0x08, 0x10, 0x18
_PAGE_LIST_AT, _TSS_AT = 0x800, 0xC00
_AFTER_AT = 0x40
_FIXED_FLAG, _IOPL = 0x2, 0x3000

_FREE_FLAGS = (
    Eflags.CF, Eflags.PF, Eflags.AF, Eflags.ZF, Eflags.SF, Eflags.DF, Eflags.OF, Eflags.NT, Eflags.AC, Eflags.ID,
)  # fmt: skip
_FREE_CR0 = (Cr0.WP, Cr0.AM, Cr0.TS, Cr0.EM, Cr0.MP)
_FREE_CR4 = (
    Cr4.TSD, Cr4.DE, Cr4.PSE, Cr4.MCE, Cr4.PGE, Cr4.PCE, Cr4.OSFXSR, Cr4.OSXMMEXCPT, Cr4.SMEP, Cr4.SMAP,
)  # fmt: skip


def _at(page: int) -> int:
    return HIGH_START + page * PAGE_SIZE


@dataclass(frozen=True, slots=True)
class _Template:
    """What all cases of one shape of A's tables share."""

    memory: bytes
    stub: Image
    a_root: int
    kexec_root: int
    gap: int


@lru_cache(maxsize=64)
def _template(arch: Arch, page_size: int, global_pages: bool) -> _Template:
    memory = bytearray(PAGES * PAGE_SIZE)
    tables = iter(range(_at(_TABLES), _at(PAGES), PAGE_SIZE))

    def write(address: int, data: bytes) -> None:
        memory[address - HIGH_START : address - HIGH_START + len(data)] = data

    def read(address: Phys, size: int) -> int:
        return int.from_bytes(memory[address - HIGH_START : address - HIGH_START + size], "little")

    def alloc() -> Phys:
        return Phys(next(tables))

    control = _at(_CONTROL)
    window = arch.direct(control)
    caller = TableTree(arch, alloc)
    step = 4 * MIB if page_size > 2 * MIB and arch.word == 4 else page_size
    if arch is Arch.I386 and step > PAGE_SIZE:
        step = PAGE_SIZE  # 4 MiB pages are put in below
    for at in range(0, MAPPED_END, step):
        caller.map_page(at, at, step)
    caller.map_page(window, control)
    caller.store(write)
    if arch is Arch.I386 and page_size > PAGE_SIZE:
        write(caller.root, int(Entry.P | Entry.W | Entry.A | Entry.D | Entry.PS).to_bytes(4, "little"))
    leaf = set_rox(read, lambda address, data: write(address, data), caller.root, arch, window)
    if global_pages:
        write(
            leaf,
            (read(leaf, 8 if arch is not Arch.I386 else 4) | Entry.G).to_bytes(
                8 if arch is not Arch.I386 else 4, "little"
            ),
        )
    kexec = TableTree(arch, alloc)
    if arch.word == 8:
        for at in range(0, MAPPED_END, 2 * MIB):
            kexec.map_page(at, at, 2 * MIB)
    else:
        kexec.map_page(control, control)
    kexec.map_page(window, control)
    kexec.store(write)
    folder = "x86_64" if arch.word == 8 else "i386"
    stub = programs.load(resources.asm_dir() / folder / "relocate_new_kernel.S", control, arch)
    write(control, stub.code)
    if arch.word == 8:
        words = {"va_control_page": int(window), "pa_table_page": kexec.root, "pa_swap_page": _at(_SWAP)}
        for name, value in words.items():
            write(stub.symbols[f"kexec_{name}"], value.to_bytes(8, "little"))
    gap = find_gap(bytes(memory[:PAGE_SIZE]), len(entry_program(arch, 0).code))
    if gap is None:
        raise AssertionError("the control page has room for the entry code")
    write(_at(_GDT), _gdt(arch))
    if arch.word == 4:
        entries = [0] * PageList.PAGES_NR
        entries[PageList.PA_CONTROL_PAGE], entries[PageList.VA_CONTROL_PAGE] = control, window
        entries[PageList.PA_PGD], entries[PageList.PA_SWAP_PAGE] = kexec.root, _at(_SWAP)
        write(_at(_GDT) + _PAGE_LIST_AT, b"".join(entry.to_bytes(4, "little") for entry in entries))
    return _Template(bytes(memory), stub, caller.root, kexec.root, gap)


def _gdt(arch: Arch) -> bytes:
    code = 0x00AF9B000000FFFF if arch.word == 8 else 0x00CF9B000000FFFF
    base = _at(_GDT) + _TSS_AT
    tss = 0x67 | (base & 0xFFFFFF) << 16 | 0x89 << 40 | base >> 24 << 56
    return b"".join(value.to_bytes(8, "little") for value in (0, code, 0x00CF93000000FFFF, tss, 0))


class _Maker:
    """Makes one case from its own random numbers."""

    def __init__(self, arch: Arch, seed: int, number: int) -> None:
        self.arch = arch
        self.number = number
        self.random = random.Random(f"{arch}/{seed}/{number}")  # noqa: S311 - cases, not secrets
        sizes = {Arch.I386: (PAGE_SIZE, 4 * MIB), Arch.I386_PAE: (PAGE_SIZE, 2 * MIB)}
        self.page_size = self.random.choice(sizes.get(arch, (PAGE_SIZE, 2 * MIB)))
        self.template = _template(arch, self.page_size, self.random.random() < 0.5)
        self.memory = bytearray(self.template.memory)
        self.moved: dict[int, int] = {}

    def put(self, address: int, data: bytes) -> None:
        self.memory[address - HIGH_START : address - HIGH_START + len(data)] = data

    def some(self, bits: tuple[int, ...]) -> int:
        return sum(int(bit) for bit in bits if self.random.random() < 0.5)

    def word(self) -> int:
        return self.random.getrandbits(8 * self.arch.word)

    def make(self) -> Case:
        choose = self.random
        comes_back = choose.random() < 0.5
        preserve = comes_back or choose.random() < 0.6
        for page in range(_DATA_PAGES):
            self.put(_at(_DATA + page), choose.randbytes(64) * (PAGE_SIZE // 64))
        start = self._peer_page()
        head = self._list()
        if comes_back:
            self.put(self.moved.get(start, start), self._peer_code(start))
        end = _at(_CODE) + _AFTER_AT if comes_back else start
        registers = self._registers(head, start, preserve=preserve)
        gap = self.template.gap
        kind = "round trip" if comes_back else ("preserve" if preserve else "plain")
        return Case(
            name=f"{self.arch} case {self.number} ({kind})",
            arch=self.arch,
            memory=[(HIGH_START, self.memory)],
            registers=registers,
            end=end,
            end_phys=end,
            moved={} if comes_back else self.moved,
            entry=int(self.arch.direct(_at(_CONTROL))) + gap,
            entry_phys=_at(_CONTROL) + gap,
            pdpts=frozenset({self.template.a_root, self.template.kexec_root}) if self.arch.is_pae else frozenset(),
        )

    def _peer_page(self) -> int:
        """Where the peer starts: a page that stays, or the last data page, whose contents the list brings."""
        if self.random.random() < 0.5:
            return _at(_PEER)
        here, there = _at(_DATA + _DATA_PAGES - 1), _at(_DATA + _DATA_PAGES - 2)
        self.moved = {here: there, there: here}
        return here

    # ---- the list ------------------------------------------------------------------------------------------------

    def _list(self) -> int:
        """Lay a random list out in the list pages; the answer is its head."""
        choose = self.random
        if not self.moved and choose.random() < 0.05:
            return int(Ind.DONE) | self._noise()
        entries = self._entries()
        pages = [_at(_LISTS + i) for i in choose.sample(range(_LIST_PAGES), _LIST_PAGES)]
        cuts = sorted(choose.sample(range(len(entries)), min(choose.randint(0, _LIST_PAGES - 1), len(entries))))
        begin = 0
        for index, page in enumerate(pages):
            stop = cuts[index] if index < len(cuts) else len(entries)
            words = entries[begin:stop]
            if index < len(cuts):
                words = [*words, pages[index + 1] | Ind.INDIRECTION | self._above(Ind.INDIRECTION)]
            self.put(page, b"".join(word.to_bytes(self.arch.word, "little") for word in words))
            begin = stop
            if index >= len(cuts):
                break
        return pages[0] | Ind.INDIRECTION | self._above(Ind.INDIRECTION)

    def _entries(self) -> list[int]:
        choose = self.random
        usable = _DATA_PAGES - 2
        entries: list[int] = []
        cursor = usable
        for _ in range(choose.randint(0, 12)):
            if cursor >= usable or choose.random() < 0.4:
                cursor = choose.randrange(usable)
                entries.append(_at(_DATA + cursor) | Ind.DESTINATION | self._above(Ind.DESTINATION))
            entries.append(_at(_DATA + choose.randrange(usable)) | Ind.SOURCE | self._noise())
            cursor += 1
            if choose.random() < 0.3:
                entries.append(self.word() & ~0xF)  # no flag at all: ignored
        if self.moved:
            here, there = _at(_DATA + _DATA_PAGES - 1), _at(_DATA + _DATA_PAGES - 2)
            entries += [here | Ind.DESTINATION, there | Ind.SOURCE | self._noise()]
        return [*entries, (self.word() & -PAGE_SIZE) | Ind.DONE | self._above(Ind.DONE)]

    def _above(self, flag: int) -> int:
        """Flags above ``flag``, which then mean nothing, and noise."""
        return self.some(tuple(bit for bit in (2, 4, 8) if bit > flag)) | self._noise()

    def _noise(self) -> int:
        """Bits 4 to 11 of an entry, which mean nothing."""
        return self.random.choice((0, 0, self.random.getrandbits(8) << 4))

    # ---- the processor -------------------------------------------------------------------------------------------

    def _registers(self, head: int, start: int, *, preserve: bool) -> dict[str, int]:
        choose, arch, word = self.random, self.arch, self.arch.word
        names = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{i}" for i in range(8, 16)))
        state = blank_registers() | {name: self.word() for name in names}
        state |= {f"xmm{i}": choose.getrandbits(128) for i in range(16)}
        rsp = _at(_STACK) + PAGE_SIZE - 0x100 - choose.randrange(0, 0x400, word)
        after = _at(_CODE) + _AFTER_AT
        stack = [after]
        entry = self.template.stub.symbols["relocate_new_kernel"] - _at(_CONTROL)
        if word == 8:
            flags = RelocateFlag.PRESERVE_CONTEXT if preserve else 0
            flags |= self.some((RelocateFlag.SWAP, RelocateFlag.CACHE_INCOHERENT))
            if self.moved:
                flags |= 0 if preserve else RelocateFlag.SWAP
            state |= {"rdi": head, "rsi": _at(_CONTROL), "rdx": start, "rcx": flags}
        else:
            stack += [head, _at(_GDT) + _PAGE_LIST_AT, start, int(arch.is_pae), int(preserve)]
        self.put(rsp, b"".join(value.to_bytes(word, "little") for value in stack))
        cr4 = self.some(_FREE_CR4)
        if word == 4:
            cr4 &= ~int(Cr4.PGE) if choose.random() < 0.3 else -1
        cr4 |= 0 if arch is Arch.I386 else Cr4.PAE
        cr4 |= Cr4.LA57 if arch.is_la57 else 0
        cr4 |= Cr4.PSE if arch is Arch.I386 and self.page_size > PAGE_SIZE else 0
        long_bits = Efer.LME | Efer.LMA if word == 8 else 0
        state |= {
            "rip": int(arch.direct(_at(_CONTROL))) + entry,
            "rsp": rsp,
            "rflags": _FIXED_FLAG | self.some(_FREE_FLAGS) | choose.choice((0, _IOPL)),
            "cr0": Cr0.PG | Cr0.PE | Cr0.ET | Cr0.NE | self.some(_FREE_CR0),
            "cr2": self.word() if word == 4 else self.random.getrandbits(47),
            "cr3": self.template.a_root,
            "cr4": cr4,
            "efer": long_bits | self.some((Efer.NXE, Efer.SCE) if word == 8 else (Efer.NXE,)),
            "cs": _CODE_SELECTOR,
            "ss": _DATA_SELECTOR, "ds": _DATA_SELECTOR, "es": _DATA_SELECTOR,
            "fs": choose.choice((0, _DATA_SELECTOR)), "gs": choose.choice((0, _DATA_SELECTOR)),
            "tr": choose.choice((0, _TSS_SELECTOR)),
            "gdtr.base": _at(_GDT), "gdtr.limit": 39,
            "idtr.base": self.random.getrandbits(32), "idtr.limit": self.random.getrandbits(16),
        }  # fmt: skip
        if word == 8:
            state |= {name: choose.getrandbits(46) for name in ("fs_base", "gs_base", "kernel_gs_base")}
        return state

    # ---- the peer ------------------------------------------------------------------------------------------------

    def _peer_code(self, start: int) -> bytes:
        """Leave the processor and some pages in a mess and go back, by RET or by a call of the return address."""
        choose, word = self.random, self.arch.word
        code = bytearray()
        for _ in range(choose.randint(0, 3)):
            page = _at(_DATA + choose.randrange(_DATA_PAGES - 2))
            code += b"\xfc\xbf" + page.to_bytes(4, "little") + b"\xb9" + (PAGE_SIZE // 4).to_bytes(4, "little")
            code += b"\xb8" + choose.randbytes(4) + b"\xf3\xab"  # cld; mov to edi, ecx, eax; rep stosl
        if choose.random() < 0.5 and word == 8:
            code += b"\x0f\x20\xe0\x0c\x80\x0f\x22\xe0"  # CR4.PGE
        if choose.random() < 0.5:
            code += b"\x0f\x20\xc0\x0c\x08\x0f\x22\xc0"  # CR0.TS
        for register in (0, 1, 2, 3, 5, 6, 7):
            if choose.random() < 0.7:
                code += (b"\x48" if word == 8 else b"") + bytes([0xB8 + register]) + choose.randbytes(word)
        flags = _FIXED_FLAG | self.some(_FREE_FLAGS)
        code += b"\x68" + flags.to_bytes(4, "little") + b"\x9d"  # push; popf
        if choose.random() < 0.5:
            return bytes(code + b"\xc3")
        del start
        return bytes(code + (b"\xff\x14\x24"))


def random_case(arch: Arch, seed: int, number: int) -> Case:
    """Case ``number`` of ``seed``: the same numbers give the same case, always."""
    return _Maker(arch, seed, number).make()
