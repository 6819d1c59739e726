"""Physical memory: sparse banks from an e820 map, ROM, and the pages that changed.

Each bank is a private mapping of a memory file.  The file holds the *base* contents; a page that anybody writes
becomes a private copy, which the kernel reports in ``/proc/self/pagemap`` at no cost to the writer.  Addresses
here are physical, in bytes; a page frame number (pfn) counts pages of 4096 bytes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emu.errors import EngineError
from emu.kexec.e820 import MemoryMap
from emu.machine.owners import intervals
from emu.units import PAGE_SHIFT, PAGE_SIZE, page_down, page_up, show_phys

ROM_RANGES = ((0xF0000, 0x100000),)
# The high byte of a pagemap entry: bit 7 present, bit 6 swapped, bit 5 a page of the file.  A page that is there, not
# the file's is a private copy (Linux Documentation/admin-guide/mm/pagemap.rst).
_PRIVATE = bytes(1 if high & 0xC0 and not high & 0x20 else 0 for high in range(256))


@dataclass(slots=True)
class Bank:
    """One contiguous range of RAM or ROM; ``base`` is a shared view of the contents that restore goes back to.

    ``end`` is the first physical address behind it, ``host`` and ``base_host`` are where the two lie in this process,
    ``words`` is ``view`` by words of 4 and of 8 bytes.
    """

    start: int
    end: int
    size: int
    rom: bool
    private: mmap.mmap
    base: mmap.mmap
    host: int
    base_host: int
    view: memoryview
    words: dict[int, memoryview]


@dataclass(frozen=True, slots=True)
class RamSnapshot:
    """The pages that differ from the base, by pfn."""

    pages: dict[int, bytes] = field(default_factory=dict)


def _make_bank(start: int, end: int, *, rom: bool) -> Bank:
    size = end - start
    try:
        descriptor = os.memfd_create(f"kjump-{start:x}")
        os.ftruncate(descriptor, size)
        base = mmap.mmap(descriptor, size, mmap.MAP_SHARED)
        private = mmap.mmap(descriptor, size, mmap.MAP_PRIVATE)
        os.close(descriptor)
    except (OSError, ValueError) as error:
        raise EngineError(f"no memory for a bank of {size:#x} bytes: {error}", where=show_phys(start)) from error
    host, base_host = (ctypes.addressof(ctypes.c_char.from_buffer(memory)) for memory in (private, base))
    view = memoryview(private)
    return Bank(start, end, size, rom, private, base, host, base_host, view, {4: view.cast("I"), 8: view.cast("Q")})


class Ram:
    """All banks of a machine.  ``on_host_write`` hears of each host write, so that the engine drops stale blocks."""

    def __init__(self, memory_map: MemoryMap, roms: Iterable[tuple[int, int]] = ROM_RANGES) -> None:
        spans: list[tuple[int, int, bool]] = []
        for part in memory_map.ram_ranges:
            start, end = page_down(part.start), page_up(part.end)
            if spans and start <= spans[-1][1]:
                start = spans[-1][1]
            if start < end:
                spans.append((start, end, False))
        for start, end in roms:
            if all(end <= s or start >= e for s, e, _ in spans):
                spans.append((start, end, True))
        self.banks = [_make_bank(start, end, rom=rom) for start, end, rom in sorted(spans)]
        self._starts = [bank.start for bank in self.banks]
        self.on_host_write: Callable[[int, bytes], None] = lambda _address, _data: None

    def holes(self, limit: int) -> Iterator[tuple[int, int]]:
        """Ranges (start, end) below physical ``limit`` that no bank backs."""
        cursor = 0
        for bank in self.banks:
            if cursor < bank.start:
                yield cursor, bank.start
            cursor = bank.end
        if cursor < limit:
            yield cursor, limit

    def bank_at(self, address: int) -> Bank | None:
        """The bank that holds physical ``address``."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self.banks[index].end:
            return self.banks[index]
        return None

    def is_ram(self, address: int) -> bool:
        """True where physical ``address`` is writable memory."""
        bank = self.bank_at(address)
        return bank is not None and not bank.rom

    def pfns(self) -> Iterator[int]:
        """Every page frame of RAM (no ROM), ascending."""
        for bank in self.banks:
            if not bank.rom:
                yield from range(bank.start >> PAGE_SHIFT, bank.end >> PAGE_SHIFT)

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at physical ``address``; a hole reads as all-ones."""
        bank = self.bank_at(address)
        if bank is not None and address + size <= bank.end:
            offset = address - bank.start
            return bytes(bank.view[offset : offset + size])
        parts = []
        while size > 0:
            bank = self.bank_at(address)
            step = min(size, PAGE_SIZE - (address & (PAGE_SIZE - 1)))
            if bank is None:
                parts.append(b"\xff" * step)
            else:
                offset = address - bank.start
                parts.append(bytes(bank.view[offset : offset + step]))
            address += step
            size -= step
        return b"".join(parts)

    def read_int(self, address: int, size: int) -> int:
        """A little-endian integer of ``size`` bytes at physical ``address``."""
        bank = self.bank_at(address)
        if bank is None:
            return (1 << 8 * size) - 1
        offset = address - bank.start
        words = bank.words.get(size)
        if words is not None and not offset % size:
            return words[offset // size]
        return int.from_bytes(bank.view[offset : offset + size], "little")

    def write(self, address: int, data: bytes) -> None:
        """The host's one way to write memory; bytes that fall on ROM or holes are dropped."""
        self.on_host_write(address, data)
        done = 0
        while done < len(data):
            at = address + done
            step = min(len(data) - done, PAGE_SIZE - (at & (PAGE_SIZE - 1)))
            bank = self.bank_at(at)
            if bank is not None and not bank.rom:
                offset = at - bank.start
                bank.view[offset : offset + step] = data[done : done + step]
            done += step

    def write_rom(self, address: int, data: bytes) -> None:
        """Program ROM at power-on; raises EngineError outside a bank."""
        bank = self.bank_at(address)
        if bank is None or address + len(data) > bank.end:
            raise EngineError("no memory to program", where=show_phys(address))
        self.on_host_write(address, data)
        bank.view[address - bank.start : address - bank.start + len(data)] = data

    def page(self, pfn: int) -> bytes:
        """The 4096 bytes of a page frame; all-ones in a hole."""
        return self.read(pfn << PAGE_SHIFT, PAGE_SIZE)

    def dirty_pfns(self) -> list[int]:
        """Page frames written since the base was last set (a superset of those that differ from it)."""
        dirty: list[int] = []
        with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
            for bank in self.banks:
                first, count = bank.start >> PAGE_SHIFT, bank.size >> PAGE_SHIFT
                entries = os.pread(pagemap.fileno(), count * 8, (bank.host >> PAGE_SHIFT) * 8)
                private = entries[7::8].translate(_PRIVATE)
                at = private.find(1)
                while at >= 0:
                    dirty.append(first + at)
                    at = private.find(1, at + 1)
        return dirty

    def copies(self, pfns: Iterable[int]) -> list[tuple[memoryview, bytes]]:
        """For each page frame of RAM its memory and its base contents, to be put back by hand (benchmarks)."""
        found = []
        for pfn in pfns:
            bank = self.bank_at(pfn << PAGE_SHIFT)
            if bank is not None:
                offset = (pfn << PAGE_SHIFT) - bank.start
                found.append((bank.view[offset : offset + PAGE_SIZE], bank.base[offset : offset + PAGE_SIZE]))
        return found

    def rebase(self) -> dict[int, bytes]:
        """Make the present contents the base: nothing is dirty afterwards.  Older snapshots are void.

        The answer is what the base held before, for each page frame that was dirty.
        """
        before: dict[int, bytes] = {}
        for pfn in self.dirty_pfns():
            bank = self.bank_at(pfn << PAGE_SHIFT)
            if bank is not None:
                offset = (pfn << PAGE_SHIFT) - bank.start
                before[pfn] = bank.base[offset : offset + PAGE_SIZE]
                bank.base[offset : offset + PAGE_SIZE] = bank.view[offset : offset + PAGE_SIZE]
        self._drop_private(before)
        return before

    def rewind(self, pages: Mapping[int, bytes]) -> set[int]:
        """Give up every private copy and make ``pages`` part of the base; the answer is the page frames concerned."""
        concerned = {*self.dirty_pfns(), *pages}
        for pfn, content in pages.items():
            bank = self.bank_at(pfn << PAGE_SHIFT)
            if bank is not None:
                offset = (pfn << PAGE_SHIFT) - bank.start
                bank.base[offset : offset + PAGE_SIZE] = content
        self._drop_private(concerned)
        return concerned

    def _drop_private(self, pfns: Iterable[int]) -> None:
        for first, behind in intervals(pfns):
            bank = self.bank_at(first << PAGE_SHIFT)
            if bank is not None:
                start = (first << PAGE_SHIFT) - bank.start
                bank.private.madvise(mmap.MADV_DONTNEED, start, (behind - first) << PAGE_SHIFT)

    def snapshot(self) -> RamSnapshot:
        """Copies of the dirty pages."""
        return RamSnapshot({pfn: self.page(pfn) for pfn in self.dirty_pfns()})

    def restore(self, snapshot: RamSnapshot) -> list[int]:
        """Go back to ``snapshot``; the answer is the page frames whose contents changed."""
        changed: list[int] = []
        for pfn in sorted({*self.dirty_pfns(), *snapshot.pages}):
            address = pfn << PAGE_SHIFT
            bank = self.bank_at(address)
            if bank is None:
                continue
            offset = address - bank.start
            wanted = snapshot.pages.get(pfn)
            if wanted is None:
                wanted = bank.base[offset : offset + PAGE_SIZE]
            if bank.view[offset : offset + PAGE_SIZE] != wanted:
                bank.view[offset : offset + PAGE_SIZE] = wanted
                changed.append(pfn)
        return changed

    def put_back(self, pfn: int) -> None:
        """Give a page frame its base contents."""
        bank = self.bank_at(pfn << PAGE_SHIFT)
        if bank is not None:
            offset = (pfn << PAGE_SHIFT) - bank.start
            content = bank.base[offset : offset + PAGE_SIZE]
            self.on_host_write(pfn << PAGE_SHIFT, content)
            bank.view[offset : offset + PAGE_SIZE] = content

    def close(self) -> None:
        """Give the host memory back; the engine must be closed before."""
        for bank in self.banks:
            for words in bank.words.values():
                words.release()
            bank.view.release()
            bank.base.close()
        self.banks.clear()
        self._starts.clear()
