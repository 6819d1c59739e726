"""A stub there and back with lists that are not its load's: each shape against the reference model, over all of RAM.

A loads and calls as in the journey ``jump``; at its call the list is exchanged for another one.  The peer is
``list_peer.S``, put where the stub enters it, which comes back at once: the load's own B is elsewhere by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from emu import resources
from emu.assembler import Image
from emu.errors import JourneyError
from emu.journey import checks, control, linux_checks, movement, programs
from emu.journey.findings import Finding, fold
from emu.journey.journey import Journey
from emu.journey.list_shapes import MOST_PAGES, pairs_of
from emu.journey.outcome import Outcome
from emu.journey.result import finding_json
from emu.journey.scene import Scene
from emu.kexec.allocator import PageOwner
from emu.kexec.entry_list import ListBuilder, Pair
from emu.kexec.layout import CookieKind
from emu.machine import events as ev
from emu.machine.cpustate import RDI
from emu.units import PAGE_SHIFT, PAGE_SIZE, Phys

LIMIT = 100_000_000
"""Ticks that one way may take."""


@dataclass(frozen=True, slots=True)
class ListRun:
    """One list: pages that it moves each way, instructions there and back (None: not reached), what did not hold."""

    shape: str
    pages: int
    there: int | None
    back: int | None
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether all held."""
        return not self.findings

    def to_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "list": self.shape,
            "pages": self.pages,
            "instructions_there": self.there,
            "instructions_back": self.back,
            "findings": [finding_json(finding) for finding in self.findings],
        }


class _Stopped(Exception):  # noqa: N818 - control flow inside this module
    """The machine did something that leads no further."""


class ListBench:
    """A machine at A's call of the stub, and the pages that lists may name.

    Raises:
        JourneyError: A does not get there, or RAM is too small.
    """

    def __init__(self, scene: Scene) -> None:
        self.journey = journey = Journey(scene, observe=lambda _moment, _journey: None)
        result = journey.run("load")
        if not result.ok:
            raise JourneyError("the load fails, so there is nothing to give other lists to", hint="kjump run shows why")
        self.loaded = journey.require_loaded()
        machine, entry = journey.machine, self.loaded.entry_va
        machine.break_at(entry)
        outcome = machine.run(LIMIT)
        machine.clear_break(entry)
        if outcome != ev.Breakpoint(entry):
            raise JourneyError(f"A does not call the stub: {outcome}", hint="kjump run shows why")
        image = self.loaded.image
        owned = {pfn for owner, pfns in image.owners.items() if owner is not PageOwner.SOURCE for pfn in pfns}
        kept = owned | movement.b_pfns(journey)
        self.free = [Phys(pfn << PAGE_SHIFT) for pfn in scene.memory_map.ram_pages() if pfn not in kept]
        if len(self.free) < MOST_PAGES:
            raise JourneyError(f"lists of {MOST_PAGES} pages do not fit", where="--ram", hint="at least 24M")
        self._gdtr = machine.cpu.gdtr
        self._state = machine.snapshot()

    def restore(self) -> None:
        """Back to A's call."""
        self.journey.loaded = self.loaded
        self.journey.machine.restore(self._state)

    def write_list(self, pairs: Sequence[Pair]) -> int:
        """The list for ``pairs`` in free pages of RAM that it does not name; its head."""
        named = {page for pair in pairs for page in pair}
        spare = (page for page in reversed(self.free) if page not in named)
        builder = ListBuilder(lambda: next(spare), self.journey.scene.arch.word, self.journey.machine.ram.write)
        builder.add_pairs(pairs)
        return builder.terminate()

    def begin(self, head: int) -> movement.Movement:
        """Make A call with the list at ``head``; what the model expects of that."""
        journey = self.journey
        machine = journey.machine
        if journey.scene.arch.bits == 64:
            machine.engine.set_gpr(RDI, head)
        else:
            machine.ram.write(machine.cpu.translate(machine.cpu.rsp + 4), head.to_bytes(4, "little"))
        journey.loaded = replace(self.loaded, image=replace(self.loaded.image, head=head))
        return movement.begin(journey, "suspend", movement.leaving(journey))

    def leave(self) -> ev.Outcome:
        """Run until control is outside the stub's pages."""
        machine = self.journey.machine
        machine.break_outside(movement.linear_pages(self.journey))
        outcome = machine.run(LIMIT)
        machine.clear_break_in()
        return outcome

    # ---- there and back ------------------------------------------------------------------------------------------

    def run(self, shape: str) -> ListRun:
        """Carry out the list ``shape`` and go back by it."""
        self.restore()
        pairs = pairs_of(shape, self.free)
        move = self.begin(self.write_list(pairs))
        first = len(self.journey.machine.events)
        findings: list[Finding] = []
        counts: list[int] = []
        try:
            for outcome in chain(self._there(move, len(pairs), counts), self._back(move, counts)):
                findings += outcome.findings
        except _Stopped:
            pass
        findings += checks.hazards(self.journey, self.journey.machine.events[first:]).findings
        self.journey.machine.clear_break_in()
        there, back = (*counts, None, None)[:2]
        return ListRun(shape, len(pairs), there, back, tuple(fold(findings)))

    def _there(self, move: movement.Movement, pages: int, counts: list[int]) -> Iterator[Outcome]:
        journey, machine = self.journey, self.journey.machine
        begun = machine.count.instructions
        if self.loaded.linux is not None:
            yield linux_checks.own_bytes(journey, self.loaded.linux)
        yield from self._moved(move, self.loaded.start, pages)
        counts.append(machine.count.instructions - begun)
        yield control.peer_entry(journey, move, self.loaded.start)
        sp = machine.cpu.registers()["rsp"]
        journey.progress.back_entry = machine.ram.read_int(sp, journey.scene.arch.word)

    def _back(self, called: movement.Movement, counts: list[int]) -> Iterator[Outcome]:
        journey, machine = self.journey, self.journey.machine
        peer = self._put_peer()
        machine.break_in([(page, page + PAGE_SIZE - 1) for page in movement.stub_pages(journey)])
        outcome = machine.run(LIMIT)
        machine.clear_break_in()
        if not isinstance(outcome, ev.Breakpoint):
            yield self._failed(outcome)
            raise _Stopped
        yield control.reentry(journey, CookieKind.AFTER_IMAGE_SAVE)
        if self.loaded.linux is not None:
            yield linux_checks.next_entry(journey, self.loaded.linux)
        move = movement.begin(journey, "return", movement.returning(journey))
        begun = machine.count.instructions
        yield from self._moved(
            move, journey.scene.arch.text_base + journey.kernel_a.symbols["after_jump"], called.moved
        )
        counts.append(machine.count.instructions - begun)
        yield checks.after_jump(journey, called.state, gdt=self.loaded.restores_gdt)
        if not journey.scene.b_words:
            yield self._next_entry(peer.symbols["peer_again"])

    def _moved(self, move: movement.Movement, wanted: int, pages: int) -> Iterator[Outcome]:
        """Let the stub carry out the list until it goes to ``wanted``, and compare all of RAM."""
        journey = self.journey
        outcome = self.leave()
        if not isinstance(outcome, ev.Breakpoint):
            yield self._failed(outcome)
            raise _Stopped
        yield control.arrival(journey, wanted, outcome.address)
        yield checks.memory(journey, move.expected, move.steps, move.volatile)
        if move.moved != pages:
            raise AssertionError(f"the model moves {move.moved} pages of {pages}")

    def _failed(self, outcome: ev.Outcome) -> Outcome:
        finding = control.guest_failure(self.journey, outcome)
        return Outcome("end", (linux_checks.named(self.journey, outcome, finding),))

    def _next_entry(self, wanted: int) -> Outcome:
        """A's call gives the peer's own next entry."""
        name = "returned entry"
        value = self.journey.machine.cpu.registers()["rax"] & (1 << 8 * self.journey.scene.arch.word) - 1
        return Outcome(name) if value == wanted else Outcome(name, (self._wrong_entry(wanted, value),))

    def _wrong_entry(self, wanted: int, value: int) -> Finding:
        position, tick, pc = self.journey.machine.here()
        place = str(self.journey.symbols.place(pc))
        return Finding("returned entry", "return", tick, position, place, f"A's call gives {wanted:#x}", f"{value:#x}")

    def _put_peer(self) -> Image:
        """Lay the peer down where control is."""
        journey, scene = self.journey, self.journey.scene
        source = resources.asm_dir() / ("i386" if scene.arch.bits == 32 else "x86_64") / "list_peer.S"
        defines = {
            "PEER_GDT": int(self.loaded.linux is not None),
            "PAE_BACK": int(scene.pae_back),
            "BY_RET": int(scene.b_words == "ret"),
        }
        peer = programs.load(source, self.loaded.start, scene.arch, defines)
        code = bytearray(peer.code)
        gdtr = self._gdtr
        at = peer.symbols["peer_gdt"] - peer.org
        code[at : at + 10] = (gdtr.limit | gdtr.base << 16).to_bytes(10, "little")
        journey.machine.ram.write(peer.org, bytes(code))
        return peer
