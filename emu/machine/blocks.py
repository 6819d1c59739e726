"""Counting by blocks: what Python shares with the host code that counts (``asm/host/blocks.S``).

A block of translated code is counted whole when it begins, by a few host instructions, and what of it does not run is
given back.  The count is as exact as one by instructions, and the engine translates code as it does with nobody
counting.  What does not work then is a stop in the middle of a block, so that intercepts and watches need the other
way.

Everything here is private to the pinned release: :meth:`Blocks.fits` compares what can be compared before the first
use, and :func:`emu.machine.calibration.counts_by_blocks` tries the rest.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from emu.machine.hostcode import routine
from emu.units import PAGE_SHIFT

_CPU_IN_UC: Final = 0x1B8
_NO_CHECKS_IN_UC: Final = 0x7F2
_NEXT_IN_CPU: Final = 0x18
_STATE_BEHIND_CPU: Final = 0x8A50
_NO_WISH: Final = 0xFFFFFFFF
_HEADER: Final = 192  # of a block, before its host code
_INSTRUCTIONS_AT, _HOST_SIZE_AT = 22 - _HEADER, 40 - _HEADER
FUNCTIONS: Final = ("cpu_loop_exit_x86_64", "cpu_restore_state_x86_64", "uc_emu_stop", "tlb_reset_dirty_x86_64")
"""What the host code calls of the engine."""
_ROM: Final = b"\2"
MOST_IN_A_BLOCK: Final = 512


class _Fields(ctypes.Structure):
    """In the order of ``blocks.S``."""

    _fields_ = [
        ("left", ctypes.c_int64), ("block", ctypes.c_uint64), ("expired", ctypes.c_uint64), ("lost", ctypes.c_uint64),
        ("leave", ctypes.c_uint64), ("state", ctypes.c_uint64), ("cpu", ctypes.c_uint64), ("next", ctypes.c_uint64),
        ("exit", ctypes.c_uint64), ("restore", ctypes.c_uint64), ("stop", ctypes.c_uint64),
        ("notice", ctypes.c_uint64), ("pages", ctypes.c_uint64), ("page_count", ctypes.c_uint64),
        ("banks", ctypes.c_uint64),
    ]  # fmt: skip
    left: int
    block: int
    expired: int
    lost: int
    leave: int
    pages: int
    page_count: int
    banks: int


class _Bank(ctypes.Structure):
    """RAM as the engine numbers it, in the order of ``blocks.S``."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("offset", "size", "frame", "host")]


class Record(ctypes.Structure):
    """What ``blocks.S`` calls a gate's record, in its order."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("code", "fields", "function", "alone")]


class Blocks:
    """The count of one engine: ``handle`` is the host address of uc_struct, ``state`` that of the processor's state.

    ``functions`` are the host addresses of :data:`FUNCTIONS`.
    """

    def __init__(self, handle: int, state: int, functions: Mapping[str, int]) -> None:
        self._cpu_pointer = ctypes.c_uint64.from_address(handle + _CPU_IN_UC)
        self._no_checks = ctypes.c_uint8.from_address(handle + _NO_CHECKS_IN_UC)
        self._cpu = state - _STATE_BEHIND_CPU
        self._wish = ctypes.c_uint32.from_address(self._cpu + _NEXT_IN_CPU)
        leave, restore, stop, notice = (functions[name] for name in FUNCTIONS)
        self._fields = _Fields(
            state=state, cpu=self._cpu, next=self._cpu + _NEXT_IN_CPU, exit=leave, restore=restore, stop=stop,
            notice=notice,
        )  # fmt: skip
        self._empty = b""
        self._pages = (ctypes.c_uint8 * 0)()
        self._banks: Any = None
        self._give_back: Callable[[int], int] | None = None
        self._budget = self._withheld = 0
        self._records: list[Record] = []

    def know_memory(self, banks: Sequence[tuple[int, int, int, int]], roms: Iterable[tuple[int, int]]) -> None:
        """The RAM of the machine: the engine's own number of its first byte, bytes, physical address, host address.

        ``roms`` are physical ranges (first, last) among it, stores into which are always looked at.
        """
        top = max((physical + size for _, size, physical, _ in banks), default=0) >> PAGE_SHIFT
        records = [_Bank(offset, size, physical >> PAGE_SHIFT, host) for offset, size, physical, host in banks]
        empty = bytearray(top)
        for first, last in roms:
            frames = range(first >> PAGE_SHIFT, (last >> PAGE_SHIFT) + 1)
            empty[frames.start : frames.stop] = _ROM * len(frames)
        self._empty = bytes(empty)
        self._pages, self._banks = (ctypes.c_uint8 * top)(), (_Bank * (len(banks) + 1))(*records)
        fields = self._fields
        fields.pages, fields.page_count = ctypes.addressof(self._pages), top
        fields.banks = ctypes.addressof(self._banks)
        self.dropped()

    def dropped(self) -> None:
        """No page holds translated code any more."""
        ctypes.memmove(self._pages, self._empty, len(self._empty))

    def record(self, function: int, code: str = "", *, alone: bool = False, size: int = 0) -> int:
        """Host address of a record for the routine ``code`` of ``blocks.S``; ``function``, an address, decides there.

        ``size`` is that of the store of ``quick``.
        """
        self._records.append(Record(routine(code, "blocks") if code else 0, self.fields, function, size or alone))
        return ctypes.addressof(self._records[-1])

    def fits(self) -> bool:
        """False where the engine keeps its state in other places than those that are known here."""
        return self._cpu_pointer.value == self._cpu and self._wish.value == _NO_WISH and self._no_checks.value == 0

    @property
    def fields(self) -> int:
        """Host address of the fields."""
        return ctypes.addressof(self._fields)

    @property
    def routine(self) -> int:
        """Host address of what the engine is to call before each block, with :attr:`fields`."""
        return routine("block", "blocks")

    def spare_checks(self, *, on: bool) -> None:
        """Let the translator leave out its question, behind each access to memory, whether the run is to end."""
        self._no_checks.value = on

    def begin(self, budget: int) -> None:
        """A run of at most ``budget`` instructions begins."""
        fields = self._fields
        fields.left, fields.block, fields.expired, fields.leave = budget, 0, 0, 0
        self._budget, self._withheld = budget, 0
        if budget == 1:
            self._wish.value = 1

    def only(self, instructions: int) -> None:
        """The first block of the next run has no more than so many instructions."""
        self._wish.value = min(instructions, MOST_IN_A_BLOCK - 1)

    @property
    def counted(self) -> int:
        """Instructions of this run that retired, behind it."""
        return self._budget - self._withheld - self._fields.left

    @property
    def before(self) -> int:
        """The same inside a callback: up to the block at hand, which is one instruction at a gate that wants that."""
        block = self._fields.block
        return self.counted - (ctypes.c_uint16.from_address(block + _INSTRUCTIONS_AT).value if block else 0)

    @property
    def host_size(self) -> int:
        """Bytes of host code of the block that was counted last."""
        return ctypes.c_size_t.from_address(self._fields.block + _HOST_SIZE_AT).value

    @property
    def expired(self) -> bool:
        """The run came to the end of its count (or of what :meth:`end_here` left of it)."""
        return bool(self._fields.expired)

    @property
    def lost(self) -> bool:
        """The engine's blocks are not where they were expected: nothing that was counted is right."""
        return bool(self._fields.lost)

    def end_here(self) -> None:
        """Inside a callback: the run ends behind the block at hand."""
        self._withheld += self._fields.left
        self._fields.left = 0

    def leave(self) -> None:
        """At a gate: the instruction at hand is not done, and the run ends before it."""
        self._fields.leave = 1

    def give_back(self) -> bool:
        """What of the block at hand has not run is not counted; false where RIP is in no block that began."""
        if self._give_back is None:  # most engines never count by blocks
            self._give_back = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(routine("give_back", "blocks"))
        return bool(self._give_back(self.fields))
