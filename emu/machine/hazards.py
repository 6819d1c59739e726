"""Things that hardware may or may not do, and that code must not lean on (strict machines only).

Stale translations: after a CR3 load with CR4.PGE=1, global translations of the old tables may still be cached, and so
may their rights.  From then until PGE is cleared, every access to a linear page whose old global translation differs
from the new one is a hazard.  Such a window is a few instructions long; inside it the machine looks at each
instruction, outside it costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emu.assembler.lengths import memory_operands
from emu.machine.events import Hazard, Position
from emu.machine.modified_code import ModifiedCode, Stored
from emu.machine.ram import Ram
from emu.units import PAGE_MASK, PAGE_SHIFT
from emu.x86.bits import Cr4
from emu.x86.paging import Mapping, PagingMode, PagingState, mappings, merge, mode_of

if TYPE_CHECKING:
    from emu.machine.machine import Machine


@dataclass(frozen=True, slots=True)
class _Stale:
    """Linear ``start`` .. ``end`` whose cached translation may be another; ``only`` names the one access hurt."""

    start: int
    end: int
    why: str
    only: str


class _Tables:
    """Page tables, each fetched once."""

    def __init__(self, ram: Ram) -> None:
        self._ram = ram
        self.pages: dict[int, bytes] = {}

    def table(self, address: int) -> bytes:
        """The page at physical ``address``."""
        page = self.pages.get(address >> PAGE_SHIFT)
        if page is None:
            page = self.pages[address >> PAGE_SHIFT] = self._ram.page(address >> PAGE_SHIFT)
        return page

    def entry(self, address: int, size: int) -> int:
        """An entry of ``size`` bytes at physical ``address``."""
        offset = address & PAGE_MASK
        return int.from_bytes(self.table(address)[offset : offset + size], "little")


@dataclass(frozen=True, slots=True)
class HazardState:
    """The windows that are open, what was said of them, the last serialising instruction, and what was stored since.

    ``serial`` is (tick, pc, position); ``stored`` goes by page frame.
    """

    stale: tuple[_Stale, ...]
    said: frozenset[tuple[str, _Stale]]
    serial: tuple[int, int, Position]
    stored: dict[int, tuple[Stored, ...]]


class Hazards:
    """The windows that are open now, for one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._old: list[Mapping] = []
        self._listed: dict[PagingState, tuple[dict[int, bytes], list[Mapping]]] = {}
        self._stale: list[_Stale] = []
        self._window: int | None = None
        self._serial_from = 0
        self._said: set[tuple[str, _Stale]] = set()
        self.serial = 0
        self.serial_pc = 0
        self.serial_position = machine.count.position(0)
        self.code = ModifiedCode(machine)

    @property
    def state(self) -> HazardState:
        """All of it, as a value."""
        serial = (self.serial, self.serial_pc, self.serial_position)
        return HazardState(tuple(self._stale), frozenset(self._said), serial, self.code.state)

    @state.setter
    def state(self, state: HazardState) -> None:
        self._close()
        self._stale, self._said = list(state.stale), set(state.said)
        self.serial, self.serial_pc, self.serial_position = state.serial
        self.code.state = state.stored
        if self._stale:
            self._window = self._machine.watch_instructions(self._look)

    @property
    def watching(self) -> bool:
        """True while each instruction is looked at."""
        return bool(self._stale)

    def serialised(self) -> None:
        """A serialising instruction retired: fetch sees every earlier store."""
        machine = self._machine
        self.code.serialised()
        self.serial = machine.count.ticks
        self.serial_pc = self._serial_from
        self.serial_position = machine.count.position(0)

    def serialised_at(self, position: Position, tick: int, pc: int) -> None:
        """A serialising instruction at linear ``pc`` has retired, or is certain to; the boundary behind it."""
        self.code.serialised()
        self.serial, self.serial_pc, self.serial_position = tick, pc, position

    def before_serialising(self) -> None:
        """A serialising instruction is next: remember where it is."""
        self._serial_from = self._machine.cpu.pc

    def before_control_write(self, number: int) -> None:
        """CR ``number`` is about to be written: remember what the old tables made global."""
        machine = self._machine
        self._old = []
        if machine.strict and number == 3 and machine.cpu.pge() and self._paging() is not PagingMode.NONE:
            self._old = [one for one in self._mapped() if one.rights.is_global]

    def _mapped(self) -> list[Mapping]:
        """All runs that the present tables map; tables listed before that did not change are not listed again."""
        ram, state = self._machine.ram, self._machine.cpu.paging()
        pages, runs = self._listed.get(state, ({}, []))
        if not pages or any(ram.page(pfn) != content for pfn, content in pages.items()):
            tables = _Tables(ram)
            runs = list(merge(mappings(tables.entry, state, read_table=tables.table)))
            self._listed[state] = tables.pages, runs
        return runs

    def _paging(self) -> PagingMode:
        cpu = self._machine.cpu
        return mode_of(cpu.cr0, cpu.cr4, cpu.efer)

    def after_control_write(self, number: int, old: int, new: int) -> None:
        """CR ``number`` was written: open or close the window."""
        if not self._machine.strict:
            return
        if number == 3 and self._old:
            self._open()
        elif number == 0 or (number == 4 and (old ^ new) & Cr4.PGE):
            self._close()

    def _open(self) -> None:
        for new in self._mapped():
            for old in self._old:
                start, end = max(old.linear, new.linear), min(old.linear + old.size, new.linear + new.size)
                if start < end:
                    self._compare(start, end, old, new)
        self._old = []
        if self._stale and self._window is None:
            self._window = self._machine.watch_instructions(self._look)

    def _compare(self, start: int, end: int, old: Mapping, new: Mapping) -> None:
        was, now = old.physical + start - old.linear, new.physical + start - new.linear
        if was != now:
            self._stale.append(_Stale(start, end, f"old global entry maps p:{was:#x}, new tables p:{now:#x}", ""))
            return
        if new.rights.writable and not old.rights.writable:
            self._stale.append(_Stale(start, end, "old global entry is read-only, new tables writable", "write"))
        if new.rights.executable and not old.rights.executable:
            self._stale.append(_Stale(start, end, "old global entry is not executable, new tables are", "fetch"))

    def _close(self) -> None:
        self._stale.clear()
        if self._window is not None:
            self._machine.unwatch_instructions(self._window)
            self._window = None

    def _look(self, linear: int) -> None:
        """Before the instruction at ``linear``: report a fetch, read or write through a stale page."""
        machine = self._machine
        self._use(linear, "fetch")
        code = machine.cpu.peek(linear, 15) or b""
        for address, size, kind in memory_operands(code, machine.cpu.bits, machine.cpu.engine.gpr, linear):
            self._use(address, kind)
            self._use(address + size - 1, kind)

    def _use(self, linear: int, kind: str) -> None:
        machine = self._machine
        for stale in self._stale:
            if stale.start <= linear < stale.end and stale.only in ("", kind) and (kind, stale) not in self._said:
                self._said.add((kind, stale))
                machine.emit(Hazard(*machine.here(), "stale global translation", f"{kind} at {linear:#x}: {stale.why}"))
