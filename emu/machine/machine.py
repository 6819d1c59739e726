"""The machine: processor, memory, devices and virtual time, run from stop to stop.

One loop (:meth:`Machine.run`) does everything that the engine does not: devices at their deadlines, interrupts
and exceptions through the guest's own tables, and the instructions whose rules the engine leaves out.  The same
run gives the same events, tick by tick, always.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from emu.errors import EngineError
from emu.kexec.e820 import MemoryMap
from emu.machine import events as ev
from emu.machine.code import CodeMap
from emu.machine.counting import Counting, CountState
from emu.machine.cpu import PDPT_PAGE, Cpu, CpuSnapshot
from emu.machine.devices.board import Board, pc_devices
from emu.machine.devices.clock import Clock
from emu.machine.devices.signals import ConsoleLine, DeviceSignal, ExitRequest, HostRequest
from emu.machine.engine import Engine, EngineStop, StopKind
from emu.machine.faults import Faults
from emu.machine.hazards import Hazards, HazardState
from emu.machine.instructions import Instructions, InstructionState
from emu.machine.owners import Owner, Owners
from emu.machine.policy import Policy
from emu.machine.ram import Ram, RamSnapshot
from emu.machine.strings import STORING, StringMover
from emu.machine.watches import Touched, Watches
from emu.units import PAGE_SIZE
from emu.x86.bits import PHYS_MASK, Eflags
from emu.x86.delivery import EventKind
from emu.x86.exceptions import Vector
from emu.x86.sensitive import Kind, Sensitive

SLICE = 4_000_000
"""Most ticks in one engine call: Ctrl-C is answered within a tenth of a second."""


@dataclass(frozen=True, slots=True)
class MachineSnapshot:
    """Everything that :meth:`Machine.restore` needs."""

    cpu: CpuSnapshot
    ram: RamSnapshot
    board: tuple[int, object]
    count: CountState
    owners: dict[int, Owner]
    events: int
    nmi_pending: bool
    instructions: InstructionState
    hazards: HazardState
    deliveries: int


class Machine:
    """One x86 machine.  Addresses are physical unless a name says linear.

    ``strict`` also enforces the owner policy and reports hazards; both speeds give the same guest-visible results.
    """

    def __init__(self, memory_map: MemoryMap, *, strict: bool = True, plain_strings: bool = False) -> None:
        self.memory_map = memory_map
        self.strict = strict
        self.plain_strings = plain_strings
        self.engine = Engine()
        self.ram = Ram(memory_map)
        self._pdpt = mmap.mmap(-1, PAGE_SIZE)
        self.cpu = Cpu(self.engine, self.ram, memoryview(self._pdpt))
        self.clock = Clock()
        self.board: Board = pc_devices(self.clock, dma_write=self._dma, signal=self._signal)
        self.count = Counting()
        self.owners = Owners()
        self.policy = Policy(self)
        self.breakpoints: set[int] = set()
        self.code = CodeMap(self.cpu, self.engine, self.breakpoints)
        self.faults = Faults(self)
        self.instructions = Instructions(self)
        self.hazards = Hazards(self)
        self.events: list[ev.Event] = []
        self.listeners: list[Callable[[ev.Event], None]] = []
        self._break_ranges: list[tuple[int, int, int]] = []
        self.watches = Watches(self)
        self._device = ""
        self._mover = StringMover(self.cpu, self._host_store)
        self._outcome: ev.Outcome | None = None
        self._resumed_at = (-1, -1)
        self._run_start = 0
        self._run_budget = 0
        self._run_tick_budget = 0
        self._uncharged = 0
        self._stop_insn: Sensitive | None = None
        self.last_string: tuple[int, int] | None = None
        self._look: Callable[[int], None] | None = None
        self._flush = False
        self.nmi_pending = False
        self._undo: list[tuple[int, bytes]] = []
        self.deliveries = 0
        self.pause_at: int | None = None
        self.on_pause: Callable[[], None] = lambda: None
        self._wire()

    def _wire(self) -> None:
        for bank in self.ram.banks:
            self.engine.map_ram(bank.start, bank.size, bank.host, rom=bank.rom)
        host = ctypes.addressof(ctypes.c_char.from_buffer(self._pdpt))
        self.engine.map_ram(PDPT_PAGE, PAGE_SIZE, host)
        for start, end in self.ram.holes(PHYS_MASK + 1):
            for first, last in ((start, min(end, PDPT_PAGE)), (max(start, PDPT_PAGE + PAGE_SIZE), end)):
                if first < last:
                    self.engine.map_hole(first, last - first, self._hole_read, self._hole_write)
        self.engine.on_rom_write(self._rom_write)
        self.engine.hook_ports(self.instructions.port_read, self.instructions.port_write)
        self.engine.on_intercept = self._on_intercept
        self.engine.on_new_code = self.code.scan
        self.engine.stores = self.code.stores
        self.engine.on_own_block = self._own_block
        self.code.on_fetch = self.hazards.code.fetched
        self.cpu.on_store = self.policy.processor_store
        self.ram.on_host_write = self._host_wrote

    # ---- events ------------------------------------------------------------------------------------------------

    @property
    def tick(self) -> int:
        """Virtual time, exact between instructions and inside a callback."""
        return self.count.ticks

    def here(self) -> tuple[ev.Position, int, int]:
        """(position, tick, linear pc): the first fields of every event."""
        pc = self.cpu.pc
        return self.count.position(pc), self.count.ticks, pc

    def emit(self, event: ev.Event) -> None:
        """Put an event on the stream."""
        self.events.append(event)
        for listener in self.listeners:
            listener(event)

    def _bus_error(self, address: int, size: int, access: str) -> None:
        self.sync_time()
        self.emit(ev.BusError(*self.here(), address, size, access))

    def _hole_read(self, address: int, size: int) -> int:
        self._bus_error(address, size, "read of a hole")
        return (1 << 8 * size) - 1

    def _hole_write(self, address: int, size: int, _value: int) -> None:
        self._bus_error(address, size, "store into a hole")

    def _rom_write(self, address: int, size: int, _value: int) -> None:
        """The engine is about to store into ROM all the same: the run ends behind the store, and it is undone."""
        self._bus_error(address, size, "store into ROM")
        self._undo.append((address, self.ram.read(address, size)))
        self.engine.end_behind()

    def _own_block(self, linear: int) -> None:
        self.sync_time()
        self.hazards.code.own_block(linear)

    def _signal(self, signal: DeviceSignal) -> None:
        match signal:
            case ExitRequest(status):
                self._outcome = ev.Exited(status)
            case HostRequest(value):
                self._outcome = ev.HostCall(value)
            case ConsoleLine(port, text):
                self.emit(ev.ConsoleLine(*self.here(), port, text))
            case _:
                self.emit(ev.ConsoleLine(*self.here(), "post", f"{signal.value:02x}"))

    def _dma(self, address: int, data: bytes, name: str) -> None:
        self._device = name
        self.policy.device_store(address, data, name)
        if self.strict:
            self.hazards.code.stored_by_device(address, len(data))
        self.ram.write(address, data)
        self._device = ""

    # ---- running -----------------------------------------------------------------------------------------------

    def run(
        self, ticks: int | None = None, *, instructions: int | None = None, until_delivery: bool = False
    ) -> ev.Outcome:
        """Run until something ends it (see :class:`emu.machine.events.Outcome`).

        At most ``ticks`` of virtual time or ``instructions`` retired; with ``until_delivery`` also no further than the
        first instruction of the handler of an exception or interrupt.  A limit ends before what is due at it.
        """
        limit = self.count.ticks + ticks if ticks is not None else None
        last = self.count.position(self.cpu.pc).n + instructions if instructions is not None else None
        delivered = self.deliveries
        self._outcome = None
        self._resumed_at = (self.cpu.pc, self.count.ticks)
        while (outcome := self._ended()) is None:
            now = self.count.ticks
            if limit is not None and now >= limit:
                return ev.StepLimit(ticks or 0)
            left = SLICE if last is None else last - self.count.position(self.cpu.pc).n
            if left <= 0:
                return ev.StepLimit(now)
            one = self._service()
            if until_delivery and self.deliveries != delivered:
                return ev.HandlerEntered(self.cpu.pc)
            if self._ended() is None:
                self._dispatch(self._engine_run(1 if one else left, tick_budget=1 if one else self._tick_budget(limit)))
            if until_delivery and self.deliveries != delivered and self._ended() is None:
                return ev.HandlerEntered(self.cpu.pc)
        return outcome

    def _ended(self) -> ev.Outcome | None:
        return self._outcome

    def _tick_budget(self, limit: int | None) -> int:
        """Ticks until something other than the guest wants attention."""
        now = self.count.ticks
        if self.pause_at is not None and now >= self.pause_at:
            self.on_pause()
        ends = (limit, self.board.bus.next_deadline(), self.pause_at)
        return min([SLICE, *(edge - now for edge in ends if edge is not None and edge > now)])

    def step(self) -> ev.Outcome | None:
        """Retire exactly one instruction (all iterations of a repeated one), or enter one handler; else the outcome."""
        outcome = self.run(instructions=1, until_delivery=True)
        return None if isinstance(outcome, ev.StepLimit | ev.HandlerEntered) else outcome

    def halt(self) -> None:
        """HLT retired: wait, in no time of the host's, for the next event that can wake the processor."""
        while not (self.nmi_pending and not self.cpu.nmi_blocked):
            if self.board.pic.pending_vector() is not None and self.cpu.rflags & Eflags.IF:
                return
            deadline = self.board.bus.next_deadline()
            if deadline is None or not self.cpu.rflags & Eflags.IF:
                self._outcome = ev.Halted(self.cpu.pc)
                return
            self.count.idle(max(0, deadline - self.count.ticks))
            self.clock.now = self.count.ticks
            self.board.bus.advance(self.clock.now)

    def stop(self, outcome: ev.Outcome) -> None:
        """End the present run with ``outcome`` at the next boundary; also from inside a callback of the engine."""
        self._outcome = outcome
        if self.engine.running:
            self.engine.end_behind()

    def _engine_run(self, budget: int, passing: int = -1, *, tick_budget: int | None = None) -> EngineStop:
        if self._flush:
            self.engine.flush_code()
            self._flush = False
        self._run_tick_budget = budget if tick_budget is None else tick_budget
        budget = min(budget, self._run_tick_budget)
        self._run_start, self._run_budget, self._uncharged = self.count.ticks, budget, 0
        self.engine.clear_exception()
        stop = self.engine.run(budget, passing=passing)
        while self._undo:
            self.ram.write_rom(*self._undo.pop())
        self.count.pass_time(self._run_start + self.faults.executed(stop) + self._uncharged - self.count.ticks)
        return stop

    def sync_time(self) -> None:
        """Inside an engine callback: bring ``count`` up to the instruction at hand."""
        done = self._run_start + min(self.engine.ticks_in_run(), self._run_budget) + self._uncharged
        if done > self.count.ticks:
            self.count.pass_time(done - self.count.ticks)

    def _dispatch(self, stop: EngineStop) -> None:
        if stop.kind is StopKind.NEW_CODE:
            self.code.settle()
        elif self.faults.fetched_ahead(stop):
            pass
        elif stop.kind is StopKind.FAULT:
            self.faults.fault(stop)
        elif stop.kind is StopKind.INTERCEPT:
            self._intercepted()
        elif stop.kind is StopKind.BUS:
            self._unfetchable(stop)

    def _on_intercept(self, address: int) -> bool:
        done = self.engine.ticks_in_run()
        if done >= self._run_budget:
            return True
        tick = self._run_start + done + self._uncharged
        self._stop_insn = None
        if self._look is not None:
            self.sync_time()
            self._look(address)
        if (address, tick) != self._resumed_at and self.breaks_at(address):
            self._outcome = ev.Breakpoint(address)
            return True
        insn = self.code.at(address)
        if insn is None:
            return False
        if insn.kind is Kind.STRING:
            return self._string(insn, address, tick)
        self._stop_insn = insn
        return True

    def breaks_at(self, linear: int) -> bool:
        """True where a run stops before the instruction at ``linear``."""
        inside = any(first <= linear <= last for first, last, _ in self._break_ranges)
        return inside or linear in self.breakpoints

    def _string(self, insn: Sensitive, address: int, tick: int) -> bool:
        self.sync_time()
        engine_done = self.engine.ticks_in_run()
        budget = self._run_tick_budget - engine_done - self._uncharged
        done = 0
        if not (self.plain_strings or self.hazards.watching or self.watches.reads):
            while step := self._mover.run(insn, budget - done):
                done += step
        # Iterations are time, but no instructions: they use up the engine's count only as far as the time left is less.
        charge = max(0, self._run_budget - engine_done - (budget - done))
        self.engine.add_ticks(charge)
        self._uncharged += done - charge
        stop = done >= budget
        if insn.opcode in STORING:
            self.last_string = (tick + done, address)
            if self.strict and not stop:
                self._mover.tell_next(insn, self.hazards.code.stored)
        self.count.before_iteration(address, tick, done, engine_next=not stop)
        return stop

    def _intercepted(self) -> None:
        insn, self._stop_insn = self._stop_insn, None
        if insn is not None and self._outcome is None:
            self.instructions.execute(insn)
            trap, self.faults.waiting = self.faults.waiting, None
            if trap is not None:
                self.faults.fault(trap)

    def step_over(self) -> EngineStop | None:
        """Let the engine run the intercepted instruction at RIP natively; a fault is delivered, and returned."""
        pc = self.cpu.pc
        while True:
            stop = self._engine_run(1, passing=pc)
            if self.faults.fetched_ahead(stop):
                continue
            if stop.trap:
                self.faults.waiting = stop
                return None
            if stop.kind is StopKind.FAULT:
                self.faults.fault(stop)
                return stop
            if stop.kind is StopKind.NEW_CODE:
                self.code.settle()
            if stop.executed or stop.kind is StopKind.BUS:
                return None

    # ---- exceptions and interrupts -----------------------------------------------------------------------------

    def _service(self) -> bool:
        """Devices and interrupts that are due here.  True: run one tick only, an interrupt waits behind a shadow."""
        self.clock.now = self.count.ticks
        self.board.bus.advance(self.clock.now)
        if self.nmi_pending and not self.cpu.nmi_blocked:
            if self.engine.interrupt_shadow:
                return True
            self.nmi_pending, self.cpu.nmi_blocked = False, True
            self.faults.interrupt(Vector.NMI, EventKind.NMI)
        if self.board.pic.pending_vector() is None or not self.cpu.rflags & Eflags.IF:
            return False
        if self.engine.interrupt_shadow:
            return True
        self.faults.interrupt(self.board.pic.acknowledge(), EventKind.EXTERNAL)
        return self.board.pic.pending_vector() is not None and bool(self.cpu.rflags & Eflags.IF)

    def inject_nmi(self) -> None:
        """An NMI arrives now; it is taken at the next boundary where the processor takes one."""
        self.nmi_pending = True

    def inject_irq(self, vector: int) -> None:
        """An external interrupt with ``vector`` is taken at this boundary, whatever IF says (a debugger's tool)."""
        self.faults.interrupt(vector, EventKind.EXTERNAL)

    def raise_fault(self, vector: int, error_code: int | None, *, cr2: int | None = None, reason: str = "") -> None:
        """Deliver an exception for the instruction at RIP; ``reason`` says which rule of ours it broke."""
        self.faults.raise_fault(vector, error_code, cr2=cr2, reason=reason)

    def _unfetchable(self, stop: EngineStop) -> None:
        """The engine cannot fetch from a hole; hardware fetches all-ones there, which is #UD."""
        pc = self.cpu.pc
        walked = self.cpu.walk(pc)
        if walked.physical is None or self.ram.bank_at(walked.physical) is not None:
            raise EngineError(f"the engine stopped at {pc:#x}: {stop.detail}", where=str(self.count.position(pc)))
        self.emit(ev.BusError(*self.here(), walked.physical, 1, "fetch from a hole"))
        self.raise_fault(Vector.UD, None)

    # ---- breakpoints and memory --------------------------------------------------------------------------------

    def break_at(self, linear: int) -> None:
        """Stop before the instruction at ``linear``."""
        self.breakpoints.add(linear)
        self.engine.intercept(linear)

    def clear_break(self, linear: int) -> None:
        """Forget a breakpoint."""
        self.breakpoints.discard(linear)

    def break_in(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Stop before the first instruction that begins in any linear range (first, last), both inclusive."""
        self.clear_break_in()
        self._break_ranges = [(first, last, self.engine.intercept_range(first, last)) for first, last in ranges]

    def break_outside(self, pages: Iterable[int]) -> None:
        """Stop before the first instruction that begins in none of the 4 KiB pages at linear ``pages``."""
        ranges, cursor = [], 0
        for page in sorted(set(pages)):
            if cursor < page:
                ranges.append((cursor, page - 1))
            cursor = page + PAGE_SIZE
        self.break_in([*ranges, (cursor, (1 << 64) - 1)])

    def clear_break_in(self) -> None:
        """Forget the ranges of :meth:`break_in` and :meth:`break_outside`."""
        for _, _, handle in self._break_ranges:
            self.engine.unwatch(handle)
        self._break_ranges = []

    def watch_instructions(self, look: Callable[[int], None]) -> int:
        """Call ``look(linear)`` before every instruction, at a cost per instruction; the answer ends it."""
        self._look = look
        return self.engine.intercept_range(0, (1 << 64) - 1)

    def unwatch_instructions(self, handle: int) -> None:
        """End :meth:`watch_instructions`."""
        self._look = None
        self.engine.unwatch(handle)

    def _host_wrote(self, address: int, data: bytes) -> None:
        if self.code.covers(address, len(data)):
            self._flush = True
        self.watches.host_stored(address, data)

    def _host_store(self, physical: int, size: int, linear: int) -> bool:
        """Whether the host may store this range for a string instruction: not over code, nor against policy."""
        may = (
            not self.code.covers(physical, size)
            and self.policy.allows(physical, size)
            and self.watches.allows(physical, size)
        )
        if may and self.strict:
            self.hazards.code.stored(physical, size, linear)
        return may

    def watch(self, begin: int, end: int, touched: Touched, *, reads: bool = False) -> int:
        """Call ``touched(physical, size, value, write)`` before each store (and read) in ``begin`` .. ``end``.

        Whatever stores: an instruction, a device, an exception frame.  The answer is for :meth:`unwatch`.
        """
        return self.watches.add(begin, end, touched, reads=reads)

    def unwatch(self, number: int) -> None:
        """End a :meth:`watch`."""
        self.watches.remove(number)

    def writer_now(self) -> str:
        """Who is storing at this moment: a device by name, else the kernel whose phase it is."""
        return self._device or self.policy.writer

    def write_tables(self, writes: Iterable[tuple[int, bytes]]) -> None:
        """Host edits of live page tables, followed by what a kernel's own flush would do."""
        for address, data in writes:
            self.ram.write(address, data)
        self.flush_translations()

    def flush_translations(self) -> None:
        """Drop every cached translation, as INVLPG of every page would (the host changed live tables)."""
        self.engine.flush_tlb()
        self.cpu.forget_translations()

    # ---- snapshots ---------------------------------------------------------------------------------------------

    def snapshot(self) -> MachineSnapshot:
        """The whole state, as dirty pages over the base."""
        return MachineSnapshot(
            cpu=self.cpu.snapshot(),
            ram=self.ram.snapshot(),
            board=self.board.snapshot(),
            count=self.count.state,
            owners=self.owners.snapshot(),
            events=len(self.events),
            nmi_pending=self.nmi_pending,
            instructions=self.instructions.state,
            hazards=self.hazards.state,
            deliveries=self.deliveries,
        )

    def restore(self, state: MachineSnapshot, *, changed: Iterable[int] | None = None) -> None:
        """Go back to ``state``: guest-visible state is then equal byte for byte.

        ``changed``: memory is back already, and these page frames changed on the way.
        """
        if changed is None:
            changed = self.ram.restore(state.ram)
        if self.code.any_of(changed):
            self.engine.flush_code()
        self._flush = False
        self.cpu.restore(state.cpu)
        self.board.restore(state.board)
        self.count.state = state.count
        self.owners.restore(state.owners)
        del self.events[state.events :]
        self.nmi_pending = state.nmi_pending
        self.instructions.state = state.instructions
        self.hazards.state = state.hazards
        self.deliveries = state.deliveries
        self.code.forget()

    def close(self) -> None:
        """Give all memory of the host back.  Only another close may follow."""
        self.listeners.clear()
        self.engine.close()
        self.ram.close()
