"""Addresses worth trying in a scene, and what kind of place an address is."""

from __future__ import annotations

from bisect import bisect_right

from emu.fuzz.window import Window
from emu.machine.owners import Owner
from emu.units import PAGE_SHIFT, PAGE_SIZE
from emu.x86.bits import PHYS_MASK

CANONICAL_BITS = 47
_CLASSES = {
    Owner.A: "kernel A",
    Owner.B: "kernel B",
    Owner.CONTROL: "control page data",
    Owner.SWAP: "swap page",
    Owner.LIST: "list page",
    Owner.PAGE_TABLE: "page table",
    Owner.JUMP_PAGE: "jump page",
    Owner.SOURCE: "source page",
    Owner.BACKUP: "backup page",
    Owner.FREE: "free RAM",
    Owner.RESERVED: "reserved",
    Owner.HOLE: "hole",
}
_DATA = ("kexec_va_control_page", "saved_context", "je_head", "kernel_entry")
"""The first symbol behind a stub's code."""
INSTRUCTION, MIDDLE = "instruction", "mid-instruction"
ROM, ABOVE, NOT_CANONICAL, LINEAR, WRAP = "ROM", "above RAM", "not canonical", "A's linear map", "wrap-around"
_ORDER = (
    INSTRUCTION,
    MIDDLE,
    "control page data",
    "swap page",
    "page table",
    "list page",
    "jump page",
    "source page",
    "backup page",
    "kernel A",
    "kernel B",
    "free RAM",
    "reserved",
    "hole",
    ROM,
    ABOVE,
    LINEAR,
    NOT_CANONICAL,
    WRAP,
)


class Atlas:
    """The places of a scene as they are when the window opens."""

    def __init__(self, window: Window) -> None:
        machine, loaded = window.journey.machine, window.loaded
        self._arch = window.journey.scene.arch
        self._owners = dict(machine.owners.snapshot())
        self._ram = machine.ram
        stubs = [s for s in (loaded.stub, loaded.second, loaded.jump_entry, loaded.purgatory) if s is not None]
        self._begins: dict[int, int] = {}
        symbols: set[int] = set()
        for stub in stubs:
            symbols |= {address for address in stub.symbols.values() if stub.org <= address <= stub.end}
            data = min((stub.symbols[name] for name in _DATA if name in stub.symbols), default=stub.end)
            self._begins |= {line.address: line.size for line in stub.lines if line.size and line.address < data}
        self._starts = sorted(self._begins)
        b = window.journey.kernel_b
        symbols |= {address for address in b.symbols.values() if b.org <= address < b.end}
        self.points = tuple(sorted(symbols | self._edges(window)))
        self.classes = _ORDER

    def _edges(self, window: Window) -> set[int]:
        """Both ends of every owner's ranges, of RAM, and of A's linear windows."""
        found: set[int] = set()
        for first, behind, _ in window.journey.machine.owners.ranges():
            found |= {first << PAGE_SHIFT, (behind << PAGE_SHIFT) - 1, (behind - 1) << PAGE_SHIFT}
        for bank in self._ram.banks:
            found |= {bank.start, bank.end - 1, bank.end}
        found |= {0x9FC00, 0xA0000, 0xB8000, 0xE0000, 0xFEC00000, 0xFEE00000, PHYS_MASK, PHYS_MASK + 1}
        arch, loaded = self._arch, window.loaded
        found |= {int(arch.direct(loaded.stub.org)), arch.text_base, int(arch.direct(0))}
        mask = (1 << 8 * arch.word) - 1
        return {address & mask for address in found}

    def name(self, address: int) -> str:
        """The class of an entry address (physical, as the re-entry mode has it)."""
        bits = 8 * self._arch.word
        if address >= (1 << bits) - PAGE_SIZE:
            return WRAP
        if bits == 64 and self._arch.levels == 4 and CANONICAL_BITS <= address.bit_length() <= 63:
            return NOT_CANONICAL
        if address > PHYS_MASK:
            return LINEAR if address >> 63 else NOT_CANONICAL
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._starts[index] + self._begins[self._starts[index]]:
            return INSTRUCTION if address == self._starts[index] else MIDDLE
        return self._owner(address)

    def _owner(self, address: int) -> str:
        bank = self._ram.bank_at(address)
        if bank is None:
            return ABOVE if address >= max(bank.end for bank in self._ram.banks) else "hole"
        if bank.rom:
            return ROM
        return _CLASSES[self._owners.get(address >> PAGE_SHIFT, Owner.HOLE)]
