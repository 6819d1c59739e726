"""The control page of a jump that is under way, read as the running kernel laid it down: no symbols are needed for it.

The page holds a copy of relocate_kernel, and what that code saved of its caller and needs for the way back: from +0x800
on in the classic forms, where its code leads since 6.14.  Source: Linux arch/x86/kernel/relocate_kernel_32.S and
relocate_kernel_64.S.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from emu.assembler import Image
from emu.kernelfile.forms import CODE_MAX_SIZE, Parts, StubForm, follow, form_at, has_slot
from emu.kernelfile.page_form import find_page_form
from emu.kexec.arch import Arch
from emu.kexec.entry_list import Mode
from emu.units import PAGE_MASK, PAGE_SIZE
from emu.x86.bits import Cr4

# movq $virtual_mapped, %rax; push %rax; ret
_TO_TEXT: Final = re.compile(rb"\x48\xc7\xc0(.{4})\x50\xc3", re.DOTALL)
_NAME: Final = "relocate_kernel"
_LGDT: Final = re.compile(rb"\x0f\x01[\x10-\x17\x50-\x57\x90-\x97]")
_WORDS: Final = {
    StubForm.X86_64: ("rsp", "cr0", "cr3", "cr4", "tables", "swap_page", "head"),
    StubForm.I386: ("rsp", "cr0", "cr3", "cr4", "linear", "tables", "swap_page", "head"),
}
_PUSHED: Final = {
    StubForm.X86_64: ("rflags", "r15", "r14", "r13", "r12", "rbp", "rbx", "return"),
    StubForm.I386: ("rflags", "rbp", "rdi", "rsi", "rbx", "return"),
}
_PUSHED[StubForm.X86_64_6_14] = _PUSHED[StubForm.X86_64]


@dataclass(frozen=True, slots=True)
class ControlPage:
    """``page`` is physical, ``linear`` where the caller has it; ``words`` are the data words by name.

    ``code`` begins at offset ``entry``, to which ``parts`` are relative; from ``data`` on no model describes the page.
    """

    form: StubForm
    page: int
    linear: int
    code: bytes
    parts: Parts
    words: Mapping[str, int]
    entry: int = 0
    data: int = CODE_MAX_SIZE

    @property
    def word(self) -> int:
        """Bytes of a word, so of a list entry."""
        return self.form.bits // 8

    @property
    def arch(self) -> Arch:
        """The caller's kind of x86, by the CR4 that it had."""
        cr4 = self.words["cr4"]
        if self.form is StubForm.I386:
            return Arch.I386_PAE if cr4 & Cr4.PAE else Arch.I386
        return Arch.X86_64_LA57 if cr4 & Cr4.LA57 else Arch.X86_64

    @property
    def head(self) -> int:
        """The first entry of the list."""
        return self.words["head"]

    @property
    def swap_page(self) -> int:
        """The bounce page (physical), whose end is the peer's first stack."""
        return self.words["swap_page"]

    @property
    def saved(self) -> tuple[int, int]:
        """The physical range of the saved words and the stub's stack, which no model describes."""
        return self.page + self.data, self.page + PAGE_SIZE

    @property
    def has_slot(self) -> bool:
        """Whether the peer is given a word for its next entry."""
        return has_slot(self.code)

    @property
    def restores_gdt(self) -> bool:
        """Whether it loads the caller's GDT again on the way back."""
        return _LGDT.search(self.code, self.parts.virtual_mapped, self.parts.swap_pages) is not None

    @property
    def plain_mode(self) -> Mode:
        """What it does with pages when nobody waits for the peer: the classic forms exchange them all the same."""
        return Mode.SWAP if self.form.is_classic else Mode.COPY

    def is_on_its_way(self, offset: int) -> bool:
        """Whether the code at an offset of the page runs identity mapped, so that this page is where it runs."""
        return self.parts.identity_mapped <= offset - self.entry < self.parts.virtual_mapped

    @property
    def pushed(self) -> tuple[str, ...]:
        """What lies at the saved stack pointer, word by word."""
        return _PUSHED[self.form]

    def image(self, at: int) -> Image:
        """The code as a program, with the names of its parts; the page is at ``at``."""
        parts = self.parts
        at += self.entry
        names = {
            _NAME: at,
            "identity_mapped": at + parts.identity_mapped,
            "virtual_mapped": at + parts.virtual_mapped,
            "swap_pages": at + parts.swap_pages,
        }
        return Image(self.code, at, self.form.bits, names, (), _NAME)


def read_control_page(content: bytes, page: int) -> ControlPage | None:
    """What the page at physical ``page`` says, if its ``content`` holds a relocate_kernel."""
    form = form_at(content)
    if form is None or not form.is_classic:
        return _read_later(content, page)
    size, names = form.bits // 8, _WORDS[form]
    raw = content[CODE_MAX_SIZE:]
    words = {name: int.from_bytes(raw[at * size : (at + 1) * size], "little") for at, name in enumerate(names)}
    for linear in _linked_at(content, form):
        parts = follow(content, form, linear)
        if parts is not None:
            at = words.pop("linear", linear)
            return ControlPage(form, page, at, content[: parts.size], parts, words)
    return None


def _read_later(content: bytes, page: int) -> ControlPage | None:
    found = find_page_form(content)
    if found is None:
        return None
    words = {name: int.from_bytes(content[at : at + 8], "little") for name, at in found.words.items()}
    code = content[found.entry : found.entry + found.parts.size]
    linear, data = words.pop("linear"), min(found.words.values())
    return ControlPage(StubForm.X86_64_6_14, page, linear, code, found.parts, words, found.entry, data)


def _linked_at(content: bytes, form: StubForm) -> Iterator[int]:
    """Where the kernel may be linked to have the code: in x86_64 it begins a page and names its own second half."""
    if form is StubForm.I386:
        yield 0
        return
    for found in _TO_TEXT.finditer(content, 0, CODE_MAX_SIZE):
        yield int.from_bytes(found.group(1), "little", signed=True) & ~PAGE_MASK & (1 << 64) - 1
