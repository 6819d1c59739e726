"""A loads B and leaves for it: the transitions load, suspend, and rejump, which needs no new load."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from emu.errors import LoadError
from emu.journey import checks, control, image_checks, linux_checks, movement, page_checks, stub_checks
from emu.journey.bringup import boot
from emu.journey.loader import Loaded, Loader, refused
from emu.journey.memory import RamImage
from emu.journey.outcome import Ended, Outcome
from emu.kexec.layout import HostRequest
from emu.machine.owners import Owner
from emu.units import PAGE_SIZE

if TYPE_CHECKING:
    from emu.journey.journey import Journey


def load(journey: Journey) -> None:
    """A boots and loads B; an A that was resumed, and has no B any more, loads anew."""
    machine = journey.machine
    if journey.loaded is None:
        _boot(journey)
    else:
        _load_anew(journey)
    start = machine.count.ticks
    before = RamImage(machine.ram)
    try:
        loaded = journey.loaded = journey.loader.load()
    except LoadError as error:
        refused(machine, journey.kernel_a, error.errno)
        journey.find("load refused", "the load succeeds", str(error), tick=start)
        raise Ended(journey.run_machine()) from error
    _know(journey, loaded)
    now = journey.transition
    now.pages_moved = 0
    now.listed = len(loaded.image.pairs)
    now.control_pages = loaded.control_pages(journey.scene)
    journey.progress.page = loaded.first_page
    journey.progress.peer_entry = loaded.start
    journey.check(checks.list_invariant(journey))
    journey.check(stub_checks.only_its_own(journey, before))
    journey.check(stub_checks.stub_bytes(journey))
    journey.check(page_checks.no_jump_page(journey) if loaded.first_page is None else page_checks.jump_page(journey))
    if loaded.safe:
        journey.check(image_checks.safe_memory(journey, loaded.safe))
    journey.end()


def _boot(journey: Journey) -> None:
    machine, scene = journey.machine, journey.scene
    line = scene.command_line("a")
    boot(machine, journey.kernel_a, scene.arch, line, memory_map=scene.a_map, owner=Owner.A)
    if scene.is_reserved:
        machine.owners.assign(scene.target_range.pages(), Owner.RESERVED)
    machine.ram.rebase()
    journey.symbols.add(journey.kernel_a, journey.kernel_a.org)
    journey.symbols.add(journey.kernel_a, scene.arch.text_base + journey.kernel_a.org)
    machine.policy.writer = "A"
    journey.begin("A", "-")
    journey.until_request(HostRequest.PARSED)
    journey.check(checks.command_line(journey, journey.kernel_a, line, scene.a_map))
    journey.until_request(HostRequest.LOAD)


def _load_anew(journey: Journey) -> None:
    """All of RAM is A's again, and B knows nothing of any visit."""
    machine, progress = journey.machine, journey.progress
    journey.until_request(HostRequest.INTACT)
    journey.begin("A", "-")
    journey.until_request(HostRequest.LOAD)
    journey.check(image_checks.rejump_refused(journey))
    machine.owners.assign(machine.ram.pfns(), Owner.A)
    if journey.scene.is_reserved:
        machine.owners.assign(journey.scene.target_range.pages(), Owner.RESERVED)
    journey.loader = Loader(machine, journey.scene, journey.kernel_a)
    progress.visits, progress.page_saved, progress.restored = 0, None, None


def _know(journey: Journey, loaded: Loaded) -> None:
    arch = journey.scene.arch
    for image in (loaded.purgatory, journey.kernel_b):
        journey.symbols.add(image)
    caller = loaded.linux.caller if loaded.linux is not None else None
    for stub in (loaded.stub, loaded.second, loaded.jump_entry, caller):
        if stub is not None:
            journey.symbols.add(stub, size=PAGE_SIZE)
            journey.symbols.add(stub, int(arch.direct(stub.org)), size=PAGE_SIZE)
    if loaded.linux is not None and loaded.linux.text:
        journey.symbols.add(loaded.stub, loaded.linux.text, size=PAGE_SIZE)


def suspend(journey: Journey) -> None:
    """A jumps to B for the first time."""
    _jump(journey)
    loaded = journey.require_loaded()
    _through_purgatory(journey, loaded)
    if not journey.scene.preserve:
        _leave_peer(journey)
        return
    _until_awake(journey)


def rejump(journey: Journey) -> None:
    """A jumps to B again, by what B left in the slot; with the transfer copy B starts afresh."""
    journey.until_request(HostRequest.INTACT)
    journey.image.invalidate()
    if journey.scene.transfer == "copy":
        journey.progress.peer_entry = journey.require_loaded().start
    else:
        journey.progress.visits += 1
    _jump(journey)
    if journey.scene.transfer == "copy":
        _through_purgatory(journey, journey.require_loaded())
    _until_awake(journey)


def _jump(journey: Journey) -> None:
    machine, loaded, arch = journey.machine, journey.require_loaded(), journey.scene.arch
    progress = journey.progress
    journey.break_once(arch.text_base + journey.kernel_a.symbols["suspend_begin"])
    progress.suspended = machine.cpu.registers()
    progress.before_jump = RamImage(machine.ram)
    journey.break_once(loaded.entry_va)
    journey.begin("A", "B")
    journey.check(control.quiet_devices(journey))
    move = journey.start_move(movement.leaving(journey), "A")
    progress.called = move.state
    if loaded.linux is not None:
        journey.check(linux_checks.own_bytes(journey, loaded.linux))
    journey.run_move(move, progress.peer_entry)
    journey.check(control.peer_entry(journey, move, progress.peer_entry))
    journey.check(stub_checks.machine_checks_kept(journey, move))
    if not journey.scene.preserve:
        journey.check(linux_checks.plain_stack(journey))
    else:
        progress.back_entry = machine.ram.read_int(machine.cpu.registers()["rsp"], arch.word)
    machine.owners.assign(movement.b_pfns(journey), Owner.B)
    journey.forbid(movement.peer_pfns(journey), "B")


def _through_purgatory(journey: Journey, loaded: Loaded) -> None:
    """B starts: purgatory, then a kernel that boots and reads its command line."""
    journey.until_request(HostRequest.PARSED)
    line = loaded.b_command_line
    if loaded.tells_back_entry and journey.scene.preserve:
        line += f" kexec_jump_back_entry={journey.progress.back_entry:#x}"
    journey.check(checks.command_line(journey, journey.kernel_b, line, loaded.b_map))


def _until_awake(journey: Journey) -> None:
    """B is up, has verified what it was told, and has left word where it wants to be entered again."""
    progress, loaded = journey.progress, journey.require_loaded()
    journey.until_request(HostRequest.AWAKE)
    slot = journey.kernel_b.symbols.get("resume_entry", 0)
    if progress.page is not None:
        progress.page = replace(progress.page, sequence=progress.page.sequence + 1, resume_slot=slot)
    journey.check(page_checks.jump_page(journey))
    if loaded.slot and not loaded.jump_page:
        journey.check(page_checks.slot(journey, slot))
    journey.check(image_checks.peer_state(journey))
    if "save" not in journey.scene.journey.kinds:
        journey.until_request(HostRequest.SAVE)
    journey.end()


def _leave_peer(journey: Journey) -> None:
    """A plain kexec: B finds that there is nobody to go back to."""
    finding = linux_checks.peer_is_left(journey, journey.run_machine())
    journey.collect_events()
    journey.check(Outcome("nobody to go back to", () if finding is None else (finding,)))
    journey.end()
    journey.progress.ended = True
