"""Cases taken from a journey: the way out of A (``suspend``) and the way back (``return``).

Each is recorded at the stub's first instruction and ends where control leaves the stub: at B's first instruction,
and at A's instruction after its call.  What B does in between is in the memory that the second case begins with, so no
other machine has to wait for B's timer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emu.errors import ImageError, JourneyError
from emu.journey.journey import Journey
from emu.journey.scene import Scene
from emu.oracle.case import Case, find_gap
from emu.oracle.image import entry_program
from emu.units import PAGE_MASK, PAGE_SIZE

MOVEMENTS = ("suspend", "return")
_BUSY = 0x02


def record(scene: Scene) -> tuple[list[Case], Journey]:
    """Run ``scene`` on our machine and record its movements; the journey is handed back for its findings.

    Raises:
        JourneyError: the journey has no movement.
    """
    cases: list[Case] = []

    def observe(moment: str, journey: Journey) -> None:
        name = moment.removesuffix(" begins")
        if name in MOVEMENTS and name != moment:
            cases.append(take(journey, name, a_root=cases[0].registers["cr3"] if cases else journey.machine.cpu.cr3))

    journey = Journey(scene, observe)
    journey.run()
    if not cases:
        raise JourneyError("no movement of pages was reached", hint="kjump run shows why")
    return cases, journey


def take(journey: Journey, name: str, a_root: int) -> Case:
    """The movement ``name`` that begins where ``journey`` stands; ``a_root`` is A's CR3."""
    machine, loaded, arch = journey.machine, journey.require_loaded(), journey.scene.arch
    state = machine.cpu.registers()
    memory = [(bank.start, bytearray(bank.view)) for bank in machine.ram.banks if not bank.rom]
    moved: dict[int, int] = {}
    for destination, source in loaded.image.pairs:
        moved[destination], moved[source] = source, destination
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
    gap = find_gap(machine.ram.read(page_phys, PAGE_SIZE), len(entry_program(arch, 0).code))
    if gap is None:
        raise ImageError("the page of the first instruction has no room for the oracle's entry code", where=name)
    _free_task(journey, memory, state["gdtr.base"] + (state["tr"] & ~7), present=state["tr"] >= 8)
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
    elsewhere = {moved[root & ~PAGE_MASK] | root & PAGE_MASK for root in roots if root & ~PAGE_MASK in moved}
    return frozenset(roots | elsewhere)


def _free_task(journey: Journey, memory: Sequence[tuple[int, bytearray]], linear: int, *, present: bool) -> None:
    """Make the TSS descriptor at ``linear`` available again, so that LTR can load it."""
    cpu = journey.machine.cpu
    at = (cpu.walk(linear + 5).physical if cpu.cr0 >> 31 else linear + 5) if present else None
    for start, content in memory:
        if at is not None and start <= at < start + len(content):
            content[at - start] &= ~_BUSY & 0xFF
