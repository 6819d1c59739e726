"""The two instants of a journey that cases begin at, with most of the movement done beforehand.

A whole movement takes tens of milliseconds.  Here the list is cut down to the pages of B's image: what the other pages
would have moved is moved by the reference model first, so that the state is that of a jump which never moved them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from emu.assembler import Image
from emu.errors import FuzzError
from emu.fuzz.pages import Pages, Rule, mask_of, table_mask
from emu.fuzz.stage import Stage, branches_of, code_of, handlers_of, rules
from emu.journey import movement
from emu.journey.journey import Journey
from emu.journey.loader import Loaded
from emu.journey.movement import Movement, Route
from emu.journey.scene import Scene
from emu.kexec.entry_list import ListBuilder, Mode, Pair, pairs_of, walk
from emu.machine import events as ev
from emu.machine.owners import Owner
from emu.units import PAGE_SHIFT, PAGE_SIZE, Phys

_STAGE_LIMIT = 600_000_000
_MOVEMENT_LIMIT = 1_000_000
_FEW = 4
"""Pairs that are kept where none of them belongs to B's image, or nothing needs more."""
_HANDLER_STACK = 1024
_LAST_STEPS = 0x100
"""Bytes of B's code behind its last look at the page, to where it has left."""
SUSPEND, RETURN, SLOT = "suspend", "return", "slot"
REFUSALS = ("bad_jump_page", "bad_entries")
"""Where B goes when it does not go back: esi holds the text that says why."""


class _Reached(Exception):  # noqa: N818 - carries a journey out of its own run
    """The journey is at the stub's first instruction."""


@dataclass(slots=True)
class Window:
    """A journey at the beginning of a short movement.

    ``kept`` are the (destination, source) pages that the list still has; ``called`` are A's registers at the stub's
    first instruction; ``stage`` is what cases run on.  At the slot nothing is about to move: the list is whole.
    What makes the window of the journey: ``moved`` were moved beforehand, in ``mode``, and ``listed`` are the physical
    address and the bytes of the page with the shorter list.
    """

    journey: Journey
    loaded: Loaded
    kept: tuple[Pair, ...]
    called: dict[str, int]
    stage: Stage
    moved: tuple[Pair, ...] = ()
    mode: Mode = Mode.SWAP
    listed: tuple[tuple[int, bytes], ...] = ()


def _not_reached(scene: Scene, journey: Journey, where: str) -> FuzzError:
    findings = journey.result.findings or journey.findings
    said = findings[0].actual if findings else "it ended early"
    return FuzzError(f"the journey does not get to {where}: {said}", where=scene.journey.name, hint="try kjump run")


def _keep(journey: Journey, route: Route) -> tuple[list[Pair], list[Pair]]:
    """The pairs that stay on a list, those that have to do with B's image, and the others."""
    b, ram = journey.kernel_b, journey.machine.ram
    end = b.symbols.get("image_end", b.end)
    steps = walk(lambda at: ram.read_int(int(at), route.word), route.head, route.word)
    pairs = pairs_of(steps)
    kept = [pair for pair in pairs if any(b.org <= page < end for page in pair)]
    if not kept:
        kept = list(pairs[:_FEW])
    chosen = set(kept)
    return kept, [pair for pair in pairs if pair not in chosen]


def _shorten(journey: Journey, route: Route, kept: Sequence[Pair]) -> None:
    """Write a list of ``kept`` where the list begins; its head stays what it is."""
    ram = journey.machine.ram
    pages = iter([Phys(route.head & -PAGE_SIZE)])
    builder = ListBuilder(lambda: next(pages), route.word, lambda at, data: ram.write(int(at), data))
    builder.add_pairs(kept)
    if builder.terminate() != route.head:
        raise FuzzError("the list does not begin in a page of its own", where=journey.scene.journey.name)


def open_window(scene: Scene, name: str, *, still: bool = False) -> Window:
    """Bring the scene's journey to transition ``name`` and cut its list down; raises FuzzError.

    ``still``: few pages are left on the list, and none in which code of the journey's runs: code that never moves is
    translated once and not in every case.  Otherwise the code of pages that move is kept until they are back.
    """
    if name == SLOT:
        return _at_slot(scene)
    window = _at_suspend(scene, still=still) if name == SUSPEND else _at_return(scene, still=still)
    window.stage.machine.code.keeps = not still
    return window


def _reaches(journey: Journey, linear: int) -> set[int] | None:
    """The page frames of all code that runs from here to ``linear``; None if it does not get there."""
    machine = journey.machine
    state = machine.snapshot()
    machine.engine.flush_code()
    machine.break_at(linear)
    arrived = machine.run(_MOVEMENT_LIMIT) == ev.Breakpoint(linear)
    machine.clear_break(linear)
    found = machine.code.pfns()
    machine.restore(state)
    return found if arrived else None


def _in_use(journey: Journey) -> set[int]:
    """The page frames that whoever runs here stands on: stack, descriptor tables, and the page tables on the way."""
    cpu = journey.machine.cpu
    found = set()
    for linear in (cpu.pc, cpu.rsp, cpu.gdtr.base, cpu.idtr.base):
        walked = cpu.walk(linear & (1 << 8 * journey.scene.arch.word) - 1)
        found |= {step.address >> PAGE_SHIFT for step in walked.steps}
        found |= set() if walked.physical is None else {walked.physical >> PAGE_SHIFT}
    return found


def _clear_of(pairs: Sequence[Pair], pfns: set[int]) -> list[Pair]:
    """The pairs that have no page among ``pfns``."""
    return [pair for pair in pairs if pfns.isdisjoint(page >> PAGE_SHIFT for page in pair)]


def _hold_still(journey: Journey, route: Route, kept: list[Pair], until: int) -> tuple[list[Pair], list[Pair]]:
    """Take pages off the list that begins here and ends at linear ``until``: what stays on it, what was moved before.

    Pages of code that runs on the way are left where they are.  On the way to B all of B but the last few pages is
    moved beforehand, where A does not stand on it; on the way back B stands on most of them.
    """
    running = _reaches(journey, until)
    if running is None:
        return kept, []
    state = journey.machine.snapshot()
    moving = _clear_of(kept, running)
    before = _clear_of(moving, _in_use(journey))[:-_FEW] if route.pushes else []
    movement.move(journey.machine.ram, before, route.mode)
    _shorten(journey, route, short := [pair for pair in moving if pair not in before])
    if short and _reaches(journey, until) is not None:
        return short, before
    journey.machine.restore(state)
    return kept, []


def _at_suspend(scene: Scene, *, still: bool) -> Window:
    def observe(moment: str, _journey: Journey) -> None:
        if moment == "suspend begins":
            raise _Reached

    journey = Journey(scene, observe)
    try:
        journey.run(SUSPEND)
    except _Reached:
        route = movement.leaving(journey)
        kept, _ = _keep(journey, route)
        _shorten(journey, route, kept)
        loaded = journey.require_loaded()
        moved: list[Pair] = []
        if still:
            kept, moved = _hold_still(journey, route, kept, loaded.start)
        called = journey.machine.cpu.registers()
        return _window(journey, SUSPEND, route, kept, moved=moved, called=called, arrivals=[loaded.start])
    raise _not_reached(scene, journey, "the jump")


def _at_return(scene: Scene, *, still: bool) -> Window:
    called: dict[str, int] = {}

    def observe(moment: str, journey: Journey) -> None:
        if moment == "suspend begins":
            called.update(journey.machine.cpu.registers())

    journey = Journey(scene, observe)
    journey.run(SUSPEND)
    if not called or journey.result.exit_status is not None:
        raise _not_reached(scene, journey, "the save")
    _to_last_look(scene, journey)
    route = movement.returning(journey)
    kept, others = _keep(journey, route)
    movement.move(journey.machine.ram, others, route.mode)
    _shorten(journey, route, kept)
    after = scene.arch.text_base + journey.kernel_a.symbols["after_jump"]
    if still:
        kept, _ = _hold_still(journey, route, kept, after)
    b = journey.kernel_b
    refusals = [b.symbols[name] for name in REFUSALS if name in b.symbols]
    return _window(journey, RETURN, route, kept, moved=others, called=called, arrivals=[after, *refusals])


def _to_last_look(scene: Scene, journey: Journey) -> None:
    """Let B run until it looks at the jump page for the last time."""
    machine, b = journey.machine, journey.kernel_b
    if "last_look" not in b.symbols:
        raise FuzzError("has no symbol last_look, where it checks the jump page before it jumps", where=b.name)
    look = b.symbols["last_look"]
    machine.break_at(look)
    outcome = machine.run(_STAGE_LIMIT)
    while isinstance(outcome, ev.HostCall):  # the image is of no concern here
        outcome = machine.run(_STAGE_LIMIT)
    machine.clear_break(look)
    if outcome != ev.Breakpoint(look):
        raise _not_reached(scene, journey, "the jump back")


def _at_slot(scene: Scene) -> Window:
    """Where A is back and all of B is kept: cases call A's check of what is in the slot, and arrive behind it."""
    journey = Journey(scene)
    journey.run(RETURN)
    a = journey.kernel_a
    if journey.result.exit_status is not None or not {"check_slot", "go_on"} <= a.symbols.keys():
        raise _not_reached(scene, journey, "A's check of the slot")
    machine = journey.machine
    machine.clear_break_in()
    machine.ram.rebase()
    machine.flush_translations()
    stack = _stack_page(journey)
    free = set() if stack is None else {stack}
    tables = set(machine.owners.pfns(Owner.PAGE_TABLE))
    pages = Pages(machine, rules([(Rule.KEPT, tables), (Rule.FREE, free)]), {}, _table_masks(journey))
    stage = _stage(journey, SLOT, pages, [scene.arch.text_base + a.symbols["go_on"]])
    return Window(journey, journey.require_loaded(), (), {}, stage)


def _programs(journey: Journey) -> list[tuple[Image, int]]:
    """Every program with each linear address at which its first byte is seen."""
    loaded, arch = journey.require_loaded(), journey.scene.arch
    found = [(journey.kernel_a, arch.text_base + journey.kernel_a.org)]
    found += [(image, image.org) for image in (journey.kernel_b, loaded.purgatory)]
    for stub in (loaded.stub, loaded.second, loaded.jump_entry):
        if stub is not None:
            found += [(stub, stub.org), (stub, int(arch.direct(stub.org)))]
    return found


def _branches(journey: Journey) -> set[int]:
    """The branches by which a case can leave the canonical space: those of the stubs, and B's last ones."""
    loaded, b = journey.require_loaded(), journey.kernel_b
    stubs = [stub for stub in (loaded.stub, loaded.second, loaded.jump_entry) if stub is not None]
    look = b.symbols.get("last_look", b.end)
    own = {address for address in branches_of([(b, b.org)]) if look <= address < look + _LAST_STEPS}
    return branches_of([(stub, stub.org) for stub in stubs]) | own


def _window(
    journey: Journey,
    name: str,
    route: Route,
    kept: Sequence[Pair],
    *,
    moved: Sequence[Pair],
    called: dict[str, int],
    arrivals: Sequence[int],
) -> Window:
    machine, loaded = journey.machine, journey.require_loaded()
    machine.clear_break_in()
    machine.ram.rebase()
    machine.flush_translations()
    move = movement.begin(journey, name, route)
    pfns = _pfns(journey, route, kept)
    groups: list[tuple[Rule, Iterable[int]]] = [
        (Rule.KEPT, pfns),
        (Rule.MOVED, move.written),
        (Rule.FREE, _free(journey, move, name)),
    ]
    expected = {pfn: move.expected.page(pfn) for pfn in pfns}
    volatile = [*move.volatile, *_stacks(journey, kept)]
    masks = {pfn: mask_of(pfn << PAGE_SHIFT, volatile) for pfn in pfns}
    pages = Pages(machine, rules(groups), expected, masks | _table_masks(journey))
    stage = _stage(journey, name, pages, arrivals)
    page = route.head & -PAGE_SIZE
    listed = ((page, machine.ram.page(page >> PAGE_SHIFT)),)
    return Window(journey, loaded, tuple(kept), called, stage, tuple(moved), route.mode, listed)


def _table_masks(journey: Journey) -> dict[int, int]:
    mask = table_mask(4 if journey.scene.arch.levels == 2 else 8)
    return dict.fromkeys(journey.machine.owners.pfns(Owner.PAGE_TABLE), mask)


def _stage(journey: Journey, name: str, pages: Pages, arrivals: Sequence[int]) -> Stage:
    programs = _programs(journey)
    return Stage(
        name,
        journey.machine,
        journey.symbols,
        pages,
        stops=handlers_of(programs),
        arrivals=arrivals,
        code=code_of(programs),
        branches=_branches(journey),
    )


def _own(image: Image) -> set[int]:
    """The page frames of a kernel at its link address."""
    return set(range(image.org >> PAGE_SHIFT, -(-image.symbols.get("image_end", image.end) // PAGE_SIZE)))


def _pfns(journey: Journey, route: Route, kept: Sequence[Pair]) -> set[int]:
    """The pages that cases usually dirty."""
    loaded, owners = journey.require_loaded(), journey.machine.owners
    found = {page >> PAGE_SHIFT for pair in kept for page in pair} | _own(journey.kernel_b)
    found |= {stub.org >> PAGE_SHIFT for stub in (loaded.stub, loaded.second, loaded.jump_entry) if stub is not None}
    found |= {int(page) >> PAGE_SHIFT for page in (loaded.image.swap_page, route.head) if page}
    found |= set(owners.pfns(Owner.PAGE_TABLE)) | set(owners.pfns(Owner.JUMP_PAGE))
    stack = _stack_page(journey)
    return found | ({stack} if stack is not None else set())


def _stacks(journey: Journey, kept: Sequence[Pair]) -> list[tuple[int, int]]:
    """Where the kernels' own stacks and counters lie, before the movement and after it."""
    a, b = journey.kernel_a.symbols, journey.kernel_b.symbols
    found = [(a["volatile_begin"], a["volatile_end"])] if "volatile_begin" in a else []
    if "stack_top" in b:
        found.append((b.get("ist_nmi", b["stack_top"]) - _HANDLER_STACK, b["stack_top"]))
    for destination, source in kept:
        for start, end in found[: 1 + ("volatile_begin" in a)]:
            first, behind = max(start, int(destination)), min(end, int(destination) + PAGE_SIZE)
            if first < behind:
                shift = int(source) - int(destination)
                found.append((first + shift, behind + shift))
    return found


def _stack_page(journey: Journey) -> int | None:
    """Where A's stack lies, while A runs."""
    cpu = journey.machine.cpu
    walked = cpu.walk(cpu.rsp & (1 << 8 * journey.scene.arch.word) - 1)
    return None if walked.physical is None else walked.physical >> PAGE_SHIFT


def _free(journey: Journey, move: Movement, name: str) -> set[int]:
    """What whoever runs may write: B its own pages and its first stack; on the way back also what is being moved."""
    swap = move.route.swap_page
    found = _own(journey.kernel_b) | set(journey.machine.owners.pfns(Owner.JUMP_PAGE))
    found |= set() if swap is None else {swap >> PAGE_SHIFT}
    return found | move.written if name == RETURN else found
