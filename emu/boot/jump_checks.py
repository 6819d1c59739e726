"""What is checked of a jump of a kernel's own, place by place; each check gives the findings of what does not hold.

The known faults of that code are findings with their number in the catalogue (tests/catalogue.toml): told from the
code in the control page and from what this very run shows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from emu.journey import registers
from emu.journey.findings import Finding
from emu.journey.memory import RamImage
from emu.journey.symbols import Symbols
from emu.kexec.arch import Arch
from emu.kexec.entry_list import StepKind
from emu.machine import events as ev
from emu.machine.machine import Machine
from emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, show_phys
from emu.x86.bits import Cr0, Cr4
from emu.x86.paging import mappings
from emu.x86.paging.modes import Entry

if TYPE_CHECKING:
    from emu.boot.jump import Jump


@dataclass(frozen=True, slots=True)
class Scene:
    """A jump, in its machine, at one of its places."""

    machine: Machine
    symbols: Symbols
    jump: Jump

    def finding(
        self, kind: str, expected: str, actual: str, *because: str, catalogue: str = "", address: int | None = None
    ) -> Finding:
        """A finding at the machine's present place."""
        position, tick, pc = self.machine.here()
        where = str(self.symbols.place(pc))
        name = f"jump {self.jump.number}"
        return Finding(kind, name, tick, position, where, expected, actual, because, catalogue, (), address)

    def sentences(self, kind: str, expected: str, wrong: Sequence[str]) -> list[Finding]:
        """A finding for each sentence."""
        return [self.finding(kind, expected, one) for one in wrong]


# ---- the list and memory ---------------------------------------------------------------------------------------


def entry_list(scene: Scene) -> list[Finding]:
    """The list ends with DONE, no source is another page's destination, and no page of the stub's is on it."""
    jump, name = scene.jump, "entry list"
    if jump.steps[-1].kind is not StepKind.DONE:
        end = jump.steps[-1]
        return [scene.finding(name, "the list ends with DONE", f"{end.kind.value} at entry {len(jump.steps):,}")]
    moves = [step for step in jump.steps if step.kind is StepKind.SOURCE]
    destinations = {step.destination for step in moves}
    wrong = [
        f"source {show_phys(step.source)} of {show_phys(step.destination)} is another page's destination"
        for step in moves
        if step.source != step.destination and step.source in destinations
    ]
    if len(destinations) != len(moves):
        wrong.append("a destination is listed twice")
    wrong += [
        f"{show_phys(pfn << PAGE_SHIFT)} is a page of the stub's and on the list" for pfn in jump.own & jump.listed
    ]
    return scene.sentences(name, "the kernel's invariant", wrong[:1])


def memory(scene: Scene, expected: RamImage | None, volatile: Sequence[tuple[int, int]]) -> list[Finding]:
    """Every page of RAM as the reference model of the list has it."""
    return _compared(scene, expected, volatile, frozenset(), "reference model of the list")


def as_before(scene: Scene, before: RamImage | None, volatile: Sequence[tuple[int, int]]) -> list[Finding]:
    """Every page of the caller's that does not hold the peer now is as it was when the caller jumped."""
    jump = scene.jump
    skip = frozenset(jump.sources | {jump.control.swap_page >> PAGE_SHIFT})
    if jump.home is not None:
        skip |= set(scene.machine.ram.pfns()) - jump.home
    return _compared(scene, before, volatile, skip, "as at the jump")


def _compared(
    scene: Scene, expected: RamImage | None, volatile: Sequence[tuple[int, int]], skip: frozenset[int], what: str
) -> list[Finding]:
    if expected is None:
        return []
    found = list(expected.differences(scene.machine.ram, volatile, skip))
    if any(_only_used(scene, expected, one.pfn) for one in found):
        tables = _tables(scene)
        found = [one for one in found if one.pfn not in tables or not _only_used(scene, expected, one.pfn)]
    if not found:
        return []
    first = found[0]
    page = first.address & ~PAGE_MASK
    named = [
        step for step in scene.jump.steps if step.kind is StepKind.SOURCE and page in (step.source, step.destination)
    ]
    because = [
        f"list entry: source {show_phys(one.source)} <-> destination {show_phys(one.destination)}" for one in named
    ]
    return [
        scene.finding(
            "memory",
            f"{show_phys(first.address)}: {first.expected.hex(' ')} ({what})",
            f"{show_phys(first.address)}: {first.actual.hex(' ')}, a page of {scene.machine.owners.at(first.address)}; "
            f"{len(found)} pages differ",
            *(because or ["no list entry names this page"]),
            address=first.address,
        )
    ]


def _only_used(scene: Scene, expected: RamImage, pfn: int) -> bool:
    """Whether a page differs in nothing but what the processor sets in the page tables that it walks: A and D."""
    size = 4 if scene.jump.control.arch is Arch.I386 else 8
    mask = int.from_bytes((Entry.A | Entry.D).to_bytes(size, "little") * (PAGE_SIZE // size), "little")
    before, now = (int.from_bytes(page, "little") for page in (expected.page(pfn), scene.machine.ram.page(pfn)))
    return not (before ^ now) & ~mask


def _tables(scene: Scene) -> set[int]:
    """Page frames of the page tables of the caller and of the stub."""
    machine, words = scene.machine, scene.jump.control.words
    found: set[int] = set()

    def read(address: int, size: int) -> int:
        found.add(address >> PAGE_SHIFT)
        return machine.ram.read_int(address, size)

    for root in (words["cr3"], words["tables"]):
        state = replace(machine.cpu.paging(), cr0=words["cr0"], cr3=root, cr4=words["cr4"], pdptes=None)
        deque(mappings(read, state), maxlen=0)
    return found


def owners(scene: Scene) -> list[Finding]:
    """Nobody stored to a page that was not his to write; one finding for each instruction that did."""
    violations, findings = scene.jump.violations, []
    for pc in dict.fromkeys(one.pc for one in violations):
        hits = [one for one in violations if one.pc == pc]
        more = f", and {len(hits) - 1} more" if len(hits) > 1 else ""
        findings.append(
            scene.finding(
                "owner violation",
                f"no store to a page of {hits[0].owner} in this phase",
                f"{hits[0].writer} stored {hits[0].value:#x} ({hits[0].size} bytes) at "
                f"{show_phys(hits[0].address)}, a page of {hits[0].owner}{more}",
                f"stored by {scene.symbols.place(pc)}, N {hits[0].position}",
                address=hits[0].address,
            )
        )
    violations.clear()
    return findings


# ---- registers -------------------------------------------------------------------------------------------------


def entry_state(scene: Scene) -> list[Finding]:
    """The processor and the stack are as the stub's convention has them at the peer's entry."""
    jump, state = scene.jump, scene.jump.at_entry
    wrong = registers.entry_state(jump.control.arch, state)
    if jump.preserve:
        wrong += _stack(scene, state["rsp"])
    return scene.sentences("entry state", "the convention of relocate_kernel", wrong)


def _stack(scene: Scene, sp: int) -> list[str]:
    control = scene.jump.control
    words = 2 if control.has_slot else 1
    top = control.swap_page + PAGE_SIZE
    if sp != top - words * control.word:
        return [f"stack pointer {sp:#x}, not {words} words below the end of the swap page {show_phys(top - PAGE_SIZE)}"]
    back = scene.machine.ram.read_int(sp, control.word)
    if back & ~PAGE_MASK != control.page:
        return [f"return address {back:#x} is not in the control page {show_phys(control.page)}"]
    return []


def reentry_state(scene: Scene) -> list[Finding]:
    """The peer came back as the convention wants it."""
    wrong = registers.reentry_state(scene.jump.control.arch, scene.jump.left)
    return scene.sentences("re-entry state", "the re-entry convention", wrong)


def after_call(scene: Scene) -> list[Finding]:
    """Behind the caller's call: stack, flags, control registers and what a callee must keep."""
    jump = scene.jump
    now = scene.machine.cpu.registers()
    return [
        scene.finding("registers", f"{expected} after the call", actual)
        for expected, actual in (
            one.describe() for one in registers.after_call(jump.control.arch, jump.at_call, now, gdt=False)
        )
    ]


# ---- known faults ----------------------------------------------------------------------------------------------


def known_at_entry(scene: Scene) -> list[Finding]:
    """B-01: no slot for the peer's next entry.  B-02: no 0 where nobody waits for the peer.  B-37: no IDT."""
    jump, state, found = scene.jump, scene.jump.at_entry, []
    if not jump.preserve:
        found += _way_back_of_nobody(scene, state["rsp"])
    behind = jump.control.swap_page + PAGE_SIZE
    if jump.preserve and not jump.control.has_slot:
        found.append(
            scene.finding(
                "entry state",
                "a word above the return address, for the peer to say where it wants to be entered next",
                f"the word above it is {show_phys(behind)}, in the page behind the swap page, "
                f"a page of {scene.machine.owners.at(behind)}",
                f"the stack pointer is {show_phys(state['rsp'])}: the stub has pushed nothing before its call",
                "a peer that stores its next entry there writes into that page; of one that returns with `ret` the "
                "stub takes what it finds there",
                catalogue="B-01",
            )
        )
    if not state["idtr.limit"]:
        found.append(
            scene.finding(
                "entry state",
                "an IDT that an NMI or an exception can be delivered through",
                f"IDTR is {state['idtr.base']:#x}, limit 0",
                "it was given up before the call, and the stub loads none: whatever comes is a triple fault",
                catalogue="B-37",
            )
        )
    return found


def _way_back_of_nobody(scene: Scene, sp: int) -> list[Finding]:
    control = scene.jump.control
    top = scene.machine.ram.read_int(sp, control.word)
    inside = control.page <= sp <= control.page + PAGE_SIZE - control.word
    if inside and not top:
        return []
    return [
        scene.finding(
            "entry state",
            "the word on the stack of a peer that nobody waits for is 0",
            f"the stack pointer is {show_phys(sp)}, {'in' if inside else 'outside'} the control page "
            f"{show_phys(control.page)}; the word there is {top:#x}",
            "the stub pushed no 0 before the entry: the peer takes what it finds there for an entry to go back to",
            catalogue="B-02",
        )
    ]


def known_at_return(scene: Scene) -> list[Finding]:
    """B-24: the way back of a PAE kernel turns paging on with the CR4 that the peer left."""
    jump = scene.jump
    if not jump.control.arch.is_pae or jump.at_entry["cr4"] & Cr4.PAE:
        return []
    pae = bool(jump.left["cr4"] & Cr4.PAE)
    return [
        scene.finding(
            "re-entry state",
            "the stub sets CR4.PAE before it sets CR0.PG, for its tables are PAE tables",
            f"it sets CR0.PG with the CR4 that the peer left, {jump.left['cr4']:#x}: PAE is {int(pae)}",
            f"CR4 was {jump.at_entry['cr4']:#x} when the peer was entered, as the stub made it",
            "the peer set CR4.PAE itself" if pae else "what follows is walked as 2-level tables",
            catalogue="B-24",
        )
    ]


def known_after_call(scene: Scene) -> list[Finding]:
    """B-07: the caller loads its segments from a GDT that is not its own, or is so only by the peer's grace."""
    jump = scene.jump
    gdtr = scene.machine.cpu.gdtr
    if jump.control.restores_gdt or not jump.gdtr[1]:
        return []
    base, limit = jump.gdtr
    left = jump.left["gdtr.base"], jump.left["gdtr.limit"]
    return [
        scene.finding(
            "registers",
            f"gdtr {base:#x}, limit {limit:#x} after the call: the caller's own, for it is about to load its segments",
            f"gdtr {gdtr.base:#x}, limit {gdtr.limit:#x}",
            f"as the peer left it ({left[0]:#x}, limit {left[1]:#x}): the stub has no LGDT",
            f"the caller had given its own up: the peer was entered with limit {jump.at_entry['gdtr.limit']:#x}",
            catalogue="B-07",
        )
    ]


def died(scene: Scene, outcome: ev.TripleFault, back_into: Jump | None) -> list[Finding]:
    """The machine reset itself while a jump was open, with the known fault that the evidence is of.

    ``back_into``: the jump that this one goes back into, if it is one that does.
    """
    state, jump = scene.machine.cpu.registers(), scene.jump
    because = [f"{one.why}" for one in outcome.chain]
    catalogue = ""
    if jump.entered is None and outcome.pc == jump.start and scene.machine.cpu.walk(jump.start).physical is None:
        catalogue = "B-26" if back_into is not None else "B-25"
        whose = (
            f", in the control page {show_phys(back_into.control.page)} of jump {back_into.number}" if back_into else ""
        )
        because.insert(0, f"the stub's tables do not map the peer's entry {show_phys(jump.start)}{whose}")
    elif (
        jump.returned is not None and state["cr0"] & Cr0.PG and not state["cr4"] & Cr4.PAE and jump.control.arch.is_pae
    ):
        catalogue = "B-24"
        because.insert(0, "CR0.PG was set while CR4.PAE is 0: PAE tables are walked as 2-level ones")
    elif jump.back is not None and not state["gdtr.limit"]:
        catalogue = "B-07"
        because.insert(0, f"GDTR is {state['gdtr.base']:#x}, limit 0, as the peer left it")
    return [
        scene.finding(
            "guest failed", "the caller goes on", f"triple fault in {outcome.mode}", *because, catalogue=catalogue
        )
    ]
