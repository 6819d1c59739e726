"""Cases taken from a journey: the way out of A (``suspend``) and the way back (``return``).

Each is recorded at the stub's first instruction and ends where control leaves the stub: at B's first instruction,
and at A's instruction after its call.  What B does in between is in the memory that the second case begins with, so no
other machine has to wait for B's timer.

With a mark the cases begin at that instruction instead, and an interrupt is taken before it, by the IDT that is in
force there, whatever becomes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from emu.errors import ImageError, JourneyError
from emu.journey.journey import Journey
from emu.journey.scene import Scene
from emu.kexec.image import KexecImage
from emu.oracle.case import Case, find_gap, pieces_before
from emu.oracle.image import collector, entry_program
from emu.oracle.mark import Mark, advance
from emu.units import PAGE_MASK, PAGE_SIZE
from emu.x86.bits import Eflags

MOVEMENTS = ("suspend", "return")


@dataclass(frozen=True, slots=True)
class Recording:
    """The cases of a journey, and (name, reason) of the movements that have no case."""

    cases: list[Case]
    missing: list[tuple[str, str]]
    journey: Journey


def record(scene: Scene, mark: Mark | None = None) -> Recording:
    """Run ``scene`` on our machine and record its movements, from ``mark`` on where there is one.

    Raises:
        JourneyError: the journey has no movement.
    """
    cases: list[Case] = []
    missing: list[tuple[str, str]] = []
    roots: list[int] = []

    def observe(moment: str, journey: Journey) -> None:
        name = moment.removesuffix(" begins")
        if name not in MOVEMENTS or name == moment:
            return
        roots.append(journey.machine.cpu.cr3)
        if mark is None:
            cases.append(take(journey, name, roots[0]))
            return
        state = journey.machine.snapshot()
        try:
            cases.append(_take_at(journey, name, roots[0], mark))
        except ImageError as error:
            missing.append((f"{scene.arch} {name}", error.what))
        journey.machine.restore(state)

    journey = Journey(scene, observe)
    journey.run()
    if not cases and not missing:
        raise JourneyError("no movement of pages was reached", hint="kjump run shows why")
    return Recording(cases, missing, journey)


def _take_at(journey: Journey, name: str, a_root: int, mark: Mark) -> Case:
    """Movement ``name`` from ``mark`` on, with an interrupt before it; raises ImageError with the reason why not."""
    machine = journey.machine
    whole = take(journey, name, a_root)
    pieces = pieces_before(whole, len(collector(whole.arch, whole.end).code))
    before = {where & ~PAGE_MASK: machine.ram.read(where & ~PAGE_MASK, PAGE_SIZE) for _, where, _ in pieces}
    reason = advance(journey, mark)
    if reason:
        raise ImageError(reason)
    case = take(journey, name, a_root)
    moved = dict(case.moved)
    for source, content in before.items():
        here = moved.get(source, source)  # a swap goes both ways
        if machine.ram.read(source, PAGE_SIZE) == content:
            continue
        if machine.ram.read(here, PAGE_SIZE) != content:
            raise ImageError(f"at {mark} the page of the movement's end is on its way")
        moved[here] = here
    vector = machine.board.pic.state.master.base
    if not vector:
        raise ImageError("the interrupt controller has no vector for IRQ 0")
    registers = dict(case.registers)
    registers["rflags"] |= Eflags.IF
    return replace(case, moved=moved, registers=registers, irq=vector)


def take(journey: Journey, name: str, a_root: int) -> Case:
    """The movement ``name`` that begins where ``journey`` stands; ``a_root`` is A's CR3."""
    machine, loaded, arch = journey.machine, journey.require_loaded(), journey.scene.arch
    state = machine.cpu.registers()
    memory = [(bank.start, bytearray(bank.view)) for bank in machine.ram.banks if not bank.rom]
    moved = _moved(loaded.image, leaving=name == "suspend")
    if name == "suspend":
        end = end_phys = loaded.start
    else:
        end_phys = journey.kernel_a.symbols["after_jump"]
        end = arch.text_base + end_phys
    rip = machine.cpu.pc
    page = rip & ~PAGE_MASK
    page_phys = machine.cpu.walk(page).physical if state["cr0"] >> 31 else page
    if page_phys is None:
        raise ImageError(f"the first instruction {rip:#x} is not mapped", where=name)
    gap = find_gap(machine.ram.read(page_phys, PAGE_SIZE), len(entry_program(arch, 0, takes_irq=True).code))
    if gap is None:
        raise ImageError("the page of the first instruction has no room for the oracle's entry code", where=name)
    return Case(
        name=f"{arch} {name}",
        arch=arch,
        memory=memory,
        registers=state | {"rip": rip},
        end=end,
        end_phys=end_phys,
        moved=moved,
        entry=page + gap,
        entry_phys=page_phys + gap,
        pdpts=_pdpts(journey, a_root, moved) if arch.is_pae else frozenset(),
    )


def _pdpts(journey: Journey, a_root: int, moved: Mapping[int, int]) -> frozenset[int]:
    """A's table, the stub's and its copy's, each where it is now and where it is when pages have moved."""
    image = journey.require_loaded().image
    roots = {a_root & ~0x1F, int(image.table_root)}
    if image.jump is not None:
        roots.add(image.page_list(second_copy=True)[2])
    elsewhere = {to | root & PAGE_MASK for root in roots for to, page in moved.items() if page == root & ~PAGE_MASK}
    return frozenset(roots | elsewhere)


def _moved(image: KexecImage, *, leaving: bool) -> dict[int, int]:
    """For every page that the list writes, where its contents come from; an exchange goes both ways."""
    moved: dict[int, int] = {}
    for destination, source in image.pairs if leaving or not image.is_copied else image.inverse_pairs:
        moved[destination] = source
        if not image.is_copied:
            moved[source] = destination
    return moved
