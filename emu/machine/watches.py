"""Physical ranges that somebody wants to hear of: each store, and on request each read, before it happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emu.machine.straddling import pieces
from emu.units import PAGE_MASK

if TYPE_CHECKING:
    from emu.machine.machine import Machine

Touched = Callable[[int, int, int, bool], None]
"""``touched(physical, size, value, write)``; the value of a read is 0."""


_WIDEST = 64
"""Bytes of the largest access."""


def _in_its_page(address: int, size: int) -> int:
    """Where the part of an access ends that lies in the page of its first byte."""
    return min(address + size, (address | PAGE_MASK) + 1)


@dataclass(frozen=True, slots=True)
class _Watch:
    begin: int
    end: int
    touched: Touched
    hooks: tuple[int, ...]
    reads: bool


class Watches:
    """The watched ranges of one machine: instructions, devices and exception frames alike."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._watches: dict[int, _Watch] = {}
        self._next = 1
        self._straddles: dict[bool, int] = {}

    @property
    def any(self) -> bool:
        """True while any range is watched: every store is then looked at."""
        return bool(self._watches)

    @property
    def reads(self) -> bool:
        """True while a range is watched for reads: the host then leaves string instructions to the engine."""
        return bool(self._watches) and any(watch.reads for watch in self._watches.values())

    def add(self, begin: int, end: int, touched: Touched, *, reads: bool = False) -> int:
        """Watch physical ``begin`` .. ``end`` (inclusive); the answer is for :meth:`remove`."""
        machine = self._machine

        def stored(address: int, size: int, value: int) -> None:
            if _in_its_page(address, size) > begin:
                machine.sync_time()
                touched(address, size, value, True)

        def read(address: int, size: int) -> None:
            if _in_its_page(address, size) > begin:
                machine.sync_time()
                touched(address, size, 0, False)

        machine.engine.meter.enabled = 0
        first = max(begin - _WIDEST + 1, begin & ~PAGE_MASK)
        hooks = [machine.engine.watch_writes(first, end, stored)]
        if reads:
            hooks.append(machine.engine.watch_reads(first, end, read))
        for write in (True, False) if reads else (True,):
            if write not in self._straddles:
                self._straddles[write] = machine.engine.watch_straddles(write=write)
        number = self._next
        self._next += 1
        self._watches[number] = _Watch(begin, end, touched, tuple(hooks), reads)
        return number

    def remove(self, number: int) -> None:
        """Forget a range."""
        engine = self._machine.engine
        for hook in self._watches.pop(number).hooks:
            engine.unwatch(hook)
        if not self._watches:
            for handle in self._straddles.values():
                engine.unwatch(handle)
            self._straddles.clear()

    def spanned(self, physical: int, size: int, value: int, write: bool) -> None:
        """An instruction is about to store or read ``size`` bytes from ``physical`` on, not all in that page."""
        machine = self._machine
        for piece in pieces(machine.engine, machine.cpu, physical, size, write=write)[1:]:
            for watch in list(self._watches.values()):
                wanted = write or watch.reads
                if wanted and watch.begin < piece.physical + piece.size and piece.physical <= watch.end:
                    machine.sync_time()
                    watch.touched(piece.physical, piece.size, piece.of(value) if write else 0, write)

    def allows(self, physical: int, size: int) -> bool:
        """May the host store this range for a string instruction?  Not where each store is wanted."""
        return not self._watches or not any(
            watch.begin < physical + size and physical <= watch.end for watch in self._watches.values()
        )

    def host_stored(self, physical: int, data: bytes) -> None:
        """A device or the processor itself (an exception frame) stores ``data``."""
        for watch in list(self._watches.values()):
            first, behind = max(watch.begin, physical), min(watch.end + 1, physical + len(data))
            if first < behind:
                part = data[first - physical : behind - physical][:8]
                watch.touched(first, len(part), int.from_bytes(part, "little"), True)
