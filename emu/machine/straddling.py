"""Accesses that span two pages.  The engine tells where one begins; where it goes on is for the page tables to say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from emu.units import PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from emu.machine.cpu import Cpu
    from emu.machine.engine import Engine


class Piece(NamedTuple):
    """The part of an access that lies in one page: physical address, how far into the access it begins, its bytes."""

    physical: int
    offset: int
    size: int

    def of(self, value: int) -> int:
        """This part of the ``value`` that is stored."""
        return value >> 8 * self.offset & (1 << 8 * self.size) - 1


def pieces(engine: Engine, cpu: Cpu, physical: int, size: int, *, write: bool = True) -> list[Piece]:
    """The parts of a store (or read) of ``size`` bytes that begins at ``physical``, in the order of addresses.

    The second part is looked for behind every linear page through which the engine reaches the first: there is one of
    them, and where aliases of the page go on differently, there are more.  A page that is not mapped is left out: the
    access faults.
    """
    room = PAGE_SIZE - (physical & PAGE_MASK)
    if size <= room:
        return [Piece(physical, 0, size)]
    reach = (1 << 64 if cpu.engine.code_bits == 64 else 1 << 32) - 1
    behind = {
        cpu.seen(linear + PAGE_SIZE & reach) for linear in engine.linear_pages(physical & ~PAGE_MASK, write=write)
    }
    pages = sorted(page for page in behind if page is not None)
    return [Piece(physical, 0, room), *(Piece(page, room, size - room) for page in pages)]
