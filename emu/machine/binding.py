"""The only file that knows Unicorn: its Python binding, the C functions behind it, and where it keeps its state.

A :class:`Binding` is one Unicorn instance with calls and callbacks that say nothing of what they are for; the rules are
in :mod:`emu.machine.engine`.  The private state (``CPUX86State`` and two fields of ``uc_struct``) is reached at
offsets that hold for the pinned release, which :mod:`emu.machine.calibration` compares with known values.

Counting: ``uc_emu_start`` gets ``count > 0`` always, because blocks that were translated without a count are never
counted afterwards, or never, while :mod:`emu.machine.blocks` counts.  In the first case the private ``emu_counter``
holds the exact position of any stop.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from unicorn import UC_ARCH_X86, UC_MODE_64, Uc, UcError, unicorn_const, x86_const
from unicorn.unicorn_py3 import unicorn as _binding

from emu.errors import EngineError
from emu.machine.cpustate import MARKERS, CpuState, locate, process_memory
from emu.x86.bits import DR7_ARMED, DR7_INITIAL, Cr0

_LIB: Final = _binding.uclib
_LIB.get_page_addr_code_x86_64.restype = ctypes.c_uint64
_LIB.cpu_cc_compute_all_x86_64.restype = ctypes.c_uint32
_Answer = TypeVar("_Answer")
BlockPointer = Any  # ctypes has no name for a pointer to the binding's private structure
_CODE_HOOK: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)
_WRITE_HOOK: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
)
MEMORY_WRITE: Final = unicorn_const.UC_MEM_WRITE
_PROTECTED_HOOK: Final = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
)
_IN_HOOK: Final = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p)
_OUT_HOOK: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p
)
_EDGE_HOOK: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.POINTER(_binding.uc_tb), ctypes.POINTER(_binding.uc_tb), ctypes.c_void_p
)

_UPDATES: Final = {
    0: _LIB.cpu_x86_update_cr0_x86_64,
    3: _LIB.cpu_x86_update_cr3_x86_64,
    4: _LIB.cpu_x86_update_cr4_x86_64,
}

_COUNTER_IN_UC: Final = 0x558  # emu_counter in uc_struct of the pinned release
_MARKED: Final = (
    x86_const.UC_X86_REG_RAX,
    x86_const.UC_X86_REG_RCX,
    x86_const.UC_X86_REG_RDX,
    x86_const.UC_X86_REG_RBX,
)
MSR_EFER: Final = 0xC0000080
_CALL_MSRS: Final = (0x174, 0x175, 0x176, 0xC0000081, 0xC0000082, 0xC0000084, 0xC0000103)  # and TSC_AUX, for RDTSCP
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


class Binding(CpuState):
    """One Unicorn instance in 64-bit API mode, which runs every x86 mode from real mode to LA57."""

    _path: tuple[int, int] | None = None  # how the state was found: offset of a pointer in uc_struct, offset behind it

    def __init__(self) -> None:
        self._uc = Uc(UC_ARCH_X86, UC_MODE_64)
        self._uc.ctl_set_cpu_model(x86_const.UC_CPU_X86_ICELAKE_SERVER)
        self._uc.ctl_exits_enabled(True)  # an `until` address would be probed: CR2 and Accessed bits change
        self._handle = self._uc._uch  # noqa: SLF001 - the binding passes it to every call
        self._keep: list[object] = []
        super().__init__(self._locate())
        self._counter_address = self._handle.value + _COUNTER_IN_UC
        self._counter = ctypes.c_uint64.from_address(self._counter_address)
        self.find_efer(int(self._uc.msr_read(MSR_EFER)), self._toggle_efer)
        self._failure: BaseException | None = None
        self.on_flushed: Callable[[], None] = lambda: None
        self._env = ctypes.c_void_p(self._address)
        self._code_ranges: list[tuple[int, int, int]] = []
        self.memory: list[tuple[int, int, int, int]] = []  # the engine's number, bytes, physical and host address

    # ---- the private state -------------------------------------------------------------------------------------

    def _locate(self) -> int:
        for register, marker in zip(_MARKED, MARKERS, strict=True):
            self._uc.reg_write(register, marker)
        address, Binding._path = locate(self._handle.value, Binding._path, self._is_live)
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

    def map_scratch(self, page: int, code: bytes) -> None:
        """Memory of the engine's own with ``code`` in it, for a calibration."""
        self._uc.mem_map(page, 0x1000)
        self._uc.mem_write(page, code)

    def unmap_scratch(self, page: int) -> None:
        """Undo :meth:`map_scratch`."""
        self._uc.mem_unmap(page, 0x1000)

    def read_public(self, register: str) -> object:
        """A register through the public API, by Unicorn's name."""
        value: object = self._uc.reg_read(getattr(x86_const, f"UC_X86_REG_{register}"))
        return value

    def write_public(self, register: str, value: object) -> None:
        """Set a register through the public API."""
        self._uc.reg_write(getattr(x86_const, f"UC_X86_REG_{register}"), value)

    # ---- hooks -------------------------------------------------------------------------------------------------

    def _hook(self, kind: int, callback: object, begin: int = 1, end: int = 0, *more: object) -> int:
        handle = ctypes.c_size_t()
        status = _LIB.uc_hook_add(
            self._handle, ctypes.byref(handle), kind, callback, None,
            ctypes.c_uint64(begin), ctypes.c_uint64(end), *more,
        )  # fmt: skip
        if status:
            raise EngineError(f"uc_hook_add failed with status {status}")
        return handle.value

    def _entered(self) -> None:
        """The engine calls us, or has come back: whatever host code did meanwhile is to be made good first."""

    def _guarded(self, function: Callable[..., _Answer], answer: _Answer) -> Callable[..., _Answer]:
        """An exception inside a callback (Ctrl-C too) cannot cross the C frames: it is raised after the stop."""

        def call(*arguments: object) -> _Answer:
            try:
                self._entered()
                return function(*arguments)
            except BaseException as failure:  # noqa: BLE001 - raised again behind the run
                self._failure = failure
                self._halt()
                return answer

        return call

    def _unhook(self, handle: int) -> None:
        cr2 = self.cr(2)  # as in forget_code
        _LIB.uc_hook_del(self._handle, ctypes.c_size_t(handle))
        self.set_cr(2, cr2)

    def _unhook_quietly(self, *handles: int) -> None:
        """:meth:`_unhook` of these and of the engine's own count, with no trace in the guest's page tables.

        The engine looks up the code that a hook was in.  Every translated block has to be dropped afterwards.
        """
        count = ctypes.c_size_t.from_address(self._counter_address - 8)
        cr0 = self.cr(0)
        self.set_cr(0, cr0 & ~Cr0.PG)
        for handle in (*handles, count.value):
            if handle:
                self._unhook(handle)
        count.value = 0
        self.set_cr(0, cr0)
        if cr0 & Cr0.PG:
            self.flush_tlb()

    def _kept(self, wrapped: object) -> object:
        """C keeps the address of ``wrapped`` only."""
        self._keep.append(wrapped)
        return wrapped

    def _hook_code(self, begin: int, end: int, callback: object) -> int:
        return self._hook(unicorn_const.UC_HOOK_CODE, callback, begin, end)

    def _hook_all_code(self, routine: int, argument: int) -> int:
        """Call host code at ``routine`` before every instruction, ``argument`` being its fourth argument."""
        return self._hook_host(unicorn_const.UC_HOOK_CODE, routine, argument)

    def _hook_host(self, kind: int, routine: int, argument: int, begin: int = 1, end: int = 0) -> int:
        handle = ctypes.c_size_t()
        status = _LIB.uc_hook_add(
            self._handle, ctypes.byref(handle), kind, ctypes.c_void_p(routine), ctypes.c_void_p(argument),
            ctypes.c_uint64(begin), ctypes.c_uint64(end),
        )  # fmt: skip
        if status:
            raise EngineError(f"uc_hook_add failed with status {status}")
        return handle.value

    def _code_callback_of(self, function: Callable[[object, int, int, object], None]) -> Any:  # noqa: ANN401 - a C callback
        return self._kept(_CODE_HOOK(self._guarded(function, None)))

    def _hook_blocks(self, routine: int, argument: int) -> int:
        """Call the host routine at address ``routine`` before each block, with ``argument`` as its fourth argument."""
        return self._hook_host(unicorn_const.UC_HOOK_BLOCK, routine, argument)

    def _hook_access(
        self, begin: int, end: int, function: Callable[[object, int, int, int, int, object], None], *, write: bool
    ) -> int:
        kind = unicorn_const.UC_HOOK_MEM_WRITE if write else unicorn_const.UC_HOOK_MEM_READ
        return self._hook(kind, self._kept(_WRITE_HOOK(self._guarded(function, None))), begin, end)

    def _hook_stores(self, routine: int, argument: int) -> int:
        """Call host code at ``routine`` before every store, ``argument`` being its sixth argument."""
        return self._hook_host(unicorn_const.UC_HOOK_MEM_WRITE, routine, argument)

    def _hook_reads(self, routine: int, argument: int) -> int:
        """The same before every read."""
        return self._hook_host(unicorn_const.UC_HOOK_MEM_READ, routine, argument)

    def _store_callback_of(self, function: Callable[..., None]) -> int:
        """The host address of a callback for host code that :meth:`_hook_stores` or :meth:`_hook_reads` calls."""
        callback: Any = self._kept(_WRITE_HOOK(self._guarded(function, None)))
        return ctypes.cast(callback, ctypes.c_void_p).value or 0

    def _new_block_callback_of(self, function: Callable[[object, BlockPointer, object, object], None]) -> object:
        return self._kept(_EDGE_HOOK(self._guarded(function, None)))

    def _hook_new_blocks(self, callback: object) -> int:
        return self._hook(unicorn_const.UC_HOOK_EDGE_GENERATED, callback)

    def _hook_exceptions(
        self, interrupt: Callable[[object, int, object], None], undefined: Callable[[object, object], bool]
    ) -> None:
        self._uc.hook_add(unicorn_const.UC_HOOK_INTR, self._guarded(interrupt, None))
        self._uc.hook_add(unicorn_const.UC_HOOK_INSN_INVALID, self._guarded(undefined, answer=True))

    def hook_ports(self, read: Callable[[int, int], int], write: Callable[[int, int, int], None]) -> None:
        """``read(port, size)`` and ``write(port, size, value)`` serve IN/INS and OUT/OUTS."""
        reader = self._guarded(lambda _uc, port, size, _data: read(port, size), 0)
        writer = self._guarded(lambda _uc, port, size, value, _data: write(port, size, value), None)
        for callback, instruction in (
            (_IN_HOOK(reader), x86_const.UC_X86_INS_IN),
            (_OUT_HOOK(writer), x86_const.UC_X86_INS_OUT),
        ):
            self._hook(unicorn_const.UC_HOOK_INSN, self._kept(callback), 1, 0, ctypes.c_int(instruction))

    # ---- gates -------------------------------------------------------------------------------------------------

    def find_call_msrs(self) -> None:
        """:meth:`kept_msr` knows the MSRs of system calls from now on."""
        self.find_msrs(_CALL_MSRS, self.set_msr)

    @property
    def library(self) -> ctypes.CDLL:
        """The engine's library (:mod:`emu.machine.gates`)."""
        library: ctypes.CDLL = _LIB
        return library

    def guarded(self, function: Callable[..., object]) -> Callable[..., object]:
        """``function`` as C code may call it: what it raises is raised behind the run."""
        return self._guarded(function, 0)

    def addresses_of(self, names: Iterable[str]) -> dict[str, int]:
        """Host addresses of functions of the library by name, 0 where it has none of that name."""
        found = {}
        for name in names:
            function = getattr(_LIB, name, None)
            found[name] = 0 if function is None else ctypes.cast(function, ctypes.c_void_p).value or 0
        return found

    def load_cr3(self, value: int) -> None:
        """What MOV to CR3 does, unchecked: translations are dropped."""
        _LIB.cpu_x86_update_cr3_x86_64(ctypes.c_void_p(self._address), ctypes.c_uint64(value))

    # ---- memory ------------------------------------------------------------------------------------------------

    def map_ram(self, physical: int, size: int, host: int, *, rom: bool = False) -> None:
        """Back physical addresses by host memory at ``host``; ``rom`` drops stores after telling nobody.

        Only while paging is off: that is when the engine can be asked where it keeps track of code in this memory.
        """
        rights = unicorn_const.UC_PROT_READ | unicorn_const.UC_PROT_EXEC
        self._uc.mem_map_ptr(physical, size, rights if rom else unicorn_const.UC_PROT_ALL, host)
        offset = _LIB.get_page_addr_code_x86_64(self._env, ctypes.c_uint64(physical))
        self._code_ranges.append((physical, physical + size, offset))
        self.memory.append((offset, size, physical, host))
        self.flush_tlb()

    def invalidate_code(self, physical: int, size: int) -> None:
        """Drop the translated blocks of a physical range (the host wrote there); also inside a callback.

        A block that is being executed runs to its end.
        """
        for start, end, offset in self._code_ranges:
            first, behind = max(start, physical), min(end, physical + size)
            if first < behind:
                shift = offset - start
                _LIB.tb_invalidate_phys_range_x86_64(
                    self._handle, ctypes.c_uint64(first + shift), ctypes.c_uint64(behind + shift)
                )

    def map_hole(
        self, physical: int, size: int, read: Callable[[int, int], int], write: Callable[[int, int, int], None]
    ) -> None:
        """``read(physical, size)`` and ``write(physical, size, value)`` serve a hole, page walks included."""
        reader = self._guarded(lambda _uc, offset, length, _data: read(physical + offset, length), 0)
        writer = self._guarded(lambda _uc, offset, length, value, _data: write(physical + offset, length, value), None)
        self._uc.mmio_map(physical, size, reader, None, writer, None)

    def _protected_callback_of(self, function: Callable[[object, int, int, int, int, object], bool]) -> int:
        """The host address of a callback for host code that :meth:`_hook_protected` calls."""
        callback: Any = self._kept(_PROTECTED_HOOK(self._guarded(function, answer=True)))
        return ctypes.cast(callback, ctypes.c_void_p).value or 0

    def _hook_protected(self, routine: int, argument: int, begin: int = 1, end: int = 0) -> None:
        """Call host code at ``routine`` before a store into ROM, RIP at the instruction; 1 lets the store happen."""
        self._hook_host(unicorn_const.UC_HOOK_MEM_WRITE_PROT, routine, argument, begin, end)

    def flush_code(self) -> None:
        """Drop every translated block (after a host write over executed bytes)."""
        self._uc.ctl_flush_tb()
        self.on_flushed()

    def forget_code(self, linear: int, size: int) -> None:
        """Drop translated blocks at a linear range under the present mapping; nothing where it is not mapped."""
        cr2 = self.cr(2)  # the engine looks the address up as a fetch would, and leaves the fault of a miss behind
        try:
            self._uc.ctl_remove_cache(linear, linear + size)
        except UcError:
            self.flush_code()
        self.set_cr(2, cr2)

    def flush_tlb(self) -> None:
        """Drop every cached translation (after a host write to page tables, or a restored context)."""
        self._uc.ctl(unicorn_const.UC_CTL_TLB_FLUSH, 1)

    # ---- running -----------------------------------------------------------------------------------------------

    def _start(self, count: int) -> int:
        """Run from RIP on; the answer is the engine's status, 0 for none."""
        status: int = _LIB.uc_emu_start(
            self._handle, ctypes.c_uint64(self.rip), ctypes.c_uint64(0), ctypes.c_uint64(0), ctypes.c_size_t(count)
        )
        return status

    def _halt(self) -> None:
        self._uc.emu_stop()

    def _set_exits(self, exits: list[int]) -> None:
        self._uc.ctl_set_exits(exits)

    @staticmethod
    def _meaning(status: int) -> str:
        return str(UcError(status))

    def _start_bare(self, until: int) -> int:
        """Run to linear ``until`` without a count."""
        self._uc.ctl_exits_enabled(enable=False)
        status: int = _LIB.uc_emu_start(
            self._handle, ctypes.c_uint64(self.rip), ctypes.c_uint64(until), ctypes.c_uint64(0), ctypes.c_size_t(0)
        )
        return status

    def _start_bare_for(self, count: int) -> int:
        """Run ``count`` instructions and iterations, or to the first exception."""
        status: int = _LIB.uc_emu_start(
            self._handle, ctypes.c_uint64(self.rip), ctypes.c_uint64(0), ctypes.c_uint64(0), ctypes.c_size_t(count)
        )
        return status

    # ---- registers that only public calls reach ------------------------------------------------------------------

    @property
    def rflags(self) -> int:
        """RFLAGS with its lazily computed arithmetic flags."""
        return self.other_flags | int(_LIB.cpu_cc_compute_all_x86_64(self._env, self.flags_form))

    @rflags.setter
    def rflags(self, value: int) -> None:
        self.load_flags(value)

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

    def put_fpu_sse(self, state: Mapping[str, int]) -> None:
        """Set what :meth:`fpu_sse` gave, but the x87 stack: see :attr:`x87_stack`."""
        for name, register in _FPU_SSE:
            if not name.startswith("st"):
                self._uc.reg_write(register, state[name])

    @property
    def x87_stack(self) -> tuple[tuple[int, int], ...]:
        """The eight x87 registers as they lie, whatever the top of stack: (significand, sign and exponent)."""
        return tuple(self._uc.reg_read(x86_const.UC_X86_REG_FP0 + index) for index in range(8))

    @x87_stack.setter
    def x87_stack(self, values: tuple[tuple[int, int], ...]) -> None:
        for index, value in enumerate(values):
            self._uc.reg_write(x86_const.UC_X86_REG_FP0 + index, value)

    def reset_fpu(self) -> None:
        """x87 control, status and tag word and MXCSR as after reset, SDM 3A table 10-1; the engine has zeros."""
        for register, value in zip(_FPU_CONTROL, (0x40, 0, 0x5555, 0x1F80), strict=True):
            self._uc.reg_write(register, value)

    def settle(self) -> None:
        """Make the translator follow registers set one by one (:meth:`set_cr`, :meth:`set_segment`, efer)."""
        self.digest(self.system_flags)

    def close(self) -> None:
        """Give the engine's memory back; nothing but another call of this may follow."""
        if self._address:
            self._address, self._view = 0, memoryview(b"")
            self._keep.clear()
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

    def put_cr(self, number: int, value: int) -> None:
        """Do what the engine's own MOV to CR0, CR3 or CR4 does: mode and translations follow, nothing is checked."""
        _UPDATES[number](self._env, ctypes.c_uint64(value))

    def _update_dr7(self, value: int) -> None:
        _LIB.cpu_x86_update_dr7_x86_64(ctypes.c_void_p(self._address), ctypes.c_uint32(value))
