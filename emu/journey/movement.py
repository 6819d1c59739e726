"""One movement of pages: what the reference model expects of it, and what may be written while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emu.journey.linux_call import CALLER_PUSHES
from emu.journey.loader import volatile_of_stub
from emu.journey.memory import RamImage
from emu.kexec.entry_list import Mode, StepKind, WalkStep
from emu.machine.events import Position
from emu.units import PAGE_SHIFT, PAGE_SIZE, Phys

if TYPE_CHECKING:
    from emu.journey.journey import Journey

STUB_PUSHES = 8
"""Words that relocate_new_kernel may push on its caller's stack: the callee-saved registers and flags."""


@dataclass(frozen=True, slots=True)
class Movement:
    """A movement under way.  ``position`` to ``state`` are of its first instruction; ``volatile`` are physical byte
    ranges (start, end) that it may leave with any content.
    """

    name: str
    expected: RamImage
    steps: list[WalkStep]
    moved: int
    position: Position
    tick: int
    iterations: int
    state: dict[str, int]
    volatile: list[tuple[int, int]] = field(default_factory=list)


def begin(journey: Journey, name: str) -> Movement:
    """Apply the model to RAM as it stands now, at the first instruction of movement ``name``."""
    machine, loaded, arch = journey.machine, journey.require_loaded(), journey.scene.arch
    image = loaded.image
    mode = (
        Mode.SWAP if journey.scene.preserve or loaded.linux is None or loaded.linux.stub.form.is_classic else Mode.COPY
    )
    expected = RamImage(machine.ram)
    steps = expected.walk(image.head, image.word)
    moved = expected.move(steps, mode, image.swap_page)
    move = Movement(
        name=name,
        expected=expected,
        steps=steps,
        moved=moved,
        position=machine.here()[0],
        tick=machine.count.ticks,
        iterations=machine.count.iterations,
        state=machine.cpu.registers(),
    )
    for stub in (loaded.stub, loaded.second):
        if stub is not None:
            move.volatile.extend(volatile_of_stub(stub, arch))
    if loaded.jump_entry is not None:
        move.volatile.append((loaded.jump_entry.end, loaded.jump_entry.org + PAGE_SIZE))
    if image.swap_page is not None:
        move.volatile.append((int(image.swap_page), int(image.swap_page) + PAGE_SIZE))
    if name == "suspend":
        move.volatile.append(_stack_below(journey, move))
    return move


def _stack_below(journey: Journey, move: Movement) -> tuple[int, int]:
    """What the stub pushes on A's stack before it leaves it, where the list then moves that."""
    word = journey.scene.arch.word
    linear = move.state["rsp"] & (1 << 8 * word) - 1
    top = journey.machine.cpu.translate(linear - 1) + 1
    moved = {step.destination: step.source for step in move.steps if step.kind is StepKind.SOURCE}
    page = (top - 1) & -PAGE_SIZE
    at = moved.get(Phys(page), Phys(page)) + top - page
    pushes = STUB_PUSHES if journey.require_loaded().linux is None else CALLER_PUSHES
    return at - pushes * word, at


# ---- who may write what ------------------------------------------------------------------------------------------


def stub_pages(journey: Journey) -> list[int]:
    """Physical (identity) pages in which stub code lies."""
    loaded = journey.require_loaded()
    caller = loaded.linux.caller if loaded.linux is not None else None
    return [stub.org for stub in (loaded.stub, loaded.second, loaded.jump_entry, caller) if stub is not None]


def linear_pages(journey: Journey) -> list[int]:
    """Linear pages in which stub code is seen: at its physical address, in A's direct map, in a kernel's text."""
    pages = stub_pages(journey)
    linux = journey.require_loaded().linux
    text = [linux.text] if linux is not None and linux.text else []
    return [*pages, *(int(journey.scene.arch.direct(page)) for page in pages), *text]


def moving_pfns(journey: Journey, pages: Sequence[int]) -> set[int]:
    """What a movement may write: the stubs' own ``pages``, everything on the list, the swap page."""
    image = journey.require_loaded().image
    return {
        *(page >> PAGE_SHIFT for page in pages),
        *(page >> PAGE_SHIFT for pair in image.pairs for page in pair),
        *_swap_pfns(journey),
    }


def b_pfns(journey: Journey) -> set[int]:
    """Page frames of the target area and the low region."""
    low = journey.scene.memory_map.low_region()
    return {*journey.scene.target_range.pages(), *low.pages(), low.end >> PAGE_SHIFT}


def peer_pfns(journey: Journey) -> set[int]:
    """What B may write: its own memory, its first stack, and the jump page."""
    jump = journey.require_loaded().image.jump
    page = set() if jump is None else {int(jump.jump_page) >> PAGE_SHIFT}
    if not journey.scene.preserve:  # its first stack is another
        page.add(int(journey.require_loaded().image.control_page) >> PAGE_SHIFT)
    return b_pfns(journey) | _swap_pfns(journey) | page


def _swap_pfns(journey: Journey) -> set[int]:
    swap = journey.require_loaded().image.swap_page
    return set() if swap is None else {int(swap) >> PAGE_SHIFT}


def all_but(journey: Journey, allowed: Iterable[int]) -> tuple[int, ...]:
    """Every page frame of RAM that is not ``allowed``."""
    kept = set(allowed)
    return tuple(pfn for pfn in journey.machine.ram.pfns() if pfn not in kept)
