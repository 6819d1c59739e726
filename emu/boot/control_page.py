"""The control page of a jump that is under way, read as the running kernel laid it down: no symbols are needed for it.

The page begins with a copy of relocate_kernel and holds, from +0x800 on, what that code saved of its caller and what it
needs for the way back.  Source: Linux arch/x86/kernel/relocate_kernel_32.S and relocate_kernel_64.S to 6.13.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from emu.assembler import Image
from emu.kernelfile.forms import CODE_MAX_SIZE, Parts, StubForm, follow, form_at, has_slot
from emu.kexec.arch import Arch
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


@dataclass(frozen=True, slots=True)
class ControlPage:
    """``page`` is physical, ``linear`` where the caller runs the code; ``words`` are the data words by name."""

    form: StubForm
    page: int
    linear: int
    code: bytes
    parts: Parts
    words: Mapping[str, int]

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
        return self.page + CODE_MAX_SIZE, self.page + PAGE_SIZE

    @property
    def has_slot(self) -> bool:
        """Whether the peer is given a word for its next entry."""
        return has_slot(self.code)

    @property
    def loads_gdt(self) -> bool:
        """Whether any instruction of it is an LGDT."""
        return _LGDT.search(self.code) is not None

    @property
    def pushed(self) -> tuple[str, ...]:
        """What lies at the saved stack pointer, word by word."""
        return _PUSHED[self.form]

    def image(self, at: int) -> Image:
        """The code as a program at ``at``, with the names of its parts."""
        parts = self.parts
        names = {
            _NAME: at,
            "identity_mapped": at + parts.identity_mapped,
            "virtual_mapped": at + parts.virtual_mapped,
            "swap_pages": at + parts.swap_pages,
        }
        return Image(self.code, at, self.form.bits, names, (), _NAME)


def read_control_page(content: bytes, page: int) -> ControlPage | None:
    """What the page at physical ``page`` says, if its ``content`` begins with a classic relocate_kernel."""
    form = form_at(content)
    if form is None or not form.is_classic:
        return None
    size, names = form.bits // 8, _WORDS[form]
    raw = content[CODE_MAX_SIZE:]
    words = {name: int.from_bytes(raw[at * size : (at + 1) * size], "little") for at, name in enumerate(names)}
    for linear in _linked_at(content, form):
        parts = follow(content, form, linear)
        if parts is not None:
            at = words.pop("linear", linear)
            return ControlPage(form, page, at, content[: parts.size], parts, words)
    return None


def _linked_at(content: bytes, form: StubForm) -> Iterator[int]:
    """Where the kernel may be linked to have the code: in x86_64 it begins a page and names its own second half."""
    if form is StubForm.I386:
        yield 0
        return
    for found in _TO_TEXT.finditer(content, 0, CODE_MAX_SIZE):
        yield int.from_bytes(found.group(1), "little", signed=True) & ~PAGE_MASK & (1 << 64) - 1
