"""The processor as the rest of the machine sees it: engine registers plus linear memory through the page tables.

Also the target that exception delivery works on.  Linear accesses made here are the processor's own (frames,
descriptors, TSS): supervisor rights, Accessed and Dirty bits set as hardware sets them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from emu.machine.cpustate import CS
from emu.machine.engine import Engine
from emu.machine.ram import Ram
from emu.machine.space import Space
from emu.units import PAGE_MASK, PAGE_SIZE
from emu.x86.bits import PHYS_MASK, Cr0, Cr4, Eflags
from emu.x86.control import ControlState, cpu_mode
from emu.x86.delivery import GuestFault
from emu.x86.exceptions import Vector
from emu.x86.paging import (
    NOT_CANONICAL,
    Access,
    Entry,
    PagingMode,
    PagingState,
    Reached,
    Walk,
    admit,
    mode_of,
    walk,
)
from emu.x86.segments import SegmentCache, SystemType, TableRegister

PDPT_PAGE = 0xFEFFF000
"""Physical page that no guest map contains: holds the PDPTEs that the processor latched at the last CR3 load.

The engine reads PDPTEs at each walk; hardware latches them (SDM 3A 4.4.1).  Under PAE
paging the engine's CR3 points here, at a copy, and the guest's CR3 is kept by :class:`Cpu`.
"""

_LARGE_MASK = (1 << 21) - 1
_MOST_PAGES = 2048  # that translations are remembered for: no more than a processor's own, and soon forgotten
_MOST_MODES = 1024
_MOST_SPACES = 16
_A, _D = int(Entry.A), int(Entry.D)
_RESERVED_HIGH = ((1 << 52) - 1) & ~PHYS_MASK

READ = Access(implicit=True)
WRITE = Access(write=True, implicit=True)
PLAIN = {(user, write): Access(write=write, user=user) for user in (False, True) for write in (False, True)}
"""The accesses of ordinary instructions, by (user, write)."""
FETCH = {user: Access(execute=True, user=user) for user in (False, True)}
_MSRS = {
    "star": 0xC0000081, "lstar": 0xC0000082, "cstar": 0xC0000083, "sfmask": 0xC0000084, "fs_base": 0xC0000100,
    "gs_base": 0xC0000101, "kernel_gs_base": 0xC0000102, "sysenter_cs": 0x174, "sysenter_esp": 0x175,
    "sysenter_eip": 0x176, "pat": 0x277,
}  # fmt: skip
GPR_NAMES = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
SEGMENT_NAMES = ("es", "cs", "ss", "ds", "fs", "gs")


@dataclass(frozen=True, slots=True)
class CpuSnapshot:
    """Engine state and what we keep beside it."""

    context: object
    guest_cr3: int | None
    pdptes: tuple[int, int, int, int] | None
    nmi_blocked: bool


class Cpu:
    """Registers and linear memory of the one processor; ``on_store(physical, data)`` hears of its own stores.

    ``caching``: translations of its own accesses are remembered too, for a machine that hears of every INVLPG.
    """

    def __init__(self, engine: Engine, ram: Ram, pdpt_page: memoryview) -> None:
        self.engine = engine
        self.ram = ram
        self._pdpt_page = pdpt_page
        self._guest_cr3: int | None = None
        self._pdptes: tuple[int, int, int, int] | None = None
        self.nmi_blocked = False
        self.caching = False
        self.on_store: Callable[[int, bytes], None] = lambda _physical, _data: None
        self._translations: dict[tuple[int, Access], int] = {}
        self._small: dict[tuple[int, Access], int] = {}
        self._leaves: dict[tuple[int, Access], tuple[int, int]] = {}
        self._plain: dict[tuple[int, bool, bool], tuple[int, int]] = {}
        self._modes: dict[tuple[int, ...], str] = {}
        self._spaces: dict[tuple[object, ...], Space] = {}
        self._space_key: tuple[object, ...] = ()
        self._space = Space(ram, PagingState(0, 0, 0, 0))

    # ---- mode --------------------------------------------------------------------------------------------------

    @property
    def cr3(self) -> int:
        """CR3 as the guest loaded it."""
        return self.engine.cr(3) if self._guest_cr3 is None else self._guest_cr3

    @property
    def bits(self) -> int:
        """Width of the code being executed: 16, 32 or 64."""
        return self.engine.code_bits

    @property
    def pc(self) -> int:
        """Linear address of the next instruction."""
        if self.engine.code_bits == 64:
            return self.engine.rip
        return (self.engine.segment_base(CS) + self.engine.rip) & 0xFFFFFFFF

    def space(self) -> Space:
        """Linear memory as paging shows it now."""
        key = (*self.engine.paging_key(), self._guest_cr3, self._pdptes)
        if key != self._space_key:
            self._space_key, self._space = key, self._spaces.get(key) or self._new_space(key)
        return self._space

    def _new_space(self, key: tuple[object, ...]) -> Space:
        engine = self.engine
        cr4 = engine.cr(4)
        alignment_check = bool(cr4 & Cr4.SMAP and engine.system_flags & Eflags.AC)
        state = PagingState(engine.cr(0), self.cr3, cr4, engine.efer, alignment_check, self._pdptes)
        if len(self._spaces) >= _MOST_SPACES:
            self._spaces.clear()
        space = self._spaces[key] = Space(self.ram, state)
        return space

    def paging(self) -> PagingState:
        """What a page walk depends on, now."""
        return self.space().state

    def control(self) -> ControlState:
        """The control state that the rules of :mod:`emu.x86.control` judge by."""
        engine = self.engine
        flags = engine.segment(CS).flags
        return ControlState(
            cr0=engine.cr(0),
            cr2=engine.cr(2),
            cr3=self.cr3,
            cr4=engine.cr(4),
            efer=engine.efer,
            eflags=engine.system_flags,
            cpl=engine.cpl,
            cs_long=bool(flags >> 21 & 1),
            cs_db=bool(flags >> 22 & 1),
            tss16=engine.tr.flags >> 8 & 0x1D == SystemType.TSS16_AVAILABLE,
        )

    def judged_by(self) -> tuple[int, ...]:
        """What :meth:`control` depends on besides CR0, CR4 and EFER, as a key: CR3, mode, flags, TR's and CS's type."""
        engine = self.engine
        return (self.cr3, *engine.mode_key())

    def mode(self) -> str:
        """Short name of the processor mode, for people."""
        engine = self.engine
        key = engine.cr(0), engine.cr(4), engine.efer, *engine.mode_key()
        label = self._modes.get(key)
        if label is None:
            if len(self._modes) > _MOST_MODES:
                self._modes.clear()
            label = self._modes[key] = cpu_mode(self.control()).label
        return label

    def settle_pdptes(self) -> None:
        """After a change of CR0, CR3, CR4 or EFER: latch the PDPTEs under PAE paging, or stop using the latch."""
        engine = self.engine
        self.forget_translations()
        guest_cr3 = self.cr3
        if mode_of(engine.cr(0), engine.cr(4), engine.efer) is not PagingMode.PAE:
            if self._guest_cr3 is not None:
                self._guest_cr3 = self._pdptes = None
                engine.set_cr(3, guest_cr3)
                engine.flush_tlb()
            return
        raw = self.ram.read(guest_cr3 & 0xFFFFFFE0, 32)
        self._guest_cr3 = guest_cr3
        first, second, third, fourth = struct.unpack("<4Q", raw)
        self._pdptes = (first, second, third, fourth)
        self._pdpt_page[:32] = raw
        engine.set_cr(3, PDPT_PAGE | guest_cr3 & 0x18)
        engine.flush_tlb()

    def guest_cr3_loaded(self, value: int) -> None:
        """The guest executed MOV to CR3 with ``value``; the engine has it in its own CR3 already."""
        if self._guest_cr3 is not None:
            self._guest_cr3 = value
        elif self.engine.cr(3) != value:  # the no-flush bit, which the engine would keep
            self.engine.set_cr(3, value)
        self.settle_pdptes()

    # ---- linear memory -----------------------------------------------------------------------------------------

    def walk(self, linear: int, access: Access = READ) -> Walk:
        """The page walk for ``linear`` with every step, whether it succeeds or faults."""
        return walk(self.ram.read_int, self.paging(), linear, access)

    def seen(self, linear: int) -> int | None:
        """Where ``linear`` leads whatever the rights, with no trace in the page tables; None where it is not mapped."""
        found = self.space().descend(linear)
        return None if isinstance(found, int) else found.physical + (linear & PAGE_MASK)

    def allows(self, linear: int, access: Access) -> bool:
        """Whether paging lets ``access`` through; no trace is left in the page tables."""
        space = self.space()
        return not isinstance(admit(space.state, access, space.descend(linear)), int)

    def translate(self, linear: int, access: Access = READ) -> int:
        """Physical address of ``linear``; sets A (and D) bits; raises GuestFault (#PF, #GP) as the access would."""
        return self._reach(linear, access).physical + (linear & PAGE_MASK)

    def _reach(self, linear: int, access: Access) -> Reached:
        """Where the page of ``linear`` is, with the trace that ``access`` leaves in the page tables."""
        space = self.space()
        found = admit(space.state, access, space.descend(linear))
        if not isinstance(found, int):
            entries = found.entries
            if entries and not (found.common & _A and (entries[-1][1] & _D or not access.write)):
                self._mark(entries, write=access.write)
            return found
        if found == NOT_CANONICAL:
            raise GuestFault(Vector.GP, 0)
        raise GuestFault(Vector.PF, found, linear)

    def translate_cached(self, linear: int, access: Access) -> int:
        """:meth:`translate`, remembered per page until the guest or the host flushes translations, as a TLB does."""
        if not self.cr0 >> 31:
            return linear & 0xFFFFFFFF
        large = self._translations.get((linear & ~_LARGE_MASK, access))
        if large is not None:
            return large + (linear & _LARGE_MASK)
        key = linear & ~PAGE_MASK, access
        page = self._small.get(key)
        if page is None:
            page = self._beside(linear, access)
            if page is None:
                return self._remember(linear, access)
            if len(self._small) >= _MOST_PAGES:
                self._small.clear()
            self._small[key] = page
        return page + (linear & PAGE_MASK)

    def plain_page(self, linear: int, *, write: bool) -> tuple[int, int] | None:
        """(host address, physical address) of the page of RAM at ``linear``, remembered like :meth:`translate_cached`.

        None where an access there would fault, or meet a hole or (for a store) ROM.
        """
        key = linear >> 12, write, self.engine.cpl == 3
        page = self._plain.get(key)
        if page is None:
            page = self._find_plain(linear & ~PAGE_MASK, write=write)
            if page is not None:
                if len(self._plain) >= _MOST_PAGES:
                    self._plain.clear()
                self._plain[key] = page
        return page

    def _find_plain(self, linear: int, *, write: bool) -> tuple[int, int] | None:
        try:
            physical = self.translate_cached(linear, PLAIN[self.cpl == 3, write])
        except GuestFault:
            return None
        bank = self.ram.bank_at(physical)
        if bank is None or (write and bank.rom):
            return None
        return bank.host + physical - bank.start, physical

    def seen_at(self, linear: int, access: Access) -> int | None:
        """Where ``linear`` translates to, with no trace in the page tables; None where it is not mapped."""
        if not self.cr0 >> 31:
            return linear & 0xFFFFFFFF
        page = self._small.get((linear & ~PAGE_MASK, access))
        return self.seen(linear) if page is None else page + (linear & PAGE_MASK)

    def _beside(self, linear: int, access: Access) -> int | None:
        """The page by its last-level entry alone, where a page of the same table was walked with this access before."""
        seen = self._leaves.get((linear & ~_LARGE_MASK, access))
        if seen is None:
            return None
        first, size = seen
        entry = self.ram.read_int(first + (linear >> 12 & 0x1FF) * size, size)
        wanted = 0x63 if access.write else 0x21  # P and A; for a store W and D too: anything else is walked in full
        if entry & wanted != wanted or entry & _RESERVED_HIGH:
            return None
        return entry & PHYS_MASK & ~PAGE_MASK

    def _remember(self, linear: int, access: Access) -> int:
        found = self._reach(linear, access)
        page = found.physical
        if found.page_size > _LARGE_MASK:
            self._translations[linear & ~_LARGE_MASK, access] = page - (linear & _LARGE_MASK & ~PAGE_MASK)
        else:
            self._small[linear & ~PAGE_MASK, access] = page
            plain = not self.cr4 & (Cr4.SMAP | Cr4.SMEP) and not access.user
            if plain and (not access.write or found.writable):
                size = 4 if self.paging().mode is PagingMode.TWO_LEVEL else 8
                first = found.entries[-1][0] - (linear >> 12 & 0x1FF) * size
                self._leaves[linear & ~_LARGE_MASK, access] = first, size
        return page + (linear & PAGE_MASK)

    def msrs(self) -> dict[int, int]:
        """The MSRs that no start state sets, by number."""
        return {number: self.engine.msr(number) for number in _MSRS.values()}

    def put_msrs(self, values: Mapping[str, int]) -> None:
        """Set the same MSRs by the names that :meth:`registers` gives them."""
        for name, number in _MSRS.items():
            self.engine.set_msr(number, values[name])

    def power_on(self, msrs: Mapping[int, int]) -> None:
        """What power-on sets besides a start state: MSRs as :meth:`msrs` gave them then, and NMIs are taken."""
        for number, value in msrs.items():
            self.engine.set_msr(number, value)
        self.nmi_blocked = False

    def forget_translations(self) -> None:
        """The guest loaded CR0, CR3 or CR4 or executed INVLPG, or the host changed tables."""
        self._translations.clear()
        self._small.clear()
        self._leaves.clear()
        self._plain.clear()

    def _mark(self, steps: Sequence[tuple[int, int]], *, write: bool) -> None:
        """Set Accessed (and Dirty) bits in entries (address, value); a latched PDPTE, at -1, has none."""
        for index, (address, value) in enumerate(steps):
            wanted = _A | _D if write and index == len(steps) - 1 else _A
            if address >= 0 and value & wanted != wanted:
                bank = self.ram.bank_at(address)
                if bank is not None:
                    bank.view[address - bank.start] |= wanted
                    self.engine.moves.touch(address, 1)

    def _own(self, linear: int, access: Access) -> int:
        return self.translate_cached(linear, access) if self.caching else self.translate(linear, access)

    def read_linear(self, linear: int, size: int) -> bytes:
        """Bytes at a linear address with supervisor rights; raises GuestFault."""
        step = min(size, PAGE_SIZE - (linear & PAGE_MASK))
        data = self.ram.read(self._own(linear, READ), step)
        return data if step == size else data + self.read_linear(linear + step, size - step)

    def write_linear(self, linear: int, data: bytes) -> None:
        """Store with supervisor rights (an exception frame); both pages are checked before either is written."""
        first = PAGE_SIZE - (linear & PAGE_MASK)
        here = self._own(linear, WRITE)
        behind = self._own(linear + first, WRITE) if first < len(data) else 0
        self._store(here, data[:first])
        if first < len(data):
            self._store(behind, data[first:])

    def _store(self, physical: int, data: bytes) -> None:
        self.on_store(physical & PHYS_MASK, data)
        self.ram.write(physical & PHYS_MASK, data)

    def peek(self, linear: int, size: int) -> bytes | None:
        """Bytes at a linear address with no trace in the page tables, or None where it is not mapped."""
        parts: list[bytes] = []
        while size > 0:
            step = min(size, PAGE_SIZE - (linear & PAGE_MASK))
            physical = self.seen(linear)
            if physical is None:
                return b"".join(parts) or None
            parts.append(self.ram.read(physical, step))
            linear, size = linear + step, size - step
        return b"".join(parts)

    # ---- the delivery target -----------------------------------------------------------------------------------

    @property
    def rip(self) -> int:
        """RIP."""
        return self.engine.rip

    @rip.setter
    def rip(self, value: int) -> None:
        self.engine.rip = value

    @property
    def rsp(self) -> int:
        """RSP."""
        return self.engine.gpr(4)

    @rsp.setter
    def rsp(self, value: int) -> None:
        self.engine.set_gpr(4, value)

    @property
    def rflags(self) -> int:
        """RFLAGS."""
        return self.engine.rflags

    @rflags.setter
    def rflags(self, value: int) -> None:
        self.engine.rflags = value

    @property
    def cr0(self) -> int:
        """CR0."""
        return self.engine.cr(0)

    @property
    def cr2(self) -> int:
        """CR2."""
        return self.engine.cr(2)

    @cr2.setter
    def cr2(self, value: int) -> None:
        self.engine.set_cr(2, value)

    @property
    def cr4(self) -> int:
        """CR4."""
        return self.engine.cr(4)

    @property
    def efer(self) -> int:
        """EFER."""
        return self.engine.efer

    @property
    def cpl(self) -> int:
        """Current privilege level."""
        return self.engine.cpl

    @property
    def gdtr(self) -> TableRegister:
        """GDTR."""
        return self.engine.gdtr

    @property
    def idtr(self) -> TableRegister:
        """IDTR."""
        return self.engine.idtr

    @property
    def ldtr(self) -> SegmentCache:
        """LDTR."""
        return self.engine.ldtr

    @property
    def tr(self) -> SegmentCache:
        """TR."""
        return self.engine.tr

    def segment(self, index: int) -> SegmentCache:
        """Segment register 0 to 5: ES CS SS DS FS GS."""
        return self.engine.segment(index)

    def set_segment(self, index: int, cache: SegmentCache) -> None:
        """Load a segment register with its hidden part."""
        self.engine.set_segment(index, cache)
        self.engine.settle()

    # ---- whole state -------------------------------------------------------------------------------------------

    def registers(self) -> dict[str, int]:
        """Every architectural register by name, hidden segment parts and FPU/SSE state included."""
        engine = self.engine
        state = {name: engine.gpr(index) for index, name in enumerate(GPR_NAMES)}
        state |= {"rip": engine.rip, "rflags": engine.rflags, "efer": engine.efer}
        state |= {"cr0": engine.cr(0), "cr2": engine.cr(2), "cr3": self.cr3, "cr4": engine.cr(4)}
        caches = [(name, engine.segment(index)) for index, name in enumerate(SEGMENT_NAMES)]
        for name, cache in [*caches, ("ldtr", engine.ldtr), ("tr", engine.tr)]:
            state |= {
                name: cache.selector,
                f"{name}.base": cache.base,
                f"{name}.limit": cache.limit,
                f"{name}.flags": cache.flags,
            }
        for name, table in (("gdtr", engine.gdtr), ("idtr", engine.idtr)):
            state |= {f"{name}.base": table.base, f"{name}.limit": table.limit}
        state |= {f"dr{index}": engine.dr(index) for index in (0, 1, 2, 3, 6, 7)}
        state |= {name: engine.msr(number) for name, number in _MSRS.items()}
        return state | engine.fpu_sse()

    def snapshot(self) -> CpuSnapshot:
        """All processor state."""
        return CpuSnapshot(self.engine.save(), self._guest_cr3, self._pdptes, self.nmi_blocked)

    def restore(self, state: CpuSnapshot) -> None:
        """Go back to a :meth:`snapshot` of this machine."""
        self.forget_translations()
        self._guest_cr3, self._pdptes, self.nmi_blocked = state.guest_cr3, state.pdptes, state.nmi_blocked
        if state.pdptes is not None:
            self._pdpt_page[:32] = struct.pack("<4Q", *state.pdptes)
        self.engine.restore(state.context)

    def wp(self) -> bool:
        """CR0.WP with paging on: supervisor stores respect read-only pages."""
        return bool(self.cr0 & Cr0.WP and self.cr0 & Cr0.PG)

    def pge(self) -> bool:
        """CR4.PGE: global translations survive a CR3 load."""
        return bool(self.cr4 & Cr4.PGE)
