"""The modes in which a claim may run, and what assembly and machine make of each."""

from __future__ import annotations

from enum import StrEnum

from emu.kexec.arch import Arch


class Mode(StrEnum):
    """A start state by the name that a claim file's header has for it."""

    REAL = "16"
    FLAT = "32"
    I386 = "i386"
    I386_PAE = "i386-pae"
    X86_64 = "x86_64"
    X86_64_LA57 = "x86_64-la57"

    @property
    def bits(self) -> int:
        """Of the claims' code: 16, 32 or 64."""
        return int(self) if self in (Mode.REAL, Mode.FLAT) else Arch(self).bits

    @property
    def word(self) -> int:
        """Bytes that a push has: 2, 4 or 8."""
        return self.bits // 8

    @property
    def arch(self) -> Arch | None:
        """The architecture whose page tables are in force; None without paging."""
        return None if self in (Mode.REAL, Mode.FLAT) else Arch(self)

    @property
    def defines(self) -> dict[str, int]:
        """The symbols that a claim file is assembled with."""
        arch = self.arch
        return {
            "BITS": self.bits,
            "PAGING": int(arch is not None),
            "PAE": int(arch is not None and arch.is_pae),
            "LA57": int(arch is not None and arch.is_la57),
        }

    @property
    def assembled_as(self) -> int:
        """The code size at the first byte: real mode is reached from 32-bit code."""
        return 64 if self.bits == 64 else 32
