"""Writes to physical memory that happen all together or not at all."""

from __future__ import annotations

from typing import Final, Protocol

from emu.units import PAGE_SIZE, Phys, page_down

ZERO_PAGE: Final = bytes(PAGE_SIZE)


class PhysMemory(Protocol):
    """Physical memory as the loader sees it; addresses and sizes in bytes."""

    def read(self, address: int, size: int, /) -> bytes:
        """The ``size`` bytes at physical ``address``."""
        ...

    def write(self, address: int, content: bytes, /) -> object:
        """Store ``content`` at physical ``address``."""
        ...


class Staged:
    """Pages that are to be written, kept until :meth:`commit`; reads see them."""

    def __init__(self, memory: PhysMemory) -> None:
        self._memory = memory
        self._pages: dict[int, bytes] = {}

    def read_page(self, page: Phys) -> bytes:
        """The 4096 bytes at page-aligned physical ``page``, staged or as they are in memory."""
        staged = self._pages.get(page)
        return self._memory.read(page, PAGE_SIZE) if staged is None else staged

    def write_page(self, page: Phys, content: bytes) -> None:
        """Stage a whole page."""
        self._pages[page] = content

    def write(self, address: Phys, content: bytes) -> None:
        """Stage bytes that do not cross a page, over a page that is otherwise zero when it was not staged before.

        List and table pages are built this way; what was in their page frames does not matter.
        """
        page = page_down(address)
        at = address - page
        base = self._pages.get(page, ZERO_PAGE)
        self._pages[page] = base[:at] + content + base[at + len(content) :]

    def read_word(self, address: Phys, size: int) -> int:
        """The little-endian word of ``size`` bytes at physical ``address``."""
        at = address - page_down(address)
        return int.from_bytes(self.read_page(Phys(page_down(address)))[at : at + size], "little")

    def commit(self) -> None:
        """Write everything to memory, lowest address first."""
        for page in sorted(self._pages):
            self._memory.write(page, self._pages[page])
        self._pages.clear()
