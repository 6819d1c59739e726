"""Power off, and A back from its image: the transitions boot, restore and resume."""

from __future__ import annotations

import random
from dataclasses import replace
from errno import EINVAL
from typing import TYPE_CHECKING

from emu.assembler import Image
from emu.errors import ImageFileError
from emu.journey import bringup, checks, control, image_checks, movement, page_checks
from emu.journey.faults import map_for_c
from emu.journey.outcome import Ended
from emu.journey.restore import Restoring, c_pfns, refuse
from emu.journey.returning import enter
from emu.journey.saving import reopened
from emu.kexec.layout import CookieKind, HostRequest
from emu.machine.machine import Machine
from emu.machine.owners import Owner
from emu.units import PAGE_SIZE

if TYPE_CHECKING:
    from emu.journey.journey import Journey


def boot(journey: Journey) -> None:
    """A powers off; RAM is lost; C boots on the same machine."""
    machine, scene = journey.machine, journey.scene
    journey.until_request(HostRequest.INTACT)
    journey.until_request(HostRequest.POWER_OFF)
    kernel = require_c(journey)
    line = scene.command_line("c")
    lose_ram(machine, scene.seed)
    machine.power_cycle()
    memory_map = map_for_c(journey)
    bringup.boot(machine, kernel, scene.arch, line, memory_map=memory_map, owner=Owner.FREE)
    machine.owners.assign(c_pfns(scene, kernel), Owner.C)
    journey.symbols.add(kernel)
    journey.begin("-", "C")
    low = scene.memory_map.low_region()
    journey.forbid(c_pfns(scene, kernel) | set(low.pages()), "C")
    journey.until_request(HostRequest.PARSED)
    journey.check(checks.command_line(journey, kernel, line, memory_map))
    journey.collect_events()
    journey.end()


def lose_ram(machine: Machine, seed: int) -> None:
    """Every byte of RAM is noise, which ``seed`` decides."""
    noise = random.Random(f"power off {seed}")  # noqa: S311 - noise that a seed repeats, no secret
    for bank in machine.ram.banks:
        if not bank.rom:
            machine.ram.write(bank.start, noise.randbytes(len(bank.view)))


def restore(journey: Journey) -> None:
    """C's userspace puts the image back, and C enters A."""
    machine, progress = journey.machine, journey.progress
    kernel = require_c(journey)
    journey.begin("C", "A")
    start = machine.count.ticks
    journey.until_request(HostRequest.RESTORE)
    try:
        image = reopened(journey)
        restored = progress.restored = Restoring(machine, journey.scene, kernel, image).run()
        image.mark_used()
    except ImageFileError as error:
        refuse(machine, kernel, EINVAL)
        journey.find("restore refused", "the image can be resumed from", str(error), tick=start)
        raise Ended(journey.run_machine()) from error
    journey.symbols.add(restored.stub, size=PAGE_SIZE)
    _give_back_owners(journey, kernel)
    now = journey.transition
    now.listed = len(restored.pairs)
    now.restored_pages = restored.pages
    own = c_pfns(journey.scene, kernel) | set(journey.scene.memory_map.low_region().pages())
    journey.forbid(own, "C")
    journey.break_once(restored.entry_va)
    journey.check(control.quiet_devices(journey))
    move = journey.start_move(movement.restoring(journey, restored), "C")
    journey.run_move(move, restored.entry)
    journey.check(image_checks.as_saved(journey))
    journey.end()


def resume(journey: Journey) -> None:
    """A is entered at after_resume (by its back entry under the hand-off stack) and goes on as if nothing had been."""
    machine, progress = journey.machine, journey.progress
    suspended = journey.suspended
    if suspended is None:
        raise AssertionError("A has not jumped yet")
    journey.begin("C", "A")
    journey.check(control.reentry(journey, CookieKind.AFTER_RESUME))
    progress.peer_notes = ()
    enter(journey)
    machine.owners.assign(movement.b_pfns(journey), Owner.A)
    if journey.scene.is_reserved:
        machine.owners.assign(journey.scene.target_range.pages(), Owner.RESERVED)
    if progress.page is not None:
        saved = progress.page if progress.page_saved is None else progress.page_saved
        progress.page = replace(saved, sequence=saved.sequence + 1, resume_slot=0)
    journey.until_request(HostRequest.BACK)
    journey.check(checks.restored(journey, suspended))
    journey.check(page_checks.jump_page(journey))
    loaded = journey.require_loaded()
    if loaded.slot and not loaded.jump_page:
        journey.check(page_checks.slot(journey, 0))
    journey.end()


def _give_back_owners(journey: Journey, kernel: Image) -> None:
    """What is in its place belongs to whom it belonged when it was saved."""
    progress, machine = journey.progress, journey.machine
    if progress.owners is None or progress.restored is None:
        return
    own = c_pfns(journey.scene, kernel)
    for one in progress.restored.image.ranges:
        for pfn in one.pages():
            if pfn not in own:
                machine.owners.assign([pfn], progress.owners.get(pfn, Owner.FREE))


def require_c(journey: Journey) -> Image:
    """Kernel C of a journey that has one."""
    if journey.kernel_c is None:
        raise AssertionError("the journey has no kernel C")
    return journey.kernel_c
