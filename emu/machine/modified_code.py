"""Code that is fetched before the processor must have seen that it changed (strict machines only; SDM 3A 9.1.3).

Bytes stored through one linear address and fetched through another, or stored by a device, need a serialising
instruction between; bytes stored through the address that they are fetched from need a branch.  String instructions
and devices are heard of here, and plain stores where they change the block that they run in: these are the ways in
which code comes to be in a kexec.  The check is made when a block is translated: it costs nothing where no code is new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from emu.assembler.lengths import lengths, line_size, memory_operands
from emu.machine.events import Hazard
from emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, show_phys

if TYPE_CHECKING:
    from emu.machine.machine import Machine

_BY_DEVICE = -1
_FAR_ENOUGH = 256
ALIAS, NO_BRANCH = "fetch of code stored through another address", "fetch of code stored with no branch since"


class Stored(NamedTuple):
    """Bytes ``low`` .. ``high`` (behind the last) of a page, stored through linear page number ``through``."""

    through: int
    low: int
    high: int


class ModifiedCode:
    """What was stored since the last serialising instruction, by page frame."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._stored: dict[int, tuple[Stored, ...]] = {}
        self._moves = machine.engine.moves

    def _catch_up(self) -> None:
        """Take over what host code wrote down: rarely, since mostly it is void before anybody asks."""
        for physical, size, linear in self._moves.told():
            self._store(physical, size, linear >> PAGE_SHIFT)

    @property
    def state(self) -> dict[int, tuple[Stored, ...]]:
        """A copy."""
        self._catch_up()
        return dict(self._stored)

    @state.setter
    def state(self, state: dict[int, tuple[Stored, ...]]) -> None:
        self._moves.void()
        self._stored = dict(state)

    def serialised(self) -> None:
        """Every earlier store is seen by every later fetch."""
        self._moves.void()
        self._stored.clear()

    def stored(self, physical: int, size: int, linear: int) -> None:
        """The processor stored ``size`` bytes of one page through ``linear``."""
        if not self._moves.note(physical, size, linear):
            self._catch_up()
            self._store(physical, size, linear >> PAGE_SHIFT)

    def stored_by_device(self, physical: int, size: int) -> None:
        """A device stored ``size`` bytes."""
        self._catch_up()
        while size > 0:
            step = min(size, PAGE_SIZE - (physical & PAGE_MASK))
            self._store(physical, step, _BY_DEVICE)
            physical, size = physical + step, size - step

    def _store(self, physical: int, size: int, through: int) -> None:
        low = physical & PAGE_MASK
        before = self._stored.get(physical >> PAGE_SHIFT)
        if before is None or size == PAGE_SIZE or before == ((through, low, low + size),):
            self._stored[physical >> PAGE_SHIFT] = (Stored(through, low, low + size),)
            return
        high, kept = low + size, []
        for old in before:
            if old.through == through and old.low <= high and low <= old.high:
                low, high = min(low, old.low), max(high, old.high)
            elif not low <= old.low < old.high <= high:
                kept.append(old)
        self._stored[physical >> PAGE_SHIFT] = (*kept, Stored(through, low, high))

    def fetched(self, linear: int, physical: int, size: int) -> None:
        """Code at ``linear``, ``size`` bytes of one page, was translated and runs next."""
        if self._moves.tells_of(physical >> PAGE_SHIFT):
            self._catch_up()
        low = physical & PAGE_MASK
        for store in self._stored.get(physical >> PAGE_SHIFT, ()):
            if store.through == linear >> PAGE_SHIFT or store.high <= low or low + size <= store.low:
                continue
            through = store.through << PAGE_SHIFT | store.low
            how = "by a device" if store.through == _BY_DEVICE else f"through {through:#x}"
            self._say(ALIAS, f"{show_phys(physical)} at {linear:#x} was stored {how}, and nothing serialised since")
            return

    def own_block(self, linear: int) -> None:
        """The instruction at ``linear`` stores into the block that holds it."""
        cpu = self._machine.cpu
        code = cpu.peek(linear, _FAR_ENOUGH) or b""
        behind, end = linear + next(iter(lengths(code[:15], cpu.bits)), 0), linear + line_size(code, cpu.bits)
        for address, size, kind in memory_operands(code[:15], cpu.bits, cpu.engine.gpr, linear):
            if kind == "write" and address < end and behind < address + size:
                self._say(NO_BRANCH, f"{address:#x} is stored by the instruction at {linear:#x}, no branch between")

    def _say(self, kind: str, detail: str) -> None:
        machine = self._machine
        if machine.strict:
            machine.emit(Hazard(*machine.here(), kind, detail))
