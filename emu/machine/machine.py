"""The machine: processor, memory, devices and virtual time, wired; its events, its state as a value.

What happens while it runs is in :mod:`emu.machine.loop`.  The same run gives the same events, tick by tick, always.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from emu.kexec.e820 import MemoryMap
from emu.machine import events as ev
from emu.machine.breakpoints import Breakpoints
from emu.machine.code import CodeMap
from emu.machine.counting import Counting, CountState
from emu.machine.cpu import PDPT_PAGE, Cpu, CpuSnapshot
from emu.machine.devices.board import Board, pc_devices
from emu.machine.devices.clock import Clock
from emu.machine.devices.signals import ConsoleLine, DeviceSignal, ExitRequest, HostRequest, ResetRequest
from emu.machine.engine import Engine
from emu.machine.faults import Faults
from emu.machine.hazards import Hazards, HazardState
from emu.machine.instructions import Instructions, InstructionState
from emu.machine.loop import Loop
from emu.machine.owners import Owner, Owners
from emu.machine.passing import Passing
from emu.machine.policy import Policy
from emu.machine.ram import ROM_RANGES, Ram, RamSnapshot
from emu.machine.straddling import pieces
from emu.machine.watches import Touched, Watches
from emu.units import PAGE_SHIFT, PAGE_SIZE
from emu.x86.bits import PHYS_MASK
from emu.x86.delivery import EventKind


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
    ``tells_all``: control writes that the engine does, ports and holes are events too, and not only exceptions.
    """

    def __init__(
        self,
        memory_map: MemoryMap,
        *,
        strict: bool = True,
        plain_strings: bool = False,
        roms: Iterable[tuple[int, int]] = ROM_RANGES,
    ) -> None:
        self.memory_map = memory_map
        self.strict = strict
        self.plain_strings = plain_strings
        self.engine = Engine()
        self.ram = Ram(memory_map, roms)
        self._pdpt = mmap.mmap(-1, PAGE_SIZE)
        self.cpu = Cpu(self.engine, self.ram, memoryview(self._pdpt))
        self.clock = Clock()
        self.board: Board = pc_devices(self.clock, dma_write=self._dma, signal=self._signal)
        self.count = Counting(self.engine.meter)
        self.owners = Owners()
        self.policy = Policy(self)
        self.breaks = Breakpoints(self.engine)
        self.code = CodeMap(self.cpu, self.engine, self.breaks)
        self.faults = Faults(self)
        self.instructions = Instructions(self)
        self.hazards = Hazards(self)
        self.events: list[ev.Event] = []
        self.listeners: list[Callable[[ev.Event], None]] = []
        self.watches = Watches(self)
        self._device = ""
        self.nmi_pending = False
        self.tells_all = True
        self.deliveries = 0
        self.passing = Passing(self)
        self.loop = Loop(self)
        self._cold = self.board.bus.snapshot(), self.hazards.state, self.cpu.msrs()
        self.careful([])
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
        self._hear_of_rom()
        self.engine.hook_ports(self.instructions.port_read, self.instructions.port_write)
        self.engine.on_intercept = self.loop.on_intercept
        self.engine.on_new_code = self.code.scan
        self.engine.on_set_aside = self.code.needed
        self.engine.on_flushed = self.code.dropped
        self.engine.stores = self.code.stores
        self.engine.on_own_block = self._own_block
        self.code.on_fetch = self.hazards.code.fetched
        self.cpu.on_store = self.policy.processor_store
        self.ram.on_host_write = self._host_wrote
        self.engine.on_spans(self._spans, self.watches.spanned)
        self.engine.on_stale = self._translations_stale

    def _hear_of_rom(self) -> None:
        self.engine.on_rom_write(self._rom_write)

    @property
    def silent(self) -> bool:
        """Nobody wants to hear of control instructions that the engine does by itself."""
        return not (self.strict or self.tells_all)

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
        self.passing.settle()
        self.events.append(event)
        for listener in self.listeners:
            listener(event)

    def _bus_error(self, address: int, size: int, access: str) -> None:
        self.sync_time()
        self.emit(ev.BusError(*self.here(), address, size, access))

    def _hole_read(self, address: int, size: int) -> int:
        if not self.silent:
            self._bus_error(address, size, "read of a hole")
        return (1 << 8 * size) - 1

    def _hole_write(self, address: int, size: int, _value: int) -> None:
        if not self.silent:
            self._bus_error(address, size, "store into a hole")

    def _rom_write(self, address: int, size: int, _value: int) -> None:
        """The engine is about to store into ROM all the same: the run ends behind the store, and it is undone."""
        self._bus_error(address, size, "store into ROM")
        self.loop.undo.append((address, self.ram.read(address, size)))
        self.engine.end_behind()

    def _own_block(self, linear: int) -> None:
        self.sync_time()
        self.hazards.code.own_block(linear)

    def _signal(self, signal: DeviceSignal) -> None:
        match signal:
            case ExitRequest(status):
                self.loop.outcome = ev.Exited(status)
            case HostRequest(value):
                self.loop.outcome = ev.HostCall(value)
            case ResetRequest():
                self.loop.outcome = ev.ResetAsked()
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
        """Run until something ends it: see :meth:`emu.machine.loop.Loop.run`."""
        return self.loop.run(ticks, instructions=instructions, until_delivery=until_delivery)

    def step(self) -> ev.Outcome | None:
        """Retire exactly one instruction (all iterations of a repeated one), or enter one handler; else the outcome."""
        return self.loop.step()

    def stop(self, outcome: ev.Outcome) -> None:
        """End the present run with ``outcome`` at the next boundary; also from inside a callback of the engine."""
        self.loop.stop(outcome)

    def sync_time(self) -> None:
        """Inside an engine callback: bring ``count`` up to the instruction at hand."""
        self.loop.sync_time()

    def inject_nmi(self) -> None:
        """An NMI arrives now; it is taken at the next boundary where the processor takes one."""
        self.nmi_pending = True
        self.engine.meter.calm = 0

    def inject_irq(self, vector: int) -> None:
        """An external interrupt with ``vector`` is taken at this boundary, whatever IF says (a debugger's tool)."""
        self.faults.interrupt(vector, EventKind.EXTERNAL)

    def raise_fault(self, vector: int, error_code: int | None, *, cr2: int | None = None, reason: str = "") -> None:
        """Deliver an exception for the instruction at RIP; ``reason`` says which rule of ours it broke."""
        self.faults.raise_fault(vector, error_code, cr2=cr2, reason=reason)

    # ---- breakpoints and memory --------------------------------------------------------------------------------

    def break_at(self, linear: int) -> None:
        """Stop before the instruction at ``linear``."""
        self.breaks.break_at(linear)

    def clear_break(self, linear: int) -> None:
        """Forget a breakpoint."""
        self.breaks.clear_break(linear)

    def break_in(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Stop before the first instruction that begins in any linear range (first, last), both inclusive."""
        self.breaks.break_in(ranges)

    def break_outside(self, pages: Iterable[int]) -> None:
        """Stop before the first instruction that begins in none of the 4 KiB pages at linear ``pages``."""
        self.breaks.break_outside(pages)

    def clear_break_in(self) -> None:
        """Forget the ranges of :meth:`break_in` and :meth:`break_outside`."""
        self.breaks.clear_break_in()

    def watch_instructions(self, look: Callable[[int], None]) -> int:
        """Call ``look(linear)`` before every instruction, at a cost per instruction; the answer ends it."""
        return self.breaks.watch_instructions(look)

    def unwatch_instructions(self, handle: int) -> None:
        """End :meth:`watch_instructions`."""
        self.breaks.unwatch_instructions(handle)

    def careful(self, runs: Iterable[tuple[int, int]], *, always: bool = False) -> None:
        """Host code leaves stores into these runs of page frames (first, behind the last) to us, and those into ROM.

        On a machine that is not strict the runs do not matter, unless ``always`` says so.
        """
        rom = [(bank.start >> PAGE_SHIFT, bank.end >> PAGE_SHIFT) for bank in self.ram.banks if bank.rom]
        self.engine.moves.be_careful(self.ram.banks[-1].end >> PAGE_SHIFT, runs if self.strict or always else (), rom)

    def _translations_stale(self) -> None:
        self.cpu.forget_translations()
        self.code.forget()

    def _spans(self, physical: int, size: int) -> None:
        for piece in pieces(self.engine, self.cpu, physical, size):
            self.engine.moves.touch(piece.physical, piece.size)

    def _host_wrote(self, address: int, data: bytes) -> None:
        self.code.overwritten(address, len(data))
        self.engine.moves.touch(address, len(data))
        self.watches.host_stored(address, data)

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

    def power_cycle(self) -> None:
        """Devices and processor as at power-on; what RAM then holds, and where the processor starts, is the caller's.

        Time and positions go on: they count from the first power-on.
        """
        devices, self.hazards.state, msrs = self._cold
        self.board.bus.restore(devices)
        self.cpu.power_on(msrs)
        self.nmi_pending = False
        self.flush_translations()

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
        self.code.take_back()

    def close(self) -> None:
        """Give all memory of the host back.  Only another close may follow."""
        self.listeners.clear()
        self.engine.close()
        self.ram.close()
