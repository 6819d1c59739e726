"""A debugging session: where we are, how to get somewhere else, what to stop at, what to change.  No terminal in here.

Everything a front end does (the REPL, the gdb server) goes through :class:`Session`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from emu.debugger.address import Address
from emu.debugger.change import poked, setter_for
from emu.debugger.moves import Change, Moves, Past, Stopped
from emu.debugger.recording import Recorded
from emu.debugger.stops import Stop, describe_event, matches
from emu.errors import DebuggerError, KjumpError, LoadError
from emu.journey.loader import Loader, refused
from emu.journey.movement import move
from emu.journey.scene import Scene
from emu.kexec.entry_list import Mode, walk
from emu.kexec.layout import HostRequest
from emu.machine.devices.pic import CASCADE_LEVEL
from emu.machine.devices.pic_chip import LEVELS
from emu.machine.events import Position
from emu.machine.history import Instant
from emu.units import PAGE_MASK, PAGE_SIZE, Phys


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """A store to a byte: by which instruction (or device), at which instant, old and new value of the byte."""

    at: Instant
    position: Position
    pc: int
    writer: str
    address: int
    old: int
    new: int
    list_entry: str = ""


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """An instruction that changed a register: where it is, what the register held before it and after it."""

    at: Instant
    position: Position
    pc: int
    register: str
    old: int
    new: int


class Session(Moves):
    """One recorded run and a place in it.  Raises DebuggerError for what cannot be done as asked."""

    def __init__(self, what: Scene | Recorded, progress: Callable[[str], None] | None = None) -> None:
        super().__init__(what, progress)
        self.timeline.on_host_call = self._host_call

    # ---- changing ----------------------------------------------------------------------------------------------

    @property
    def changes(self) -> list[Change]:
        """What was changed by hand and not undone, oldest first."""
        return [past.change for past in self._undo if past.change is not None]

    def change(self, change: Change, what: str, apply: Callable[[], None]) -> Stopped:
        """Do ``apply`` to the machine here: a new branch of history begins, and :meth:`undo` goes back to the old one.

        In a branch the owner policy stays what it was here, and no transition is marked any more.
        """
        here = self.timeline.now
        history = self.recording.history
        if history.before(here) != history.based_on:
            history.restore(history.before(here))
            self.timeline.goto(here)
        tail = history.cut()
        self._undo.append(Past(here, what, tail, replace(change, at=here)))
        self.before = self.machine.cpu.registers()
        try:
            apply()
        except KjumpError:
            self._undo.pop()
            history.rejoin(tail)
            self.timeline.goto(here)
            raise
        history.mark(barrier=True)
        self.machine.loop.pause_at = None
        history.end = self.timeline.now
        return self._stopped(what)

    def set_register(self, name: str, value: int) -> Stopped:
        """Give a register a value; raises DebuggerError for one that cannot be set."""
        setter = setter_for(self.machine, name)
        change = Change("register", (name, value))
        return self.change(change, f"set ${name.removeprefix('$')}", lambda: setter(value))

    def write_memory(self, address: Address, data: bytes) -> Stopped:
        """Store bytes at a linear or physical address, whatever the page's rights."""
        places = []
        for offset, byte in enumerate(data):
            at = Address(address.value + offset, address.physical)
            places.append((self.physical(at), bytes([byte])))

        def store() -> None:
            for physical, byte in places:
                self.machine.ram.write(physical, byte)
            self.machine.flush_translations()

        change = Change("memory", (address.value, address.physical, data.hex()))
        return self.change(change, f"set mem {address}", store)

    def inject_interrupt(self, vector: int) -> Stopped:
        """An external interrupt is taken here, whatever IF says."""
        return self.change(Change("irq", (vector,)), f"inject irq {vector:#x}", lambda: self.machine.inject_irq(vector))

    def inject_nmi(self) -> Stopped:
        """An NMI arrives here."""
        return self.change(Change("nmi"), "inject nmi", self.machine.inject_nmi)

    def ask_for_interrupt(self, line: int) -> Stopped:
        """A device raises line 0 to 7 of the first controller, of which none is masked: it is taken when IF lets it."""
        if line == CASCADE_LEVEL or not 0 <= line < LEVELS:
            raise DebuggerError(f"no device has line {line}", hint=f"0 to {LEVELS - 1}, but for {CASCADE_LEVEL}")
        return self.change(Change("line", (line,)), f"inject line {line}", lambda: self.machine.board.ask(line))

    def inject_fault(self, vector: int, error_code: int = 0) -> Stopped:
        """The instruction at hand raises an exception."""
        return self.change(
            Change("fault", (vector, error_code)),
            f"inject fault {vector}",
            lambda: self.machine.raise_fault(vector, error_code),
        )

    def move_pages(self, pairs: Sequence[tuple[int, int]], mode: Mode) -> Stopped:
        """Copy or swap physical pages (destination, source), as a stub would do with a list of them."""
        moved = [(Phys(destination), Phys(source)) for destination, source in pairs]
        change = Change("move", (mode.value, *(page for pair in pairs for page in pair)))
        return self.change(change, f"move {len(pairs)} pages", lambda: move(self.machine.ram, moved, mode))

    def poke_jump_page(self, field: str, value: int) -> Stopped:
        """Set one field of the jump page, with a right checksum unless the field is the checksum."""
        loaded = self.loaded
        if loaded is None or not loaded.jump_page:
            raise DebuggerError("there is no jump page here")
        at = loaded.jump_page
        page = poked(self.machine.ram.read(at, PAGE_SIZE), field, value)
        change = Change("jumpbuf", (field, value))
        return self.change(change, f"poke jumpbuf.{field}", lambda: self.machine.ram.write(at, page))

    def _host_call(self, request: int) -> None:
        """In a branch: what the harness does when a kernel asks."""
        if request == HostRequest.LOAD and self.recording.journey is not None:
            try:
                Loader(self.machine, self.scene, self.journey.kernel_a).load()
            except LoadError as error:
                refused(self.machine, self.journey.kernel_a, error.errno)

    # ---- who wrote this ----------------------------------------------------------------------------------------

    def who_wrote(self, address: Address, size: int = 1) -> WriteRecord:
        """The last store before now to any of ``size`` bytes, whoever made it; DebuggerError when there is none."""
        physical = self.physical(address)
        if (physical & PAGE_MASK) + size > PAGE_SIZE:
            raise DebuggerError("the bytes must lie in one page")
        records: list[WriteRecord] = []
        found = self.timeline.last_match(self.watcher.for_writes(physical, size, records))
        if found is None or not records:
            raise DebuggerError(
                f"nothing in the recording wrote p:{physical:#x} before here",
                hint="it was loaded at power-on, or never",
            )
        return max((record for record in records if record.at == found), key=lambda record: record.at)

    def who_changed(self, register: str) -> ChangeRecord:
        """The last instruction before now that changed ``register``; DebuggerError when it never changed."""
        now = self.evaluator.register(register)
        records: list[ChangeRecord] = []
        found = self.timeline.last_match(self.watcher.for_register(register, now, records))
        if found is None:
            raise DebuggerError(f"nothing in the recording changed {register} before here")
        return next(record for record in reversed(records) if record.at == found)

    # ---- breakpoints -------------------------------------------------------------------------------------------

    def add_break(self, text: str, *, temporary: bool = False, condition: str = "") -> Stop:
        """A breakpoint at an address as typed."""
        first, *others = self.evaluator.places(text)
        places = tuple(other.value for other in others)
        return self.stops.add(
            lambda number: Stop(
                number, "break", first, places=places, text=text, temporary=temporary, condition=condition
            )
        )

    def add_watch(self, text: str, size: int, kind: str) -> Stop:
        """A watchpoint (watch, rwatch, awatch, xwatch) on ``size`` bytes."""
        first, *others = self.evaluator.places(text) if kind == "xwatch" else [self.evaluator.address(text)]
        places = tuple(other.value for other in others)
        return self.stops.add(lambda number: Stop(number, kind, first, places=places, size=size, text=f"{text} {size}"))

    def add_catch(self, event: str, detail: str = "") -> Stop:
        """Stop at events of a kind; see EVENT_KINDS.  ``entry`` N: when entry N of the list is read (1 is the head)."""
        if event == "entry":
            return self._catch_entry(self.evaluator.number(detail))
        return self.stops.add(
            lambda number: Stop(number, "catch", text=f"{event} {detail}".strip(), event=event, detail=detail)
        )

    def _catch_entry(self, wanted: int) -> Stop:
        loaded = self.loaded
        if loaded is None:
            raise DebuggerError("no list is loaded")
        image, ram = loaded.image, self.machine.ram
        steps = list(walk(lambda at: ram.read_int(at, image.word), image.head, image.word))
        at = steps[wanted - 1].at if 2 <= wanted <= len(steps) else None
        if at is None:
            raise DebuggerError(f"the list has no entry {wanted} in memory", hint=f"2 to {len(steps)}; kimage shows it")
        return self.add_watch(f"p:{at:#x}", image.word, "rwatch")


@dataclass(slots=True)
class Display:
    """An expression shown at every stop."""

    number: int
    format: str
    text: str
    errors: int = field(default=0)


__all__ = ["Display", "Session", "Stopped", "WriteRecord", "describe_event", "matches"]
