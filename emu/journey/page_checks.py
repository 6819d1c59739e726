"""The jump page, field by field, and the slot of hand-offs that have no page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.errors import JumpPageError
from emu.journey.findings import Finding
from emu.journey.outcome import Outcome, finding_here
from emu.kexec.jump_page import JumpPage, diff, offset_of
from emu.kexec.layout import JUMP_PAGE_MAGIC
from emu.units import PAGE_SHIFT, PAGE_SIZE, show_phys

if TYPE_CHECKING:
    from emu.journey.journey import Journey


def jump_page(journey: Journey) -> Outcome:
    """Every field of the jump page against the model; holds where the hand-off has no page."""
    name = "jump page"
    model, at = journey.progress.page, journey.require_loaded().jump_page
    if model is None or not at:
        return Outcome(name)
    raw = journey.machine.ram.read(at, PAGE_SIZE)
    wanted = model.pack()
    journey.transition.jump_page = _text(model, journey.transition.kind)
    if raw == wanted:
        return Outcome(name)
    changes = diff(wanted, raw)
    because = [f"{change.field}: expected {change.before}, is {change.after}" for change in changes]
    first = changes[0].field if changes else "spare"
    try:
        JumpPage.unpack(raw)
    except JumpPageError as error:
        because.append(str(error))
    finding = finding_here(journey, name, f"{first} as the model has it", because[0] if because else "", because[1:])
    return Outcome(name, (finding,))


def _text(model: JumpPage, kind: str) -> str:
    if kind == "load":
        return f"seq {model.sequence}  both entries set"
    if kind in ("suspend", "rejump"):
        return f"seq {model.sequence}  +slot {show_phys(model.resume_slot)}"
    if kind == "save":
        return f"seq {model.sequence}  +id {model.image_id:#x}"
    if kind == "resume":
        return f"seq {model.sequence}  slot cleared"
    return f"seq {model.sequence}  all else unchanged"


def no_jump_page(journey: Journey) -> Outcome:
    """Without a page there is none at all: no page of RAM begins as one does."""
    name = "no jump page"
    ram = journey.machine.ram
    found = [pfn for pfn in ram.pfns() if ram.read(pfn << PAGE_SHIFT, len(JUMP_PAGE_MAGIC)) == JUMP_PAGE_MAGIC]
    if not found:
        return Outcome(name)
    at = found[0] << PAGE_SHIFT
    finding = finding_here(
        journey, name, f"the hand-off {journey.scene.handoff} has no jump page", f"there is one at {show_phys(at)}"
    )
    return Outcome(name, (finding,))


def slot(journey: Journey, wanted: int) -> Outcome:
    """The slot outside a jump page holds where B wants to be entered again."""
    name = "slot"
    at = journey.require_loaded().slot
    value = journey.machine.ram.read_int(at, 8)
    if value == wanted:
        return Outcome(name)
    finding = finding_here(journey, name, f"the slot at {show_phys(at)} holds {wanted:#x}", f"it holds {value:#x}")
    return Outcome(name, (finding,))


def image_id(journey: Journey) -> int:
    """The image id that B wrote into the page: not 0, and not that of the image before; a finding where it is not."""
    at = journey.require_loaded().jump_page + offset_of("image_id")
    value = journey.machine.ram.read_int(at, 8)
    before = journey.progress.page.image_id if journey.progress.page is not None else 0
    findings: tuple[Finding, ...] = ()
    if value in (0, before):
        findings = (
            finding_here(
                journey, "jump page", "image_id is a number that no image had before", f"image_id is {value:#x}"
            ),
        )
    journey.check(Outcome("image id", findings))
    return value or 1
