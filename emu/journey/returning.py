"""B goes back to A: the transition return, and the end of a run that A ends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from emu.journey import (
    checks,
    control,
    hostile,
    image_checks,
    linux_checks,
    movement,
    page_checks,
    registers,
)
from emu.journey.outcome import Ended
from emu.kexec.layout import CookieKind, HostRequest
from emu.machine import events as ev
from emu.machine.owners import Owner
from emu.units import PAGE_SIZE

if TYPE_CHECKING:
    from emu.journey.journey import Journey

STAGE_LIMIT = 600_000_000


def go_back(journey: Journey) -> None:
    """B enters A where A is told that the image was saved."""
    machine, loaded = journey.machine, journey.require_loaded()
    suspended = journey.suspended
    if suspended is None:
        raise AssertionError("A has not jumped yet")
    journey.tell("before return")
    machine.break_in([(page, page + PAGE_SIZE - 1) for page in movement.stub_pages(journey)])
    outcome = hostile.run_peer(machine, journey.scene.hostile, STAGE_LIMIT)
    machine.clear_break_in()
    if not isinstance(outcome, ev.Breakpoint):
        raise Ended(outcome)
    journey.begin("B", "A")
    journey.check(control.reentry(journey, CookieKind.AFTER_IMAGE_SAVE))
    if loaded.linux is not None:
        journey.check(linux_checks.next_entry(journey, loaded.linux))
    journey.check(control.quiet_devices(journey))
    journey.progress.peer_notes = tuple(registers.left_behind(journey.scene.arch, suspended, machine.cpu.registers()))
    journey.progress.peer_entry = _next_entry(journey)
    enter(journey)
    machine.owners.assign(movement.b_pfns(journey), Owner.A)
    if journey.scene.is_reserved:
        machine.owners.assign(journey.scene.target_range.pages(), Owner.B)
    journey.until_request(HostRequest.BACK)
    journey.check(checks.restored(journey, suspended))
    if journey.progress.page is not None:
        journey.progress.page = replace(journey.progress.page, sequence=journey.progress.page.sequence + 1)
    journey.check(page_checks.jump_page(journey))
    journey.end()


def _next_entry(journey: Journey) -> int:
    """Where B wants to be entered next: what it left in the slot, else the word that it left on its stack."""
    loaded, machine = journey.require_loaded(), journey.machine
    if loaded.slot:
        return machine.ram.read_int(loaded.slot, 8)
    word = journey.scene.arch.word
    return machine.ram.read_int(machine.cpu.registers()["rsp"] & (1 << 8 * word) - 1, word)


def enter(journey: Journey) -> None:
    """From an entry of A to the instruction after A's call, where all is as it was when A jumped."""
    progress, loaded = journey.progress, journey.require_loaded()
    if progress.called is None or progress.before_jump is None:
        raise AssertionError("A has not jumped yet")
    move = journey.start_move(movement.returning(journey), journey.transition.source)
    journey.run_move(move, journey.scene.arch.text_base + journey.kernel_a.symbols["after_jump"])
    journey.check(checks.after_jump(journey, progress.called, gdt=loaded.restores_gdt))
    journey.check(checks.as_before_the_jump(journey, progress.before_jump, move))


def finish(journey: Journey) -> None:
    """A verifies all its memory and ends the run."""
    journey.until_request(HostRequest.INTACT)
    if journey.transition.kind == "return":
        journey.image.invalidate()  # A goes on: nobody may resume it from what was saved
    outcome = journey.run_machine()
    if isinstance(outcome, ev.Exited):
        journey.result.exit_status = outcome.status
    if outcome != ev.Exited(0):
        raise Ended(outcome)
    if journey.transition.kind == "resume":
        journey.check(image_checks.rejump_refused(journey))
    journey.progress.ended = True
