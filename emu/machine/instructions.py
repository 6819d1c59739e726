"""What the machine does at the instructions that the engine would run too generously.

Each is stopped before it executes.  Its rule (:mod:`emu.x86.control`) is checked, the exception that hardware would
raise is delivered, or the engine runs it and what changed is put on the event stream.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emu.machine import events as ev
from emu.machine import system_calls
from emu.machine.cpustate import RAX, RBX, RCX, RDX
from emu.machine.devices.clock import TICKS_PER_SECOND
from emu.x86 import control as rules
from emu.x86.bits import U32, Cr4, Dr6, Dr7, Eflags, Msr
from emu.x86.control import Refusal
from emu.x86.cpuid import cpuid
from emu.x86.exceptions import Vector
from emu.x86.paging import is_canonical
from emu.x86.sensitive import SERIALIZING, STRING_IO, Kind, Sensitive

if TYPE_CHECKING:
    from emu.machine.machine import Machine

_OURS: dict[int, int] = {Msr.TSC: 0, Msr.APIC_BASE: 0xFEE00900 & ~0x800}
"""MSRs that the engine forgets, with their values at power-on (no local APIC: its enable bit is clear)."""


@dataclass(frozen=True, slots=True)
class InstructionState:
    """Registers that the engine forgets: MSRs by number, CR8."""

    msrs: tuple[tuple[int, int], ...]
    cr8: int


def _is_cr8(insn: Sensitive) -> bool:
    """MOV to CR8 is the one to a control register that does not serialise."""
    return insn.kind is Kind.CR_WRITE and insn.register == 8


class Instructions:
    """Handlers by kind, for one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._handlers = {
            Kind.CR_WRITE: self._cr_write,
            Kind.CR_READ: self._cr_read,
            Kind.LMSW: self._native_control,
            Kind.CLTS: self._native_control,
            Kind.RDMSR: self._rdmsr,
            Kind.WRMSR: self._wrmsr,
            Kind.RDTSC: self._rdtsc,
            Kind.RDTSCP: self._rdtsc,
            Kind.RDPMC: self._rdpmc,
            Kind.IN: self._io,
            Kind.OUT: self._io,
            Kind.HLT: self._hlt,
            Kind.IRET: self._iret,
            Kind.LGDT: self._load_table,
            Kind.LIDT: self._load_table,
            Kind.SYSCALL: self._syscall,
            Kind.INVLPG: self._invlpg,
            Kind.MAGIC: self._magic,
            Kind.DR_WRITE: self._dr_write,
            Kind.DR_READ: self._dr_read,
            Kind.CPUID: self._cpuid,
        }
        self.msrs: dict[int, int] = dict(_OURS)
        self.cr8 = 0

    @property
    def state(self) -> InstructionState:
        """What is kept here and not in the engine, as a value."""
        return InstructionState(tuple(self.msrs.items()), self.cr8)

    @state.setter
    def state(self, state: InstructionState) -> None:
        self.msrs, self.cr8 = dict(state.msrs), state.cr8

    def execute(self, insn: Sensitive) -> None:
        """Do ``insn``, which is at RIP."""
        before = self._machine.count.ticks
        self._machine.hazards.before_serialising()
        self._handlers.get(insn.kind, self._native)(insn)
        if insn.kind in SERIALIZING and not _is_cr8(insn) and self._machine.count.ticks > before:
            self._machine.hazards.serialised()

    # ---- helpers -----------------------------------------------------------------------------------------------

    def _refused(self, refusal: Refusal | None) -> bool:
        if refusal is None:
            return False
        self._machine.raise_fault(refusal.vector, refusal.error_code, reason=refusal.reason)
        return True

    def _native(self, insn: Sensitive) -> bool:
        if self._machine.loop.step_over() is not None:
            return False
        if insn.kind is not Kind.IRET:
            self._machine.engine.clear_resume()
        return True

    def _retire(self, insn: Sensitive) -> None:
        """The instruction was done here: RIP moves on and time passes."""
        self._pass(insn)
        self._trap()

    def _pass(self, insn: Sensitive) -> None:
        """Like :meth:`_retire`, before anything that has to be said of the instruction; :meth:`_trap` follows it."""
        machine = self._machine
        mask = (1 << 64) - 1 if machine.cpu.bits == 64 else 0xFFFFFFFF
        machine.cpu.rip = (machine.cpu.rip + insn.size) & mask
        machine.engine.clear_interrupt_shadow()
        machine.engine.clear_resume()
        machine.count.pass_time(1)

    def _trap(self) -> None:
        if self._machine.engine.system_flags & Eflags.TF:
            self._machine.faults.single_step()

    def _changed(self, register: str, old: int, new: int) -> None:
        if old != new:
            machine = self._machine
            machine.emit(ev.ControlWrite(*machine.here(), register, old, new))

    # ---- control registers -------------------------------------------------------------------------------------

    def _cr_write(self, insn: Sensitive) -> None:
        machine, number = self._machine, insn.register
        new = machine.engine.gpr(insn.general)
        if machine.cpu.bits != 64:
            new &= 0xFFFFFFFF
        state = machine.cpu.control()
        if self._refused(rules.check_cr_access(state, number)):
            return
        if number == 8:
            self.cr8 = new & 0xF
            self._retire(insn)
            return
        if number == 2:
            machine.cpu.cr2 = new
            self._retire(insn)
            return
        check = {0: rules.check_cr0_write, 3: rules.check_cr3_write, 4: rules.check_cr4_write}.get(number)
        if check is not None and self._refused(check(state, new)):
            return
        if rules.loads_pdptes(state, number, new):
            root = new if number == 3 else machine.cpu.cr3
            entries = struct.unpack("<4Q", machine.ram.read(root & 0xFFFFFFE0, 32))
            if self._refused(rules.check_pdptes(entries)):
                return
        before = self._before_control_write(number)
        machine.engine.put_cr(number, new)
        self._pass(insn)
        if number == 3:
            machine.cpu.guest_cr3_loaded(new & ~(1 << 63))
        else:
            machine.cpu.settle_pdptes()
        self._after_control_write(number, before)
        self._trap()

    def _before_control_write(self, number: int) -> tuple[int, str]:
        """The register and the mode as they are now."""
        machine = self._machine
        machine.hazards.before_control_write(number)
        if number == 3:
            return machine.cpu.cr3, ""
        return machine.engine.cr(number), machine.cpu.mode()

    def _after_control_write(self, number: int, before: tuple[int, str]) -> None:
        """Let everything that depends on a control register follow a write to it."""
        machine, (old, mode) = self._machine, before
        machine.code.forget()
        new = machine.cpu.cr3 if number == 3 else machine.engine.cr(number)
        self._changed(f"cr{number}", old, new)
        machine.hazards.after_control_write(number, old, new)
        if number != 3 and old != new and machine.cpu.mode() != mode:
            machine.emit(ev.ModeChange(*machine.here(), mode, machine.cpu.mode()))

    def _native_control(self, insn: Sensitive) -> None:
        before = self._before_control_write(0)
        if self._native(insn):
            self._machine.cpu.settle_pdptes()
            self._after_control_write(0, before)

    def _cr_read(self, insn: Sensitive) -> None:
        machine, number = self._machine, insn.register
        if self._refused(rules.check_cr_access(machine.cpu.control(), number)):
            return
        value = machine.cpu.cr3 if number == 3 else self.cr8 if number == 8 else machine.engine.cr(number)
        machine.engine.set_gpr(insn.general, value if machine.cpu.bits == 64 else value & 0xFFFFFFFF)
        self._retire(insn)

    def _dr_write(self, insn: Sensitive) -> None:
        machine = self._machine
        state, number = machine.cpu.control(), insn.register
        value = machine.engine.gpr(insn.general) if machine.cpu.bits == 64 else 0
        if self._dr_refused(state, number):
            return
        if number >= 6 and value >> 32:
            self._refused(Refusal(Vector.GP, 0, f"upper half of DR{number} set (SDM 3B 18.2.6)"))
        else:
            self._native(insn)

    def _dr_read(self, insn: Sensitive) -> None:
        if not self._dr_refused(self._machine.cpu.control(), insn.register):
            self._native(insn)

    def _dr_refused(self, state: rules.ControlState, number: int) -> bool:
        """The rules of MOV to and from DR ``number`` alike; with DR7.GD set each raises #DB (SDM 3B 18.2.4)."""
        engine = self._machine.engine
        if state.cpl:
            return self._refused(Refusal(Vector.GP, 0, f"MOV with DR{number} at CPL {state.cpl} (SDM 2B MOV DRn)"))
        if number in (4, 5) and state.cr4 & Cr4.DE:
            return self._refused(Refusal(Vector.UD, None, f"there is no DR{number} while CR4.DE=1 (SDM 3B 18.2.2)"))
        if engine.dr(7) & Dr7.GD:
            engine.set_dr(6, engine.dr(6) | Dr6.BD)
            engine.set_dr(7, engine.dr(7) & ~Dr7.GD)
            return self._refused(Refusal(Vector.DB, None, f"MOV with DR{number} while DR7.GD=1 (SDM 3B 18.2.4)"))
        return False

    # ---- model-specific registers and time ---------------------------------------------------------------------

    def _msr_number(self) -> int:
        return self._machine.engine.gpr(RCX) & 0xFFFFFFFF

    def _rdmsr(self, insn: Sensitive) -> None:
        machine, number = self._machine, self._msr_number()
        if self._refused(rules.check_rdmsr(machine.cpu.control(), number)):
            return
        if number not in self.msrs:
            self._native(insn)
            return
        value = self.msrs[number] + (machine.count.ticks if number == Msr.TSC else 0)
        self._put_pair(value)
        self._retire(insn)

    def _wrmsr(self, insn: Sensitive) -> None:
        machine, number = self._machine, self._msr_number()
        engine = machine.engine
        value = (engine.gpr(RDX) & 0xFFFFFFFF) << 32 | engine.gpr(RAX) & 0xFFFFFFFF
        if self._refused(rules.check_wrmsr(machine.cpu.control(), number, value)):
            return
        if number in self.msrs:
            self.msrs[number] = value - (machine.count.ticks if number == Msr.TSC else 0)
            self._retire(insn)
            return
        old = machine.cpu.efer if number == Msr.EFER else engine.msr(number)
        if self._native(insn):
            new = machine.cpu.efer if number == Msr.EFER else value
            if number == Msr.EFER:
                machine.cpu.settle_pdptes()
                machine.code.forget()
            name = Msr(number).name.lower()
            self._changed(name, old, new)

    def _put_pair(self, value: int) -> None:
        self._machine.engine.set_gpr(RAX, value & 0xFFFFFFFF)
        self._machine.engine.set_gpr(RDX, value >> 32 & 0xFFFFFFFF)

    def _rdtsc(self, insn: Sensitive) -> None:
        machine = self._machine
        if machine.cpu.cr4 & Cr4.TSD and machine.cpu.cpl:
            self._refused(Refusal(Vector.GP, 0, "RDTSC at CPL > 0 with CR4.TSD=1 (SDM 2B RDTSC)"))
            return
        self._put_pair(machine.count.ticks + self.msrs[Msr.TSC])
        if insn.kind is Kind.RDTSCP:
            machine.engine.set_gpr(RCX, machine.engine.msr(Msr.TSC_AUX) & 0xFFFFFFFF)
        self._retire(insn)

    def _rdpmc(self, _insn: Sensitive) -> None:
        self._refused(Refusal(Vector.GP, 0, "there is no performance counter (SDM 2B RDPMC)"))

    # ---- ports -------------------------------------------------------------------------------------------------

    def _io(self, insn: Sensitive) -> None:
        machine = self._machine
        port = self._port(insn)
        state = machine.cpu.control()
        needs_map = state.cpl > state.iopl or bool(state.eflags & Eflags.VM)
        bitmap = self._io_bitmap() if needs_map else None
        if self._refused(rules.check_io(state, rules.PortAccess(port, min(insn.operand, 4)), bitmap)):
            return
        machine.clock.now = machine.count.ticks
        if insn.repeat and insn.opcode in STRING_IO:
            machine.count.before_iteration(machine.cpu.pc, machine.count.ticks, 0, engine_next=True)
        self._native(insn)

    def _port(self, insn: Sensitive) -> int:
        if insn.opcode in (0xE4, 0xE5, 0xE6, 0xE7):
            return insn.modrm
        return self._machine.engine.gpr(RDX) & 0xFFFF

    def _io_bitmap(self) -> bytes | None:
        """The I/O permission map of the TSS, from its offset to the TSS limit (SDM 1 19.5.2)."""
        tr = self._machine.cpu.tr
        raw = self._machine.cpu.peek(tr.base + 0x66, 2)
        if raw is None or tr.limit < 0x67:
            return None
        start = int.from_bytes(raw, "little")
        return self._machine.cpu.peek(tr.base + start, tr.limit + 1 - start) if start <= tr.limit else None

    def port_read(self, port: int, size: int) -> int:
        """The engine executes IN."""
        machine = self._machine
        passed = machine.passing.accessing()
        value = machine.board.bus.read(port, size)
        if machine.tells_all:
            machine.emit(ev.PortAccess(*self._at_port(passed), port, size, value, write=False))
        if passed is not None:
            machine.passing.accessed()
        return value

    def port_write(self, port: int, size: int, value: int) -> None:
        """The engine executes OUT."""
        machine = self._machine
        passed = machine.passing.accessing()
        value &= (1 << 8 * size) - 1
        if machine.tells_all:
            machine.emit(ev.PortAccess(*self._at_port(passed), port, size, value, write=True))
        machine.board.bus.write(port, size, value)
        if passed is not None:
            machine.passing.accessed()

    def _at_port(self, pc: int | None) -> tuple[ev.Position, int, int]:
        """:meth:`Machine.here`, also where the engine was let run the instruction with others (at linear ``pc``)."""
        machine = self._machine
        return machine.here() if pc is None else (machine.count.position(pc), machine.count.ticks, pc)

    # ---- the rest ----------------------------------------------------------------------------------------------

    def _hlt(self, insn: Sensitive) -> None:
        machine = self._machine
        if machine.cpu.cpl:
            self._refused(Refusal(Vector.GP, 0, f"HLT at CPL {machine.cpu.cpl} (SDM 2A HLT)"))
            return
        self._retire(insn)
        machine.loop.halt()

    def _iret(self, insn: Sensitive) -> None:
        machine = self._machine
        if insn.operand == 8 and machine.cpu.bits == 64:
            raw = machine.cpu.peek(machine.cpu.rsp, 8)
            target = int.from_bytes(raw, "little") if raw is not None and len(raw) == 8 else 0
            if not is_canonical(target, machine.cpu.paging().mode):
                self._refused(Refusal(Vector.GP, 0, f"IRETQ to {target:#x}, which is not canonical (SDM 2A IRET)"))
                return
        if self._native(insn):
            self._machine.cpu.nmi_blocked = False

    def _load_table(self, insn: Sensitive) -> None:
        machine = self._machine
        name = "gdtr" if insn.kind is Kind.LGDT else "idtr"
        old: int = getattr(machine.cpu, name).base
        if self._native(insn):
            self._changed(name, old, getattr(machine.cpu, name).base)

    def _magic(self, insn: Sensitive) -> None:
        self._machine.emit(ev.MagicBreakpoint(*self._machine.here()))
        self._native(insn)

    def _invlpg(self, insn: Sensitive) -> None:
        if self._native(insn):
            self._machine.cpu.forget_translations()

    def _syscall(self, insn: Sensitive) -> None:
        machine = self._machine
        if not self._refused(system_calls.call(machine.cpu, insn, machine.engine.msr)):
            machine.engine.clear_interrupt_shadow()
            machine.count.pass_time(1)
            if machine.cpu.rflags & Eflags.TF:
                machine.faults.single_step()

    def _cpuid(self, insn: Sensitive) -> None:
        machine, engine = self._machine, self._machine.engine
        leaf = cpuid(machine.cpu.control(), engine.gpr(RAX) & U32, engine.gpr(RCX) & U32, TICKS_PER_SECOND)
        for register, value in zip((RAX, RBX, RCX, RDX), leaf, strict=True):
            engine.set_gpr(register, value)
        self._retire(insn)
