"""What must be saved, what came back, and whether B kept its state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emu.errors import ImageFileError
from emu.hibernate.safe_list import require_kept
from emu.journey.outcome import Outcome, finding_here
from emu.kexec.e820 import Range
from emu.machine import events as ev
from emu.units import PAGE_SHIFT, PAGE_SIZE, show_phys

if TYPE_CHECKING:
    from emu.journey.journey import Journey


def safe_memory(journey: Journey, ranges: Sequence[Range]) -> Outcome:
    """The list of memory that is safe to save: A's RAM, no more, and all that A needs to be entered again."""
    name = "safe list"
    scene, loaded = journey.scene, journey.require_loaded()
    listed = {pfn for one in ranges for pfn in one.pages()}
    wanted = set(scene.a_map.ram_pages()) - set(scene.target_range.pages())
    wanted -= set(scene.memory_map.low_region().pages())
    if loaded.image.swap_page is not None:
        wanted.discard(loaded.image.swap_page >> PAGE_SHIFT)
    wrong = sorted(listed ^ wanted)
    if wrong:
        at = show_phys(wrong[0] << PAGE_SHIFT)
        actual = f"{at} is {'listed' if wrong[0] in listed else 'left out'}, and {len(wrong) - 1} more pages are wrong"
        return Outcome(name, (finding_here(journey, name, "A's RAM less what B runs in", actual),))
    owned = loaded.image.pages_by_owner()
    needed = {str(owner): pfns for owner, pfns in owned.items() if str(owner) != "swap"}
    try:
        require_kept(ranges, needed)
    except ImageFileError as error:
        return Outcome(name, (finding_here(journey, name, "all that A needs is listed", str(error)),))
    return Outcome(name)


def as_saved(journey: Journey) -> Outcome:
    """At A's entry every saved page is byte for byte what it was when it was saved."""
    name = "saved pages"
    progress = journey.progress
    if progress.at_save is None or progress.restored is None:
        raise AssertionError("nothing was saved")
    ram, before = journey.machine.ram, progress.at_save
    wrong = [
        page
        for one in progress.restored.image.ranges
        for page in range(one.start, one.end, PAGE_SIZE)
        if ram.read(page, PAGE_SIZE) != before.read(page, PAGE_SIZE)
    ]
    journey.transition.pages_compared = max(journey.transition.pages_compared, progress.restored.pages)
    if not wrong:
        return Outcome(name)
    page = wrong[0]
    now, then = ram.read(page, PAGE_SIZE), before.read(page, PAGE_SIZE)
    at = next(index for index in range(PAGE_SIZE) if now[index] != then[index])
    finding = finding_here(
        journey,
        name,
        f"{show_phys(page + at)}: {then[at : at + 8].hex(' ')} (as it was saved)",
        f"{show_phys(page + at)}: {now[at : at + 8].hex(' ')}; {len(wrong)} saved pages differ",
        [f"the page belongs to {journey.machine.owners.at(page)}"],
        address=page + at,
    )
    return Outcome(name, (finding,))


def peer_state(journey: Journey) -> Outcome:
    """B counts its visits in its own memory: kept from visit to visit, or lost, as the transfer says."""
    name = "B's state"
    symbols = journey.kernel_b.symbols
    if "visits" not in symbols:
        return Outcome(name)
    counted = journey.machine.ram.read_int(symbols["visits"], journey.scene.arch.word)
    wanted = journey.progress.visits + 1
    journey.transition.visit = counted
    if counted == wanted:
        return Outcome(name)
    finding = finding_here(
        journey, name, f"B's counter is {wanted} under the transfer {journey.scene.transfer}", f"it is {counted}"
    )
    return Outcome(name, (finding,))


def rejump_refused(journey: Journey) -> Outcome:
    """A that was resumed has no B to jump to, and says so."""
    name = "rejump refused"
    for event in reversed(journey.machine.events):
        if isinstance(event, ev.ConsoleLine) and event.text.startswith("A| rejump refused"):
            return Outcome(name)
        if isinstance(event, ev.TransitionMark):
            break
    finding = finding_here(
        journey, name, "a resumed A finds the slot empty and refuses to jump again", "A said nothing of it"
    )
    return Outcome(name, (finding,))
