"""The whole of RAM against the reference model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from emu.kexec.entry_list import Mode, WalkStep, apply, walk
from emu.machine.ram import Ram
from emu.units import PAGE_SHIFT, PAGE_SIZE, Phys


@dataclass(frozen=True, slots=True)
class Difference:
    """A page that is not what it must be; ``address`` is its first wrong byte (physical)."""

    address: int
    expected: bytes
    actual: bytes
    wrong_bytes: int

    @property
    def pfn(self) -> int:
        """The page frame."""
        return self.address >> PAGE_SHIFT


class RamImage:
    """A copy of all RAM at one instant, which the model can be applied to."""

    def __init__(self, ram: Ram) -> None:
        self._banks = [(bank.start, bytearray(bank.view)) for bank in ram.banks if not bank.rom]

    def _find(self, address: int) -> tuple[bytearray, int]:
        for start, data in self._banks:
            if start <= address < start + len(data):
                return data, address - start
        raise IndexError(address)

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a physical address; all-ones outside RAM."""
        try:
            data, offset = self._find(address)
        except IndexError:
            return b"\xff" * size
        return bytes(data[offset : offset + size])

    def write(self, address: int, content: bytes) -> None:
        """Store at a physical address; dropped outside RAM."""
        try:
            data, offset = self._find(address)
        except IndexError:
            return
        data[offset : offset + len(content)] = content

    def page(self, pfn: int) -> bytes:
        """The 4096 bytes of a page frame."""
        return self.read(pfn << PAGE_SHIFT, PAGE_SIZE)

    def walk(self, head: int, word: int) -> list[WalkStep]:
        """The entry list as it stands in this image."""
        return list(walk(lambda address: int.from_bytes(self.read(address, word), "little"), head, word))

    def move(self, steps: Iterable[WalkStep], mode: Mode, swap_page: int | None) -> int:
        """Apply the reference model; the answer is the number of pages moved."""
        return apply(
            lambda page: self.read(page, PAGE_SIZE),
            self.write,
            steps,
            mode,
            None if swap_page is None else Phys(swap_page),
        )

    def differences(
        self, ram: Ram, volatile: Sequence[tuple[int, int]], skip: frozenset[int] = frozenset()
    ) -> Iterator[Difference]:
        """Pages of ``ram`` that differ from this image outside ``volatile`` byte ranges and the pages of ``skip``."""
        for start, data in self._banks:
            bank = ram.bank_at(start)
            if bank is None:
                continue
            now = bytes(bank.view)
            if now == data:
                continue
            for offset in range(0, len(data), PAGE_SIZE):
                if now[offset : offset + PAGE_SIZE] == data[offset : offset + PAGE_SIZE]:
                    continue
                if (start + offset) >> PAGE_SHIFT in skip:
                    continue
                found = _difference(
                    start + offset,
                    bytes(data[offset : offset + PAGE_SIZE]),
                    now[offset : offset + PAGE_SIZE],
                    volatile,
                )
                if found is not None:
                    yield found


def _difference(page: int, expected: bytes, actual: bytes, volatile: Sequence[tuple[int, int]]) -> Difference | None:
    apart = bytearray((int.from_bytes(expected) ^ int.from_bytes(actual)).to_bytes(PAGE_SIZE))
    for start, end in volatile:
        first, behind = max(start - page, 0), min(end - page, PAGE_SIZE)
        if first < behind:
            apart[first:behind] = bytes(behind - first)
    wrong = PAGE_SIZE - apart.count(0)
    if not wrong:
        return None
    first = PAGE_SIZE - len(apart.lstrip(b"\0"))
    return Difference(page + first, expected[first : first + 8], actual[first : first + 8], wrong)
