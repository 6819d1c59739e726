"""The only file that knows Unicorn, its public API and its private processor state.

Everything above sees an :class:`Engine`: registers, hidden segment parts, a bounded run, intercepts.  The
private state (``CPUX86State`` and two fields of ``uc_struct``) is reached at offsets that hold for the pinned
release; :meth:`Engine.__init__` calibrates them against known values and refuses to go on when one disagrees.

Counting: ``uc_emu_start`` always gets ``count > 0``, because blocks that were translated without a count are
never counted afterwards.  The private ``emu_counter`` then holds the exact position of any stop.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from unicorn import UC_ARCH_X86, UC_MODE_64, Uc, UcError, unicorn_const, x86_const
from unicorn.unicorn_py3 import unicorn as _binding

from emu.errors import EngineError
from emu.machine.cpustate import MARKERS, RCX, CpuState, locate, process_memory
from emu.units import PAGE_MASK, PAGE_SIZE
from emu.x86.bits import DR7_ARMED, DR7_INITIAL

_LIB: Final = _binding.uclib
_Answer = TypeVar("_Answer")
_BlockPointer = Any  # ctypes has no name for a pointer to the binding's private structure
_CODE_HOOK: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)
_WRITE_HOOK: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
)
_EDGE_HOOK: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.POINTER(_binding.uc_tb), ctypes.POINTER(_binding.uc_tb), ctypes.c_void_p
)

_COUNTER_IN_UC: Final = 0x558  # emu_counter in uc_struct of the pinned release
_MARKED: Final = (
    x86_const.UC_X86_REG_RAX,
    x86_const.UC_X86_REG_RCX,
    x86_const.UC_X86_REG_RDX,
    x86_const.UC_X86_REG_RBX,
)
_DB: Final = 1
MSR_EFER: Final = 0xC0000080
_FPU_CONTROL: Final = (
    x86_const.UC_X86_REG_FPCW,
    x86_const.UC_X86_REG_FPSW,
    x86_const.UC_X86_REG_FPTAG,
    x86_const.UC_X86_REG_MXCSR,
)
_FPU_SSE: Final = (
    *((f"st{i}", x86_const.UC_X86_REG_ST0 + i) for i in range(8)),
    *((f"xmm{i}", x86_const.UC_X86_REG_XMM0 + i) for i in range(16)),
    ("fcw", x86_const.UC_X86_REG_FPCW),
    ("fsw", x86_const.UC_X86_REG_FPSW),
    ("ftw", x86_const.UC_X86_REG_FPTAG),
    ("mxcsr", x86_const.UC_X86_REG_MXCSR),
)


class StopKind(Enum):
    """Why :meth:`Engine.run` came back."""

    COUNT = "the count was reached"
    INTERCEPT = "an intercepted instruction is next"
    NEW_CODE = "a block was just translated, and is next"
    FAULT = "the instruction at RIP raised an exception, or a software interrupt just retired"
    BUS = "the engine could not fetch or access at this address"


@dataclass(frozen=True, slots=True)
class EngineStop:
    """``executed`` counts instructions and rep iterations that retired; ``vector``... describe a FAULT.

    ``software`` is true for INT n, INT3 and INTO, where RIP is ``next_rip`` already; ``trap`` for a #DB by TF, which
    comes behind an instruction that retired.
    """

    kind: StopKind
    executed: int
    vector: int = 0
    error_code: int = 0
    cr2: int = 0
    software: bool = False
    trap: bool = False
    next_rip: int = 0
    detail: str = ""


class Engine(CpuState):
    """One Unicorn instance in 64-bit API mode, which runs every x86 mode from real mode to LA57.

    Raises EngineError when the installed engine is not the one whose private state is known.
    """

    _at_work: Engine | None = None  # the engine that is inside its C code now
    _path: tuple[int, int] | None = None  # how the state was found: offset of a pointer in uc_struct, offset behind it

    def __init__(self) -> None:
        self._uc = Uc(UC_ARCH_X86, UC_MODE_64)
        self._uc.ctl_set_cpu_model(x86_const.UC_CPU_X86_ICELAKE_SERVER)
        self._uc.ctl_exits_enabled(True)  # an `until` address would be probed: CR2 and Accessed bits change
        self._handle = self._uc._uch  # noqa: SLF001 - the binding passes it to every call
        self._keep: list[object] = []
        super().__init__(self._locate())
        self._counter = ctypes.c_uint64.from_address(self._handle.value + _COUNTER_IN_UC)
        self.find_efer(int(self._uc.msr_read(MSR_EFER)), self._toggle_efer)
        self._pending: EngineStop | None = None
        self._failure: BaseException | None = None
        self._passing = -1
        self.running = False
        self._limit = 0
        self._begin = self._dr6 = 0
        self._skipped = 0
        self._exit: list[int] = []
        self._again = self._last_rcx = -1
        self._last = (-1, -1)
        self._intercepts: dict[int, int] = {}
        self.on_intercept: Callable[[int], bool] = lambda _address: True
        self.on_new_code: Callable[[int, int], bool] = lambda _linear, _size: False
        self.on_own_block: Callable[[int], None] = lambda _linear: None
        self.stores: Callable[[int], bool] = lambda _linear: False
        self._code_callback = _CODE_HOOK(self._guarded(self._on_code, None))
        self._add_standing_hooks()
        self._calibrate()

    # ---- calibration -------------------------------------------------------------------------------------------

    def _locate(self) -> int:
        for register, marker in zip(_MARKED, MARKERS, strict=True):
            self._uc.reg_write(register, marker)
        address, Engine._path = locate(self._handle.value, Engine._path, self._is_live)
        return address

    def _is_live(self, address: int) -> bool:
        """A copy of the markers (on the Python heap, say) does not follow a register write; the state does."""
        self._uc.reg_write(_MARKED[0], 0)
        live = process_memory(address, 8) == bytes(8)
        self._uc.reg_write(_MARKED[0], MARKERS[0])
        return live

    def _toggle_efer(self) -> int:
        value = int(self._uc.msr_read(MSR_EFER)) | 1
        self._uc.msr_write(MSR_EFER, value)
        return value

    def _calibrate(self) -> None:
        """Provoke a known #PF, #DE and INT 0x42 in a scratch mapping; compare each private field with the truth."""
        page = 0x7F000
        self._uc.mem_map(page, 0x1000)
        self._uc.mem_write(page, bytes.fromhex("90 90 31c9 f7f1 cd42 eb00 eb00"))
        checks: list[tuple[str, object, object]] = []
        seen: list[int] = []

        def note(linear: int, _size: int) -> bool:
            seen.append(linear)
            return False

        self.on_new_code = note
        self.rip = page + 10
        self._raw_run(2)  # until one block has run to its end, the engine reports no new ones
        self.flush_code()
        seen.clear()
        self.rip = page + 10
        self._raw_run(2)
        checks.append(("new blocks", seen, [page + 10, page + 12]))
        self.on_new_code = lambda _linear, _size: False
        self.rip = page
        stop = self._raw_run(100)
        checks.append(("#DE", (stop.vector, stop.executed, self.rip, stop.software), (0, 3, page + 4, False)))
        self.clear_exception()
        self.rip = page + 6
        stop = self._raw_run(100)
        checks.append(("INT n", (stop.vector, stop.software, stop.next_rip), (0x42, True, page + 8)))
        self.clear_exception()
        self.rip = page
        stop = self._raw_run(2)
        checks.append(("count", (stop.kind, stop.executed, self.rip), (StopKind.COUNT, 2, page + 2)))
        self._uc.reg_write(x86_const.UC_X86_REG_GDTR, (0, 0x1234000, 0x57, 0))
        self._uc.reg_write(x86_const.UC_X86_REG_IDTR, (0, 0x5678000, 0x7FF, 0))
        checks.append(("GDTR", (self.gdtr.base, self.gdtr.limit), (0x1234000, 0x57)))
        checks.append(("IDTR", (self.idtr.base, self.idtr.limit), (0x5678000, 0x7FF)))
        for flags, backward in ((0x402, True), (2, False)):
            self.rflags = flags
            checks.append(("DF", self.backward, backward))
        for register, public in ((0, x86_const.UC_X86_REG_CR0), (4, x86_const.UC_X86_REG_CR4)):
            checks.append((f"CR{register}", self.cr(register), self._uc.reg_read(public)))
        self._uc.mem_unmap(page, 0x1000)
        for what, actual, expected in checks:
            if actual != expected:
                raise EngineError(
                    f"calibration of {what} gave {actual}, not {expected}",
                    hint="install unicorn==2.1.4 for x86-64 Linux",
                )

    # ---- hooks -------------------------------------------------------------------------------------------------

    def _hook(self, kind: int, callback: object, begin: int = 1, end: int = 0) -> int:
        handle = ctypes.c_size_t()
        status = _LIB.uc_hook_add(
            self._handle, ctypes.byref(handle), kind, callback, None, ctypes.c_uint64(begin), ctypes.c_uint64(end)
        )
        if status:
            raise EngineError(f"uc_hook_add failed with status {status}")
        return handle.value

    def _guarded(self, function: Callable[..., _Answer], answer: _Answer) -> Callable[..., _Answer]:
        """An exception inside a callback (Ctrl-C too) cannot cross the C frames: it is raised after the stop."""

        def call(*arguments: object) -> _Answer:
            try:
                return function(*arguments)
            except BaseException as failure:  # noqa: BLE001 - raised again by _raw_run
                self._failure = failure
                self._uc.emu_stop()
                return answer

        return call

    def _unhook(self, handle: int) -> None:
        cr2 = self.cr(2)  # as in forget_code
        _LIB.uc_hook_del(self._handle, ctypes.c_size_t(handle))
        self.set_cr(2, cr2)

    def _add_standing_hooks(self) -> None:
        edge = _EDGE_HOOK(self._guarded(self._on_edge, None))
        self._keep.append(edge)
        self._hook(unicorn_const.UC_HOOK_EDGE_GENERATED, edge)
        self._uc.hook_add(unicorn_const.UC_HOOK_INTR, self._guarded(self._on_interrupt, None))
        self._uc.hook_add(unicorn_const.UC_HOOK_INSN_INVALID, self._guarded(self._on_undefined, answer=True))

    def _stop(self, stop: EngineStop) -> None:
        if self._pending is None:
            self._pending = stop
        self._uc.emu_stop()

    def _on_edge(self, _uc: object, current: _BlockPointer, _previous: object, _data: object) -> None:
        block = current.contents
        if block.icount == 1 and self._is_retry(block.pc):
            self.on_own_block(block.pc)
            self._counted_twice(block.pc)
        elif self.on_new_code(block.pc, block.size):
            self._stop(EngineStop(StopKind.NEW_CODE, self._counter.value - self._skipped))

    def _is_retry(self, linear: int) -> bool:
        """A new block of one instruction may be a second try of one that stored into the block which held it.

        Nothing else makes such a block of a storing instruction, but TF, an interrupt shadow and the end of a page.
        """
        counter = self._counter.value
        if self._last == (linear, counter):
            return self.gpr(RCX) == self._last_rcx
        if not counter or not self.stores(linear):
            return False
        if self.single_instructions or linear & PAGE_MASK > PAGE_SIZE - 16:
            return (counter, self.rip) == (1, self._begin)
        return True

    def end_behind(self) -> None:
        """Inside a callback of an instruction: the run ends when it has retired."""
        self._skipped = self._limit - (self._counter.value - self._skipped)
        self._counter.value = self._limit

    def _counted_twice(self, linear: int) -> None:
        """Count the instruction once, and end the run behind it.

        Its block must not be found again without notice, so :meth:`run` drops all blocks before it goes on.
        """
        self.end_behind()
        self._counter.value -= 1
        self._again = linear

    def _on_code(self, _uc: object, address: int, _size: int, _data: object) -> None:
        if address in (self._passing, self._again):
            return
        if self._last == (address, self._counter.value) and self._last_rcx == self.gpr(RCX):
            return  # another hook on the same instruction
        if self.on_intercept(address):
            self._stop(EngineStop(StopKind.INTERCEPT, self.ticks_in_run()))
        self._last, self._last_rcx = (address, self._counter.value), self.gpr(RCX)

    def _on_interrupt(self, _uc: object, vector: int, _data: object) -> None:
        error_code, software, next_rip, cr2 = self.exception()
        trap = vector == _DB and self._is_trap()
        executed = self.ticks_in_run() + trap
        self._stop(EngineStop(StopKind.FAULT, executed, vector, error_code, cr2, software, trap, next_rip))

    def _is_trap(self) -> bool:
        """A #DB by TF, behind an instruction that retired; an execution breakpoint would have set a new bit of DR6."""
        return bool(self.rflags >> 8 & 1) and not self.dr(6) & ~self._dr6 & 0xF

    def _on_undefined(self, _uc: object, _data: object) -> bool:
        self._stop(EngineStop(StopKind.FAULT, self.ticks_in_run(), vector=6))
        return True

    def intercept(self, address: int) -> None:
        """Call ``on_intercept`` before the instruction at linear ``address``; its answer true stops the run there."""
        if address not in self._intercepts:
            self._intercepts[address] = self._hook(unicorn_const.UC_HOOK_CODE, self._code_callback, address, address)
            self.forget_code(address, 1)

    def remove_intercept(self, address: int) -> None:
        """Undo :meth:`intercept`."""
        handle = self._intercepts.pop(address, None)
        if handle is not None:
            self._unhook(handle)
            self.forget_code(address, 1)

    def intercept_range(self, begin: int, end: int) -> int:
        """Like :meth:`intercept` for every instruction that begins in linear ``begin`` .. ``end`` (inclusive)."""
        handle = self._hook(unicorn_const.UC_HOOK_CODE, self._code_callback, begin, end)
        self.flush_code()
        return handle

    @property
    def intercepts(self) -> dict[int, int]:
        """The intercepted linear addresses, oldest first."""
        return self._intercepts

    def watch_writes(self, begin: int, end: int, callback: Callable[[int, int, int], None]) -> int:
        """Call ``callback(physical, size, value)`` before each store into physical ``begin`` .. ``end`` (inclusive)."""

        def hook(_uc: object, _kind: int, address: int, size: int, value: int, _data: object) -> None:
            if self._again < 0 or self._counter.value != self._limit:  # the first try was heard of already
                callback(address, size, value)

        wrapped = _WRITE_HOOK(self._guarded(hook, None))
        self._keep.append(wrapped)
        handle = self._hook(unicorn_const.UC_HOOK_MEM_WRITE, wrapped, begin, end)
        self.flush_code()
        return handle

    def watch_reads(self, begin: int, end: int, callback: Callable[[int, int], None]) -> int:
        """Call ``callback(physical, size)`` before each read in physical ``begin`` .. ``end`` (inclusive)."""

        def hook(_uc: object, _kind: int, address: int, size: int, _value: int, _data: object) -> None:
            if self._again < 0 or self._counter.value != self._limit:
                callback(address, size)

        wrapped = _WRITE_HOOK(self._guarded(hook, None))
        self._keep.append(wrapped)
        handle = self._hook(unicorn_const.UC_HOOK_MEM_READ, wrapped, begin, end)
        self.flush_code()
        return handle

    def unwatch(self, handle: int) -> None:
        """Remove a hook that :meth:`watch_writes` or :meth:`intercept_range` gave."""
        self._unhook(handle)
        self.flush_code()

    def hook_ports(self, read: Callable[[int, int], int], write: Callable[[int, int, int], None]) -> None:
        """``read(port, size)`` and ``write(port, size, value)`` serve IN/INS and OUT/OUTS."""
        reader = self._guarded(lambda _uc, port, size, _data: read(port, size), 0)
        writer = self._guarded(lambda _uc, port, size, value, _data: write(port, size, value), None)
        self._uc.hook_add(unicorn_const.UC_HOOK_INSN, reader, aux1=x86_const.UC_X86_INS_IN)
        self._uc.hook_add(unicorn_const.UC_HOOK_INSN, writer, aux1=x86_const.UC_X86_INS_OUT)

    # ---- memory ------------------------------------------------------------------------------------------------

    def map_ram(self, physical: int, size: int, host: int, *, rom: bool = False) -> None:
        """Back physical addresses by host memory at ``host``; ``rom`` drops stores after telling nobody."""
        rights = unicorn_const.UC_PROT_READ | unicorn_const.UC_PROT_EXEC
        self._uc.mem_map_ptr(physical, size, rights if rom else unicorn_const.UC_PROT_ALL, host)

    def map_hole(
        self, physical: int, size: int, read: Callable[[int, int], int], write: Callable[[int, int, int], None]
    ) -> None:
        """``read(physical, size)`` and ``write(physical, size, value)`` serve a hole, page walks included."""
        reader = self._guarded(lambda _uc, offset, length, _data: read(physical + offset, length), 0)
        writer = self._guarded(lambda _uc, offset, length, value, _data: write(physical + offset, length, value), None)
        self._uc.mmio_map(physical, size, reader, None, writer, None)

    def on_rom_write(self, callback: Callable[[int, int, int], None]) -> None:
        """``callback(physical, size, value)`` hears of stores into ROM, which the engine then drops."""

        def dropped(_uc: object, _kind: int, address: int, size: int, value: int, _data: object) -> bool:
            callback(address, size, value)
            return True

        self._uc.hook_add(unicorn_const.UC_HOOK_MEM_WRITE_PROT, self._guarded(dropped, answer=True))

    def flush_code(self) -> None:
        """Drop every translated block (after a host write over executed bytes)."""
        self._uc.ctl_flush_tb()

    def forget_code(self, linear: int, size: int) -> None:
        """Drop translated blocks at a linear range under the present mapping; nothing where it is not mapped."""
        cr2 = self.cr(2)  # the engine looks the address up as a fetch would, and leaves the fault of a miss behind
        try:
            self._uc.ctl_remove_cache(linear, linear + size)
        except UcError:
            self._uc.ctl_flush_tb()
        self.set_cr(2, cr2)

    def flush_tlb(self) -> None:
        """Drop every cached translation (after a host write to page tables, or a restored context)."""
        self._uc.ctl(unicorn_const.UC_CTL_TLB_FLUSH, 1)

    # ---- running -----------------------------------------------------------------------------------------------

    def _raw_run(self, count: int) -> EngineStop:
        self._pending = None
        self._begin, self._limit, self._dr6 = self.rip, count, self.dr(6)
        if self._again >= 0 or self._exit:
            self.flush_code()
        if self._exit:
            self._exit = self._exit[1:]
            self._uc.ctl_set_exits(self._exit)
        self._skipped, self._again, self._last = 0, -1, (-1, -1)
        cr2 = self.cr(2)
        self.running = True
        Engine._at_work = self
        status = _LIB.uc_emu_start(
            self._handle, ctypes.c_uint64(self.rip), ctypes.c_uint64(0), ctypes.c_uint64(0), ctypes.c_size_t(count)
        )
        self.running = False
        Engine._at_work = None
        # The engine's own look-ups (of deleted hooks, say) leave their misses in CR2.  The guest changes it by MOV and
        # by a page fault only, and neither happens in here: both are done by those who call.
        self.set_cr(2, cr2)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        pending = self._taken()
        if pending is not None:
            return pending
        if status:
            return EngineStop(StopKind.BUS, self._counter.value - self._skipped, detail=str(UcError(status)))
        return EngineStop(StopKind.COUNT, min(self._counter.value, count) - self._skipped)

    def exit_once(self, linear: int) -> None:
        """Let the next run end at ``linear``, without a fetch there; the one after it drops the blocks for that."""
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
        engine._uc.emu_stop()  # noqa: SLF001
        return True

    def ticks_in_run(self) -> int:
        """Inside a callback before an instruction: what retired since :meth:`run` began."""
        return self._counter.value - 1 - self._skipped

    def add_ticks(self, count: int) -> None:
        """Inside a callback: the host did ``count`` iterations; they use up the run's count too."""
        self._counter.value += count

    def run(self, count: int, *, passing: int = -1) -> EngineStop:
        """Run at most ``count`` instructions and rep iterations; ``passing`` is an intercept to step over silently."""
        self._passing = passing
        return self._raw_run(count)

    # ---- registers that only public calls reach ------------------------------------------------------------------

    @property
    def rflags(self) -> int:
        """RFLAGS with its lazily computed arithmetic flags."""
        return int(self._uc.reg_read(x86_const.UC_X86_REG_RFLAGS))

    @rflags.setter
    def rflags(self, value: int) -> None:
        self._uc.reg_write(x86_const.UC_X86_REG_RFLAGS, value)

    def msr(self, number: int) -> int:
        """A model-specific register as the engine keeps it (0 for one that it does not know)."""
        return int(self._uc.msr_read(number))

    def set_msr(self, number: int, value: int) -> None:
        """Set a model-specific register; EFER goes through :attr:`efer`."""
        self._uc.msr_write(number, value)

    def fpu_sse(self) -> dict[str, int]:
        """x87 and SSE state: st0-7 (80 bits), xmm0-15 (128 bits), control, status and tag words, MXCSR."""
        state: dict[str, int] = {}
        for name, register in _FPU_SSE:
            value = self._uc.reg_read(register)
            state[name] = value[0] | value[1] << 64 if isinstance(value, tuple) else int(value)
        return state

    def reset_fpu(self) -> None:
        """x87 control, status and tag word and MXCSR as after reset, SDM 3A table 10-1; the engine has zeros."""
        for register, value in zip(_FPU_CONTROL, (0x40, 0, 0x5555, 0x1F80), strict=True):
            self._uc.reg_write(register, value)

    def settle(self) -> None:
        """Make the translator follow registers set one by one (:meth:`set_cr`, :meth:`set_segment`, efer)."""
        self.digest(self.rflags)

    def close(self) -> None:
        """Give the engine's memory back; nothing but another call of this may follow."""
        if self._address:
            self._address, self._view = 0, memoryview(b"")
            self._keep.clear()
            self._intercepts.clear()
            finalizer: Callable[[], object] = self._uc._Uc__finalizer  # noqa: SLF001 - the binding has no close
            finalizer()

    def save(self) -> object:
        """All processor state, opaque; restore with :meth:`restore` on this engine."""
        return self._uc.context_save()

    def restore(self, context: object) -> None:
        """Put processor state back and drop cached translations, which the engine would otherwise keep.

        The engine's breakpoint objects behind DR0 to DR3 are not part of the state, only pointers to them: they are
        made anew.
        """
        if self.has_breakpoints:
            self._update_dr7(DR7_INITIAL)
        self._uc.context_restore(context)
        self.forget_breakpoints()
        armed = self.dr(7)
        if armed & DR7_ARMED:
            self.set_dr(7, DR7_INITIAL)
            self._update_dr7(armed)
        self.flush_tlb()

    def _update_dr7(self, value: int) -> None:
        _LIB.cpu_x86_update_dr7_x86_64(ctypes.c_void_p(self._address), ctypes.c_uint32(value))

    # ---- with nothing of ours in the way (benchmarks) ------------------------------------------------------------

    def run_bare(self, until: int) -> None:
        """Run to linear ``until`` without a count, an intercept or an event; EngineError if it ends elsewhere."""
        for address in list(self._intercepts):
            self.remove_intercept(address)
        self._uc.ctl_exits_enabled(enable=False)
        self.on_new_code = lambda _linear, _size: False
        status = _LIB.uc_emu_start(
            self._handle, ctypes.c_uint64(self.rip), ctypes.c_uint64(until), ctypes.c_uint64(0), ctypes.c_size_t(0)
        )
        if status or self.rip != until:
            raise EngineError(f"the bare run stopped at {self.rip:#x} with status {status}")
