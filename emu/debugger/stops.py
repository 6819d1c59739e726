"""What a run stops at: breakpoints, watchpoints and events, with conditions, counts and ignore counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emu.debugger.address import Address
from emu.errors import DebuggerError
from emu.machine import events as ev
from emu.machine.history import Instant

EVENT_KINDS: dict[str, tuple[type[ev.Event], ...]] = {
    "mode": (ev.ModeChange,),
    "control": (ev.ControlWrite,),
    "exception": (ev.Fault,),
    "interrupt": (ev.Interrupt,),
    "port": (ev.PortAccess,),
    "owner": (ev.OwnerViolation,),
    "hazard": (ev.Hazard,),
    "bus": (ev.BusError,),
    "console": (ev.ConsoleLine,),
    "transition": (ev.TransitionMark,),
    "magic": (ev.MagicBreakpoint,),
    "entry": (),  # a read of entry N of the list: Session.add_catch makes it a read watchpoint
}
"""Words of ``catch`` and the events behind them."""


@dataclass(slots=True)
class Stop:
    """One entry of ``info breakpoints``.

    ``places`` are further linear addresses at which programs see the same code.  ``kind`` is break, watch (write),
    rwatch (read), awatch (either), xwatch (execute) or catch.  ``detail`` narrows a catch: a register name, vector or
    port as text.
    """

    number: int
    kind: str
    where: Address | None = None
    places: tuple[int, ...] = ()
    size: int = 1
    text: str = ""
    event: str = ""
    detail: str = ""
    condition: str = ""
    temporary: bool = False
    enabled: bool = True
    ignore: int = 0
    hits: int = 0

    def describe(self) -> str:
        """One line for ``info breakpoints``."""
        what = f"{self.kind} {self.text}".strip()
        extra = [
            f"if {self.condition}" if self.condition else "",
            "temporary" if self.temporary else "",
            "" if self.enabled else "disabled",
            f"ignores {self.ignore} more" if self.ignore else "",
            f"hit {self.hits} time{'s' * (self.hits != 1)}" if self.hits else "",
        ]
        return f"{self.number:<4} {what}" + "".join(f", {word}" for word in extra if word)


@dataclass(frozen=True, slots=True)
class Hit:
    """Something that a stop waits for happened at ``at``; ``text`` says what, for a person."""

    number: int
    at: Instant
    text: str


@dataclass(slots=True)
class StopTable:
    """All stops of a session, by number."""

    stops: dict[int, Stop] = field(default_factory=dict)
    _next: int = 1

    def add(self, stop: Callable[[int], Stop]) -> Stop:
        """Number and keep a stop."""
        made = stop(self._next)
        self.stops[self._next] = made
        self._next += 1
        return made

    def get(self, number: int) -> Stop:
        """A stop by number; raises DebuggerError."""
        if number not in self.stops:
            raise DebuggerError(f"there is no breakpoint {number}", hint="info breakpoints lists them")
        return self.stops[number]

    def remove(self, number: int) -> None:
        """Forget a stop; raises DebuggerError when there is none."""
        self.get(number)
        del self.stops[number]

    def enabled(self) -> list[Stop]:
        """The stops that count now."""
        return [stop for stop in self.stops.values() if stop.enabled]


def matches(stop: Stop, event: ev.Event) -> bool:
    """Tell whether ``event`` satisfies a catch."""
    if not isinstance(event, EVENT_KINDS[stop.event]):
        return False
    if not stop.detail:
        return True
    wanted = stop.detail.lower()
    match event:
        case ev.ControlWrite(register=register):
            return register.lower() == wanted
        case ev.Fault(vector=vector) | ev.Interrupt(vector=vector):
            return (wanted.isdigit() and int(wanted) == vector) or wanted == f"{vector:#x}"
        case ev.PortAccess(port=port):
            return wanted in (f"{port:#x}", str(port))
        case ev.TransitionMark(name=name):
            return name == wanted
        case ev.ModeChange(new=new):
            return wanted in new.lower()
        case _:
            return wanted in str(event).lower()


def describe_event(event: ev.Event) -> str:
    """An event in a line, for a stop."""
    match event:
        case ev.ModeChange(old=old, new=new):
            return f"mode {old} -> {new}"
        case ev.ControlWrite(register=register, old=old_value, new=new_value):
            return f"{register} {old_value:#x} -> {new_value:#x}"
        case ev.Fault(vector=vector, error_code=code, cr2=cr2, reason=reason):
            shown = f" error {code:#x}" if code is not None else ""
            page = f" cr2 {cr2:#x}" if vector == 14 else ""
            return f"exception {vector}{shown}{page}" + (f": {reason}" if reason else "")
        case ev.Interrupt(vector=vector, nmi=nmi):
            return "NMI" if nmi else f"interrupt {vector:#x}"
        case ev.PortAccess(port=port, size=size, value=value, write=write):
            return f"{'out' if write else 'in'} port {port:#x} value {value:#x} size {size}"
        case ev.OwnerViolation(address=address, owner=owner, writer=writer, size=size):
            return f"owner violation: {writer} stores {size} bytes at p:{address:#x}, a page of {owner}"
        case ev.Hazard(kind=kind, detail=detail):
            return f"hazard: {kind}: {detail}"
        case ev.BusError(address=address, access=access):
            return f"{access} at p:{address:#x}"
        case ev.ConsoleLine(device=device, text=text):
            return f"{device}: {text}"
        case ev.TransitionMark(name=name, begins=begins):
            return f"transition {name} {'begins' if begins else 'ends'}"
        case _:
            return type(event).__name__
