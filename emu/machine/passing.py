"""Sensitive instructions that a fast machine lets the engine run without stopping it; of ports a strict one too.

Their rules are checked in the engine's callback, before the instruction; where it is accepted and the engine does what
the processor does, everything that follows from it is known by then and said in advance, as of the boundary behind
it.  Whatever is out of the ordinary (a refusal, PAE's latched pointers, an MSR of ours) is stopped at, and done by
:mod:`emu.machine.instructions` as on a strict machine, which stops at all others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from emu.machine import events as ev
from emu.machine.cpustate import RAX, RCX, RDX
from emu.machine.moves import NOWHERE
from emu.x86 import control as rules
from emu.x86.bits import U64, Cr0, Dr7, Efer, Msr
from emu.x86.control import ControlState
from emu.x86.paging import PagingMode, mode_of
from emu.x86.sensitive import STRING_IO, Kind, Sensitive

if TYPE_CHECKING:
    from emu.machine.machine import Machine

_PLAIN_MSRS = frozenset(
    {Msr.EFER, Msr.STAR, Msr.LSTAR, Msr.CSTAR, Msr.FMASK, Msr.FS_BASE, Msr.GS_BASE, Msr.KERNEL_GS_BASE, Msr.PAT}
)
"""MSRs that the engine keeps as the processor does."""
_MOST_REMEMBERED = 4096
_NO_FLUSH = 1 << 63


class _Write(NamedTuple):
    """What an accepted write leaves in its register, and the modes before and behind it."""

    new: int
    mode_before: str
    mode: str


class _Pending(NamedTuple):
    """LGDT or LIDT is running: the register's base before, and the boundary behind the instruction."""

    register: str
    base: int
    position: ev.Position
    tick: int
    pc: int
    address: int


class Passing:
    """Decides in the callback before an instruction whether the engine may run it, for one fast machine.

    ``told`` is the tick behind the last control write that was told of in this run: what happens after it, as the next
    fetch does, happens no earlier.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._remembered: dict[tuple[int, ...], _Write | None] = {}
        self._msrs: dict[tuple[int, ...], int | None] = {}
        self._pending: _Pending | None = None
        self._meter = machine.engine.meter
        self._handlers = {
            Kind.CR_READ: self._cr_read,
            Kind.CR_WRITE: self._cr_write,
            Kind.DR_WRITE: self._dr_write,
            Kind.RDMSR: self._rdmsr,
            Kind.WRMSR: self._wrmsr,
            Kind.LGDT: self._load_table,
            Kind.LIDT: self._load_table,
            Kind.IN: self._io,
            Kind.OUT: self._io,
        }
        self.told = 0

    def lets(self, insn: Sensitive, address: int) -> bool:
        """True: the engine goes on with ``insn`` at linear ``address``."""
        handler = self._handlers.get(insn.kind)
        return handler is not None and handler(insn, address)

    def _behind(self, insn: Sensitive, address: int) -> tuple[ev.Position, int, int]:
        """(position, tick, linear pc) of the boundary behind the instruction."""
        machine = self._machine
        machine.sync_time()
        count = machine.count
        pc = address + insn.size & (U64 if machine.engine.code_bits == 64 else 0xFFFFFFFF)
        return ev.Position(count.instructions + 1), count.ticks + 1, pc

    # ---- control registers -------------------------------------------------------------------------------------

    def _cr_read(self, insn: Sensitive, _address: int) -> bool:
        engine, number = self._machine.engine, insn.register
        if engine.cpl or number not in (0, 2, 3, 4):
            return False
        return number != 3 or self._machine.cpu.cr3 == engine.cr(3)

    def _cr_write(self, insn: Sensitive, address: int) -> bool:
        machine, engine, number = self._machine, self._machine.engine, insn.register
        if number not in (0, 3, 4):
            return False
        new = engine.gpr(insn.general)
        if engine.code_bits != 64:
            new &= 0xFFFFFFFF
        write = self._judged(number, new)
        if write is None:
            return False
        old = engine.cr(number)
        machine.cpu.forget_translations()
        machine.code.forget()
        if machine.silent:
            if machine.cpu.cr3 == engine.cr(3):  # not under PAE, where the engine's is a page of ours
                engine.moves.accept(address, new)
            return True
        here = self._behind(insn, address)
        self.told = here[1]
        machine.hazards.serialised_at(here[0], here[1], address)
        if old != write.new:
            machine.emit(ev.ControlWrite(*here, f"cr{number}", old, write.new))
            if write.mode != write.mode_before:
                machine.emit(ev.ModeChange(*here, write.mode_before, write.mode))
        return True

    def _dr_write(self, insn: Sensitive, address: int) -> bool:
        """DR7 is cleared: nobody refuses that, but at CPL 3 and where DR7.GD is set."""
        engine = self._machine.engine
        if insn.register != 7 or engine.cpl or engine.dr(7) & Dr7.GD or engine.gpr(insn.general):
            return False
        here = self._behind(insn, address)
        self._machine.hazards.serialised_at(here[0], here[1], address)
        return True

    def _judged(self, number: int, new: int) -> _Write | None:
        engine, cpu = self._machine.engine, self._machine.cpu
        key = (number, new, engine.cr(0), engine.cr(4), engine.efer, *cpu.judged_by())
        if key not in self._remembered:
            if len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = self._judge(cpu.control(), number, new)
        return self._remembered[key]

    def _judge(self, state: ControlState, number: int, new: int) -> _Write | None:
        check = {0: rules.check_cr0_write, 3: rules.check_cr3_write, 4: rules.check_cr4_write}[number]
        if rules.check_cr_access(state, number) or check(state, new):
            return None
        if number == 0:
            behind = replace(state, cr0=new | Cr0.ET, efer=_efer_with(state, new))
        elif number == 4:
            behind = replace(state, cr4=new)
        else:
            behind = replace(state, cr3=new)
        if PagingMode.PAE in (_paging(state), _paging(behind)) or new & _NO_FLUSH:
            return None
        stored = {0: behind.cr0, 3: behind.cr3, 4: behind.cr4}[number]
        return _Write(stored, rules.cpu_mode(state).label, rules.cpu_mode(behind).label)

    # ---- model-specific registers ------------------------------------------------------------------------------

    def _rdmsr(self, _insn: Sensitive, _address: int) -> bool:
        engine = self._machine.engine
        return not engine.cpl and engine.gpr(RCX) & 0xFFFFFFFF in _PLAIN_MSRS

    def _wrmsr(self, insn: Sensitive, address: int) -> bool:
        machine, engine = self._machine, self._machine.engine
        number = engine.gpr(RCX) & 0xFFFFFFFF
        if engine.cpl or number not in _PLAIN_MSRS:
            return False
        value = (engine.gpr(RDX) & 0xFFFFFFFF) << 32 | engine.gpr(RAX) & 0xFFFFFFFF
        key = (number, value, engine.cr(0), engine.cr(4), engine.efer, *machine.cpu.judged_by())
        if key not in self._msrs:
            if len(self._msrs) > _MOST_REMEMBERED:
                self._msrs.clear()
            self._msrs[key] = self._behind_wrmsr(machine.cpu.control(), number, value)
        behind = self._msrs[key]
        if behind is None:
            return False
        if number == Msr.EFER:
            old, new = engine.efer, behind
            machine.cpu.forget_translations()
            machine.code.forget()
        else:
            old, new = engine.msr(number), behind
        here = self._behind(insn, address)
        machine.hazards.serialised_at(here[0], here[1], address)
        if old != new:
            machine.emit(ev.ControlWrite(*here, Msr(number).name.lower(), old, new))
        return True

    @staticmethod
    def _behind_wrmsr(state: ControlState, number: int, value: int) -> int | None:
        """What the MSR holds behind a write; None where the write is refused, or changes EFER with PAE's pointers."""
        if rules.check_wrmsr(state, number, value):
            return None
        if number != Msr.EFER:
            return value
        new = rules.efer_after_write(state, value)
        return None if PagingMode.PAE in (_paging(state), _paging(replace(state, efer=new))) else new

    # ---- ports -------------------------------------------------------------------------------------------------

    def _io(self, insn: Sensitive, address: int) -> bool:
        """Nobody is asked at CPL 0; where a string goes through a port, each iteration is an access."""
        machine = self._machine
        if insn.opcode in STRING_IO or machine.engine.cpl:
            return False
        self._meter.port_at = address
        return True

    def accessing(self) -> int | None:
        """In the callback of a port: the linear address of the access if it was let pass; time is brought up to it."""
        at = self._meter.port_at
        if at == NOWHERE:
            return None
        self._machine.sync_time()
        self._machine.clock.now = self._machine.count.ticks
        return at

    def accessed(self) -> None:
        """An access to a port that was let pass is done: the run ends behind it where there is something to look at."""
        machine = self._machine
        self._meter.port_at = NOWHERE
        loop, board = machine.loop, machine.board
        due = board.bus.next_deadline()
        early = due is not None and due < loop.runs_until
        waits = board.pic.pending_vector() is not None
        if waits:
            self._meter.calm = 0
        if early or waits or loop.outcome is not None:
            machine.engine.end_behind()

    # ---- descriptor tables -------------------------------------------------------------------------------------

    def _load_table(self, insn: Sensitive, address: int) -> bool:
        """LGDT and LIDT may fault, and what they load is not known yet: :meth:`settle` looks at it afterwards."""
        name = "gdtr" if insn.kind is Kind.LGDT else "idtr"
        self._meter.pending = 1
        self._pending = _Pending(name, getattr(self._machine.engine, name).base, *self._behind(insn, address), address)
        return True

    def settle(self, *, retired: bool | None = None) -> None:
        """Say what LGDT or LIDT changed, before anything else is said.

        ``retired`` tells whether it has; None where it may be running still.
        """
        pending = self._pending
        if pending is None:
            return
        machine = self._machine
        new = getattr(machine.engine, pending.register).base
        if retired is None and new == pending.base:
            return
        self._pending, self._meter.pending = None, 0
        if retired is False:
            return
        machine.hazards.serialised_at(pending.position, pending.tick, pending.address)
        if new != pending.base:
            event = ev.ControlWrite(pending.position, pending.tick, pending.pc, pending.register, pending.base, new)
            machine.emit(event)

    def settle_stop(self) -> None:
        """The run has stopped, and time is what it is."""
        if self._pending is not None:
            self.settle(retired=self._machine.count.ticks >= self._pending.tick)


def _efer_with(state: ControlState, cr0: int) -> int:
    """EFER behind a write of ``cr0``: LMA follows paging, SDM 3A 10.8.5."""
    if cr0 & Cr0.PG and not state.cr0 & Cr0.PG and state.efer & Efer.LME:
        return state.efer | Efer.LMA
    return state.efer if cr0 & Cr0.PG else state.efer & ~Efer.LMA


def _paging(state: ControlState) -> PagingMode:
    return mode_of(state.cr0, state.cr4, state.efer)
