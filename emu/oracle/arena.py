"""Random calls of relocate_new_kernel in a small piece of RAM that many cases share, one after the other.

A case is a whole context of a caller: its tables, GDT, stack, flags and control registers, an entry list over a few
data pages, and a peer that ends the case or comes back.  Lists may carry flags and bits that mean nothing (the lowest
flag of an entry counts), but never lead out of the data pages.
"""

from __future__ import annotations

import random

from emu.kexec.arch import Arch
from emu.kexec.layout import Ind, RelocateFlag
from emu.oracle.case import Case
from emu.oracle.image import HIGH_START
from emu.oracle.machines import blank_registers
from emu.oracle.shapes import (
    AFTER_AT,
    CODE_SELECTOR,
    DATA_PAGES,
    DATA_SELECTOR,
    LIST_PAGES,
    PAGE_LIST_AT,
    SHAPES,
    TSS_SELECTOR,
    Page,
    place,
    template,
)
from emu.units import PAGE_SIZE
from emu.x86.bits import Cr0, Cr4, Efer, Eflags

_FIXED_FLAG, _IOPL = 0x2, 0x3000

_FREE_FLAGS = (
    Eflags.CF, Eflags.PF, Eflags.AF, Eflags.ZF, Eflags.SF, Eflags.DF, Eflags.OF, Eflags.NT, Eflags.AC, Eflags.ID,
)  # fmt: skip
_FREE_CR0 = (Cr0.WP, Cr0.AM, Cr0.TS, Cr0.EM, Cr0.MP)
_FREE_CR4 = (
    Cr4.TSD, Cr4.DE, Cr4.PSE, Cr4.MCE, Cr4.PGE, Cr4.PCE, Cr4.OSFXSR, Cr4.OSXMMEXCPT, Cr4.SMEP, Cr4.SMAP,
)  # fmt: skip


class _Maker:
    """Makes one case from its own random numbers."""

    def __init__(self, arch: Arch, seed: int, number: int) -> None:
        self.arch = arch
        self.number = number
        self.random = random.Random(f"{arch}/{seed}/{number}")  # noqa: S311 - cases, not secrets
        self.template = template(arch, self.random.randrange(SHAPES))
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
        for page in range(DATA_PAGES):
            self.put(place(Page.DATA + page), choose.randbytes(64) * (PAGE_SIZE // 64))
        start = self._peer_page()
        head = self._list()
        if comes_back:
            self.put(self.moved.get(start, start), self._peer_code(start))
        end = place(Page.CODE) + AFTER_AT if comes_back else start
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
            entry=int(self.arch.direct(place(Page.CONTROL))) + gap,
            entry_phys=place(Page.CONTROL) + gap,
            pdpts=_pdpts(self.arch),
            shared=((self.template.tables_at, self.template.tables),),
        )

    def _peer_page(self) -> int:
        """Where the peer starts: a page that stays, or the last data page, whose contents the list brings."""
        if self.random.random() < 0.5:
            return place(Page.PEER)
        here, there = place(Page.DATA + DATA_PAGES - 1), place(Page.DATA + DATA_PAGES - 2)
        self.moved = {here: there, there: here}
        return here

    # ---- the list ------------------------------------------------------------------------------------------------

    def _list(self) -> int:
        """Lay a random list out in the list pages; the answer is its head."""
        choose = self.random
        if not self.moved and choose.random() < 0.05:
            return int(Ind.DONE) | self._noise()
        entries = self._entries()
        pages = [place(Page.LISTS + i) for i in choose.sample(range(LIST_PAGES), LIST_PAGES)]
        cuts = sorted(choose.sample(range(len(entries)), min(choose.randint(0, LIST_PAGES - 1), len(entries))))
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
        usable = DATA_PAGES - 2
        entries: list[int] = []
        cursor = usable
        for _ in range(choose.randint(0, 12)):
            if cursor >= usable or choose.random() < 0.4:
                cursor = choose.randrange(usable)
                entries.append(place(Page.DATA + cursor) | Ind.DESTINATION | self._above(Ind.DESTINATION))
            entries.append(place(Page.DATA + choose.randrange(usable)) | Ind.SOURCE | self._noise())
            cursor += 1
            if choose.random() < 0.3:
                entries.append(self.word() & ~0xF)  # no flag at all: ignored
        if self.moved:
            here, there = place(Page.DATA + DATA_PAGES - 1), place(Page.DATA + DATA_PAGES - 2)
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
        rsp = place(Page.STACK) + PAGE_SIZE - 0x100 - choose.randrange(0, 0x400, word)
        after = place(Page.CODE) + AFTER_AT
        stack = [after]
        entry = self.template.stub.symbols["relocate_new_kernel"] - place(Page.CONTROL)
        if word == 8:
            flags = RelocateFlag.PRESERVE_CONTEXT if preserve else 0
            flags |= self.some((RelocateFlag.SWAP, RelocateFlag.CACHE_INCOHERENT))
            if self.moved:
                flags |= 0 if preserve else RelocateFlag.SWAP
            state |= {"rdi": head, "rsi": place(Page.CONTROL), "rdx": start, "rcx": flags}
        else:
            stack += [head, place(Page.GDT) + PAGE_LIST_AT, start, int(arch.is_pae), int(preserve)]
        self.put(rsp, b"".join(value.to_bytes(word, "little") for value in stack))
        cr4 = self.some(_FREE_CR4)
        if word == 4:
            cr4 &= ~int(Cr4.PGE) if choose.random() < 0.3 else -1
        cr4 |= 0 if arch is Arch.I386 else Cr4.PAE
        cr4 |= Cr4.LA57 if arch.is_la57 else 0
        cr4 |= Cr4.PSE if arch is Arch.I386 and self.template.large else 0
        long_bits = Efer.LME | Efer.LMA if word == 8 else 0
        state |= {
            "rip": int(arch.direct(place(Page.CONTROL))) + entry,
            "rsp": rsp,
            "rflags": _FIXED_FLAG | self.some(_FREE_FLAGS) | choose.choice((0, _IOPL)),
            "cr0": Cr0.PG | Cr0.PE | Cr0.ET | Cr0.NE | self.some(_FREE_CR0),
            "cr2": self.word() if word == 4 else self.random.getrandbits(47),
            "cr3": self.template.a_root,
            "cr4": cr4,
            "efer": long_bits | self.some((Efer.NXE, Efer.SCE) if word == 8 else (Efer.NXE,)),
            "cs": CODE_SELECTOR,
            "ss": DATA_SELECTOR, "ds": DATA_SELECTOR, "es": DATA_SELECTOR,
            "fs": choose.choice((0, DATA_SELECTOR)), "gs": choose.choice((0, DATA_SELECTOR)),
            "tr": choose.choice((0, TSS_SELECTOR)),
            "gdtr.base": place(Page.GDT), "gdtr.limit": 39,
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
            page = place(Page.DATA + choose.randrange(DATA_PAGES - 2))
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


def _pdpts(arch: Arch) -> frozenset[int]:
    """The tables that CR3 holds in any shape: all of them lie in an image's memory."""
    shapes = [template(arch, shape) for shape in range(SHAPES)] if arch.is_pae else []
    return frozenset(root for shape in shapes for root in (shape.a_root, shape.kexec_root))


def random_case(arch: Arch, seed: int, number: int) -> Case:
    """Case ``number`` of ``seed``: the same numbers give the same case, always."""
    return _Maker(arch, seed, number).make()
