"""Where things lie in the small machine of the trials, and what its kernel A is.

All but a little of memory is above 4 GiB where the processor has more, so that an address cut to 32 bits shows; page
frames are odd, so that a flipped low bit of a mask does.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range
from emu.units import MIB, PAGE_SIZE, Phys
from emu.x86.bits import Cr0, Cr4, Efer

LOW_END = 0xA0000
HIGH_SIZE = 4 * MIB
_HIGH_32, _HIGH_64 = 0x12400000, 0x12_3440_0000
LOW_TARGET, LOW_SOURCE = 0x9000, 0x13000
"""Pages of low memory that lists may name."""

CR0_A = Cr0.PG | Cr0.AM | Cr0.WP | Cr0.NE | Cr0.ET | Cr0.MP | Cr0.PE
CR0_DROPPED = Cr0.AM | Cr0.WP | Cr0.TS | Cr0.EM
PCID = 0x5
GDT_LIMIT = 0x47
FLAGS_A = 0x44CD7
"""AC NT OF DF SF ZF AF PF CF and the bit that is always set."""


@dataclass(frozen=True, slots=True)
class Places:
    """Physical addresses of pages in the high bank."""

    base: int

    def page(self, number: int) -> int:
        """Page ``number`` of the bank."""
        return self.base + number * PAGE_SIZE

    @property
    def code(self) -> int:
        """A's call of the stub, and a HLT."""
        return self.page(0x01)

    @property
    def stack(self) -> int:
        """A's stack grows down from the end of this page."""
        return self.page(0x03)

    @property
    def gdt(self) -> int:
        """What A's GDTR points at."""
        return self.page(0x05)

    @property
    def page_list(self) -> int:
        """The array that the i386 stub takes as page_list."""
        return self.page(0x07)

    @property
    def control(self) -> int:
        """The control page."""
        return self.page(0x17)

    @property
    def swap(self) -> int:
        """The swap page; the pages around it are nobody's."""
        return self.page(0x1B)

    @property
    def second(self) -> int:
        """The control page of the second copy."""
        return self.page(0x1F)

    @property
    def second_swap(self) -> int:
        """Its swap page."""
        return self.page(0x23)

    @property
    def entry(self) -> int:
        """The entry code page."""
        return self.page(0x27)

    @property
    def purgatory(self) -> int:
        """Where purgatory is loaded."""
        return self.page(0x2B)

    @property
    def halt(self) -> int:
        """A peer of one HLT."""
        return self.page(0x2F)

    @property
    def segment(self) -> int:
        """Three pages that purgatory's checksum may cover, and a command line."""
        return self.page(0x33)

    @property
    def lists(self) -> int:
        """Pages for entries, every other one."""
        return self.page(0x41)

    @property
    def kexec_tables(self) -> int:
        """Root of the tables on which the stub runs, the others behind it."""
        return self.page(0x61)

    @property
    def second_tables(self) -> int:
        """i386: root of the tables of the second copy."""
        return self.page(0x71)

    @property
    def peer_tables(self) -> int:
        """x86_64: root of the peer's own tables, an identity map and nothing else."""
        return self.page(0x71)

    @property
    def a_tables(self) -> int:
        """Root of A's tables, the others behind it."""
        return self.page(0x81)

    @property
    def source(self) -> int:
        """Pages that lists move."""
        return self.page(0x101)

    @property
    def target(self) -> int:
        """Pages that lists move them to."""
        return self.page(0x201)


def places(arch: Arch) -> Places:
    """The places for ``arch``."""
    return Places(_HIGH_32 if arch.bits == 32 else _HIGH_64)


def memory_map(arch: Arch) -> MemoryMap:
    """Low memory and one bank of 4 MiB."""
    base = places(arch).base
    return MemoryMap.of([Range(Phys(0), Phys(LOW_END)), Range(Phys(base), Phys(base + HIGH_SIZE))])


def cr4_of_a(arch: Arch) -> int:
    """A's CR4: all that the stub must take care of."""
    common = Cr4.PGE | Cr4.OSFXSR | Cr4.OSXMMEXCPT
    if arch is Arch.I386:
        return common | Cr4.PSE | Cr4.SMEP
    if arch is Arch.I386_PAE:
        return common | Cr4.PAE | Cr4.MCE | Cr4.SMEP
    if arch is Arch.X86_64:
        return common | Cr4.PAE | Cr4.MCE | Cr4.PCIDE | Cr4.CET | Cr4.SMEP
    return common | Cr4.PAE | Cr4.LA57


def efer_of_a(arch: Arch) -> int:
    """A's EFER."""
    if arch is Arch.I386:
        return 0
    return Efer.NXE if arch.bits == 32 else Efer.NXE | Efer.LME | Efer.LMA | Efer.SCE
