"""The run loop: the engine from stop to stop, and what has to happen between.

Devices at their deadlines, interrupts and exceptions through the guest's own tables, the instructions whose rules the
engine leaves out, and the string instructions that the host does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from emu.errors import EngineError
from emu.machine import events as ev
from emu.machine.cpustate import RCX
from emu.machine.devices.clock import TICKS_PER_SECOND
from emu.machine.moves import NOWHERE
from emu.machine.stops import EngineStop, StopKind
from emu.machine.strings import STORING, StringMover
from emu.units import PAGE_MASK, PAGE_SHIFT
from emu.x86.bits import Eflags
from emu.x86.delivery import EventKind
from emu.x86.exceptions import Vector
from emu.x86.sensitive import Kind, Sensitive

if TYPE_CHECKING:
    from emu.machine.machine import Machine

SLICE = 4_000_000
"""Most ticks in one engine call: Ctrl-C is answered within a tenth of a second."""
LONGEST_WAIT = 10 * TICKS_PER_SECOND
"""Ticks that a halted processor waits for something to wake it."""
_LONGEST = 15
"""Bytes of the longest instruction."""
_UNMASKING = frozenset({Kind.POPF, Kind.STI})
"""Instructions whose one concern here is that an interrupt may be taken behind them."""
_PORTS = frozenset({Kind.IN, Kind.OUT})
"""What a strict machine lets pass as a fast one does."""


class Loop:
    """Runs one machine.  ``outcome`` is set by whatever ends the present run."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._cpu, self._engine, self._ram, self._code = machine.cpu, machine.engine, machine.ram, machine.code
        self._board, self._count, self._faults = machine.board, machine.count, machine.faults
        self._meter, self._moves = machine.engine.meter, machine.engine.moves
        self._meter.strict = machine.strict
        self._breaks, self._hazards, self._passing = machine.breaks, machine.hazards, machine.passing
        self.outcome: ev.Outcome | None = None
        self._mover = StringMover(machine.cpu, self._may_store)
        self._resumed_at = (-1, -1)
        self._stop_insn: Sensitive | None = None
        self.undo: list[tuple[int, bytes]] = []
        self.runs_until = 0
        self.pause_at: int | None = None
        self.on_pause: Callable[[], None] = lambda: None
        self.patience = LONGEST_WAIT

    @property
    def last_string(self) -> tuple[int, int] | None:
        """(tick, linear address) of the last iteration of a string instruction that stores."""
        meter = self._meter
        return None if meter.string_address == NOWHERE else (meter.string_tick, meter.string_address)

    @last_string.setter
    def last_string(self, value: tuple[int, int] | None) -> None:
        self._meter.string_tick, self._meter.string_address = value or (0, NOWHERE)

    # ---- running -----------------------------------------------------------------------------------------------

    def run(
        self, ticks: int | None = None, *, instructions: int | None = None, until_delivery: bool = False
    ) -> ev.Outcome:
        """Run until something ends it (see :class:`emu.machine.events.Outcome`).

        At most ``ticks`` of virtual time or ``instructions`` retired; with ``until_delivery`` also no further than the
        first instruction of the handler of an exception or interrupt.  A limit ends before what is due at it.
        """
        limit = self._count.ticks + ticks if ticks is not None else None
        last = self._count.position(self._cpu.pc).n + instructions if instructions is not None else None
        delivered = self._machine.deliveries
        self.outcome = None
        self._resumed_at = (self._cpu.pc, self._count.ticks)
        while (outcome := self._ended()) is None:
            now = self._count.ticks
            if limit is not None and now >= limit:
                return ev.StepLimit(ticks or 0)
            left = SLICE if last is None else last - self._count.position(self._cpu.pc).n
            if left <= 0:
                return ev.StepLimit(now)
            one = self._service() or (self._engine.resuming and not self._engine.by_blocks)
            if until_delivery and self._machine.deliveries != delivered and self._ended() is None:
                return ev.HandlerEntered(self._cpu.pc)
            if self._ended() is None:
                self._dispatch(self._engine_run(1 if one else left, tick_budget=1 if one else self._tick_budget(limit)))
            if until_delivery and self._machine.deliveries != delivered and self._ended() is None:
                return ev.HandlerEntered(self._cpu.pc)
        return outcome

    def _ended(self) -> ev.Outcome | None:
        return self.outcome

    def _tick_budget(self, limit: int | None) -> int:
        """Ticks until something other than the guest wants attention."""
        now = self._count.ticks
        if self.pause_at is not None and now >= self.pause_at:
            self.on_pause()
        ends = (limit, self._board.bus.next_deadline(), self.pause_at)
        return min([SLICE, *(edge - now for edge in ends if edge is not None and edge > now)])

    def step(self) -> ev.Outcome | None:
        """Retire exactly one instruction (all iterations of a repeated one), or enter one handler; else the outcome."""
        outcome = self.run(instructions=1, until_delivery=True)
        return None if isinstance(outcome, ev.StepLimit | ev.HandlerEntered) else outcome

    def halt(self) -> None:
        """HLT retired: wait, in no time of the host's, for the next event that can wake the processor.

        Where nothing does for ``patience`` (a timer goes on, say, but its line is masked), nothing ever will.
        """
        end = self._count.ticks + self.patience
        while not (self._machine.nmi_pending and not self._cpu.nmi_blocked):
            enabled = bool(self._engine.system_flags & Eflags.IF)
            if enabled and self._board.pic.pending_vector() is not None:
                return
            deadline = self._board.bus.next_deadline()
            if deadline is None or deadline > end or not enabled:
                self.outcome = ev.Halted(self._cpu.pc)
                return
            self._wait(max(0, deadline - self._count.ticks))
            if self.outcome is not None:
                return

    def _wait(self, ticks: int) -> None:
        """Nothing happens for so long; then devices do what is due."""
        self._count.idle(ticks)
        self._board.clock.now = self._count.ticks
        self._board.bus.advance(self._board.clock.now)

    def stop(self, outcome: ev.Outcome) -> None:
        """End the present run with ``outcome`` at the next boundary; also from inside a callback of the engine."""
        self.outcome = outcome
        if self._engine.running:
            self._engine.end_behind()

    def _hear(self, *, retired: bool) -> None:
        """Tell the hazards of the engine's last iteration, before which nobody was told; ``retired``: it is behind."""
        self._meter.untold = 0
        insn = self._code.at(self._meter.repeated)
        if insn is not None and retired:
            self._mover.tell_last(insn, self._hazards.code.stored)

    def _engine_run(self, budget: int, passing: int = NOWHERE, *, tick_budget: int | None = None) -> EngineStop:
        self._meter.tick_budget = budget if tick_budget is None else tick_budget
        budget = min(budget, self._meter.tick_budget)
        self._meter.run_start, self._meter.run_budget, self._meter.uncharged = self._count.ticks, budget, 0
        self._passing.told = 0
        self._meter.port_at, self._meter.silent = NOWHERE, self._machine.silent
        self._meter.calm = not self._machine.nmi_pending and self._board.pic.pending_vector() is None
        self.runs_until = self._count.ticks + self._meter.tick_budget
        self._meter.enabled = not (
            self._machine.plain_strings or self._hazards.watching or self._machine.watches.any or self._breaks.looks
        )
        self._engine.clear_exception()
        resuming = self._engine.resuming and passing == NOWHERE
        stop = self._engine.run(budget, passing=passing)
        if resuming and stop.executed and not self._engine.by_blocks:
            self._engine.clear_resume()
        while self.undo:
            self._ram.write_rom(*self.undo.pop())
        self._count.pass_time(
            self._meter.run_start + self._faults.executed(stop) + self._meter.uncharged - self._count.ticks
        )
        self._passing.settle_stop()
        if self._meter.untold:
            self._hear(retired=self._count.ticks >= self._meter.resumes_at)
        return stop

    def sync_time(self) -> None:
        """Inside an engine callback: bring ``count`` up to the instruction at hand."""
        done = self._meter.run_start + min(self._engine.ticks_in_run(), self._meter.run_budget) + self._meter.uncharged
        done = max(done, self._passing.told)
        if done > self._count.ticks:
            self._count.pass_time(done - self._count.ticks)

    def _dispatch(self, stop: EngineStop) -> None:
        if stop.kind is StopKind.NEW_CODE:
            self._code.settle()
        elif self._faults.fetched_ahead(stop):
            pass
        elif stop.kind is StopKind.FAULT:
            self._faults.fault(stop)
        elif stop.kind is StopKind.INTERCEPT:
            self._intercepted()
        elif stop.kind is StopKind.BUS:
            self._unfetchable(stop)

    def on_intercept(self, address: int) -> bool:
        """Inside the engine, before the intercepted instruction at linear ``address``: true stops the run there."""
        meter = self._meter
        if meter.untold:
            self._hear(retired=True)
        if meter.pending:
            self._passing.settle(retired=True)
        done = self._engine.ticks_in_run()
        if done >= meter.run_budget:
            return True
        tick = meter.run_start + done + meter.uncharged
        self._stop_insn = None
        if self._breaks.looks:
            self.sync_time()
            for look in tuple(self._breaks.looks.values()):
                look(address)
        if self._breaks.any and (address, tick) != self._resumed_at and self._breaks.at(address):
            self.outcome = ev.Breakpoint(address)
            return True
        insn = self._code.at(address)
        if insn is None:
            self._code.drop_needless(address)
            return False
        if insn.kind is Kind.STRING:
            return self._string(insn, address, tick)
        if insn.kind in _UNMASKING and not self._machine.nmi_pending and self._board.pic.pending_vector() is None:
            return False
        if (insn.kind in _PORTS or not self._machine.strict) and self._passing.lets(insn, address):
            return False
        self._stop_insn = insn
        return True

    def _string(self, insn: Sensitive, address: int, tick: int) -> bool:
        engine_done = self._engine.ticks_in_run()
        budget = self._meter.tick_budget - engine_done - self._meter.uncharged
        done = 0
        if not (self._machine.plain_strings or self._hazards.watching or self._machine.watches.reads):
            while step := self._mover.run(insn, budget - done):
                done += step
                if not self._engine.gpr(RCX):
                    break
        # Iterations are time, but no instructions: they use up the engine's count only as far as the time left is less.
        charge = max(0, self._meter.run_budget - engine_done - (budget - done))
        self._engine.add_ticks(charge)
        self._meter.uncharged += done - charge
        stop = done >= budget
        if insn.opcode in STORING:
            self._meter.string_tick, self._meter.string_address = tick + done, address
            self._meter.untold = self._machine.strict and not stop and self._mover.left(insn)
        self._count.before_iteration(address, tick, done, engine_next=not stop)
        return stop

    def _intercepted(self) -> None:
        insn, self._stop_insn = self._stop_insn, None
        if insn is not None and self.outcome is None:
            self._machine.instructions.execute(insn)
            trap, self._faults.waiting = self._faults.waiting, None
            if trap is not None:
                self._faults.fault(trap)

    def step_over(self) -> EngineStop | None:
        """Let the engine run the intercepted instruction at RIP natively; a fault is delivered, and returned."""
        pc = self._cpu.pc
        while True:
            stop = self._engine_run(1, passing=pc)
            if self._faults.fetched_ahead(stop):
                continue
            if stop.trap:
                self._faults.waiting = stop
                return None
            if stop.kind is StopKind.FAULT:
                self._faults.fault(stop)
                return stop
            if stop.kind is StopKind.NEW_CODE:
                self._code.settle()
            if stop.executed or stop.kind is StopKind.BUS:
                return None

    # ---- exceptions and interrupts -----------------------------------------------------------------------------

    def _service(self) -> bool:
        """Devices and interrupts that are due here.  True: run one tick only, an interrupt waits behind a shadow."""
        self._board.clock.now = self._count.ticks
        self._board.bus.advance(self._board.clock.now)
        if self._machine.nmi_pending and not self._cpu.nmi_blocked:
            if self._engine.interrupt_shadow:
                return True
            self._machine.nmi_pending, self._cpu.nmi_blocked = False, True
            self._faults.interrupt(Vector.NMI, EventKind.NMI)
            if self._ended() is not None:
                return False
        if self._board.pic.pending_vector() is None or not self._engine.system_flags & Eflags.IF:
            return False
        if self._engine.interrupt_shadow:
            return True
        self._faults.interrupt(self._board.pic.acknowledge(), EventKind.EXTERNAL)
        return self._board.pic.pending_vector() is not None and bool(self._engine.system_flags & Eflags.IF)

    def _unfetchable(self, stop: EngineStop) -> None:
        """The engine cannot fetch from a hole; hardware fetches all-ones there, which is #UD."""
        pc = self._cpu.pc
        hole = self._hole_at(pc)
        if hole is None:  # an instruction that begins in RAM may go on in a hole
            hole = self._hole_at((pc | PAGE_MASK) + 1)
        if hole is None:
            raise EngineError(f"the engine stopped at {pc:#x}: {stop.detail}", where=str(self._count.position(pc)))
        self._machine.emit(ev.BusError(*self._machine.here(), hole, 1, "fetch from a hole"))
        self._machine.raise_fault(Vector.UD, None)

    def _hole_at(self, linear: int) -> int | None:
        """The physical address behind ``linear``, if nothing answers there."""
        physical = self._cpu.walk(linear).physical
        return physical if physical is not None and self._ram.bank_at(physical) is None else None

    def _may_store(self, physical: int, size: int, linear: int) -> bool:
        """Whether the host may store this range for a string instruction: not over itself, nor against policy."""
        may = (not self._code.covers(physical, size) or not self._holds(physical, size, self._cpu.pc)) and (
            self._machine.policy.allows(physical, size) and self._machine.watches.allows(physical, size)
        )
        if may:
            self._code.overwritten(physical, size)
            self._engine.moves.touch(physical, size)
            if self._machine.strict:
                self._hazards.code.stored(physical, size, linear)
        return may

    def _holds(self, physical: int, size: int, pc: int) -> bool:
        """True where the range touches a page of the instruction at linear ``pc``.

        The rest of its block does not matter: a repeated instruction ends it, and what lies before has been executed.
        """
        pages = {self._cpu.seen(linear) for linear in (pc, pc + _LONGEST - 1)}
        first, last = physical >> PAGE_SHIFT, (physical + size - 1) >> PAGE_SHIFT
        return any(page is not None and first <= page >> PAGE_SHIFT <= last for page in pages)
