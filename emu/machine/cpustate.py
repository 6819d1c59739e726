"""The engine's private processor state (``CPUX86State``), at offsets that hold for the pinned release only.

This is the one file that touches it.  It holds no engine call: it is handed the host address of the state, and
:mod:`emu.machine.engine` calibrates every field against known faults before anybody relies on it.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from emu.errors import EngineError
from emu.units import PAGE_MASK
from emu.x86.bits import Eflags
from emu.x86.segments import SegmentCache, TableRegister

# Byte offsets inside CPUX86State of what no public call reaches.
_REGS, _EIP, _EFLAGS, _DIRECTION, _HFLAGS, _SEGS, _LDT, _TR, _GDT, _IDT, _CR = (
    0,
    128,
    136,
    172,
    176,
    184,
    328,
    352,
    376,
    400,
    424,
)
_FLAGS: Final = 152  # the arithmetic flags, where they are kept as such
_FLAGS_FORM: Final = 168  # how they are kept
_FLAGS_COMPUTED: Final = 1  # as such
_ARITHMETIC, _DF = 0x8D5, 0x400
_ERROR_CODE, _IS_INT, _NEXT_EIP, _DR, _OLD_EXCEPTION, _SIZE = 0x1508, 0x150C, 0x1510, 0x1518, 0x1578, 0x1600
_BREAKPOINTS = _DR + 8 * 8
_SEGMENT: Final = struct.Struct("<IxxxxQII")  # selector, base, limit, flags
_TABLE_REGISTER: Final = struct.Struct("<8xQI")
_segment_cache = lru_cache(maxsize=256)(SegmentCache)  # guests load the same few again and again
_table_register = lru_cache(maxsize=64)(TableRegister)
_EFER_SEARCH_END: Final = 0x5800
_TRANSLATIONS: Final = -0x40  # before the state; STATE_TLBS of asm/host/meter.inc
_PRIVILEGES: Final = 3
_KERNEL_TRANSLATIONS: Final = _TRANSLATIONS + 16 * 2  # for CPL 0
_TRANSLATION: Final = ctypes.c_uint64 * 4  # linear page for reads, for writes, for fetches, physical page
_CACHED: Final = struct.Struct("<4Q")
_ENTRY: Final = 64  # bytes of a translation
_VICTIMS, _VICTIMS_SIZE, _VICTIM_COUNT = -0x840, 0x2B8, 8  # before the state; STATE_VICTIMS of asm/host/meter.inc
_DISPLACED: Final = _VICTIMS + 2 * _VICTIMS_SIZE  # for CPL 0
_NEVER: Final = (1 << 64) - 1

# hflags: the translator's digest of the processor mode.
_HF_INHIBIT_IRQ: Final = 1 << 3
_HF_CS32, _HF_SS32, _HF_ADDSEG, _HF_PE = 1 << 4, 1 << 5, 1 << 6, 1 << 7
_HF_TF: Final = 1 << 8
_HF_MP_EM_TS_SHIFT: Final = 9
_HF_LMA, _HF_CS64, _HF_OSFXSR, _HF_SMAP = 1 << 14, 1 << 15, 1 << 22, 1 << 23
_HF_ELSEWHERE: Final = 3 | _HF_SMAP  # where other translations than those of CPL 0 may be in use

ES, CS, SS, DS, FS, GS = range(6)
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
MARKERS: Final = (0x51A5C0DE51A5C0D1, 0x51A5C0DE51A5C0D2, 0x51A5C0DE51A5C0D3, 0x51A5C0DE51A5C0D4)
"""Values for RAX, RCX, RDX and RBX by which :func:`locate` finds the state."""


def process_memory(address: int, size: int) -> bytes:
    """Bytes of this process at a host address, or nothing where it is not mapped (calibration only)."""
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        try:
            memory.seek(address)
            return memory.read(size)
        except (OSError, ValueError, OverflowError):
            return b""


def locate(handle: int, known: tuple[int, int] | None, is_live: Callable[[int], bool]) -> tuple[int, tuple[int, int]]:
    """The host address of the state whose first registers hold MARKERS, and the pointer path that led there.

    ``handle`` is the address of uc_struct; ``known`` a path that worked before; ``is_live`` tells the state
    from a copy of the markers elsewhere.  Raises EngineError when there is none.
    """
    pattern = struct.pack("<4Q", *MARKERS)
    if known is not None:
        pointer = struct.unpack("<Q", process_memory(handle + known[0], 8))[0]
        if process_memory(pointer + known[1], len(pattern)) == pattern:
            return pointer + known[1], known
    head = process_memory(handle, 0x1800)
    for offset in range(0, len(head) - 7, 8):
        pointer = struct.unpack_from("<Q", head, offset)[0]
        if not 0x10000 <= pointer < 1 << 47:
            continue
        found = process_memory(pointer, 0x10000).find(pattern)
        if found >= 0 and is_live(pointer + found):
            return pointer + found, (offset, found)
    raise EngineError("the processor state was not found in this Unicorn", hint="install unicorn==2.1.4")


class CpuState:
    """Direct access to registers, hidden segment parts and exception fields of a stopped engine."""

    def __init__(self, address: int) -> None:
        self._address = address
        self._view = memoryview((ctypes.c_char * _SIZE).from_address(address)).cast("B")
        self._efer = ctypes.c_uint64(0)
        self._msrs: dict[int, ctypes.c_uint64 | ctypes.c_uint32] = {}
        self._gprs = (ctypes.c_uint64 * 16).from_address(address + _REGS)
        self._crs = (ctypes.c_uint64 * 5).from_address(address + _CR)
        self._flags = ctypes.c_uint64.from_address(address + _FLAGS)
        self._flags_form = ctypes.c_uint32.from_address(address + _FLAGS_FORM)
        self._direction = ctypes.c_int32.from_address(address + _DIRECTION)
        self._rip = ctypes.c_uint64.from_address(address + _EIP)
        self._eflags = ctypes.c_uint32.from_address(address + _EFLAGS)
        self._hflags = ctypes.c_uint32.from_address(address + _HFLAGS)
        self._kernel_translations = (ctypes.c_uint64 * 2).from_address(address + _KERNEL_TRANSLATIONS)
        self._cs_flags = ctypes.c_uint32.from_address(address + _SEGS + 24 * CS + 20)
        self._ss_flags = ctypes.c_uint32.from_address(address + _SEGS + 24 * SS + 20)
        self._tr_flags = ctypes.c_uint32.from_address(address + _TR + 20)
        self._base_addresses = [address + _SEGS + 24 * index + 8 for index in range(6)]
        self._bases = tuple(ctypes.c_uint64.from_address(one) for one in self._base_addresses)

    def find_efer(self, before: int, change: Callable[[], int]) -> None:
        """Find EFER: the first quadword that holds ``before`` and then the value that ``change()`` writes.

        Behind the state lies the heap, where a buffer of the very calls that change EFER may hold both values too.
        """
        first = self._search_space()
        after = change()
        second = self._search_space()
        pair = struct.Struct("<Q")
        spots = [
            offset
            for offset in range(_CR, min(len(first), len(second)) - 7, 8)
            if pair.unpack_from(first, offset)[0] == before and pair.unpack_from(second, offset)[0] == after
        ]
        if not spots:
            raise EngineError("EFER was not found in the state", hint="install unicorn==2.1.4")
        self._efer = ctypes.c_uint64.from_address(self._address + spots[0])

    def find_msrs(self, numbers: Sequence[int], write: Callable[[int, int], None]) -> None:
        """Find where MSRs are kept, by ``write(number, value)``: :meth:`kept_msr` reads them then, also inside a gate.

        Values are of 16 bits, since SYSENTER_CS keeps no more.
        """
        spaces = []
        for mark in (0xC0D1, 0xA1B1):
            for index, number in enumerate(numbers):
                write(number, mark + index)
            spaces.append(self._search_space())
        first, second = spaces
        for index, number in enumerate(numbers):
            before, after = struct.pack("<I", 0xC0D1 + index), struct.pack("<I", 0xA1B1 + index)
            spots = [
                at
                for at in range(_CR, min(len(first), len(second)) - 7, 4)
                if first[at : at + 4] == before and second[at : at + 4] == after
            ]
            if len(spots) != 1:
                raise EngineError(f"MSR {number:#x} was found at {len(spots)} places", hint="install unicorn==2.1.4")
            self._msrs[number] = ctypes.c_uint64.from_address(self._address + spots[0])
            write(number, 0)
        wide = [number for number, kept in self._msrs.items() if kept.value]
        for number in wide:  # the next field begins within the quadword
            self._msrs[number] = ctypes.c_uint32.from_address(ctypes.addressof(self._msrs[number]))

    def kept_msr(self, number: int) -> int:
        """An MSR that :meth:`find_msrs` found."""
        return int(self._msrs[number].value)

    def _search_space(self) -> bytes:
        """What of the state and behind it is mapped: the state's own end is not known."""
        return process_memory(self._address, _EFER_SEARCH_END)

    def _peek(self, offset: int) -> int:
        return ctypes.c_uint64.from_address(self._address + offset).value

    def exception(self) -> tuple[int, bool, int, int]:
        """(error code, software interrupt?, next RIP, CR2) of the exception being raised."""
        error_code, is_int = struct.unpack_from("<Ii", self._view, _ERROR_CODE)
        return error_code, bool(is_int), self._u64(_NEXT_EIP), self.cr(2)

    def clear_exception(self) -> None:
        """Forget the last exception, which the engine itself would pair with the next into #DF."""
        struct.pack_into("<i", self._view, _OLD_EXCEPTION, -1)

    def _u64(self, offset: int) -> int:
        return int(struct.unpack_from("<Q", self._view, offset)[0])

    def _set_u64(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self._view, offset, value & 0xFFFFFFFFFFFFFFFF)

    @property
    def flags_form(self) -> int:
        """How the engine keeps the arithmetic flags, which it can compute from that."""
        return self._flags_form.value

    @property
    def other_flags(self) -> int:
        """RFLAGS without the arithmetic flags."""
        return self._eflags.value & ~(_ARITHMETIC | _DF) | self._direction.value & _DF

    def load_flags(self, value: int) -> None:
        """Set RFLAGS; :meth:`digest` makes the mode follow."""
        self._flags.value = value & _ARITHMETIC
        self._flags_form.value = _FLAGS_COMPUTED
        self._direction.value = -1 if value & _DF else 1
        self._eflags.value = value | 2

    def take_flags_for_computed(self) -> None:
        """The arithmetic flags are kept as bits, whatever the engine says.

        Where it stops before each instruction it computes them there, but at a fault takes them for what they were
        before that.
        """
        self._flags_form.value = _FLAGS_COMPUTED

    def gpr(self, index: int) -> int:
        """General register in encoding order: rax rcx rdx rbx rsp rbp rsi rdi r8 .. r15."""
        return int(self._gprs[index])

    def set_gpr(self, index: int, value: int) -> None:
        """Set a general register (all 64 bits)."""
        self._gprs[index] = value

    @property
    def rip(self) -> int:
        """RIP, EIP or IP: an offset in CS, not a linear address."""
        return self._rip.value

    @rip.setter
    def rip(self, value: int) -> None:
        self._rip.value = value

    @property
    def system_flags(self) -> int:
        """TF, IF, IOPL, NT, RF, VM, AC and ID of RFLAGS; the other bits mean nothing here."""
        return self._eflags.value

    def cr(self, index: int) -> int:
        """CR0, CR2, CR3 or CR4."""
        return int(self._crs[index])

    def set_cr(self, index: int, value: int) -> None:
        """Set a control register with no check and no side effect; :meth:`digest` makes the mode follow."""
        self._crs[index] = value

    def dr(self, index: int) -> int:
        """Debug register 0 to 7."""
        return self._u64(_DR + 8 * index)

    def set_dr(self, index: int, value: int) -> None:
        """Set a debug register with no side effect (DR6 and DR7 bits that arm nothing)."""
        self._set_u64(_DR + 8 * index, value)

    @property
    def has_breakpoints(self) -> bool:
        """True while the engine keeps a breakpoint object of its own for one of DR0 to DR3."""
        return any(self._view[_BREAKPOINTS:_OLD_EXCEPTION])

    def forget_breakpoints(self) -> None:
        """The engine's breakpoint objects are gone: its pointers to them must not be followed."""
        self._view[_BREAKPOINTS:_OLD_EXCEPTION] = bytes(_OLD_EXCEPTION - _BREAKPOINTS)

    @property
    def state_address(self) -> int:
        """The host address of the state, which the engine's own functions take."""
        return self._address

    @property
    def efer(self) -> int:
        """EFER, LMA included."""
        return int(self._efer.value)

    @efer.setter
    def efer(self, value: int) -> None:
        self._efer.value = value

    def _cache(self, offset: int) -> SegmentCache:
        return _segment_cache(*_SEGMENT.unpack_from(self._view, offset))

    def _set_cache(self, offset: int, cache: SegmentCache) -> None:
        _SEGMENT.pack_into(self._view, offset, cache.selector, cache.base, cache.limit, cache.flags)

    def segment(self, index: int) -> SegmentCache:
        """Hidden and visible part of ES CS SS DS FS GS (0 to 5)."""
        return self._cache(_SEGS + 24 * index)

    def set_segment(self, index: int, cache: SegmentCache) -> None:
        """Load a segment register's hidden part too; :meth:`digest` makes the mode follow."""
        self._set_cache(_SEGS + 24 * index, cache)

    @property
    def ldtr(self) -> SegmentCache:
        """LDTR with its hidden part."""
        return self._cache(_LDT)

    @ldtr.setter
    def ldtr(self, cache: SegmentCache) -> None:
        self._set_cache(_LDT, cache)

    @property
    def tr(self) -> SegmentCache:
        """TR with its hidden part."""
        return self._cache(_TR)

    @tr.setter
    def tr(self, cache: SegmentCache) -> None:
        self._set_cache(_TR, cache)

    @property
    def gdtr(self) -> TableRegister:
        """GDTR: linear base, limit in bytes."""
        return _table_register(*_TABLE_REGISTER.unpack_from(self._view, _GDT))

    @gdtr.setter
    def gdtr(self, table: TableRegister) -> None:
        self._set_cache(_GDT, SegmentCache(0, table.base, table.limit, 0))

    @property
    def idtr(self) -> TableRegister:
        """IDTR: linear base, limit in bytes."""
        return _table_register(*_TABLE_REGISTER.unpack_from(self._view, _IDT))

    @idtr.setter
    def idtr(self, table: TableRegister) -> None:
        self._set_cache(_IDT, SegmentCache(0, table.base, table.limit, 0))

    def segment_base(self, index: int) -> int:
        """The hidden base of ES CS SS DS FS GS (0 to 5)."""
        return self._bases[index].value

    @property
    def backward(self) -> bool:
        """EFLAGS.DF: string instructions go down."""
        return self._direction.value < 0

    @property
    def code_bits(self) -> int:
        """Width of the code being executed: 16, 32 or 64."""
        mode = self._hflags.value
        return 64 if mode & _HF_CS64 else 32 if mode & _HF_CS32 else 16

    def mode_key(self) -> tuple[int, int, int, int]:
        """The translator's digest of the mode, system flags, and the attributes of CS and TR."""
        return self._hflags.value, self._eflags.value, self._cs_flags.value, self._tr_flags.value

    def judged_words(self) -> list[tuple[int, int]]:
        """Host addresses of CR0, CR3, CR4, EFER and the words of :meth:`mode_key`, and the bits of each that count."""
        half, whole = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
        crs = [self._address + _CR + 8 * number for number in (0, 3, 4)]
        fields = (self._hflags, self._cs_flags, self._tr_flags)
        return [
            *((at, whole) for at in (*crs, ctypes.addressof(self._efer))),
            *((ctypes.addressof(field), half) for field in fields),
            (ctypes.addressof(self._eflags), half & ~_ARITHMETIC),
        ]

    def paging_key(self) -> tuple[int, int, int, int, int]:
        """What paging depends on: CR0, the engine's CR3, CR4, EFER, and AC of RFLAGS."""
        crs = self._crs
        return crs[0], crs[3], crs[4], self._efer.value, self._eflags.value & Eflags.AC

    def translation(self, linear: int) -> tuple[int, int, int, int]:
        """The engine's cached translation for ``linear`` at CPL 0, as ``asm/host/moves.inc`` finds it.

        (linear page for reads, for writes, physical page, what gives the host address when added to a linear one)
        """
        mask, table = struct.unpack("<2Q", process_memory(self._address + _KERNEL_TRANSLATIONS, 16))
        read, write, _, physical, addend = struct.unpack("<5Q", process_memory(table + (linear >> 6 & mask), 40))
        return read, write, physical, addend

    def linear_pages(self, physical: int, *, write: bool) -> set[int]:
        """The linear pages through which the engine, by what it has cached, reads or stores to page ``physical``."""
        found = set()
        for privilege in range(_PRIVILEGES):
            mask, table = struct.unpack("<2Q", process_memory(self._address + _TRANSLATIONS + 16 * privilege, 16))
            cached = process_memory(table, mask + _ENTRY) if table else b""
            cached += process_memory(self._address + _VICTIMS + _VICTIMS_SIZE * privilege, _VICTIM_COUNT * _ENTRY)
            for at in range(0, len(cached), _ENTRY):
                for_reads, for_writes, _, page = _CACHED.unpack_from(cached, at)
                linear = for_writes if write else for_reads
                if page == physical and linear != _NEVER:
                    found.add(linear & ~PAGE_MASK)
        return found

    def fetched_from(self, linear: int) -> int | None:
        """The physical address behind ``linear`` by the engine's cached translation for fetches at CPL 0, or None.

        Behind a fetch that is where the bytes came from, whatever the tables say by now.  None with SMAP too.
        """
        if self._hflags.value & _HF_ELSEWHERE:
            return None
        mask, table = self._kernel_translations
        entry = _TRANSLATION.from_address(table + (linear >> 6 & mask))
        return entry[3] + (linear & PAGE_MASK) if entry[2] == linear & ~PAGE_MASK else None

    def displaced_translations(self) -> dict[int, tuple[int, int, int, int]]:
        """Of the translations at CPL 0 that another pushed out of its place, those still cached: by linear page."""
        kept = process_memory(self._address + _DISPLACED, 8 * 64)
        entries = (struct.unpack_from("<5Q", kept, at) for at in range(0, len(kept), 64))
        return {read: (read, write, physical, addend) for read, write, _, physical, addend in entries}

    def mode_addresses(self) -> tuple[int, int]:
        """Host addresses of the translator's digest of the mode (4 bytes) and of CR0 (8 bytes)."""
        return self._address + _HFLAGS, self._address + _CR

    @property
    def cpl(self) -> int:
        """Current privilege level."""
        return self._view[_HFLAGS] & 3

    @property
    def interrupt_shadow(self) -> bool:
        """True at the boundary after STI, MOV SS or POP SS, where no maskable interrupt is taken."""
        return bool(self._view[_HFLAGS] & _HF_INHIBIT_IRQ)

    @interrupt_shadow.setter
    def interrupt_shadow(self, on: bool) -> None:
        self._hflags.value = self._hflags.value & ~_HF_INHIBIT_IRQ | (_HF_INHIBIT_IRQ if on else 0)

    @property
    def single_instructions(self) -> bool:
        """True where the translator makes blocks of one instruction: TF is set, or an interrupt shadow is on."""
        return bool(self._hflags.value & (_HF_TF | _HF_INHIBIT_IRQ))

    @property
    def resuming(self) -> bool:
        """RF: the next instruction does not raise #DB for a breakpoint on it."""
        return bool(self._eflags.value & Eflags.RF)

    def clear_resume(self) -> None:
        """An instruction retired, and did not load RF: it is gone (SDM 3B 18.3.1.1), where the engine keeps it."""
        self._eflags.value &= ~Eflags.RF & 0xFFFFFFFF

    def clear_interrupt_shadow(self) -> None:
        """The shadow ends (an interrupt or exception was delivered)."""
        self._view[_HFLAGS] &= ~_HF_INHIBIT_IRQ & 0xFF

    def digest(self, flags: int) -> None:
        """Recompute the translator's digest of the mode from CR0, CR4, EFER, ``flags`` (RFLAGS) and the segments."""
        cr0, cr4 = self.cr(0), self.cr(4)
        cs, ss = self._cs_flags.value, self._ss_flags.value
        protected, vm86 = bool(cr0 & 1), bool(flags >> 17 & 1)
        mode = 3 if protected and vm86 else (ss >> 13 & 3 if protected else 0)
        mode |= _HF_PE if protected else 0
        mode |= (cr0 >> 1 & 7) << _HF_MP_EM_TS_SHIFT
        mode |= flags & (1 << 8 | 3 << 12 | 1 << 17 | 1 << 18)
        mode |= _HF_OSFXSR if cr4 >> 9 & 1 else 0
        mode |= _HF_SMAP if cr4 >> 21 & 1 else 0
        long_mode = bool(self.efer >> 10 & 1)
        mode |= _HF_LMA if long_mode else 0
        if long_mode and cs >> 21 & 1:
            mode |= _HF_CS32 | _HF_SS32 | _HF_CS64
        else:
            mode |= (_HF_CS32 if cs >> 22 & 1 else 0) | (_HF_SS32 if ss >> 22 & 1 else 0)
            flat = protected and not vm86 and mode & _HF_CS32
            if not flat or any(self.segment_base(index) for index in (DS, ES, SS)):
                mode |= _HF_ADDSEG
        self._hflags.value = mode
