"""Pictures of memory at the beginning and the end of each transition: whose the pages are, and the jump page.

Taken from the event stream, so that a run with an album is the same run.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.journey.journey import Journey
from emu.kexec.e820 import MemoryMap
from emu.kexec.layout import JUMP_PAGE_MAGIC
from emu.machine import events as ev
from emu.machine.owners import Owner
from emu.units import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Picture:
    """Memory at one instant: owners by page frame, and the 4096 bytes of the jump page (None where there is none)."""

    tick: int
    owners: dict[int, Owner]
    jump_page: bytes | None


@dataclass(frozen=True, slots=True)
class Leaf:
    """One transition: its name, and memory before and after it."""

    name: str
    before: Picture
    after: Picture


class Album:
    """Follows a journey; ``leaves`` has one leaf for each transition that ended."""

    def __init__(self, journey: Journey) -> None:
        self.leaves: list[Leaf] = []
        self._journey = journey
        self._before: Picture | None = None
        journey.machine.listeners.append(self._look)

    def _look(self, event: ev.Event) -> None:
        if not isinstance(event, ev.TransitionMark):
            return
        picture = self._picture(event.tick)
        if event.begins:
            self._before = picture
        elif self._before is not None:
            self.leaves.append(Leaf(event.name, self._before, picture))
            self._before = None

    def _picture(self, tick: int) -> Picture:
        machine, loaded = self._journey.machine, self._journey.loaded
        page = machine.ram.read(loaded.jump_page, PAGE_SIZE) if loaded is not None and loaded.jump_page else b""
        known = page.startswith(JUMP_PAGE_MAGIC)  # no longer when the power was off
        return Picture(tick, machine.owners.snapshot(), page if known else None)


@dataclass(frozen=True, slots=True)
class Cell:
    """``pages`` page frames from ``first`` on: their commonest owner, and every owner with its number of pages.

    ``mixed`` is true where a page of the image's own (control, list, swap, table, jump page) is among them.
    """

    first: int
    pages: int
    owner: Owner
    counts: tuple[tuple[Owner, int], ...]

    @property
    def mixed(self) -> bool:
        """Whether it holds a single page of a kind that the commonest owner would hide."""
        return any(owner in _SMALL for owner, _ in self.counts[1:])


_SMALL = (Owner.CONTROL, Owner.SWAP, Owner.LIST, Owner.PAGE_TABLE, Owner.JUMP_PAGE)


def cells(owners: dict[int, Owner], memory_map: MemoryMap, most: int = 512) -> list[Cell]:
    """All memory up to the end of RAM in at most ``most`` cells of equal size, a power of two of pages.

    RAM that nobody was given is A's; what is no RAM is a hole.
    """
    end = memory_map.end_of_ram // PAGE_SIZE
    size = 1
    while -(-end // size) > most:
        size *= 2
    ram = set(memory_map.ram_pages())
    made = []
    for first in range(0, end, size):
        counts: dict[Owner, int] = {}
        for pfn in range(first, min(first + size, end)):
            owner = owners.get(pfn, Owner.A) if pfn in ram else Owner.HOLE
            counts[owner] = counts.get(owner, 0) + 1
        ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0].value))
        made.append(Cell(first, sum(counts.values()), ordered[0][0], tuple(ordered)))
    return made
