"""Faults that a journey file orders: what they are, and how each is done to the machine or to the image.

A fault is done when the transition that it names has been checked.  The reference model knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from emu.errors import JourneyError
from emu.hibernate.marks import invalidate, mark_used
from emu.kexec.e820 import MemoryMap, Range
from emu.kexec.jump_page import FIELDS, dword_sum
from emu.units import PAGE_SIZE, Phys, show_phys

if TYPE_CHECKING:
    from emu.journey.journey import Journey

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "memory": ("address", "bit"),
    "jump_page": ("field", "value"),
    "image_bit": ("offset", "bit"),
    "image_cut": ("size",),
    "image_used": (),
    "image_invalid": (),
    "e820": ("start", "size"),
}
"""What can go wrong, and what each wants to know."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: ``what`` of KINDS, after the transition ``after``.

    ``memory`` flips ``bit`` of the byte that A has at physical ``address``, wherever it waits while B runs;
    ``jump_page`` sets ``field`` to ``value`` and makes the checksum right (unless it is the field); ``image_bit`` and
    ``image_cut`` change the file; ``image_used`` and ``image_invalid`` mark it; ``e820`` takes ``size`` bytes at
    ``start`` out of the RAM of the machine that C boots on.
    """

    after: str
    what: str
    numbers: Mapping[str, int] = field(default_factory=dict)
    name: str = ""


def inject(journey: Journey, after: str) -> None:
    """Do the faults that are due after the transition ``after``; raises JourneyError where one cannot be done."""
    for fault in journey.scene.journey.faults:
        if fault.after == after and fault.what in _DOING:
            _DOING[fault.what](journey, fault)


def map_for_c(journey: Journey) -> MemoryMap:
    """The memory map of the machine that C boots on."""
    found = journey.scene.memory_map
    for fault in journey.scene.journey.faults:
        if fault.what == "e820":
            start = fault.numbers["start"]
            found = found.with_reserved(Range(Phys(start), Phys(start + fault.numbers["size"])))
    return found


def _impossible(fault: Fault, why: str) -> JourneyError:
    return JourneyError(why, where=f"fault {fault.what} after {fault.after}")


def at_now(journey: Journey, address: int) -> int:
    """Where the byte that A has at physical ``address`` lies now: beside, while B has its page."""
    image = journey.require_loaded().image
    page = address & -PAGE_SIZE
    pairs = image.pairs if journey.transition.target == "B" or journey.transition.kind == "save" else ()
    if image.is_copied:
        beside = next((backup for backup, place in pairs if place == page), page)
    else:
        beside = next((source for place, source in pairs if place == page), page)
    return beside + address - page


def _memory(journey: Journey, fault: Fault) -> None:
    ram, at = journey.machine.ram, at_now(journey, fault.numbers["address"])
    if ram.bank_at(at) is None:
        raise _impossible(fault, f"{show_phys(at)} is no RAM")
    ram.write(at, bytes([ram.read(at, 1)[0] ^ 1 << fault.numbers["bit"]]))


def _jump_page(journey: Journey, fault: Fault) -> None:
    at = journey.require_loaded().jump_page
    if not at:
        raise _impossible(fault, f"the hand-off {journey.scene.handoff} has no jump page")
    fields = {one.name: one for one in FIELDS}
    spot, total = fields[fault.name], fields["checksum"]
    page = bytearray(journey.machine.ram.read(at, PAGE_SIZE))
    page[spot.offset : spot.offset + spot.size] = fault.numbers["value"].to_bytes(spot.size, "little")
    if spot is not total:
        page[total.offset : total.offset + 4] = bytes(4)
        page[total.offset : total.offset + 4] = (-dword_sum(page) & 0xFFFF_FFFF).to_bytes(4, "little")
    journey.machine.ram.write(at, bytes(page))


def _image_bit(journey: Journey, fault: Fault) -> None:
    path, at = journey.image.path, fault.numbers["offset"]
    content = bytearray(_image(journey, fault))
    if at >= len(content):
        raise _impossible(fault, f"the image has {len(content)} bytes")
    content[at] ^= 1 << fault.numbers["bit"]
    path.write_bytes(content)


def _image_cut(journey: Journey, fault: Fault) -> None:
    journey.image.path.write_bytes(_image(journey, fault)[: fault.numbers["size"]])


def _image(journey: Journey, fault: Fault) -> bytes:
    if not journey.image.written:
        raise _impossible(fault, "no image has been saved by then")
    return journey.image.path.read_bytes()


def _used(journey: Journey, fault: Fault) -> None:
    _image(journey, fault)
    mark_used(journey.image.path)


def _invalid(journey: Journey, fault: Fault) -> None:
    _image(journey, fault)
    invalidate(journey.image.path)


_DOING: Final[Mapping[str, Callable[[Journey, Fault], None]]] = {
    "memory": _memory,
    "jump_page": _jump_page,
    "image_bit": _image_bit,
    "image_cut": _image_cut,
    "image_used": _used,
    "image_invalid": _invalid,
}


def read_fault(number: int, table: Mapping[str, object], names: tuple[str, ...]) -> tuple[Fault | None, str, str, str]:
    """One table of ``[[faults]]`` in a journey with the transitions ``names``: (fault, "", "", "") or (None, key,
    what is wrong, hint).
    """
    where = f"faults.{number}"
    what, after = table.get("what"), table.get("after")
    if not isinstance(what, str) or what not in KINDS:
        return None, f"{where}.what", f"no fault is called {what!r}", f"one of {', '.join(KINDS)}"
    wanted = KINDS[what]
    for key in table:
        if key not in {"what", "after", *wanted}:
            known = ", ".join(("after", "what", *wanted))
            return None, f"{where}.{key}", f"unknown key faults.{key}", f"a fault {what} has {known}"
    if not isinstance(after, str) or after not in names:
        return None, f"{where}.after", f"the journey has no transition {after!r}", f"one of {', '.join(names)}"
    numbers: dict[str, int] = {}
    for key in wanted:
        value = table.get(key)
        if key == "field":
            fields = [one.name for one in FIELDS]
            if value not in fields:
                return None, f"{where}.field", f"the jump page has no field {value!r}", f"one of {', '.join(fields)}"
        elif not isinstance(value, int) or isinstance(value, bool) or value < 0 or (key == "bit" and value > 7):
            return None, f"{where}.{key}", f"faults.{key} must be a number{' up to 7' if key == 'bit' else ''}", ""
        else:
            numbers[key] = value
    return Fault(after, what, numbers, str(table.get("field", ""))), "", "", ""
