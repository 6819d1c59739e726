"""Arming the machine for a run: breakpoints, watchpoints and catches become hooks, and what they see becomes hits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from emu.assembler import decode_one
from emu.assembler.lengths import lengths
from emu.debugger.stops import Hit, Stop, describe_event, matches
from emu.debugger.timeline import EndOfRun
from emu.errors import DebuggerError
from emu.machine import events as ev
from emu.machine.events import Position
from emu.machine.history import Instant
from emu.units import PAGE_MASK

if TYPE_CHECKING:
    from emu.debugger.moves import Moves
    from emu.debugger.session import ChangeRecord, WriteRecord

MAGIC = -1
"""Number of the hit that a guest's ``xchg %bx, %bx`` makes, which no stop asked for."""
HitSink = Callable[[Instant], None]


class Watcher:
    """Hooks of one session."""

    def __init__(self, session: Moves) -> None:
        self._session = session

    # ---- forwards ----------------------------------------------------------------------------------------------

    def run_forward(self, until: int | None, depth: int | None) -> list[Hit] | None:
        """Run to the next thing that any stop waits for; None at the end of the recording."""
        session = self._session
        hits: list[Hit] = []
        with self._armed(hits, stop=True):
            if until is not None:
                session.machine.break_at(until)
            try:
                outcome = session.timeline.forward()
            finally:
                if until is not None:
                    session.machine.clear_break(until)
        if isinstance(outcome, ev.Breakpoint):
            hits += self.breaks_at(outcome.address)
            if outcome.address == until and (depth is None or session.machine.cpu.rsp >= depth):
                hits.append(Hit(0, session.timeline.now, "reached"))
        elif isinstance(outcome, EndOfRun):
            return hits or None
        return hits

    def breaks_at(self, linear: int) -> list[Hit]:
        """The breakpoints and execute watches that the present instruction satisfies."""
        session = self._session
        found = []
        for stop in session.stops.enabled():
            if stop.where is None or stop.kind not in ("break", "xwatch"):
                continue
            at = linear
            if stop.where.physical:
                walked = session.machine.cpu.walk(linear)
                if walked.physical is None:
                    continue
                at = walked.physical
            size = stop.size if stop.kind == "xwatch" else 1
            if any(start <= at < start + size for start in (stop.where.value, *stop.places)):
                place = session.symbols.place(linear)
                found.append(Hit(stop.number, session.timeline.now, f"breakpoint {stop.number} at {place.symbol}"))
        return found

    # ---- arming ------------------------------------------------------------------------------------------------

    def _linear_places(self, stop: Stop) -> list[int]:
        """Linear addresses at which a breakpoint can be met; a physical one is tried where programs see it."""
        if stop.where is None:
            return []
        if not stop.where.physical:
            return [stop.where.value, *stop.places]
        arch = self._session.recording.arch
        value = stop.where.value
        return [value, arch.text_base + value, int(arch.direct(value))]

    @contextmanager
    def _armed(self, hits: list[Hit], *, stop: bool) -> Iterator[None]:
        """All enabled stops as hooks; with ``stop`` a hit ends the run."""
        session, machine = self._session, self._session.machine
        places: list[int] = []
        ranges: list[tuple[int, int]] = []
        handles: list[int] = []
        for one in session.stops.enabled():
            if one.kind == "break":
                places += self._linear_places(one)
            elif one.kind == "xwatch" and one.where is not None:
                ranges += [(place, place + one.size - 1) for place in self._linear_places(one)]
            elif one.where is not None:
                handles.append(self._watch(one, hits, stop=stop))
        for place in places:
            machine.break_at(place)
        if ranges:
            machine.break_in(ranges)
        listener = self._listener(hits, stop=stop)
        machine.listeners.append(listener)
        try:
            yield
        finally:
            machine.listeners.remove(listener)
            for place in places:
                machine.clear_break(place)
            if ranges:
                machine.clear_break_in()
            for handle in handles:
                machine.unwatch(handle)

    def _listener(self, hits: list[Hit], *, stop: bool) -> Callable[[ev.Event], None]:
        session = self._session

        def heard(event: ev.Event) -> None:
            for one in session.stops.enabled():
                if one.kind == "catch" and matches(one, event):
                    at = Instant(event.tick, session.machine.deliveries)
                    hits.append(Hit(one.number, at, f"catchpoint {one.number}: {describe_event(event)}"))
                    if stop:
                        session.machine.stop(ev.StopRequested())
            if isinstance(event, ev.MagicBreakpoint):
                hits.append(Hit(MAGIC, Instant(event.tick, session.machine.deliveries), "xchg %bx, %bx"))
                if stop:
                    session.machine.stop(ev.StopRequested())

        return heard

    def _watch(self, one: Stop, hits: list[Hit], *, stop: bool) -> int:
        session = self._session
        if one.where is None:
            raise DebuggerError("a watchpoint needs an address")
        begin = session.physical(one.where)

        def touched(address: int, size: int, value: int, write: bool) -> None:
            if (one.kind == "watch" and not write) or (one.kind == "rwatch" and write):
                return
            verb = f"store of {value & (1 << 8 * size) - 1:#x}" if write else "read"
            text = f"watchpoint {one.number}: {verb}, {size} bytes at p:{address:#x}"
            hits.append(Hit(one.number, session.timeline.now, text))
            if stop:
                session.machine.stop(ev.StopRequested())

        return session.machine.watch(begin, begin + one.size - 1, touched, reads=one.kind in ("rwatch", "awatch"))

    # ---- backwards ---------------------------------------------------------------------------------------------

    def for_stops(self, seen: list[Hit]) -> Callable[[HitSink], Callable[[], None]]:
        """A watch for :meth:`Timeline.last_match` on everything that is armed; ``seen`` collects what was met."""

        def install(hit: HitSink) -> Callable[[], None]:
            session = self._session

            def take(one: Hit) -> None:
                if self._holds(one):
                    seen.append(one)
                    hit(one.at)

            hits: list[Hit] = _Sink(take)
            armed = self._armed(hits, stop=False)
            armed.__enter__()
            session.timeline.on_outcome = lambda outcome: (
                hits.extend(self.breaks_at(outcome.address)) if isinstance(outcome, ev.Breakpoint) else None
            )

            def remove() -> None:
                session.timeline.on_outcome = None
                armed.__exit__(None, None, None)

            return remove

        return install

    def _holds(self, hit: Hit) -> bool:
        if hit.number == MAGIC:
            return True
        stop = self._session.stops.stops.get(hit.number)
        if stop is None:
            return False
        return not stop.condition or bool(self._session.evaluator.number(stop.condition))

    def for_call(self, after: int, depth: int) -> Callable[[HitSink], Callable[[], None]]:
        """A watch on the call that ends at linear ``after``, made with the stack at ``depth``."""
        session, machine = self._session, self._session.machine

        def install(hit: HitSink) -> Callable[[], None]:
            machine.break_in([(after - 15, after - 1)])

            def met(outcome: ev.Outcome) -> None:
                if isinstance(outcome, ev.Breakpoint) and machine.cpu.rsp == depth:
                    hit(session.timeline.now)

            session.timeline.on_outcome = met

            def remove() -> None:
                session.timeline.on_outcome = None
                machine.clear_break_in()

            return remove

        return install

    def for_writes(
        self, physical: int, size: int, records: list[WriteRecord]
    ) -> Callable[[HitSink], Callable[[], None]]:
        """A watch on stores to a physical range; ``records`` collects who made them."""
        from emu.debugger.session import WriteRecord  # noqa: PLC0415 - the session is above this room

        session, machine = self._session, self._session.machine

        def install(hit: HitSink) -> Callable[[], None]:
            def touched(address: int, length: int, value: int, write: bool) -> None:
                if not write:
                    return
                first = max(address, physical)
                at = session.timeline.now
                new = value >> 8 * (first - address) & 0xFF
                old = machine.ram.read_int(first, 1)
                writer = machine.writer_now()
                records.append(
                    WriteRecord(at, session.position, session.pc, writer, first, old, new, self._list_entry(first))
                )
                hit(at)
                del length

            handle = machine.watch(physical, physical + size - 1, touched, reads=False)

            def remove() -> None:
                machine.unwatch(handle)

            return remove

        return install

    def for_register(
        self, register: str, final: int, records: list[ChangeRecord]
    ) -> Callable[[HitSink], Callable[[], None]]:
        """A watch on instructions that change a register; ``final`` is what it holds where the session stands.

        A change is seen at the instruction after it, so the last stretch is settled by what the register holds now.
        """
        from emu.debugger.session import ChangeRecord  # noqa: PLC0415 - the session is above this room

        session, machine = self._session, self._session.machine
        read = session.evaluator.register
        later = [final]

        def install(hit: HitSink) -> Callable[[], None]:
            before: list[tuple[Instant, Position, int, int]] = []

            def changed(value: int) -> None:
                at, position, pc, old = before[0]
                if old != value:
                    records.append(ChangeRecord(at, position, pc, register, old, value))
                    hit(at)

            def look(linear: int) -> None:
                value = read(register)
                if before and before[0][0] != session.timeline.now:
                    changed(value)
                before[:] = [(session.timeline.now, session.position, linear, value)]

            first = read(register)
            handle = machine.watch_instructions(look)

            def remove() -> None:
                machine.unwatch_instructions(handle)
                if before:
                    changed(later[0])
                later[0] = first

            return remove

        return install

    def _list_entry(self, physical: int) -> str:
        """Which entry of the list names the page of ``physical``, when the stub is at work."""
        loaded = self._session.loaded
        if loaded is None:
            return ""
        found = self._session.symbols.image_at(self._session.pc)
        if found is None or found[0] not in (loaded.stub, loaded.second):
            return ""
        page = physical & ~PAGE_MASK
        for number, (destination, source) in enumerate(loaded.image.pairs, 1):
            if page in (destination, source):
                side = "destination" if page == destination else "source"
                return (
                    f"entry {number:,} of {len(loaded.image.pairs):,}: p:{source:#x} <-> p:{destination:#x}, its {side}"
                )
        return "no list entry names this page"

    # ---- code --------------------------------------------------------------------------------------------------

    def disassembly(self, linear: int) -> str:
        """The instruction at ``linear``, or nothing where none can be read."""
        bits = self._session.machine.cpu.bits
        code = self._session.machine.cpu.peek(linear, 15) or b""
        insn = decode_one(code, linear, bits) if code else None
        return insn.text if insn is not None else ""

    def length(self, linear: int) -> int:
        """Size in bytes of the instruction at ``linear``; 1 where none can be read."""
        code = self._session.machine.cpu.peek(linear, 15) or b""
        sizes = lengths(code, self._session.machine.cpu.bits)
        return sizes[0] if sizes else 1


class _Sink(list[Hit]):
    """A list that hands each hit on as it comes."""

    def __init__(self, take: Callable[[Hit], object]) -> None:
        super().__init__()
        self._take = take

    def append(self, hit: Hit) -> None:
        self._take(hit)

    def extend(self, hits: object) -> None:
        for hit in hits if isinstance(hits, list) else ():
            self._take(hit)
