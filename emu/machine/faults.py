"""Exceptions and interrupts of a running machine: what the engine reports, put right and delivered by our own rules.

The engine never delivers anything.  It tells a vector; where it counts or places a fault otherwise than the
processor does, the difference is made good here, before the event reaches the guest's tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from emu.assembler.lengths import lengths, memory_operands
from emu.machine import events as ev
from emu.machine.cpu import FETCH, Cpu
from emu.machine.stops import EngineStop, StopKind
from emu.units import PAGE_MASK, PAGE_SIZE
from emu.x86.bits import U64, Cr4, Dr6, Efer
from emu.x86.delivery import Delivered, Event, EventKind, NotModelled, deliver
from emu.x86.exceptions import Vector, has_error_code
from emu.x86.paging import is_canonical

if TYPE_CHECKING:
    from emu.machine.machine import Machine

_SOFTWARE: dict[int, EventKind] = {Vector.BP: EventKind.INT3, Vector.OF: EventKind.INTO}
_PREFIXES = frozenset({0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2, 0xF3, *range(0x40, 0x50)})
_INSTRUCTION = 0x10
"""I/D of a page fault's error code, where no-execute or SMEP is on (SDM 3A 4.7)."""


@dataclass(frozen=True, slots=True)
class _Branch:
    """A near branch at linear ``address``; ``stack`` is what has to be added to RSP to undo it."""

    address: int
    stack: int


class _Sight:
    """Linear memory as it is at one instant: each page is looked up once."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self._pages: dict[int, int | None] = {}

    def peek(self, linear: int, size: int) -> bytes:
        """Like :meth:`Cpu.peek`."""
        page, offset = linear & ~PAGE_MASK, linear & PAGE_MASK
        if offset + size > PAGE_SIZE:
            return self._cpu.peek(linear, size) or b""
        if page not in self._pages:
            self._pages[page] = self._cpu.seen(page)
        physical = self._pages[page]
        return b"" if physical is None else self._cpu.ram.read(physical + offset, size)

    def word(self, linear: int) -> int | None:
        """A quadword on a stack."""
        raw = self.peek(linear & U64, 8)
        return int.from_bytes(raw, "little") if len(raw) == 8 else None


@lru_cache(maxsize=1024)
def _form(code: bytes) -> tuple[int, int, bytes, int]:
    """Of the first instruction: its size, where its opcode is, the opcode, and the middle field of a ModRM byte."""
    size = next(iter(lengths(code, 64)), 0)
    at = next((index for index, byte in enumerate(code[:size]) if byte not in _PREFIXES), 0)
    return size, at, code[at : at + 1], code[at + 1] >> 3 & 7 if size > at + 1 else 0


def _branch(cpu: Cpu, sight: _Sight, address: int) -> _Branch | None:
    """The near indirect branch at ``address``, if it is one that would have led to where RIP is now."""
    code = sight.peek(address, 15)
    size, at, opcode, modrm = _form(code)
    if opcode in (b"\xc2", b"\xc3"):
        taken = 8 + (int.from_bytes(code[at + 1 : at + 3], "little") if opcode == b"\xc2" else 0)
        return _Branch(address, -taken) if sight.word(cpu.rsp - taken) == cpu.rip else None
    if opcode == b"\xff" and modrm == 2:
        return _Branch(address, 8) if sight.word(cpu.rsp) == address + size else None
    if opcode == b"\xff" and modrm == 4 and _target(cpu, sight, code[:size], at + 1, address) == cpu.rip:
        return _Branch(address, 0)
    return None


def _target(cpu: Cpu, sight: _Sight, code: bytes, at: int, address: int) -> int | None:
    """Where JMP r/m with its ModRM byte at ``at`` goes; segment overrides are left out."""
    if code[at] >> 6 == 3:
        extended = at > 1 and code[at - 2] & 0xF1 == 0x41
        return cpu.engine.gpr(code[at] & 7 | (8 if extended else 0))
    place = next(memory_operands(code, 64, cpu.engine.gpr, address), None)
    return None if place is None else sight.word(place[0])


class Faults:
    """Delivery for one machine; ``delivered`` counts what was."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.waiting: EngineStop | None = None
        self._ahead = (-1, -1)
        self._led: tuple[EngineStop, _Branch | None] | None = None

    # ---- look-ahead ------------------------------------------------------------------------------------------------

    def fetched_ahead(self, stop: EngineStop) -> bool:
        """The engine translates ahead of what it runs, and stops at once where the next page cannot be fetched.

        True if it did that: the instructions before that page are run first.
        """
        cpu = self._machine.cpu
        pc = cpu.pc
        behind = (pc | PAGE_MASK) + 1
        if stop.kind is StopKind.FAULT:
            if stop.vector != Vector.PF or stop.cr2 != behind or not self._missed(stop):
                return False
        elif stop.kind is not StopKind.BUS:
            return False
        if self._machine.engine.by_blocks:  # what faults where it cannot have been fetched ahead is an access to data
            before, self._ahead = self._ahead, (pc, self._machine.count.ticks)
            if before == self._ahead:
                return False
        code = cpu.peek(pc, behind - pc) or b""
        ready = lengths(code, cpu.bits)
        if ready:
            self._machine.engine.exit_once(pc + sum(ready), len(ready))
        return bool(ready)

    def _missed(self, stop: EngineStop) -> bool:
        """A page fault was that of a fetch, and not of an access to data just behind the code."""
        cpu, engine = self._machine.cpu, self._machine.engine
        told = engine.cr(4) & Cr4.SMEP or (engine.efer & Efer.NXE and engine.cr(4) & Cr4.PAE)
        if engine.came_to(cpu.pc) or (told and not stop.error_code & _INSTRUCTION):
            return False
        return self._at_fetch_of(stop.cr2)

    def _at_fetch_of(self, linear: int) -> bool:
        cpu = self._machine.cpu
        return not cpu.allows(linear, FETCH[cpu.cpl == 3])

    # ---- what the engine stopped for -----------------------------------------------------------------------------

    def executed(self, stop: EngineStop) -> int:
        """Instructions that retired before ``stop``.

        The engine counts an instruction when it has been fetched, and takes the one that faults for counted.
        """
        engine = self._machine.engine
        if stop.kind is not StopKind.FAULT or engine.by_blocks:  # which counts what has run, and nothing else
            return max(0, stop.executed)
        if self._at_fetch(stop):
            return max(0, stop.executed + 1)
        if not stop.software and not stop.trap:
            engine.take_flags_for_computed()
        return max(0, stop.executed)

    def _at_fetch(self, stop: EngineStop) -> bool:
        cpu = self._machine.cpu
        if stop.vector == Vector.PF and 0 <= stop.cr2 - cpu.pc <= PAGE_SIZE:
            return self._missed(stop)
        return stop.vector == Vector.GP and not self._canonical() and self._branch_of(stop) is None

    def fault(self, stop: EngineStop) -> None:
        """Deliver the exception or software interrupt that the engine stopped for."""
        if stop.software:
            self._software_interrupt(stop)
            return
        reason = self._undo_branch(stop)
        cr2 = stop.cr2 if stop.vector == Vector.PF else None
        self.raise_fault(stop.vector, stop.error_code & 0xFFFF, cr2=cr2, reason=reason, trap=stop.trap)

    def _software_interrupt(self, stop: EngineStop) -> None:
        machine, cpu = self._machine, self._machine.cpu
        kind = _SOFTWARE.get(stop.vector)
        two_bytes = cpu.peek(cpu.pc - 2, 2) == bytes((0xCD, stop.vector))
        cpu.rip = stop.next_rip - (2 if two_bytes else 1)
        machine.emit(ev.Fault(*machine.here(), stop.vector, None, cpu.cr2, cpu.mode()))
        if self._deliver(Event(stop.vector, None, kind or EventKind.SOFTWARE_INT, next_rip=stop.next_rip)):
            machine.count.pass_time(1)

    # ---- branches out of the canonical space -----------------------------------------------------------------------

    def _canonical(self) -> bool:
        cpu = self._machine.cpu
        return cpu.bits != 64 or is_canonical(cpu.rip, cpu.paging().mode)

    def _branch_of(self, stop: EngineStop) -> _Branch | None:
        """The branch behind ``stop``, looked for once: nothing has changed until its exception is delivered."""
        if self._led is None or self._led[0] is not stop:
            self._led = stop, self._branch_here()
        return self._led[1]

    def _branch_here(self) -> _Branch | None:
        """The one near branch that can have led to RIP; None where several could."""
        cpu = self._machine.cpu
        sight = _Sight(cpu)
        led = (_branch(cpu, sight, address) for address in self._machine.code.indirect)
        found = [branch for branch in led if branch is not None]
        return found[0] if len(found) == 1 else None

    def _undo_branch(self, stop: EngineStop) -> str:
        """The processor raises #GP at the branch, its stack pointer unchanged; the engine does so at the target."""
        if stop.vector != Vector.GP or self._canonical():
            return ""
        branch = self._branch_of(stop)
        if branch is None:
            return ""
        cpu = self._machine.cpu
        target, cpu.rip, cpu.rsp = cpu.rip, branch.address, (cpu.rsp + branch.stack) & U64
        return f"branch to {target:#x}, which is not canonical (SDM 2A CALL, JMP)"

    # ---- raising ---------------------------------------------------------------------------------------------------

    def raise_fault(
        self, vector: int, error_code: int | None, *, cr2: int | None = None, reason: str = "", trap: bool = False
    ) -> None:
        """Deliver an exception for the instruction at RIP; ``reason`` says which rule of ours it broke.

        ``trap``: the instruction before RIP retired, and raised it.
        """
        machine = self._machine
        here = machine.here()
        machine.count.interrupted(here[-1])
        code = error_code if has_error_code(vector) else None
        seen = cr2 if cr2 is not None else machine.cpu.cr2
        machine.emit(ev.Fault(*here, vector, code, seen, machine.cpu.mode(), reason))
        self._deliver(Event(vector, code, EventKind.TRAP if trap else EventKind.FAULT, cr2=cr2))

    def single_step(self) -> None:
        """An instruction retired with TF set: #DB (SDM 3B 18.3.1.4)."""
        engine = self._machine.engine
        engine.set_dr(6, engine.dr(6) | Dr6.BS)
        self.raise_fault(Vector.DB, None, trap=True)

    def interrupt(self, vector: int, kind: EventKind) -> None:
        """Deliver an external interrupt or NMI at this boundary."""
        machine = self._machine
        here = machine.here()
        middle = machine.count.interrupted(here[-1])
        machine.emit(ev.Interrupt(*here, vector, kind is EventKind.NMI))
        self._deliver(Event(vector, None, kind, mid_rep=middle))

    def _deliver(self, event: Event) -> bool:
        """True if the event itself was delivered, not what its delivery led to."""
        machine = self._machine
        result = deliver(machine.cpu, event)
        machine.deliveries += 1
        if isinstance(result, Delivered):
            machine.engine.clear_interrupt_shadow()
            return not result.attempts
        if isinstance(result, NotModelled):
            machine.stop(ev.NotModelled(machine.cpu.pc, result.reason))
            return False
        chain = tuple(ev.Failure(a.vector, a.error_code, a.why) for a in result.chain)
        machine.stop(ev.TripleFault(machine.cpu.pc, chain, machine.cpu.mode()))
        return False
