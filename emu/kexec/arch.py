"""The four kinds of x86 that journeys run on, and what kexec needs to know of each."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from emu.kexec.layout import (
    I386_BASE,
    MODE_LA57,
    MODE_PAE,
    X86_64_DIRECT_BASE,
    X86_64_TEXT_BASE,
    ElfMachine,
    Transfer,
)
from emu.units import Linear


class _Traits(NamedTuple):
    word: int
    machine: ElfMachine
    levels: int
    direct_base: int
    text_base: int
    destination_limit: int
    control_limit: int


_LOWMEM = 896 << 20
_I386 = _Traits(4, ElfMachine.I386, 2, I386_BASE, I386_BASE, (1 << 32) - 1, _LOWMEM)
_X86_64 = _Traits(8, ElfMachine.X86_64, 4, X86_64_DIRECT_BASE, X86_64_TEXT_BASE, (1 << 46) - 1, (1 << 46) - 1)


class Arch(StrEnum):
    """An architecture by the name that ``--arch`` takes."""

    I386 = "i386"
    I386_PAE = "i386-pae"
    X86_64 = "x86_64"
    X86_64_LA57 = "x86_64-la57"

    @property
    def _traits(self) -> _Traits:
        return _TRAITS[self]

    @property
    def word(self) -> int:
        """Bytes of an unsigned long, so of a kimage entry: 4 or 8."""
        return self._traits.word

    @property
    def bits(self) -> int:
        """32 or 64."""
        return self.word * 8

    @property
    def machine(self) -> ElfMachine:
        """The ELF machine number of the architecture."""
        return self._traits.machine

    @property
    def levels(self) -> int:
        """Levels of the page tables: 2, 3 (PAE), 4 or 5 (LA57)."""
        return self._traits.levels

    @property
    def is_pae(self) -> bool:
        """Whether this is i386 with 8-byte page-table entries."""
        return self is Arch.I386_PAE

    @property
    def is_la57(self) -> bool:
        """Whether this is x86_64 with 5-level paging."""
        return self is Arch.X86_64_LA57

    @property
    def destination_limit(self) -> int:
        """KEXEC_DESTINATION_MEMORY_LIMIT, physical: segments end below it (Linux arch/x86/include/asm/kexec.h)."""
        return self._traits.destination_limit

    @property
    def control_limit(self) -> int:
        """Physical address that control pages must lie below; on i386 the end of what the direct map can reach."""
        return self._traits.control_limit

    @property
    def text_base(self) -> Linear:
        """What A adds to a link address to get the linear address of its text."""
        return Linear(self._traits.text_base)

    def direct(self, phys: int) -> Linear:
        """The linear address at which A's direct map shows physical address ``phys``."""
        return Linear(self._traits.direct_base + phys)

    def mode(self, transfer: Transfer) -> int:
        """The ``mode`` field of a jump page made on this architecture."""
        return transfer | (MODE_PAE if self.is_pae else 0) | (MODE_LA57 if self.is_la57 else 0)


_TRAITS = {
    Arch.I386: _I386,
    Arch.I386_PAE: _I386._replace(levels=3),
    Arch.X86_64: _X86_64,
    Arch.X86_64_LA57: _X86_64._replace(levels=5),
}
