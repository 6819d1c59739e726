"""Which known bug of this code a finding looks like, where the evidence of the run says so.

The entries are those of tests/catalogue.toml.  A rule looks at the finding, the machine as the run left it and its
events; it answers with the fact that makes the finding that entry's, or with nothing.  The first answer counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from emu.assembler import Image, disassemble
from emu.journey import programs
from emu.journey.findings import Finding
from emu.journey.movement import linear_pages, stub_pages
from emu.machine import events as ev
from emu.units import PAGE_MASK, PAGE_SIZE, show_phys
from emu.x86.bits import Cr0, Cr4
from emu.x86.paging import translate

if TYPE_CHECKING:
    from emu.journey.journey import Journey
    from emu.journey.loader import Loaded

Rule = Callable[["Journey", Finding], str]
_PAGE_FAULT = 14


def named(journey: Journey, finding: Finding) -> Finding:
    """``finding`` with the catalogue entry that it looks like and why, if there is one."""
    if finding.catalogue or journey.loaded is None or journey.loaded.linux is not None:
        return finding
    for entry, rule in _RULES:
        why = rule(journey, finding)
        if why:
            return replace(finding, catalogue=entry, because=(*finding.because, f"like {entry}: {why}"))
    return finding


def _loaded(journey: Journey) -> Loaded:
    return journey.require_loaded()


def _faults(journey: Journey) -> list[ev.Fault]:
    """The faults since the transition under way began."""
    marks = [event for event in journey.machine.events if isinstance(event, ev.TransitionMark) and event.begins]
    since = marks[-1].tick if marks else 0
    return [event for event in journey.machine.events if isinstance(event, ev.Fault) and event.tick >= since]


def _ended_early(finding: Finding) -> bool:
    return finding.kind in ("guest failed", "exception", "wrong entry")


def _refused(words: str) -> Rule:
    """The processor refused a write to a control register for the reason that has ``words``."""

    def rule(journey: Journey, finding: Finding) -> str:
        if not _ended_early(finding):
            return ""
        return next((fault.reason for fault in _faults(journey) if words in fault.reason), "")

    return rule


def _stack_at(above: int, *, inside: bool) -> Rule:
    """The peer's first stack pointer is ``above`` words below the end of the swap page, or not in that page."""

    def rule(journey: Journey, finding: Finding) -> str:
        if finding.kind != "entry state" or "stack pointer" not in finding.actual:
            return ""
        swap, word = int(_loaded(journey).image.swap_page or 0), journey.scene.arch.word
        text = finding.actual.split("stack pointer ", 1)[1]
        sp = int(text.split(",", 1)[0], 0)
        if inside:
            return "no slot above the return address" if sp == swap + PAGE_SIZE - above * word else ""
        return "" if swap <= sp <= swap + PAGE_SIZE else f"the peer's stack is not in the swap page {show_phys(swap)}"

    return rule


def _slot_value(_journey: Journey, finding: Finding) -> str:
    wrong = finding.kind == "entry state" and "word above the return address" in finding.actual
    return "a peer that only rets leaves its next entry there" if wrong else ""


def _backwards(journey: Journey, finding: Finding) -> str:
    left = any(note.startswith("DF=1") for note in journey.peer_notes)
    if left and finding.transition == "return" and finding.kind in ("owner violation", "memory", "guest failed"):
        return "the peer left DF set, and nothing cleared it before the first string instruction"
    return ""


def _foreign_copy(journey: Journey, finding: Finding) -> str:
    if finding.transition not in ("suspend", "return"):
        return ""
    image = _loaded(journey).image
    swap = int(image.swap_page or 0)
    if finding.kind == "owner violation" and "rep movs" in finding.where:
        return f"a page is stored neither to the list's pages nor to the swap page {show_phys(swap)}"
    listed = {int(page) for pair in image.pairs for page in pair} | {int(page) for page in image.list_pages}
    for fault in _faults(journey) if _ended_early(finding) else ():
        page = fault.cr2 & -PAGE_SIZE
        copying = "rep movs" in journey.symbols.place(fault.pc).source
        if fault.vector == _PAGE_FAULT and copying and page != swap and page not in listed:
            return f"a page is moved by way of {show_phys(page)}; the swap page is {show_phys(swap)}"
    return ""


def _copied(journey: Journey, finding: Finding) -> str:
    if finding.kind != "memory" or finding.address is None:
        return ""
    page, ram = finding.address & -PAGE_SIZE, journey.machine.ram
    for destination, source in _loaded(journey).image.pairs:
        other = source if page == destination else destination
        if page in (destination, source) and destination != source:
            if ram.read(page, PAGE_SIZE) == ram.read(other, PAGE_SIZE):
                return f"{show_phys(destination)} and {show_phys(source)} are equal now: copied, not exchanged"
            return ""
    return ""


def _stale_global(_journey: Journey, finding: Finding) -> str:
    if finding.kind == "hazard: stale global translation" and "write at" in finding.actual:
        return "a store through a translation that the load of CR3 need not have dropped"
    return ""


def _gdt(_journey: Journey, finding: Finding) -> str:
    if finding.kind == "registers" and "gdtr." in finding.actual and "after the call" in finding.expected:
        return "A is about to load its segments from a GDT that is not its own"
    return ""


def _not_the_entry(journey: Journey, finding: Finding) -> str:
    loaded = _loaded(journey)
    offset = next((loaded.stub.symbols[name] for name in programs.ENTRY_NAMES if name in loaded.stub.symbols), 0)
    offset -= loaded.stub.org
    called = loaded.entry_va & PAGE_MASK
    if _ended_early(finding) and called != offset:
        return f"A calls the control page at +{called:#x}, but relocate_new_kernel is at +{offset:#x}"
    return ""


def _leaves_the_page(journey: Journey, finding: Finding) -> str:
    """Control went where a direct branch of the stub leads, and that is outside its page."""
    if not _ended_early(finding):
        return ""
    pages, stub = set(linear_pages(journey)), _loaded(journey).stub
    targets = [fault.cr2 for fault in _faults(journey) if fault.vector == _PAGE_FAULT]
    targets += [int(word, 16) for word in finding.actual.split() if finding.kind == "wrong entry" and word[:2] == "0x"]
    for line, text, target in _branches_out(stub):
        for page in pages:
            if (target - stub.org + page) & (1 << stub.bits) - 1 in targets:
                return f"`{text}` at {stub.symbol_at(line)} is relative, and leads out of the copied page"
    return ""


def _branches_out(stub: Image) -> list[tuple[int, str, int]]:
    found = []
    for line in stub.lines:
        code = stub.code[line.address - stub.org :][: line.size]
        for one in disassemble(code, line.address, stub.bits_at(line.address)):
            mnemonic, _, operand = one.text.partition(" ")
            if mnemonic.startswith(("j", "call")) and operand.strip().startswith("0x"):
                target = int(operand.strip(), 16)
                if target & -PAGE_SIZE != stub.org & -PAGE_SIZE:
                    found.append((line.address, one.text, target))
    return found


def _pae_off(journey: Journey, finding: Finding) -> str:
    state = journey.machine.cpu.registers()
    if not journey.scene.arch.is_pae or not _ended_early(finding) or finding.transition != "return":
        return ""
    if state["cr0"] & Cr0.PG and not state["cr4"] & Cr4.PAE:
        return "CR0.PG was set while CR4.PAE is 0, so PAE tables are walked as 2-level ones"
    return ""


def _la57_kernel(journey: Journey, finding: Finding) -> str:
    state = journey.machine.cpu.registers()
    four_level = not journey.kernel_b.constants.get("LA57", 1)
    if finding.kind == "guest failed" and four_level and state["cr4"] & Cr4.LA57:
        return "B was built for 4-level paging and is entered with CR4.LA57=1"
    return ""


def _unmapped_list_page(journey: Journey, finding: Finding) -> str:
    if not _ended_early(finding):
        return ""
    image = _loaded(journey).image
    named_pages = {int(page) for pair in image.pairs for page in pair} | {int(page) for page in image.list_pages}
    for fault in _faults(journey):
        if fault.vector == _PAGE_FAULT and fault.cr2 & -PAGE_SIZE in named_pages and not _mapped(journey, fault.cr2):
            return f"{show_phys(fault.cr2)} is on the list, and the kexec tables do not map it"
    return ""


def _unmapped_way_back(journey: Journey, finding: Finding) -> str:
    swap = int(_loaded(journey).image.swap_page or 0)
    for fault in _faults(journey) if finding.kind == "guest failed" else ():
        in_b = fault.pc in range(journey.kernel_b.org, journey.kernel_b.end) or fault.pc == fault.cr2
        if fault.vector == _PAGE_FAULT and in_b and fault.cr2 & -PAGE_SIZE in (*stub_pages(journey), swap):
            return f"the way back needs {show_phys(fault.cr2)}, a page of A's that B's identity map does not have"
    return ""


def _mapped(journey: Journey, linear: int) -> bool:
    cpu, ram = journey.machine.cpu, journey.machine.ram
    state = replace(cpu.paging(), cr3=int(_loaded(journey).image.table_root), pdptes=None)
    return translate(ram.read_int, state, linear) is not None


def _old_base(journey: Journey, finding: Finding) -> str:
    called = journey.progress.called
    if not _ended_early(finding) or called is None:
        return ""
    control = int(_loaded(journey).image.control_page)
    as_in_a = journey.machine.cpu.cr3 == called["cr3"]
    for fault in _faults(journey) if as_in_a else ():
        if fault.vector == _PAGE_FAULT and fault.cr2 & -PAGE_SIZE == control and fault.pc != fault.cr2:
            return f"CR3 is A's again, and {show_phys(control)} was read where only the kexec tables map it"
    return ""


def _no_idt(journey: Journey, finding: Finding) -> str:
    if finding.kind != "guest failed" or "triple fault" not in finding.actual:
        return ""
    interrupted = any("NMI" in line for line in finding.because)
    beyond = any("beyond the IDT limit" in line for line in finding.because)
    if interrupted and beyond and journey.machine.cpu.registers()["idtr.limit"] == 0:
        return "an NMI came while the IDT had the limit 0"
    return ""


def _entry_list(words: str) -> Rule:
    def rule(_journey: Journey, finding: Finding) -> str:
        return finding.actual if finding.kind == "entry list" and words in finding.actual else ""

    return rule


_RULES: tuple[tuple[str, Rule], ...] = (
    ("B-36", _backwards),
    ("B-01", _stack_at(1, inside=True)),
    ("B-04", _stack_at(0, inside=False)),
    ("B-01", _slot_value),
    ("B-06", _stale_global),
    ("B-03", _foreign_copy),
    ("B-05", _copied),
    ("B-07", _gdt),
    ("B-14", _refused("CR0.WP cleared while CR4.CET=1")),
    ("B-16", _refused("CR4.LA57 changed in IA-32e mode")),
    ("B-55", _refused("CR4.PCIDE set while CR3[11:0]")),
    ("B-37", _no_idt),
    ("B-40", _entry_list("is a control page and a destination")),
    ("B-41", _entry_list("is another page's destination")),
    ("B-42", _entry_list("listed twice")),
    ("B-09", _not_the_entry),
    ("B-24", _pae_off),
    ("B-38", _old_base),
    ("B-26", _unmapped_way_back),
    ("B-25", _unmapped_list_page),
    ("B-12", _leaves_the_page),
    ("B-17", _la57_kernel),
)
