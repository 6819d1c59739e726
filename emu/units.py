"""Address types, page arithmetic and the one way in which kjump writes addresses and sizes."""

from __future__ import annotations

from typing import NewType

Phys = NewType("Phys", int)
"""A physical address in bytes."""
Linear = NewType("Linear", int)
"""A linear address in bytes (after segmentation, before paging)."""
Pfn = NewType("Pfn", int)
"""A physical page frame number: physical address divided by :data:`PAGE_SIZE`."""

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGE_MASK = PAGE_SIZE - 1
KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def pfn_of(address: int) -> Pfn:
    """The page frame that holds physical ``address``."""
    return Pfn(address >> PAGE_SHIFT)


def phys_of(pfn: int) -> Phys:
    """The first physical address of page frame ``pfn``."""
    return Phys(pfn << PAGE_SHIFT)


def page_down(address: int) -> int:
    """``address`` rounded down to a page boundary."""
    return address & ~PAGE_MASK


def page_up(address: int) -> int:
    """``address`` rounded up to a page boundary."""
    return (address + PAGE_MASK) & ~PAGE_MASK


def show_phys(address: int) -> str:
    """A physical address as people type it: ``p:0x1000``."""
    return f"p:{address:#x}"


def show_size(size: int) -> str:
    """A size in bytes in the largest binary unit that divides it: ``64 MiB``, ``4 KiB``, ``17 bytes``."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"
