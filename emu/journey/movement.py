"""One movement of pages: what the reference model expects of it, and what may be written while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emu.journey.linux_call import CALLER_PUSHES
from emu.journey.memory import RamImage
from emu.journey.stubs import volatile_of_stub
from emu.kexec.entry_list import Mode, Pair, StepKind, WalkStep
from emu.machine.events import Position
from emu.machine.ram import Ram
from emu.units import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from emu.journey.journey import Journey
    from emu.journey.restore import Restored

STUB_PUSHES = 8
"""Words that relocate_new_kernel may push on its caller's stack: the callee-saved registers and flags."""


@dataclass(frozen=True, slots=True)
class Route:
    """A way by which pages move and control passes.

    ``head`` is that of the list, ``pages`` are the physical pages in which the stub's code lies, ``linear`` the linear
    ones in which it is seen.  ``volatile`` are physical byte ranges (start, end) that may be left with any content.
    ``pushes`` words may be pushed on the stack of whoever calls, none where there is none.  ``entry_call`` is the
    address to which an entry point of A goes, 0 where there is no such thing on the way.
    """

    head: int
    word: int
    mode: Mode
    swap_page: int | None
    pages: tuple[int, ...]
    linear: tuple[int, ...]
    volatile: tuple[tuple[int, int], ...]
    pushes: int = 0
    entry_call: int = 0


@dataclass(frozen=True, slots=True)
class Movement:
    """A movement under way.  ``position`` to ``state`` are of its first instruction; ``volatile`` are physical byte
    ranges (start, end) that it may leave with any content.
    """

    name: str
    route: Route
    expected: RamImage
    steps: list[WalkStep]
    moved: int
    position: Position
    tick: int
    iterations: int
    state: dict[str, int]
    volatile: list[tuple[int, int]] = field(default_factory=list)

    def found_moved(self, ram: Ram) -> int:
        """How many of the list's pages lie in ``ram`` where a move puts them, when the stub has done its work."""
        wrong = {one.pfn for one in self.expected.differences(ram, self.volatile)}
        exchanged = self.route.mode is Mode.SWAP
        return sum(
            step.destination >> PAGE_SHIFT not in wrong and not (exchanged and step.source >> PAGE_SHIFT in wrong)
            for step in self.steps
            if step.kind is StepKind.SOURCE
        )

    @property
    def written(self) -> set[int]:
        """The page frames that the list makes the stub write, and the swap page."""
        pages = {step.destination for step in self.steps if step.kind is StepKind.SOURCE}
        if self.route.mode is Mode.SWAP:
            pages |= {step.source for step in self.steps if step.kind is StepKind.SOURCE}
        pfns = {page >> PAGE_SHIFT for page in pages}
        return pfns if self.route.swap_page is None else pfns | {self.route.swap_page >> PAGE_SHIFT}


def move(ram: Ram, pairs: Iterable[Pair], mode: Mode) -> None:
    """Do to ``ram`` what a stub would do with a list of ``pairs``, but for the swap page."""
    for destination, source in pairs:
        if destination != source:
            here, there = ram.read(destination, PAGE_SIZE), ram.read(source, PAGE_SIZE)
            ram.write(destination, there)
            if mode is Mode.SWAP:
                ram.write(source, here)


# ---- the ways ----------------------------------------------------------------------------------------------------


def leaving(journey: Journey) -> Route:
    """A to B, by the list of the load."""
    loaded = journey.require_loaded()
    exchanges = journey.scene.preserve or loaded.linux is None or loaded.linux.stub.form.is_classic
    mode = Mode.SWAP if exchanges and not loaded.image.is_copied else Mode.COPY
    pushes = STUB_PUSHES if loaded.linux is None else CALLER_PUSHES
    return _of_a(journey, loaded.image.head, mode, pushes=pushes)


def returning(journey: Journey) -> Route:
    """To A, by the list that brings its pages back."""
    loaded = journey.require_loaded()
    call = 0 if loaded.second is None else journey.entry_call(loaded.second)
    mode = Mode.COPY if loaded.image.is_copied else Mode.SWAP
    return _of_a(journey, loaded.image.way_back[0], mode, entry_call=call)


def _of_a(journey: Journey, head: int, mode: Mode, *, pushes: int = 0, entry_call: int = 0) -> Route:
    loaded, arch = journey.require_loaded(), journey.scene.arch
    swap = loaded.image.swap_page
    volatile = [
        one for stub in (loaded.stub, loaded.second) if stub is not None for one in volatile_of_stub(stub, arch)
    ]
    if loaded.jump_entry is not None:
        volatile.append((loaded.jump_entry.end, loaded.jump_entry.org + PAGE_SIZE))
    if swap is not None:
        volatile.append((int(swap), int(swap) + PAGE_SIZE))
    return Route(
        head=head,
        word=loaded.image.word,
        mode=mode,
        swap_page=None if swap is None else int(swap),
        pages=tuple(stub_pages(journey)),
        linear=tuple(linear_pages(journey)),
        volatile=tuple(volatile),
        pushes=pushes,
        entry_call=entry_call,
    )


def restoring(journey: Journey, restored: Restored) -> Route:
    """C to A, by C's own stub and the list of what could not be put in its place before."""
    stub = restored.stub
    return Route(
        head=restored.head,
        word=journey.scene.arch.word,
        mode=Mode.COPY,
        swap_page=restored.swap_page,
        pages=(stub.org,),
        linear=(stub.org,),
        volatile=tuple(volatile_of_stub(stub, journey.scene.arch)),
        pushes=STUB_PUSHES,
    )


def begin(journey: Journey, name: str, route: Route) -> Movement:
    """Apply the model to RAM as it stands now, at the first instruction of movement ``name``."""
    machine = journey.machine
    expected = RamImage(machine.ram)
    steps = expected.walk(route.head, route.word)
    moved = expected.move(steps, route.mode, route.swap_page)
    move = Movement(
        name=name,
        route=route,
        expected=expected,
        steps=steps,
        moved=moved,
        position=machine.here()[0],
        tick=machine.count.ticks,
        iterations=machine.count.iterations,
        state=machine.cpu.registers(),
        volatile=list(route.volatile),
    )
    if route.pushes:
        move.volatile.extend(_stack_below(journey, move))
    return move


def _stack_below(journey: Journey, move: Movement) -> list[tuple[int, int]]:
    """What the stub pushes on its caller's stack before it leaves it, wherever the list then moves that."""
    word = move.route.word
    top = _stack_top(journey, move)
    page = (top - 1) & -PAGE_SIZE
    places = {page}
    for step in move.steps:
        if step.kind is not StepKind.SOURCE:
            continue
        at_source, at_destination = step.source in places, step.destination in places
        places -= {step.destination}
        if at_source:
            places.add(step.destination)
        if move.route.mode is Mode.SWAP and step.source != step.destination:
            places -= {step.source}
            if at_destination:
                places.add(step.source)
    return [(at + top - page - move.route.pushes * word, at + top - page) for at in sorted(places)]


def _stack_top(journey: Journey, move: Movement) -> int:
    """The physical address behind the word that the caller pushes next."""
    linear = move.state["rsp"] & (1 << 8 * move.route.word) - 1
    return journey.machine.cpu.translate(linear - 1) + 1


# ---- who may write what ------------------------------------------------------------------------------------------


def stub_pages(journey: Journey) -> list[int]:
    """Physical (identity) pages in which code of A's stubs lies."""
    loaded = journey.require_loaded()
    caller = loaded.linux.caller if loaded.linux is not None else None
    return [stub.org for stub in (loaded.stub, loaded.second, loaded.jump_entry, caller) if stub is not None]


def linear_pages(journey: Journey) -> list[int]:
    """Linear pages in which stub code is seen: at its physical address, in A's direct map, in a kernel's text."""
    pages = stub_pages(journey)
    linux = journey.require_loaded().linux
    text = [linux.text] if linux is not None and linux.text else []
    return [*pages, *(int(journey.scene.arch.direct(page)) for page in pages), *text]


def moving_pfns(journey: Journey, move: Movement) -> set[int]:
    """What a movement may write: the stubs' own pages, what its list says, the swap page, its caller's stack."""
    pfns = move.written | {page >> PAGE_SHIFT for page in move.route.pages}
    if move.route.pushes:
        pfns.add((_stack_top(journey, move) - 1) >> PAGE_SHIFT)
    return pfns


def b_pfns(journey: Journey) -> set[int]:
    """Page frames of the target area and the low region, and the last, partial page of that."""
    low = journey.scene.memory_map.low_region()
    return {*journey.scene.target_range.pages(), *low.pages(), low.end >> PAGE_SHIFT}


def peer_pfns(journey: Journey) -> set[int]:
    """What B may write: its own memory, its first stack, and where it leaves word for A."""
    loaded = journey.require_loaded()
    pfns = {page >> PAGE_SHIFT for page in (loaded.jump_page, loaded.slot) if page}
    if not journey.scene.preserve:  # its first stack is another
        pfns.add(int(loaded.image.control_page) >> PAGE_SHIFT)
    swap = loaded.image.swap_page
    return b_pfns(journey) | pfns | (set() if swap is None else {int(swap) >> PAGE_SHIFT})


def all_but(journey: Journey, allowed: Iterable[int]) -> tuple[int, ...]:
    """Every page frame of RAM that is not ``allowed``."""
    kept = set(allowed)
    return tuple(pfn for pfn in journey.machine.ram.pfns() if pfn not in kept)


def bytes_of(ranges: Sequence[tuple[int, int]]) -> int:
    """Bytes in (start, end) ranges."""
    return sum(end - start for start, end in ranges)
