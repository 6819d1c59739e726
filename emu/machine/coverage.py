"""Which passages between blocks of guest code a run makes, at the price of a few host instructions a block.

The engine calls a routine of host machine code (``asm/host/edges.S``) before each block; no Python runs.  It notes
each *edge* that is not yet known: the block before, this block, the processor mode.  What a case adds is then a
short list, and mostly an empty one.

    coverage = Coverage(machine)
    coverage.start()
    for case in cases:
        point.reset()
        coverage.begin()
        machine.run(...)
        news = coverage.news()          # edges of this case that were never kept, each once
        if worth_keeping(news):
            coverage.keep(news)
    coverage.stop()

The news of a case depend on the case and on what was kept before, not on the cases between.  A jump into the middle of
the block that it ends is no edge: it looks like the engine going on there after a stop.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from emu.machine.hostcode import routine
from emu.x86.bits import U64

if TYPE_CHECKING:
    from emu.machine.machine import Machine

MOST_NEWS: Final = 4096
"""Edges noted of one case; a case that has more is news in any event."""
_INDEX_BITS: Final = 20
_MULTIPLIER: Final = 0x9E3779B97F4A7C15
_RECORD: Final = struct.Struct("<QQQ")


class Edge(NamedTuple):
    """Linear address of the block before (0: the first of a case) and of this one; ``mode`` as below.

    Bits 0-1 CPL, 4 32-bit code, 7 protected mode, 14 long mode active, 15 64-bit code, 17 virtual-8086, 31 paging.
    """

    before: int
    block: int
    mode: int


class _Table(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("previous", "count", "limit", "seen", "records", "hflags", "cr0", "blocks", "end", "restarted")
    ]
    previous: int
    count: int
    limit: int
    seen: int
    records: int
    hflags: int
    cr0: int
    blocks: int
    end: int
    restarted: int


def _index(edge: Edge) -> int:
    """The byte of ``edge``: the same computation as in the routine."""
    before, mode = edge.before, edge.mode
    mixed = (before << 23 | before >> 41) & U64 ^ edge.block ^ mode << 32
    return (mixed * _MULTIPLIER & U64) >> (64 - _INDEX_BITS)


class Coverage:
    """The edges of one machine's runs."""

    def __init__(self, machine: Machine) -> None:
        self._engine = machine.engine
        self._seen = (ctypes.c_uint8 * (1 << _INDEX_BITS))()
        self._records = ctypes.create_string_buffer(_RECORD.size * MOST_NEWS)
        self._table = _Table(
            0,
            0,
            MOST_NEWS,
            ctypes.addressof(self._seen),
            ctypes.addressof(self._records),
            *self._engine.mode_addresses(),
            restarted=U64,
        )
        self._hook: int | None = None

    @property
    def blocks(self) -> int:
        """Blocks run since the start, repeated ones included."""
        return self._table.blocks

    def start(self) -> None:
        """Note edges from now on."""
        if self._hook is None:
            self._hook = self._engine.hook_blocks(routine("edge", "edges"), ctypes.addressof(self._table))
            self._engine.on_restart = self._restarted

    def renew(self) -> None:
        """Begin again with the engine, which remembers all code that it noted blocks of (every few thousand cases)."""
        if self._hook is not None:
            edge, table = routine("edge", "edges"), ctypes.addressof(self._table)
            self._hook = self._engine.hook_blocks_anew(self._hook, edge, table)

    def stop(self) -> None:
        """Note no more."""
        if self._hook is not None:
            self._engine.unwatch(self._hook)
            self._hook = None

    def _restarted(self, linear: int) -> None:
        """The block at ``linear`` is dropped before any of it ran: it comes once more."""
        self._table.restarted = linear

    def begin(self) -> None:
        """A case begins: its first block has none before it.  News that were not asked for are forgotten."""
        if self._table.count:
            self.news()
        self._table.previous = self._table.end = 0
        self._table.restarted = U64

    def news(self) -> list[Edge]:
        """The edges since :meth:`begin` that were never kept, in the order in which they came, each once."""
        count = self._table.count
        if not count:
            return []
        self._table.count = 0
        raw = memoryview(self._records)[: count * _RECORD.size]
        edges = [Edge(*fields) for fields in _RECORD.iter_unpack(raw)]
        for edge in edges:
            self._seen[_index(edge)] = 0
        return edges

    def keep(self, edges: Iterable[Edge]) -> None:
        """These are known from now on (another process may have met them)."""
        for edge in edges:
            self._seen[_index(edge)] = 1

    def forget(self) -> None:
        """Nothing is known any more."""
        ctypes.memset(self._seen, 0, ctypes.sizeof(self._seen))
        self._table.count = 0
