"""What holds when the stub is Linux's own, and which known fault of that code a finding shows.

The names B-01 and so on are those of the catalogue in docs/KERNELS.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from emu.journey.findings import Finding
from emu.journey.linux_call import LinuxCall, code_of, file_sha256
from emu.journey.outcome import Outcome
from emu.machine import events as ev
from emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, show_phys
from emu.x86.bits import Cr0, Cr4

if TYPE_CHECKING:
    from emu.journey.journey import Journey

_MOV_TO_CR0 = b"\x0f\x22\xc0"


def _finding(journey: Journey, kind: str, expected: str, actual: str, *because: str, catalogue: str = "") -> Finding:
    position, tick, pc = journey.machine.here()
    place = str(journey.symbols.place(pc))
    return Finding(kind, journey.transition.name, tick, position, place, expected, actual, because, catalogue)


def own_bytes(journey: Journey, linux: LinuxCall) -> Outcome:
    """The code that is about to run is the file's, byte for byte."""
    name = "stub bytes"
    wanted, here = code_of(linux.stub), linux.executed(journey.machine.ram)
    if wanted == here:
        return Outcome(name)
    at = next(index for index, (one, other) in enumerate(zip(wanted, here, strict=True)) if one != other)
    finding = _finding(
        journey, name, f"{linux.stub.name}: {wanted[at : at + 8].hex(' ')} at +{at:#x}", here[at : at + 8].hex(" "),
        f"sha256 of the file's {len(wanted)} bytes of code: {file_sha256(linux.stub)}",
        f"sha256 of those in the control page: {linux.executed_sha256(journey.machine.ram)}",
    )  # fmt: skip
    return Outcome(name, (finding,))


def next_entry(journey: Journey, linux: LinuxCall) -> Outcome:
    """The word that the stub takes as the peer's next entry is one that the peer wrote."""
    name = "next entry"
    machine, word = journey.machine, journey.scene.arch.word
    swap = int(journey.require_loaded().image.swap_page or 0)
    sp = machine.cpu.registers()["rsp"]
    if linux.stub.slot or sp != swap + PAGE_SIZE:
        return Outcome(name)
    value = machine.ram.read_int(sp, word)
    finding = _finding(
        journey, name, "the word at the stack pointer says where the peer wants to be entered next time",
        f"the stack pointer is {show_phys(sp)}, the end of the swap page: the stub takes {value:#x} from the page "
        f"after it, a page of {machine.owners.at(sp)}",
        "the peer returned with `ret`, and the stub had pushed nothing above its return address",
        f"swap page {show_phys(swap)}", catalogue="B-01",
    )  # fmt: skip
    return Outcome(name, (finding,))


def plain_stack(journey: Journey) -> Outcome:
    """A plain kexec: the stack is still the control page's, and the word on it, 0, tells the peer of no way back."""
    name = "no way back"
    word, control = journey.scene.arch.word, int(journey.require_loaded().image.control_page)
    sp = journey.machine.cpu.registers()["rsp"]
    if not control <= sp <= control + PAGE_SIZE - word:
        actual = f"the stack pointer is {show_phys(sp)}, outside the control page {show_phys(control)}"
    elif top := journey.machine.ram.read_int(sp, word):
        actual = f"the word is {top:#x}"
    else:
        return Outcome(name)
    finding = _finding(
        journey, name, "the word on the stack of a peer that nobody waits for is 0", actual,
        "the stub pushed no 0 before the entry: the peer takes what it finds there for an entry to go back to",
        catalogue="B-02",
    )  # fmt: skip
    return Outcome(name, (finding,))


def peer_is_left(journey: Journey, outcome: ev.Outcome) -> Finding | None:
    """Without a way back: None if B said so and stopped, as it must."""
    refused = 2
    if outcome == ev.Exited(refused):
        return None
    return _finding(
        journey, "plain kexec", f"B finds no way back and ends with status {refused}", f"{outcome}",
    )  # fmt: skip


def named(journey: Journey, outcome: ev.Outcome, finding: Finding) -> Finding:
    """``finding`` about the end of a run with its catalogue entry, where the evidence is that of a known fault."""
    linux = journey.require_loaded().linux if journey.loaded is not None else None
    if linux is None or not isinstance(outcome, ev.TripleFault):
        return finding
    state = journey.machine.cpu.registers()
    if _cr0_before(journey, outcome.pc) and state["cr0"] & Cr0.PG and not state["cr4"] & Cr4.PAE:
        if not journey.scene.arch.is_pae:
            return finding
        return replace(
            finding,
            catalogue="B-24",
            because=(
                f"the fault is at {journey.symbols.place(outcome.pc)}, the instruction after `mov %eax,%cr0`",
                (
                    f"CR0.PG was set while CR4.PAE is 0, and CR3 {state['cr3']:#x} holds PAE tables: they are walked "
                    "as 2-level ones"
                ),
                *finding.because,
            ),
        )
    if _in_restore(journey, linux, outcome.pc):
        base, limit = state["gdtr.base"], state["gdtr.limit"]
        suspended = journey.suspended or {}
        if (base, limit) != (suspended.get("gdtr.base"), suspended.get("gdtr.limit")):
            return replace(
                finding,
                catalogue="B-07",
                because=(
                    (
                        f"GDTR is {base:#x}, limit {limit:#x}, as the peer left it; A's is "
                        f"{suspended.get('gdtr.base', 0):#x}, limit {suspended.get('gdtr.limit', 0):#x}"
                    ),
                    "A's segments are loaded from it before A's own GDT is back",
                    *finding.because,
                ),
            )
    return finding


def _cr0_before(journey: Journey, pc: int) -> bool:
    """Whether the three bytes before linear ``pc``, in the control page, are a move to CR0."""
    linux = journey.require_loaded().linux
    if linux is None or pc & ~PAGE_MASK not in (linux.control_page, journey.scene.arch.direct(linux.control_page)):
        return False
    at = (linux.control_page >> PAGE_SHIFT << PAGE_SHIFT) + (pc & PAGE_MASK)
    return journey.machine.ram.read(at - 3, 3) == _MOV_TO_CR0


def _in_restore(journey: Journey, linux: LinuxCall, pc: int) -> bool:
    caller = linux.caller
    start = caller.symbols["stub_returned"] - caller.org
    return start <= pc - int(journey.scene.arch.direct(caller.org)) < len(caller.code)
