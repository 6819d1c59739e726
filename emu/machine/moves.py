"""What Python shares with the host code that moves pages (``asm/host/hooks.S``): where a run stands, what to leave.

The engine calls that code before each iteration of a repeated MOVS.  It does in one copy what fits into a page, keeps
the same accounts as :mod:`emu.machine.loop` does, and asks Python for everything else.  Some other intercepts it lets
pass without a word, where Python would: reads of control registers and EFER, POPF and STI while no interrupt waits,
ports; on a machine that tells nothing of them, LGDT and LIDT.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Collection, Iterable
from typing import Any

from emu.machine.cpustate import DS, ES, FS
from emu.units import PAGE_SHIFT
from emu.x86.sensitive import STRING_IO, Kind, Sensitive

NOWHERE = (1 << 64) - 1
"""No linear address."""
MOVS = (0xA4, 0xA5)
_MOVE, _READS_CONTROL, _UNMASKS, _USES_PORT, _LOADS_TABLE, _READS_MSR, _WRITES_CONTROL = range(7)
_READ_AS_KEPT = frozenset({0, 2, 4})
_WRITTEN_AS_KEPT = frozenset({0, 3, 4})
_LEAST_RECORDS = 1 << 16
_READ_ONLY, _CODE, _FORBIDDEN, _UNTOUCHED = 1, 2, 4, 8
_LISTED = bytes(byte | _UNTOUCHED for byte in range(256))
_NOT_LISTED = bytes(byte & ~_UNTOUCHED for byte in range(256))
_FEW = 64
_BUCKETS, _PLACES, _MULTIPLIER, _HASH_SHIFT = 1024, 4, 0x9E3779B97F4A7C15, 54
_MOST_MOVES = 4096
JUDGED = 8
"""Words of the processor state that decide, with the value, whether a control register may be written."""
_MOST_ACCEPTED = 4
_MOST_ASIDE = 16
_CODE_BITS = {16: 0, 32: 0x10, 64: 0x8010}
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")


class Meter(ctypes.Structure):
    """The fields of ``meter.inc``, in its order.  Addresses are of this process, counts as the loop has them."""

    _fields_ = [
        ("counter", ctypes.c_uint64), ("skipped", ctypes.c_int64), ("passing", ctypes.c_uint64),
        ("again", ctypes.c_uint64), ("last_address", ctypes.c_uint64), ("last_counter", ctypes.c_int64),
        ("last_rcx", ctypes.c_uint64), ("run_start", ctypes.c_int64), ("run_budget", ctypes.c_int64),
        ("tick_budget", ctypes.c_int64), ("uncharged", ctypes.c_int64), ("iterations", ctypes.c_int64),
        ("repeated", ctypes.c_uint64), ("resumes_at", ctypes.c_int64), ("executed", ctypes.c_int64),
        ("done", ctypes.c_int64), ("string_tick", ctypes.c_int64), ("string_address", ctypes.c_uint64),
        ("enabled", ctypes.c_uint64), ("strict", ctypes.c_uint64), ("untold", ctypes.c_uint64),
        ("journal", ctypes.c_uint64), ("journal_count", ctypes.c_uint64), ("journal_limit", ctypes.c_uint64),
        ("careful", ctypes.c_uint64), ("careful_count", ctypes.c_uint64), ("state", ctypes.c_uint64),
        ("python", ctypes.c_uint64), ("retired", ctypes.c_uint64), ("tlb", ctypes.c_uint64),
        ("table", ctypes.c_uint64), ("victims", ctypes.c_uint64), ("victims_end", ctypes.c_uint64),
        ("copied", ctypes.c_uint64), ("frames", ctypes.c_uint64), ("judge", ctypes.c_uint64),
        ("touched", ctypes.c_uint64), ("touched_count", ctypes.c_uint64), ("calm", ctypes.c_uint64),
        ("pending", ctypes.c_uint64), ("port_at", ctypes.c_uint64), ("begun", ctypes.c_uint64),
        ("aside", ctypes.c_uint64), ("aside_count", ctypes.c_uint64), ("silent", ctypes.c_uint64),
        ("spans", ctypes.c_uint64), ("straddles", ctypes.c_uint64), ("judged", ctypes.c_uint64),
        ("stale", ctypes.c_uint64),
    ]  # fmt: skip
    counter: int
    skipped: int
    passing: int
    again: int
    last_address: int
    last_counter: int
    last_rcx: int
    run_start: int
    run_budget: int
    tick_budget: int
    uncharged: int
    iterations: int
    repeated: int
    resumes_at: int
    executed: int
    done: int
    string_tick: int
    string_address: int
    enabled: int
    strict: int
    untold: int
    journal: int
    journal_count: int
    journal_limit: int
    careful: int
    careful_count: int
    state: int
    python: int
    table: int
    copied: int
    frames: int
    judge: int
    touched: int
    touched_count: int
    calm: int
    pending: int
    port_at: int
    begun: int
    aside: int
    aside_count: int
    silent: int
    spans: int
    straddles: int
    judged: int
    stale: int


class _Move(ctypes.Structure):
    """One instruction, in the order of ``meter.inc``."""

    _fields_ = [
        *(
            (name, ctypes.c_uint64)
            for name in ("meter", "enabled", "bits", "shift", "mask", "source", "target", "linear", "kind", "known")
        ),
        ("accepted", ctypes.c_uint64 * (_MOST_ACCEPTED * (1 + JUDGED))),
    ]
    enabled: int
    source: int
    target: int
    mask: int
    kind: int
    known: int
    accepted: Any


def _numbers(kind: Any, count: int) -> Any:  # noqa: ANN401 - ctypes has no name for an array of any length
    """Zeros for which the host gives memory as they are used."""
    return (kind * count).from_buffer(mmap.mmap(-1, max(1, count * ctypes.sizeof(kind))))


def _kind(insn: Sensitive, bits: int) -> int | None:
    """What host code may decide about ``insn``; None where it is Python's."""
    match insn.kind:
        case Kind.STRING if insn.opcode in MOVS:
            return _MOVE
        case Kind.CR_READ if insn.register in _READ_AS_KEPT or (insn.register == 3 and bits == 64):
            return _READS_CONTROL  # under PAE, which 64-bit code has not, CR3 is not what the engine keeps there
        case Kind.POPF | Kind.STI:
            return _UNMASKS
        case Kind.IN | Kind.OUT if insn.opcode not in STRING_IO:
            return _USES_PORT
        case Kind.LGDT | Kind.LIDT:
            return _LOADS_TABLE
        case Kind.RDMSR:
            return _READS_MSR
        case Kind.CR_WRITE if insn.register in _WRITTEN_AS_KEPT:
            return _WRITES_CONTROL
    return None


class Moves:
    """The meter and the records of one engine.

    ``state`` is the host address of the processor state, ``base(i)`` that of the hidden base of segment register i,
    ``counter`` that of the engine's counter, ``python`` that of the callback of an intercept.
    """

    def __init__(self, state: int, bases: list[int], counter: int, python: int) -> None:
        self._bases = bases
        self._zero = ctypes.c_uint64(0)
        self._journal = _numbers(ctypes.c_uint64, 0)
        self._frames = _numbers(ctypes.c_uint32, 0)
        self._careful = bytearray()
        self._code: set[int] = set()
        self._listed: list[tuple[int, int]] = []
        self._touched = _numbers(ctypes.c_uint64, 0)
        self._records: dict[int, _Move] = {}
        self._aside = (ctypes.c_uint64 * _MOST_ASIDE)()
        self._judged = (ctypes.c_uint64 * (2 * JUDGED))()
        self._table = (ctypes.c_uint64 * (_BUCKETS * 2 * _PLACES))(*([NOWHERE, 0] * (_BUCKETS * _PLACES)))
        self.meter = Meter(
            counter=counter, passing=NOWHERE, again=NOWHERE, last_address=NOWHERE, repeated=NOWHERE,
            resumes_at=-1, string_address=NOWHERE, state=state, python=python, port_at=NOWHERE, begun=NOWHERE,
            table=ctypes.addressof(self._table), aside=ctypes.addressof(self._aside),
        )  # fmt: skip

    def set_aside(self, pages: Collection[int]) -> bool:
        """Python decides before each instruction in these linear pages; False where there is no room for so many."""
        if len(pages) > _MOST_ASIDE:
            return False
        self._aside[: len(pages)] = list(pages)
        self.meter.aside_count = len(pages)
        return True

    def learn(self, address: int, bits: int, insn: Sensitive) -> None:
        """The instruction at linear ``address`` is ``insn``, in ``bits``-bit code, whatever block it runs in."""
        kind = _kind(insn, bits)
        if kind is None:
            self.forget(address)
            return
        record = self._records.get(address)
        if record is None:
            if len(self._records) >= _MOST_MOVES:
                return
            record = self._records[address] = _Move()
        place = self._place(address, address)
        if place is not None:
            self._table[place + 1] = ctypes.addressof(record)
        record.meter, record.bits, record.kind = ctypes.addressof(self.meter), _CODE_BITS[bits], kind
        if kind == _MOVE:
            self._describe(record, bits, insn)
        elif kind == _WRITES_CONTROL:
            wanted = self.meter.state + 8 * insn.general, insn.register, NOWHERE if bits == 64 else 0xFFFFFFFF
            if (record.source, record.target, record.mask) != wanted:
                record.source, record.target, record.mask = wanted
                record.known = 0
        record.enabled = 1

    def judge_by(self, words: list[tuple[int, int]]) -> None:
        """What decides about a write of a control register: host addresses of JUDGED words, and the bits that count."""
        for index, (address, bits) in enumerate(words):
            self._judged[2 * index : 2 * index + 2] = [address, bits]
        self.meter.judged = ctypes.addressof(self._judged)

    def accept(self, address: int, value: int) -> None:
        """From now on let the write of ``value`` to a control register at linear ``address`` pass, in this very state.

        Wherever it did, ``meter.stale`` is set.
        """
        record = self._records.get(address)
        if record is None or not record.enabled or record.kind != _WRITES_CONTROL:
            return
        if record.known == _MOST_ACCEPTED:
            record.known = 0
        start = record.known * (1 + JUDGED)
        words = [
            ctypes.c_uint64.from_address(at).value & bits
            for at, bits in zip(self._judged[::2], self._judged[1::2], strict=True)
        ]
        record.accepted[start : start + 1 + JUDGED] = [value, *words]
        record.known += 1

    def _describe(self, record: _Move, bits: int, insn: Sensitive) -> None:
        zero = ctypes.addressof(self._zero)
        index = _SEGMENTS.index(insn.segment) if insn.segment else DS
        record.source = zero if bits == 64 and index < FS else self._bases[index]
        record.target = zero if bits == 64 else self._bases[ES]
        record.linear = NOWHERE if bits == 64 else 0xFFFFFFFF
        record.shift, record.mask = insn.operand.bit_length() - 1, (1 << 8 * insn.address) - 1

    def forget(self, address: int) -> None:
        """Python decides at linear ``address`` from now on."""
        record = self._records.get(address)
        if record is not None:
            record.enabled = 0

    def forget_all(self) -> None:
        """Python decides everywhere."""
        for record in self._records.values():
            record.enabled = 0

    def _place(self, address: int, content: int) -> int | None:
        """The index in the table where, in the bucket of ``address``, ``content`` stands."""
        start = (address * _MULTIPLIER & NOWHERE) >> _HASH_SHIFT
        for place in range(start * 2 * _PLACES, (start + 1) * 2 * _PLACES, 2):
            if self._table[place] == content:
                return place
        return None

    def intercept(self, address: int) -> bool:
        """Call Python, or the move that is known there, before the instruction at ``address``; False: no room."""
        place = self._place(address, NOWHERE)
        if place is None:
            return False
        record = self._records.get(address)
        self._table[place + 1] = 0 if record is None else ctypes.addressof(record)
        self._table[place] = address
        return True

    def remove(self, address: int) -> None:
        """Undo :meth:`intercept`."""
        place = self._place(address, address)
        if place is not None:
            self._table[place] = NOWHERE

    def be_careful(self, top: int, forbidden: Iterable[tuple[int, int]], rom: Iterable[tuple[int, int]]) -> None:
        """Leave stores to Python in these runs of page frames (first, behind the last), and from ``top`` up."""
        careful = bytearray(top)
        for kind, runs in ((_READ_ONLY, rom), (_FORBIDDEN, forbidden)):
            for first, behind in runs:
                stop = min(behind, top)
                if first < stop:
                    careful[first:stop] = bytes((kind,)) * (stop - first)
        for pfn in self._code:
            careful[pfn] |= _CODE
        for first, behind in self._listed:
            for pfn in range(first, min(behind, top)):
                careful[pfn] |= _UNTOUCHED
        for pfn in self.touched():
            careful[pfn] &= ~_UNTOUCHED
        address = ctypes.addressof(ctypes.c_uint8.from_buffer(careful)) if top else 0
        if top != len(self._frames):
            self._make_records(top)
        self._careful, self.meter.careful, self.meter.careful_count = careful, address, top

    def _make_records(self, top: int) -> None:
        """Room for what is stored in page frames below ``top``: each twice, through two linear pages.

        The host gives memory for it as it is used.
        """
        count = max(_LEAST_RECORDS, 2 * top)
        self._journal = _numbers(ctypes.c_uint64, 3 * count)
        self._frames = _numbers(ctypes.c_uint32, top)
        self.meter.journal, self.meter.frames = ctypes.addressof(self._journal), ctypes.addressof(self._frames)
        self.meter.journal_count, self.meter.journal_limit = 0, count

    def list_stores(self, runs: Iterable[tuple[int, int]]) -> None:
        """From now on :meth:`touched` tells of stores into these runs of page frames (first, behind the last).

        Of those that host code does, of those that the engine does while :meth:`emu.machine.engine.Engine.list_stores`
        has it so, and of those that :meth:`touch` is told of.
        """
        self.list_again()
        self._careful[:] = self._careful.translate(_NOT_LISTED)
        self._listed = [(first, min(behind, len(self._careful))) for first, behind in runs]
        for first, behind in self._listed:
            self._careful[first:behind] = self._careful[first:behind].translate(_LISTED)
        self._touched = _numbers(ctypes.c_uint64, len(self._careful))
        self.meter.touched = ctypes.addressof(self._touched)

    def touched(self) -> list[int]:
        """The page frames that were stored to since :meth:`list_again`, each once, by their first stores."""
        return list(self._touched[: self.meter.touched_count])

    def touch(self, physical: int, size: int) -> None:
        """Python stores ``size`` bytes at a physical address."""
        for pfn in range(physical >> PAGE_SHIFT, (physical + max(size, 1) - 1 >> PAGE_SHIFT) + 1):
            if pfn < len(self._careful) and self._careful[pfn] & _UNTOUCHED:
                self._careful[pfn] &= ~_UNTOUCHED
                self._touched[self.meter.touched_count] = pfn
                self.meter.touched_count += 1

    def list_again(self) -> None:
        """The next store into each page frame counts as the first."""
        for pfn in self.touched():
            self._careful[pfn] |= _UNTOUCHED
        self.meter.touched_count = 0

    def has_code(self, pfn: int) -> None:
        """Code was translated from this page frame: Python decides about stores there."""
        if 0 <= pfn < len(self._careful):
            self._code.add(pfn)
            self._careful[pfn] |= _CODE

    def has_no_code(self, pfn: int) -> None:
        """Undo :meth:`has_code`."""
        if pfn in self._code:
            self._code.discard(pfn)
            self._careful[pfn] &= ~_CODE

    def note(self, physical: int, size: int, linear: int) -> bool:
        """Write a store down behind those that host code wrote down; False where there is no room."""
        count = self.meter.journal_count
        if count + 2 > self.meter.journal_limit:
            return False
        self._journal[3 * count : 3 * count + 3] = [physical, size, linear]
        self.meter.journal_count = count + 1
        if physical >> PAGE_SHIFT < len(self._frames):
            self._frames[physical >> PAGE_SHIFT] = count + 1
        return True

    def void(self) -> None:
        """What was written down and not asked for does not matter any more."""
        count = self.meter.journal_count
        if not count:
            return
        self.meter.journal_count = 0
        if count > _FEW:
            ctypes.memset(self._frames, 0, ctypes.sizeof(self._frames))
            return
        for physical in self._journal[: 3 * count : 3]:
            if physical >> PAGE_SHIFT < len(self._frames):
                self._frames[physical >> PAGE_SHIFT] = 0

    def tells_of(self, pfn: int) -> bool:
        """True where a store in this page frame is among what :meth:`told` gives."""
        if pfn < len(self._frames):
            return bool(self._frames[pfn])
        return bool(self.meter.journal_count)

    def told(self) -> list[tuple[int, int, int]]:
        """(physical, size, linear) of the stores since the last call, where the machine is strict."""
        count = self.meter.journal_count
        if not count:
            return []
        fields = self._journal[: 3 * count]
        self.void()
        return list(zip(fields[::3], fields[1::3], fields[2::3], strict=True))
