"""What is checked at each transition.  Each check gives an Outcome: its name, and findings for what does not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from emu.assembler import Image
from emu.journey import registers
from emu.journey.findings import Finding
from emu.journey.outcome import Outcome, finding_at, finding_here
from emu.kexec.allocator import PageOwner
from emu.kexec.cmdline import GuestResults, parse_command_line
from emu.kexec.e820 import MemoryMap
from emu.kexec.entry_list import StepKind, WalkStep
from emu.kexec.layout import Parsed
from emu.machine import events as ev
from emu.units import PAGE_SHIFT, show_phys

if TYPE_CHECKING:
    from emu.journey.journey import Journey
    from emu.journey.memory import RamImage
    from emu.journey.movement import Movement


# ---- command lines and lists -----------------------------------------------------------------------------------


def command_line(journey: Journey, kernel: Image, line: str, memory_map: MemoryMap) -> Outcome:
    """The parser of a guest that was told ``memory_map`` and ours agree on ``line``."""
    name = "command line"
    at = kernel.symbols["parsed"]
    guest = GuestResults.unpack(journey.machine.ram.read(at, Parsed.BYTES))
    ours = parse_command_line(line).guest_results(memory_map.total_ram)
    if guest == ours:
        return Outcome(name)
    wrong = [
        f"{field}: guest {theirs:#x}, harness {mine:#x}"
        for field, theirs, mine in zip(GuestResults.__slots__, guest.qwords(), ours.qwords(), strict=True)
        if theirs != mine
    ]
    return Outcome(name, (finding_here(journey, name, str(ours), str(guest), [*wrong, f"line {line!r}"]),))


def list_invariant(journey: Journey) -> Outcome:
    """Sources and destinations are disjoint or equal, and no control page is a destination."""
    name = "entry list"
    image = journey.require_loaded().image
    destinations = {destination for destination, _ in image.pairs}
    backups = len(image.inverse_pairs)  # a copy's first part: what it reads, the second part writes afterwards
    wrong = []
    for part in (image.pairs[:backups], image.pairs[backups:]):
        written = {destination for destination, _ in part}
        wrong += [
            f"source {show_phys(source)} of {show_phys(destination)} is another page's destination"
            for destination, source in part
            if source != destination and source in written
        ]
    given = {PageOwner.SOURCE, PageOwner.BACKUP}
    owned = {pfn << PAGE_SHIFT for owner, pfns in image.owners.items() if owner not in given for pfn in pfns}
    wrong += [f"{show_phys(page)} is a control page and a destination" for page in sorted(owned & destinations)]
    if len(destinations) != len(image.pairs):
        wrong.append("a destination is listed twice")
    return Outcome(name, tuple(finding_here(journey, name, "the kernel's invariant", line) for line in wrong[:1]))


# ---- memory ----------------------------------------------------------------------------------------------------


def memory(
    journey: Journey, expected: RamImage, steps: Sequence[WalkStep], volatile: Sequence[tuple[int, int]]
) -> Outcome:
    """Every page of RAM against the reference model, outside the declared volatile ranges."""
    name = "memory"
    found = list(expected.differences(journey.machine.ram, volatile))
    if not found:
        return Outcome(name)
    first = found[0]
    owner = journey.machine.owners.at(first.address)
    because = list(_page_evidence(journey, expected, steps, first.pfn))
    finding = finding_here(
        journey,
        name,
        f"{show_phys(first.address)}: {first.expected.hex(' ')} (reference model of the list)",
        f"{show_phys(first.address)}: {first.actual.hex(' ')}, a page of {owner}; {len(found)} pages differ",
        because,
        address=first.address,
    )
    return Outcome(name, (finding,))


def _page_evidence(journey: Journey, expected: RamImage, steps: Sequence[WalkStep], pfn: int) -> list[str]:
    page = pfn << PAGE_SHIFT
    actual = journey.machine.ram.page(pfn)
    lines = []
    sources = [step for step in steps if step.kind is StepKind.SOURCE]
    for number, step in enumerate(sources):
        if page in (step.destination, step.source):
            lines.append(
                f"list entry {number + 1} of {len(sources)}: source {show_phys(step.source)} <-> "
                f"destination {show_phys(step.destination)}"
            )
            other = step.source if page == step.destination else step.destination
            if actual == expected.page(other >> PAGE_SHIFT):
                lines.append("the page still holds what it held before: this entry was not carried out")
            break
    else:
        lines.append("no list entry names this page")
    return lines


def as_before_the_jump(journey: Journey, before: RamImage, move: Movement) -> Outcome:
    """After the return every page of A is byte for byte what it was when A jumped."""
    name = "A's memory"
    image = journey.require_loaded().image
    loaded = journey.require_loaded()
    # B's pages, or copies of A's: what was exchanged into the sources, what was copied into the backups
    held = PageOwner.BACKUP if image.is_copied else PageOwner.SOURCE
    skip: set[int] = set(image.owners.get(held, ()))
    skip |= {start >> PAGE_SHIFT for start, _ in move.volatile}
    if loaded.jump_page:
        skip.add(loaded.jump_page >> PAGE_SHIFT)
    if journey.scene.is_reserved:
        skip |= set(journey.scene.target_range.pages())
    symbols = journey.kernel_a.symbols
    kept = [(symbols["volatile_begin"], symbols["volatile_end"])] if "volatile_begin" in symbols else []
    if loaded.slot and not loaded.jump_page:
        kept.append((loaded.slot, loaded.slot + 8))
    found = list(before.differences(journey.machine.ram, [*kept, *move.volatile], frozenset(skip)))
    if not found:
        return Outcome(name)
    first = found[0]
    finding = finding_here(
        journey,
        name,
        f"{show_phys(first.address)}: {first.expected.hex(' ')} (as when A jumped)",
        f"{show_phys(first.address)}: {first.actual.hex(' ')}; {len(found)} pages of A changed",
        [f"the page belongs to {journey.machine.owners.at(first.address)}"],
        address=first.address,
    )
    return Outcome(name, (finding,))


# ---- registers -------------------------------------------------------------------------------------------------


def after_jump(journey: Journey, at_entry: Mapping[str, int], *, gdt: bool) -> Outcome:
    """Registers at the instruction after A's call."""
    wrong = registers.after_call(journey.scene.arch, at_entry, journey.machine.cpu.registers(), gdt=gdt)
    return Outcome("registers", tuple(_register_finding(journey, one, "after the call") for one in wrong))


def restored(journey: Journey, before: Mapping[str, int]) -> Outcome:
    """Everything that A restores itself is as it was at suspend_begin."""
    wrong = registers.after_restore(journey.scene.arch, before, journey.machine.cpu.registers())
    findings = [_register_finding(journey, one, "when A is back") for one in wrong]
    if journey.machine.cpu.nmi_blocked:
        findings.append(
            finding_here(
                journey, "registers", "NMIs are not blocked", "NMIs are blocked", ["no IRET since the peer's NMI"]
            )
        )
    return Outcome("A restored", tuple(findings))


def _register_finding(journey: Journey, one: registers.Mismatch, when: str) -> Finding:
    expected, actual = one.describe()
    return finding_here(journey, "registers", f"{expected} {when}", actual, journey.peer_notes)


# ---- the event stream ------------------------------------------------------------------------------------------


def owner_violations(journey: Journey, events: Sequence[ev.Event]) -> Outcome:
    """No store to a page that the phase does not allow."""
    hits = [event for event in events if isinstance(event, ev.OwnerViolation)]
    findings = []
    seen: set[int] = set()
    for hit in hits:
        if hit.pc in seen:
            continue
        seen.add(hit.pc)
        many = sum(1 for other in hits if other.pc == hit.pc)
        value = hit.value.to_bytes(max(hit.size, 1), "little").hex(" ") if hit.size <= 8 else f"{hit.value:#x}"
        findings.append(
            finding_at(
                journey,
                hit,
                "owner violation",
                f"no store to a page of {hit.owner} in this phase",
                f"{hit.writer} stored {value} ({hit.size} bytes) at {show_phys(hit.address)}, a page of {hit.owner}"
                + (f", and {many - 1} more" if many > 1 else ""),
                because=[f"stored by {journey.symbols.place(hit.pc)}", *journey.peer_notes],
            )
        )
    return Outcome("owners", tuple(findings))


def hazards(journey: Journey, events: Sequence[ev.Event]) -> Outcome:
    """Nothing leans on what hardware may or may not do."""
    found = [event for event in events if isinstance(event, ev.Hazard)]
    journey.result.hazards += len(found)
    findings = [
        finding_at(journey, event, f"hazard: {event.kind}", "no reliance on it", event.detail,
            because=[f"{journey.symbols.place(event.pc)}", *journey.peer_notes])
        for event in found
    ]  # fmt: skip
    return Outcome("hazards", tuple(findings))
