"""A machine at the instant where every case of a stage begins: put back, run, and asked what happened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from emu.assembler import Image
from emu.fuzz.pages import Pages, Rule
from emu.fuzz.target import Cover
from emu.journey.symbols import Symbols
from emu.machine import events as ev
from emu.machine.coverage import Coverage, Edge
from emu.machine.cpu import GPR_NAMES
from emu.machine.machine import Machine
from emu.machine.owners import Owner
from emu.machine.reset import ResetPoint
from emu.units import PAGE_SIZE
from emu.x86.exceptions import Vector, vector_name

_RETURNING = (Vector.BP, Vector.NMI)
"""Vectors whose handlers in stubs and kernels return: the run goes on."""
_EXCEPTIONS = 32
_INDIRECT = (b"\xc2", b"\xc3", b"\xff")
_PREFIXES = bytes((0x66, 0xF2, 0xF3, 0x3E, *range(0x40, 0x50)))
_STRINGS = tuple(bytes((opcode,)) for opcode in (*range(0xA4, 0xA8), *range(0xAA, 0xB0)))
_REPEATS = frozenset({0xF2, 0xF3})
_MOST_HANDLERS = 64
_NOTHING: frozenset[Cover] = frozenset()
_MOST_PLACES = 4096
MOST_INSTRUCTIONS = 3000
"""Instructions of a case, each repeated one counted once; a whole short movement has a few hundred."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: ``why`` is a vector's name, ``hlt``, ``limit``...; ``at`` the linear address of that.

    ``arrived`` is the linear address of the breakpoint that it came to, or None.
    """

    why: str
    at: int
    mode: str
    arrived: int | None = None
    vector: int = -1
    cr2: int = 0
    unfetchable: bool = False


class Stage:
    """One machine at one instant.

    ``name`` is the transition that is about to happen.  ``stops`` are linear ranges (first, behind) of handlers that
    say what happened and stop the machine: a run that gets there has ended, and the words are saved.
    """

    def __init__(
        self,
        name: str,
        machine: Machine,
        symbols: Symbols,
        pages: Pages,
        *,
        stops: Sequence[tuple[int, int]],
        arrivals: Iterable[int],
        code: Mapping[int, str],
        branches: Iterable[int],
    ) -> None:
        self.name = name
        self.machine = machine
        self.symbols = symbols
        self.pages = pages
        self.written: list[tuple[int, bytes]] = []
        self.set: dict[str, int] = {}
        self._places: dict[int, str] = {}
        self._stops = tuple(stops)
        self._code = code
        for address in arrivals:
            machine.break_at(address)
        machine.events.clear()
        machine.tells_all = False
        # Which branch led out of the canonical space is guessed among those that were ever translated: among these here
        # always, so that a case does not depend on what wild code ran before it.
        machine.code.indirect = _Fixed(branches)
        self._point = ResetPoint(machine)
        self._point.learn([known.pfn for known in pages.known])
        self._point.quiet.update(machine.owners.pfns(Owner.PAGE_TABLE))
        pages.quiet = self._point.quiet
        self._covered: frozenset[Cover] = _NOTHING
        self._coverage = Coverage(machine)
        self._coverage.start()
        self._point.on_flush = self._coverage.renew

    # ---- one case --------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Back to where cases begin."""
        self._point.reset(self.pages.touched())
        self.pages.begin()
        self._coverage.begin()
        self.written.clear()
        self.set.clear()

    def unheard(self) -> bool:
        """Whether a page changed and nobody heard of it; it is put back, and from now on with all others."""
        self.reset()
        return bool(self._point.missed())

    def strip(self) -> None:
        """Take all hooks away, so that the engine runs alone (benchmarks)."""
        self._coverage.stop()
        self.pages.unwatch()
        self.machine.engine.strip()

    def reset_fully(self) -> None:
        """Put back everything, whatever was written where."""
        self._point.reset_fully()
        self.pages.begin()

    def write(self, address: int, data: bytes) -> None:
        """Store ``data`` at a physical address as part of a case."""
        self.written.append((address, data))
        self.machine.ram.write(address, data)

    def set_registers(self, values: Mapping[str, int]) -> None:
        """General registers by their 64-bit names."""
        self.set.update(values)
        for name, value in values.items():
            self.machine.engine.set_gpr(GPR_NAMES.index(name), value)

    def set_state(self, values: Mapping[str, int]) -> None:
        """What else a case begins with: rip, rflags, cr0, cr4, efer, dr0."""
        self.set.update(values)
        engine = self.machine.engine
        for name, value in values.items():
            if name in ("rip", "rflags", "efer"):
                setattr(engine, name, value)
            elif name.startswith("cr"):
                engine.set_cr(int(name[2:]), value)
            else:
                engine.set_dr(int(name[2:]), value)
        if values.keys() & {"cr0", "cr4", "efer"}:
            engine.settle()

    def run(self, ticks: int, instructions: int = MOST_INSTRUCTIONS) -> Ended:
        """Run for at most ``ticks`` and ``instructions``, to an arrival or to where the machine stops."""
        machine = self.machine
        limit, last = machine.count.ticks + ticks, machine.count.instructions + instructions
        for _ in range(_MOST_HANDLERS):
            left, steps = limit - machine.count.ticks, last - machine.count.instructions
            if left <= 0 or steps <= 0:
                return self._ended(ev.StepLimit(ticks))
            outcome = machine.run(left, instructions=steps, until_delivery=True)
            if not isinstance(outcome, ev.HandlerEntered):
                return self._ended(outcome)
            event = next(one for one in reversed(machine.events) if isinstance(one, ev.Fault | ev.Interrupt))
            stops = any(first <= outcome.pc < behind for first, behind in self._stops)
            if stops and event.vector not in _RETURNING and event.vector < _EXCEPTIONS:
                return self._fault(event)
        return Ended("limit", machine.cpu.pc, machine.cpu.mode())

    def _fault(self, event: ev.Fault | ev.Interrupt) -> Ended:
        fetch = any(isinstance(one, ev.BusError) and "fetch" in one.access for one in self.machine.events[-2:])
        mode = event.mode if isinstance(event, ev.Fault) else self.machine.cpu.mode()
        cr2 = event.cr2 if isinstance(event, ev.Fault) else 0
        missed = fetch or (event.vector == Vector.PF and cr2 == event.pc)
        return Ended(vector_name(event.vector), event.pc, mode, vector=event.vector, cr2=cr2, unfetchable=missed)

    def _ended(self, outcome: ev.Outcome) -> Ended:
        machine = self.machine
        mode = machine.cpu.mode()
        match outcome:
            case ev.Breakpoint(address=address):
                return Ended("arrived", address, mode, arrived=address)
            case ev.TripleFault(pc=pc, mode=then):
                event = next((one for one in reversed(machine.events) if isinstance(one, ev.Fault)), None)
                if event is None:
                    return Ended("triple fault", pc, then)
                first = self._fault(event)
                return Ended(first.why, first.at, then, vector=first.vector, cr2=first.cr2,
                    unfetchable=first.unfetchable)  # fmt: skip
            case ev.Halted(pc=pc):
                return Ended("hlt", pc, mode)
            case ev.StepLimit():
                return Ended("limit", machine.cpu.pc, mode)
            case ev.Exited(status=status):
                return Ended(f"exit {status}", machine.cpu.pc, mode)
            case ev.HostCall(request=request):
                return Ended(f"host request {request}" if request < 64 else "host request", machine.cpu.pc, mode)
            case _:
                return Ended("not modelled", machine.cpu.pc, mode)

    def place(self, linear: int) -> str:
        """Symbol+offset of a linear address; where no program is, its page, for a key that does not scatter."""
        known = self._places.get(linear)
        if known is None:
            if len(self._places) > _MOST_PLACES:
                self._places.clear()
            inside = self.symbols.image_at(linear) is not None
            known = self._places[linear] = self.symbols.place(linear).symbol if inside else "no program"
        return known

    # ---- coverage --------------------------------------------------------------------------------------------------

    def begin_batch(self, covered: frozenset[Cover]) -> None:
        """What ``covered`` has is no news any more."""
        if not self._covered <= covered:
            self._coverage.forget()
            self._covered = _NOTHING
        added = covered - self._covered
        self._coverage.keep(_edge(kind, mode) for part, kind, mode in added if part == self.name and _SEP in kind)
        self._covered = covered

    def news(self) -> frozenset[Cover]:
        """The edges of the last case that end in known code: (transition, from>to, mode)."""
        edges = self._coverage.news()
        if not edges:
            return _NOTHING
        return frozenset((self.name, _cover(edge, self._code), edge.mode) for edge in edges if edge.block in self._code)


_SEP = ">"


def _cover(edge: Edge, code: Mapping[int, str]) -> str:
    """An edge in a word; where it comes from code that nobody knows, that is all that is said of it."""
    before = edge.before if edge.before in code else 0
    return f"{before:x}{_SEP}{edge.block:x}"


def _edge(kind: str, mode: int) -> Edge:
    before, block = kind.split(_SEP)
    return Edge(int(before, 16), int(block, 16), mode)


def code_of(images: Iterable[tuple[Image, int]]) -> dict[int, str]:
    """The linear addresses at which an instruction of a program begins, with its symbol+offset.

    ``images`` are (program, linear address of its first byte).  Repeated string instructions, and what follows them,
    are left out: whether a block begins there depends on who did the iterations, which depends on earlier cases.
    """
    found: dict[int, str] = {}
    for image, linear in images:
        behind = -1
        for line in image.lines:
            if line.size:
                repeats = _repeats(image.code[line.address - image.org : line.address - image.org + line.size])
                if not repeats and line.address != behind:
                    found[linear + line.address - image.org] = image.symbol_at(line.address)
                behind = line.address + line.size if repeats else -1
    return found


def _repeats(raw: bytes) -> bool:
    """A string instruction with a repeat prefix."""
    opcode = raw.lstrip(_PREFIXES)
    prefixes = raw[: len(raw) - len(opcode)]
    return opcode in _STRINGS and not _REPEATS.isdisjoint(prefixes)


class _Fixed(set[int]):
    """A set that stays as it is."""

    def add(self, element: int, /) -> None:
        """Nothing is added."""


def branches_of(images: Iterable[tuple[Image, int]]) -> set[int]:
    """The linear addresses of near indirect branches in programs."""
    found = set()
    for image, linear in images:
        for line in image.lines:
            raw = image.code[line.address - image.org : line.address - image.org + line.size]
            if raw.lstrip(_PREFIXES)[:1] in _INDIRECT:
                found.add(linear + line.address - image.org)
    return found


def handlers_of(images: Iterable[tuple[Image, int]]) -> list[tuple[int, int]]:
    """Linear ranges of the exception entries of stubs and kernels."""
    found = []
    for image, linear in images:
        for first, behind in (("exception_vectors", "exception"), ("vector_entries", "timer_tick")):
            if first in image.symbols and behind in image.symbols:
                move = linear - image.org
                found.append((image.symbols[first] + move, image.symbols[behind] + move))
    return found


def page_of(address: int) -> int:
    """The page frame of a physical address."""
    return address // PAGE_SIZE


def rules(groups: Iterable[tuple[Rule, Iterable[int]]]) -> dict[int, Rule]:
    """Rules by page frame; later groups go over earlier ones."""
    found: dict[int, Rule] = {}
    for rule, pfns in groups:
        found.update(dict.fromkeys(pfns, rule))
    return found
