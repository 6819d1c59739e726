"""A processor that runs a bounded number of instructions and says why and where it stopped.

Everything above sees an :class:`Engine`: registers, hidden segment parts, a bounded run, intercepts, callbacks before
stores.  What Unicorn gets wrong about any of these is put right here, once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from dataclasses import replace

from emu.errors import EngineError
from emu.machine.binding import MEMORY_WRITE, Binding, BlockPointer
from emu.machine.blocks import FUNCTIONS, Blocks
from emu.machine.calibration import calibrate
from emu.machine.cpustate import RCX
from emu.machine.hostcode import routine
from emu.machine.moves import NOWHERE, Moves
from emu.machine.stops import EngineStop, StopKind
from emu.units import PAGE_MASK, PAGE_SIZE

_DB = 1


class Engine(Binding):
    """The engine with counted runs.

    Raises EngineError when the installed Unicorn is not the one whose private state is known.
    """

    _at_work: Engine | None = None  # the engine that is inside its C code now
    _alone = False  # no other engine may run now: functions of the library are replaced

    def __init__(self) -> None:
        super().__init__()
        self._pending: EngineStop | None = None
        self.running = False
        self._limit = 0
        self._begin = self._dr6 = 0
        self._exit: list[int] = []
        self._intercepts: dict[int, int] = {}
        self.on_intercept: Callable[[int], bool] = lambda _address: True
        self.on_new_code: Callable[[int, int], bool] = lambda _linear, _size: False
        self.on_own_block: Callable[[int], None] = lambda _linear: None
        self.on_set_aside: Callable[[int], bool] = lambda _address: False
        self.on_restart: Callable[[int], None] = lambda _address: None
        self.stores: Callable[[int], bool] = lambda _linear: False
        self.on_stale: Callable[[], None] = lambda: None
        self._code_callback = self._code_callback_of(self._on_code)
        python = ctypes.cast(self._code_callback, ctypes.c_void_p).value or 0
        self.moves = Moves(self._address, self._base_addresses, self._counter_address, python)
        self.meter = self.moves.meter
        self._dispatch: int | None = self._hook_all_code(routine("dispatch", "hooks"), ctypes.addressof(self.meter))
        self._edge_callback = self._new_block_callback_of(self._on_edge)
        self._edges = self._hook_new_blocks(self._edge_callback)
        self._hooks: set[int] = set()  # that somebody above asked for
        self.blocks = Blocks(self._handle.value, self._address, self.addresses_of(FUNCTIONS))
        self._block_hook: int | None = None  # while instructions are counted by blocks
        self._hook_exceptions(self._on_interrupt, self._on_undefined)
        calibrate(self)
        self.moves.judge_by(self.judged_words())

    # ---- callbacks ---------------------------------------------------------------------------------------------

    def _entered(self) -> None:
        if self.meter.stale:
            self.meter.stale = 0
            self.on_stale()

    def _stop(self, stop: EngineStop) -> None:
        self.meter.enabled = 0  # the host's own routines may be called for this instruction all the same
        if self._pending is None:
            self._pending = stop
        self._halt()

    def stop_before(self) -> None:
        """Inside a gate: the run ends before the instruction at hand."""
        self.blocks.leave()
        self._stop(EngineStop(StopKind.INTERCEPT, self.ticks_in_run()))

    @classmethod
    def run_alone(cls, *, on: bool) -> None:
        """No other engine may run while this one does; EngineError where one runs already."""
        if on and Engine._at_work is not None:
            raise EngineError("another machine runs in this process", hint="one at a time, or a process for each")
        Engine._alone = on

    @property
    def came_back(self) -> bool:
        """The last run ended before its count was used up, of its own accord: behind a HLT, or at an exit."""
        if self.by_blocks:
            return not self.blocks.expired
        return self._counter.value <= self._limit and not self.meter.skipped

    def _on_edge(self, _uc: object, current: BlockPointer, _previous: object, _data: object) -> None:
        block = current.contents
        if block.icount == 1 and self._is_retry(block.pc):
            self.on_own_block(block.pc)
            self._counted_twice(block.pc)
        elif self.on_new_code(block.pc, block.size):
            self._stop(EngineStop(StopKind.NEW_CODE, self._counter.value - self.meter.skipped))

    def _is_retry(self, linear: int) -> bool:
        """A new block of one instruction may be a second try of one that stored into the block which held it.

        Nothing else makes such a block of a storing instruction, but TF, an interrupt shadow and the end of a page.
        """
        counter = self._counter.value
        meter = self.meter
        if (meter.last_address, meter.last_counter) == (linear, counter):
            return self.gpr(RCX) == meter.last_rcx
        if not counter or not self.stores(linear):
            return False
        if self.single_instructions or linear & PAGE_MASK > PAGE_SIZE - 16:
            return (counter, self.rip) == (1, self._begin)
        return True

    def came_to(self, linear: int) -> bool:
        """After a fault at ``linear``: the instruction there was fetched.  Not known, and False, counting by blocks."""
        return self.meter.begun == linear and not self.by_blocks

    def end_behind(self) -> None:
        """Inside a callback of an instruction: the run ends when it has retired."""
        if self.by_blocks:
            self.blocks.end_here()
            return
        self.meter.skipped = self._limit - (self._counter.value - self.meter.skipped)
        self._counter.value = self._limit

    def _counted_twice(self, linear: int) -> None:
        """Count the instruction once, and end the run behind it.

        Its block must not be found again without notice, so :meth:`run` drops all blocks before it goes on.
        """
        self.end_behind()
        self._counter.value -= 1
        self.meter.again = linear

    def _on_code(self, _uc: object, address: int, _size: int, _data: object) -> None:
        meter = self.meter
        if meter.aside_count and self.on_set_aside(address):
            self.on_restart(address)
            self._stop(EngineStop(StopKind.INTERCEPT, self.ticks_in_run()))
            return
        if address in (meter.passing, meter.again):
            return
        if (
            meter.last_address == address
            and meter.last_counter == self._counter.value
            and meter.last_rcx == self._gprs[RCX]
        ):
            return  # another hook on the same instruction
        if self.on_intercept(address):
            self._stop(EngineStop(StopKind.INTERCEPT, self.ticks_in_run()))
        meter.last_address, meter.last_counter, meter.last_rcx = address, self._counter.value, self._gprs[RCX]

    def _on_interrupt(self, _uc: object, vector: int, _data: object) -> None:
        error_code, software, next_rip, cr2 = self.exception()
        trap = vector == _DB and self._is_trap()
        if self.by_blocks:
            executed = self._counted_to_fault(behind=software or trap) - software
        else:
            executed = self.ticks_in_run() + trap
        self._stop(EngineStop(StopKind.FAULT, executed, vector, error_code, cr2, software, trap, next_rip))

    def _counted_to_fault(self, *, behind: bool) -> int:
        """Counting by blocks: instructions that retired before a fault at RIP, or ``behind`` the one that raised it."""
        if not (behind and self.single_instructions):
            self.blocks.give_back()
        return self.blocks.counted

    def _is_trap(self) -> bool:
        """A #DB by TF, behind an instruction that retired; an execution breakpoint would have set a new bit of DR6."""
        return bool(self.rflags >> 8 & 1) and not self.dr(6) & ~self._dr6 & 0xF

    def _on_undefined(self, _uc: object, _data: object) -> bool:
        executed = self._counted_to_fault(behind=False) if self.by_blocks else self.ticks_in_run()
        self._stop(EngineStop(StopKind.FAULT, executed, vector=6))
        return True

    def intercept(self, address: int) -> None:
        """Call ``on_intercept`` before the instruction at linear ``address``; its answer true stops the run there."""
        if address not in self._intercepts and not self.intercept_now(address):
            self._intercepts[address] = self._hook_code(address, address, self._code_callback)
            self.forget_code(address, 1)

    def intercept_now(self, address: int) -> bool:
        """Like :meth:`intercept`, also inside a callback; False where that needs a hook of its own."""
        if self._dispatch is None or not self.moves.intercept(address):
            return False
        self._intercepts[address] = 0
        return True

    def drop_intercept(self, address: int) -> None:
        """Undo :meth:`intercept_now`, also inside a callback."""
        if self._intercepts.get(address) == 0:
            del self._intercepts[address]
            self.moves.remove(address)

    def remove_intercept(self, address: int) -> None:
        """Undo :meth:`intercept`."""
        handle = self._intercepts.pop(address, None)
        if handle:
            self._unhook(handle)
            self.forget_code(address, 1)
        self.moves.remove(address)

    def intercept_range(self, begin: int, end: int) -> int:
        """Like :meth:`intercept` for every instruction that begins in linear ``begin`` .. ``end`` (inclusive)."""
        return self._asked_for(self._hook_code(begin, end, self._code_callback))

    def _asked_for(self, handle: int) -> int:
        self._hooks.add(handle)
        self.flush_code()
        return handle

    @property
    def observed(self) -> bool:
        """True while somebody wants to hear of instructions, blocks or accesses to memory."""
        return bool(self._hooks or self._intercepts)

    @property
    def intercepts(self) -> dict[int, int]:
        """The intercepted linear addresses, oldest first."""
        return self._intercepts

    def watch_writes(self, begin: int, end: int, callback: Callable[[int, int, int], None]) -> int:
        """Call ``callback(physical, size, value)`` before each store that begins in physical ``begin`` .. ``end``."""
        return self._asked_for(self._hook_access(begin, end, self._told_once(callback), write=True))

    def _told_once(self, callback: Callable[[int, int, int], None]) -> Callable[..., None]:
        """A hook that gives ``callback`` each store; of one that is tried again the first try was heard of already."""

        def hook(_uc: object, _kind: int, address: int, size: int, value: int, _data: object) -> None:
            if self.meter.again == NOWHERE or self._counter.value != self._limit:
                callback(address, size, value)

        return hook

    def judge_writes(self, callback: Callable[[int, int, int], None]) -> None:
        """Whom :meth:`guard_writes` asks: ``callback(physical, size, value)``."""
        self.meter.judge = self._store_callback_of(self._told_once(callback))

    def on_spans(self, listed: Callable[[int, int], None], watched: Callable[[int, int, int, bool], None]) -> None:
        """Who hears of accesses that span two pages, before they happen.

        ``listed(physical, size)`` of stores while they are listed, ``watched(physical, size, value, write)`` for
        :meth:`watch_straddles`.  The address is that of the first byte, the size that of the whole access.
        """

        def hook(_uc: object, _kind: int, address: int, size: int, _value: int, _data: object) -> None:
            listed(address, size)

        def straddles(_uc: object, kind: int, address: int, size: int, value: int, _data: object) -> None:
            if self.meter.again == NOWHERE or self._counter.value != self._limit:
                watched(address, size, value, kind == MEMORY_WRITE)

        self.meter.spans = self._store_callback_of(hook)
        self.meter.straddles = self._store_callback_of(straddles)

    def watch_straddles(self, *, write: bool) -> int:
        """Call the second of :meth:`on_spans` before each store, or each read, that spans two pages."""
        straddle, meter = routine("straddle", "hooks"), ctypes.addressof(self.meter)
        return self._asked_for((self._hook_stores if write else self._hook_reads)(straddle, meter))

    def guard_writes(self) -> int:
        """Ask before each store into page frames that are forbidden to host code too, or that no bank holds.

        Host code looks at every store (``guard`` in ``asm/host/stores.inc``), so that many ranges cost what one does.
        """
        return self._asked_for(self._hook_stores(routine("guard", "hooks"), ctypes.addressof(self.meter)))

    def list_stores(self) -> int:
        """Have host code list the pages of stores (:meth:`emu.machine.moves.Moves.list_stores`); no callback."""
        return self._asked_for(self._hook_stores(routine("touch", "hooks"), ctypes.addressof(self.meter)))

    def watch_reads(self, begin: int, end: int, callback: Callable[[int, int], None]) -> int:
        """Call ``callback(physical, size)`` before each read that begins in physical ``begin`` .. ``end``."""

        def hook(_uc: object, _kind: int, address: int, size: int, _value: int, _data: object) -> None:
            if self.meter.again == NOWHERE or self._counter.value != self._limit:
                callback(address, size)

        return self._asked_for(self._hook_access(begin, end, hook, write=False))

    def hook_blocks(self, routine: int, argument: int) -> int:
        """Before each block call host code at ``routine``: (engine, linear address, size in bytes, ``argument``)."""
        return self._asked_for(self._hook_blocks(routine, argument))

    def hook_blocks_anew(self, handle: int, code: int, argument: int) -> int:
        """End :meth:`hook_blocks` and begin again, and so for each instruction; the answer is the new handle.

        The engine keeps a list for each hook of all code that it ever was in, which in runs of wild code has no end.
        """
        if self._dispatch is not None:
            self._unhook_quietly(self._dispatch, handle)
            self._dispatch = self._hook_all_code(routine("dispatch", "hooks"), ctypes.addressof(self.meter))
            self._hooks.discard(handle)
            handle = self._asked_for(self._hook_blocks(code, argument))
        return handle

    def on_rom_write(
        self, callback: Callable[[int, int, int], None], roms: Iterable[tuple[int, int]] | None = None
    ) -> None:
        """Call ``callback(physical, size, value)`` before each store into ROM, which then happens all the same.

        ``roms`` are where it is (physical, first and last).  The engine takes a longer way for each store into these
        ranges, or for every store where none are given.  In the other ranges it does not notice by itself a store into
        code through another linear address than that by which the code was fetched.
        """

        def hook(_uc: object, _kind: int, address: int, size: int, value: int, _data: object) -> bool:
            callback(address, size, value)
            return True

        function = self._protected_callback_of(hook)
        if roms is None:
            self._hook_protected(function, 0)
            return
        record = self.blocks.record(function)
        for first, last in roms:
            self._hook_protected(routine("store", "blocks"), record, first, last)

    def unwatch(self, handle: int) -> None:
        """Remove a hook that :meth:`watch_writes` or :meth:`intercept_range` gave."""
        self._hooks.discard(handle)
        self._unhook(handle)
        self.flush_code()

    # ---- counting by blocks ------------------------------------------------------------------------------------

    @property
    def by_blocks(self) -> bool:
        """Instructions are counted by blocks; see :mod:`emu.machine.blocks`."""
        return self._block_hook is not None

    def count_by_blocks(self, *, on: bool) -> None:
        """Count by blocks from the next run on, or by instructions.  Intercepts and watches need the latter."""
        if on == self.by_blocks:
            return
        if self._block_hook is None:
            self._unhook_quietly(self._edges, self._dispatch or 0)
            self._dispatch = None
            self._block_hook = self._hook_blocks(self.blocks.routine, self.blocks.fields)
        else:
            self._unhook_quietly(self._block_hook)
            self._block_hook = None
            self._edges = self._hook_new_blocks(self._edge_callback)
            self._dispatch = self._hook_all_code(routine("dispatch", "hooks"), ctypes.addressof(self.meter))
        self.blocks.spare_checks(on=on)
        self.blocks.begin(0)
        self.flush_code()

    # ---- running -----------------------------------------------------------------------------------------------

    def _raw_run(self, count: int) -> EngineStop:
        self._pending = None
        if Engine._alone and Engine._at_work is not None:
            raise EngineError("another machine runs in this process", hint="one at a time, or a process for each")
        self._begin, self._limit, self._dr6 = self.rip, count, self.dr(6)
        if self.meter.again != NOWHERE or self._exit:
            self.flush_code()
        if self._exit:
            self._exit = self._exit[1:]
            self._set_exits(self._exit)
        self.meter.skipped, self.meter.again, self.meter.last_address = 0, NOWHERE, NOWHERE
        self.meter.begun = NOWHERE
        cr2 = self.cr(2)
        if self.by_blocks:
            self.blocks.begin(count)
        self.running = True
        Engine._at_work = self
        status = self._start(0 if self.by_blocks else count)
        self._entered()
        self.running = False
        Engine._at_work = None
        # The engine's own look-ups (of deleted hooks, say) leave their misses in CR2.  The guest changes it by MOV and
        # by a page fault only, and neither happens in here: both are done by those who call.
        self.set_cr(2, cr2)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        pending = self._taken()
        if self.by_blocks:
            return self._stopped_at(pending, status)
        if pending is not None:
            return pending
        if status:
            return EngineStop(StopKind.BUS, self._counter.value - self.meter.skipped, detail=self._meaning(status))
        return EngineStop(StopKind.COUNT, min(self._counter.value, count) - self.meter.skipped)

    def _stopped_at(self, pending: EngineStop | None, status: int) -> EngineStop:
        """Where a run ended that was counted by blocks."""
        blocks = self.blocks
        if blocks.lost:
            raise EngineError("a block of this Unicorn is not where it was expected", hint="install unicorn==2.1.4")
        if pending is not None and pending.kind is StopKind.FAULT:
            return pending
        if pending is not None:
            return replace(pending, executed=blocks.counted)
        if status:
            return EngineStop(StopKind.BUS, blocks.counted, detail=self._meaning(status))
        return EngineStop(StopKind.COUNT, blocks.counted)

    def close(self) -> None:
        """Give the engine's memory back; nothing but another call of this may follow."""
        self._intercepts.clear()
        super().close()

    def exit_once(self, linear: int, instructions: int) -> None:
        """Let the next run come to ``linear``, so many ``instructions`` ahead, without a fetch there.

        Counted by instructions, it ends there, and the one after it drops the blocks for that.
        """
        if self.by_blocks:
            self.blocks.only(instructions)
        else:
            self._exit = [0, linear]

    def _taken(self) -> EngineStop | None:
        pending, self._pending = self._pending, None
        return pending

    @staticmethod
    def interrupt() -> bool:
        """For a signal handler: the engine that runs now, if one does, stops and raises KeyboardInterrupt.

        An exception raised in the handler itself could arise between the engine and a callback, where it is lost.
        """
        engine = Engine._at_work
        if engine is None:
            return False
        engine._failure = KeyboardInterrupt()  # noqa: SLF001 - of this class
        engine._halt()  # noqa: SLF001
        return True

    def ticks_in_run(self) -> int:
        """Inside a callback before an instruction: what retired since :meth:`run` began.

        Counted by blocks, that is exact at gates that want it (:class:`emu.machine.gates.Gate`), else what retired
        before the block at hand.
        """
        if self.by_blocks:
            return self.blocks.before
        return self._counter.value - 1 - self.meter.skipped

    def add_ticks(self, count: int) -> None:
        """Inside a callback: the host did ``count`` iterations; they use up the run's count too."""
        self._counter.value += count

    def run(self, count: int, *, passing: int = NOWHERE) -> EngineStop:
        """Run at most ``count`` instructions and rep iterations; ``passing`` is an intercept to step over silently."""
        self.meter.passing = passing
        return self._raw_run(count)

    # ---- with nothing of ours in the way (benchmarks) ------------------------------------------------------------

    def strip(self) -> None:
        """No more intercepts, and nobody hears of new blocks."""
        for address in list(self._intercepts):
            self.remove_intercept(address)
        if self._dispatch is not None:
            self._unhook(self._dispatch)
            self._dispatch = None
            self.flush_code()
        self.on_new_code = lambda _linear, _size: False

    def run_bare(self, until: int) -> None:
        """Run to linear ``until`` without a count, an intercept or an event; EngineError if it ends elsewhere."""
        self.strip()
        status = self._start_bare(until)
        if status or self.rip != until:
            raise EngineError(f"the bare run stopped at {self.rip:#x} with status {status}")

    def run_bare_for(self, count: int) -> None:
        """Run ``count`` instructions and iterations, or to the first exception, on an engine that was stripped."""
        self._start_bare_for(count)
