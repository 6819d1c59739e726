"""A machine for whole operating systems: it runs at the engine's speed, and no code is searched.

What :class:`emu.machine.machine.Machine` finds in the code beforehand and stops at, this one meets through gates
(:mod:`emu.machine.gates`) when it executes.  The rules are the same functions, and the rare instructions are done by
the same handlers: the run ends before the instruction, and :mod:`emu.machine.instructions` does it.  The frequent ones
(RDTSC, CPUID, SYSCALL and SYSRET, MOV to CR3, IN and OUT) are done in the gate.

It looks for no hazards and enforces no owner policy.  Its events go to listeners and are not kept.  Repeated string
instructions are the engine's, and each iteration counts as an instruction.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any

from emu.kexec.e820 import MemoryMap
from emu.machine import events as ev
from emu.machine import system_calls
from emu.machine.calibration import counts_by_blocks
from emu.machine.cpustate import RAX, RBX, RCX, RDX
from emu.machine.devices.clock import TICKS_PER_SECOND
from emu.machine.devices.post import POST_PORT, PostPort
from emu.machine.devices.reset import ResetControl
from emu.machine.gates import Gate, behind, close_all, function_at
from emu.machine.instructions import Instructions
from emu.machine.loop import Loop
from emu.machine.machine import Machine, MachineSnapshot
from emu.machine.moves import NOWHERE
from emu.machine.ram import ROM_RANGES
from emu.machine.stops import EngineStop, StopKind
from emu.x86 import control as rules
from emu.x86.bits import U32, Cr4, Efer, Eflags, Msr
from emu.x86.control import Refusal
from emu.x86.cpuid import cpuid
from emu.x86.exceptions import Vector
from emu.x86.sensitive import Kind, Sensitive

_STATE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_STATE_LONG = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64)
_STATE_INT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)
_STATE_INT_LONG = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64)
_STATE_LONG_INT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32)
_STATE_INT_INT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
_INT_OF_STATE_INT = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)
_LONG_OF_STATE_INT = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int)
_SYSCALL = Sensitive(Kind.SYSCALL, 2, 0x05, 4, 8)
_SYSRET_32 = Sensitive(Kind.SYSCALL, 2, 0x07, 4, 8)
_SYSRET_64 = Sensitive(Kind.SYSCALL, 3, 0x07, 8, 8, rex=0x48)
_XCR0_SUPPORTED = 3
_QUADWORD = 2  # how the translator calls operands of 64 bits


class GatedLoop(Loop):
    """The run loop with gates.  ``gated`` is true while they are open.

    ``on_wait(ticks)`` is called where the guest halts until an event that is so many ticks ahead, before that time is
    skipped.
    """

    def __init__(self, machine: GatedMachine) -> None:
        super().__init__(machine)
        self._machine: GatedMachine = machine
        self._stopped = False
        self._refusal: Refusal | None = None
        self.gated = False
        self.on_wait: Callable[[int], None] = lambda _ticks: None
        self._translation = self._gate("invlpg", _STATE_LONG, self._invlpg)
        self._extended = self._gate("xsetbv", _STATE_INT_LONG, self._xsetbv)
        self.xcr0 = 1
        self._gates = self._always()
        self._own = self._of_blocks()
        self._quick = self._stores()
        self._returns = (
            self._gate("iret_protected", _STATE_INT_INT, self.stop_before),
            self._gate("iret_real", _STATE_INT, self.stop_before),
        )
        self._window = self._while_waiting()

    def _gate(
        self, name: str, prototype: Callable[..., object], function: Callable[..., object], *, alone: bool = False
    ) -> Gate:
        engine = self._engine
        callback: Any = prototype(engine.guarded(function))
        decides = ctypes.cast(callback, ctypes.c_void_p).value or 0
        record = engine.blocks.record(decides, "gate", alone=alone)
        return Gate(engine.library, f"helper_{name}_x86_64", record, callback)

    def _always(self) -> tuple[Gate, ...]:
        stop = self.stop_before
        return (
            *self._ports(),
            self._gate("rdtsc", _STATE, self._rdtsc, alone=True),
            self._gate("rdtscp", _STATE, self._rdtscp, alone=True),
            self._gate("cpuid", _STATE, self._cpuid),
            self._gate("rdmsr", _STATE, stop),
            self._gate("wrmsr", _STATE, stop),
            self._gate("rdpmc", _STATE, stop),
            self._gate("write_crN", _STATE_INT_LONG, self._write_cr),
            self._gate("read_crN", _LONG_OF_STATE_INT, self._read_cr),
            self._translation,
            self._extended,
            self._gate("lmsw", _STATE_INT, stop),
            self._gate("clts", _STATE, stop),
            self._gate("set_dr", _STATE_INT_LONG, stop),
            self._gate("get_dr", _LONG_OF_STATE_INT, stop),
            self._gate("syscall", _STATE_INT, self._syscall),
            self._gate("sysret", _STATE_INT, self._sysret),
            self._gate("sysenter", _STATE, stop),
            self._gate("sysexit", _STATE_INT, stop),
        )

    def _of_blocks(self) -> tuple[Gate, ...]:
        """Gates of the engine's own accounts, open in every run."""
        engine = self._engine
        return tuple(
            Gate(engine.library, f"{name}_x86_64", engine.blocks.record(0, code), None)
            for name, code in (
                ("cpu_loop_exit_noexc", "modified"),
                ("tlb_protect_code", "protect"),
                ("tlb_unprotect_code", "unprotect"),
                ("tlb_set_dirty", "unnoticed"),
                ("tlb_reset_dirty_by_vaddr", "ignore"),
            )
        )

    def _stores(self) -> tuple[Gate, ...]:
        """Gates of stores that the engine looks at, open while nobody watches."""
        engine, gates = self._engine, []
        for kind, size in (("ret_stb", 1), ("le_stw", 2), ("le_stl", 4), ("le_stq", 8)):
            name = f"helper_{kind}_mmu_x86_64"
            record = engine.blocks.record(behind(function_at(engine.library, name)), "quick", size=size)
            gates.append(Gate(engine.library, name, record, None))
        return tuple(gates)

    def _ports(self) -> tuple[Gate, ...]:
        """IN and OUT: devices want the exact time, and the run may have to end behind the instruction."""
        gates = []
        for letter, size in (("b", 1), ("w", 2), ("l", 4)):
            read, write = self._port_functions(size)
            gates.append(self._gate(f"in{letter}", _INT_OF_STATE_INT, read, alone=True))
            gates.append(self._gate(f"out{letter}", _STATE_INT_INT, write, alone=True))
        return tuple(gates)

    def _port_functions(self, size: int) -> tuple[Callable[[int, int], int], Callable[[int, int, int], None]]:
        def read(_state: int, port: int) -> int:
            return self._machine.instructions.port_read(port & 0xFFFF, size)

        def write(_state: int, port: int, value: int) -> None:
            self._machine.instructions.port_write(port & 0xFFFF, size, value)

        return read, write

    def _while_waiting(self) -> tuple[Gate, ...]:
        """Gates of what may set IF or end an NMI: open only while something waits for that."""
        stop = self.stop_before
        return (
            self._gate("sti", _STATE, stop),
            self._gate("write_eflags", _STATE_LONG_INT, stop),
            *self._returns,
        )

    # ---- running -----------------------------------------------------------------------------------------------

    def _engine_run(self, budget: int, passing: int = NOWHERE, *, tick_budget: int | None = None) -> EngineStop:
        self._stopped = False
        self._engine.count_by_blocks(on=self._machine.by_blocks and not self._engine.observed)
        self._engine.run_alone(on=True)
        try:
            self._open(judged=passing != NOWHERE)
            stop = super()._engine_run(budget, passing, tick_budget=tick_budget)
        finally:
            close_all((*self._own, *self._quick, *self._gates, *self._window))
            self.gated = False
            self._engine.run_alone(on=False)
        if not self._stopped and passing == NOWHERE and stop.kind is StopKind.COUNT and self._behind_hlt():
            self.halt()
        return stop

    def _behind_hlt(self) -> bool:
        return self._engine.came_back and self._cpu.peek(self._cpu.pc - 1, 1) == b"\xf4"

    def _open(self, *, judged: bool) -> None:
        """Open the gates; ``judged``: it is about one instruction, which our own handlers have judged."""
        for gate in (*self._own, *(self._quick if self._engine.by_blocks else ())):
            gate.open()
        if judged:
            return
        self.gated = True
        for gate in self._gates:
            gate.open()
        machine = self._machine
        if self._cpu.nmi_blocked or machine.nmi_pending or self._board.pic.pending_vector() is not None:
            for gate in self._window:
                gate.open()
        if not self._engine.by_blocks:  # else host code sees to it that RF is for one instruction
            for gate in self._returns:
                gate.open()

    def _wait(self, ticks: int) -> None:
        """As :meth:`Loop._wait`, with a word to ``on_wait`` first, which may bring what is waited for."""
        self.on_wait(ticks)
        if self.outcome is None and self._board.pic.pending_vector() is None:
            super()._wait(ticks)

    @property
    def run_end(self) -> int:
        """The tick at which the present run of the engine ends at the latest."""
        return self._meter.run_start + self._meter.run_budget

    def stop_before(self, *_arguments: int) -> int:
        """Inside a gate: the run ends before the instruction at hand, and its handler does it."""
        self._stopped = True
        self._engine.stop_before()
        return 0

    def _intercepted(self) -> None:
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            self._machine.raise_fault(refusal.vector, refusal.error_code, reason=refusal.reason)
            return
        if self._stopped:
            self._code.forget()
            self._stop_insn = self._code.at(self._cpu.pc)
        super()._intercepted()

    def on_intercept(self, address: int) -> bool:
        """As :meth:`Loop.on_intercept`; only breakpoints are intercepted here."""
        done = self._engine.ticks_in_run()
        if done >= self._meter.run_budget:
            return True
        if self._breaks.looks:
            self.sync_time()
            for look in tuple(self._breaks.looks.values()):
                look(address)
        if (address, self._meter.run_start + done) != self._resumed_at and self._breaks.at(address):
            self.outcome = ev.Breakpoint(address)
            return True
        return False

    # ---- instructions done in their gate -------------------------------------------------------------------------

    def _rdtsc(self, _state: int) -> None:
        engine = self._engine
        if engine.cr(4) & Cr4.TSD and engine.cpl:
            self.stop_before()
            return
        self.sync_time()
        value = self._count.ticks + self._machine.instructions.msrs[Msr.TSC]
        engine.set_gpr(RAX, value & U32)
        engine.set_gpr(RDX, value >> 32 & U32)

    def _rdtscp(self, state: int) -> None:
        self._rdtsc(state)
        if not self._stopped:
            self._engine.set_gpr(RCX, self._engine.kept_msr(Msr.TSC_AUX) & U32)

    def _invlpg(self, state: int, linear: int) -> None:
        self._translation.original(state, linear)
        self._cpu.forget_translations()

    def _xsetbv(self, state: int, number: int, value: int) -> None:
        """XSETBV, SDM 2C: XCR0 alone exists, x87 is always in it, and SSE is all there is besides."""
        if self._engine.cpl or number or not value & 1 or value & ~_XCR0_SUPPORTED:
            self._refusal = Refusal(Vector.GP, 0, f"XSETBV of {value:#x} to XCR{number} (SDM 2C XSETBV)")
            self.stop_before()
            return
        self.xcr0 = value
        self._extended.original(state, number, value)

    def set_xcr0(self, value: int) -> None:
        """XCR0 as a guest with CR4.OSXSAVE set it; without that bit it is as after reset."""
        self.xcr0 = value
        if self._engine.cr(4) & Cr4.OSXSAVE:
            self._extended.call(self._engine.state_address, 0, value)

    def _cpuid(self, _state: int) -> None:
        engine = self._engine
        leaf = cpuid(self._cpu.control(), engine.gpr(RAX) & U32, engine.gpr(RCX) & U32, TICKS_PER_SECOND)
        for register, value in zip((RAX, RBX, RCX, RDX), leaf, strict=True):
            engine.set_gpr(register, value)

    def _write_cr(self, _state: int, number: int, value: int) -> None:
        long = self._engine.efer & Efer.LMA
        if number != 3 or not long or rules.check_cr3_write(self._cpu.control(), value) is not None:
            self.stop_before()
            return
        self._engine.load_cr3(value & ~(1 << 63))
        self._cpu.forget_translations()

    def _read_cr(self, _state: int, number: int) -> int:
        match number:
            case 3:
                return self._cpu.cr3
            case 8:
                return self._machine.instructions.cr8
            case _:
                return self._engine.cr(number)

    def _syscall(self, _state: int, _size: int) -> None:
        self._call(_SYSCALL)

    def _sysret(self, _state: int, size: int) -> None:
        self._call(_SYSRET_64 if size == _QUADWORD else _SYSRET_32)

    def _call(self, insn: Sensitive) -> None:
        engine = self._engine
        if engine.system_flags & Eflags.TF or system_calls.call(self._cpu, insn, engine.kept_msr) is not None:
            self.stop_before()


class GatedInstructions(Instructions):
    """IN and OUT as the engine executes them, without a stop."""

    def __init__(self, machine: GatedMachine) -> None:
        super().__init__(machine)
        self._gated = machine

    def _may(self) -> bool:
        """Brings time up to here; false where the instruction is stopped at, because its privilege is to be judged."""
        machine = self._gated
        loop = machine.loop
        if not loop.gated:
            return True
        flags = machine.engine.system_flags
        if machine.engine.cpl > (flags >> 12 & 3) or flags & Eflags.VM:
            loop.stop_before()
            return False
        loop.sync_time()
        machine.clock.now = machine.count.ticks
        return True

    def _settle(self) -> None:
        """The run ends behind this instruction where it did something to the board that cannot wait."""
        machine = self._gated
        loop, board = machine.loop, machine.board
        if not loop.gated:
            return
        due = board.bus.next_deadline()
        if loop.outcome is not None or board.pic.pending_vector() is not None or (due and due < loop.run_end):
            machine.engine.end_behind()

    def port_read(self, port: int, size: int) -> int:
        """The engine executes IN."""
        if not self._may():
            return 0
        value = super().port_read(port, size) if self._gated.listeners else self._gated.board.bus.read(port, size)
        self._settle()
        return value

    def port_write(self, port: int, size: int, value: int) -> None:
        """The engine executes OUT."""
        if not self._may():
            return
        if self._gated.listeners:
            super().port_write(port, size, value)
        else:
            self._gated.board.bus.write(port, size, value & ((1 << 8 * size) - 1))
        self._settle()


class GatedMachine(Machine):
    """See the module.  Everything else is as in :class:`Machine`: run, step, breakpoints, watches, snapshots.

    ``by_blocks``: instructions are counted by blocks (:mod:`emu.machine.blocks`) where the engine can and nobody
    breaks in or watches; else one by one, which is slower and gives the same.
    """

    loop: GatedLoop

    def __init__(
        self,
        memory_map: MemoryMap,
        *,
        roms: Iterable[tuple[int, int]] = ROM_RANGES,
        post_port: int = POST_PORT,
        by_blocks: bool = True,
    ) -> None:
        self.by_blocks = by_blocks
        super().__init__(memory_map, strict=False, plain_strings=True, roms=roms)
        self.board.bus.attach(ResetControl(self._signal))
        self.post_port = post_port
        if post_port != POST_PORT:
            self.board.bus.attach(PostPort(self._signal, post_port))

    def _wire(self) -> None:
        self.engine.find_call_msrs()
        self.by_blocks = self.by_blocks and counts_by_blocks(self.engine)
        self.cpu.caching = True
        self.instructions = GatedInstructions(self)
        self.loop = GatedLoop(self)
        super()._wire()
        self.engine.blocks.know_memory(self.engine.memory, self._roms())
        self.engine.on_flushed = self.engine.blocks.dropped
        self.engine.on_new_code = lambda _linear, _size: False
        self.engine.on_own_block = lambda _linear: None

    def _hear_of_rom(self) -> None:
        """ROM alone: stores into code are noticed by gates."""
        self.engine.on_rom_write(self._rom_write, self._roms())

    def _roms(self) -> list[tuple[int, int]]:
        return [(bank.start, bank.end - 1) for bank in self.ram.banks if bank.rom]

    def _host_wrote(self, address: int, data: bytes) -> None:
        """Where code is is not known here: the engine looks for itself."""
        self.engine.invalidate_code(address, len(data))
        self.watches.host_stored(address, data)

    def clear_break(self, linear: int) -> None:
        """Forget a breakpoint; nothing else is intercepted here, so that blocks can be counted again."""
        super().clear_break(linear)
        self.engine.remove_intercept(linear)

    def restore(self, state: MachineSnapshot, *, changed: Iterable[int] | None = None) -> None:
        """As :meth:`Machine.restore`; where code is is not known here, so none that was translated is kept."""
        super().restore(state, changed=changed)
        self.engine.flush_code()

    def _bus_error(self, address: int, size: int, access: str) -> None:
        if self.listeners:
            super()._bus_error(address, size, access)

    def emit(self, event: ev.Event) -> None:
        """Tell the listeners; nothing is kept."""
        for listener in self.listeners:
            listener(event)
