"""Target ``entry``: the addresses at which kernels enter each other, through every door that takes one.

Doors: ``start`` is image->start, which relocate_new_kernel takes from A without a look; ``saved`` is after_image_save
in the jump page, which B checks; ``resumed`` is where whoever restored A goes, having looked for its cookie (that look
is C's and not part of this target); ``back`` is the return address of the hand-off ``stack``, which nobody can check;
``slot`` is the address at which A enters B again, which A checks (:mod:`emu.fuzz.targets.slot`).
"""

from __future__ import annotations

from collections.abc import Sequence

from emu.fuzz.case import Case
from emu.fuzz.fields import Choice, Word, neutral, noise_field
from emu.fuzz.points import Atlas
from emu.fuzz.stage import Ended
from emu.fuzz.target import Target
from emu.fuzz.targets.slot import FORGED, SlotDoor
from emu.fuzz.trip import LIMIT, WILD_INSTRUCTIONS, Trip
from emu.fuzz.verdict import Result
from emu.fuzz.window import RETURN, SLOT, SUSPEND, Window
from emu.fuzz.world import TripWorld
from emu.journey.scene import Scene
from emu.kexec.layout import COOKIE_MAGIC, COOKIE_SIZE, CookieKind
from emu.units import PAGE_MASK, PAGE_SIZE

START, SAVED, RESUMED, BACK = "start", "saved", "resumed", "back"
_RETURNS = {SAVED: 1, RESUMED: 2}
"""What A's call returns by each of A's own doors."""
_COOKIES = ("none", "saved", "resumed", "slot", "magic only")
_COOKIE_OF = {
    "saved": (COOKIE_MAGIC, CookieKind.AFTER_IMAGE_SAVE),
    "resumed": (COOKIE_MAGIC, CookieKind.AFTER_RESUME),
    "slot": (COOKIE_MAGIC, CookieKind.RESUME_SLOT),
    "magic only": (COOKIE_MAGIC, 0),
}
LEGAL = "legal entries"


def _cookie(word: str) -> bytes:
    """The cookie that a choice stands for; empty for none."""
    if word not in _COOKIE_OF:
        return b""
    magic, kind = _COOKIE_OF[word]
    return magic.to_bytes(4, "little") + int(kind).to_bytes(4, "little")


def _door_words(scene: Scene) -> tuple[str, ...]:
    """The doors of a scene; the unchecked ones are likelier, for the others mostly end at the check."""
    if not scene.preserve:
        return (START,)
    slot = (SLOT,) if scene.handoff != "stack" and scene.transfer != "copy" else ()
    if scene.handoff == "page":
        return (START, START, BACK, RESUMED, SAVED, SAVED, *slot)
    return (START, BACK, *slot)


class EntryWorld(TripWorld):
    """The entry addresses of one scene."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._word = scene.arch.word
        first = self.trip(SUSPEND)
        self._atlas = Atlas(first.window)
        self._atlases = {SUSPEND: self._atlas}
        loaded = first.window.loaded
        entry = loaded.jump_entry
        self._b = first.window.journey.kernel_b
        self._saved = entry.symbols["after_image_save"] if entry is not None else 0
        self._entry_page = entry.org if entry is not None else -1
        self._back = loaded.stub.symbols.get("back_from_peer", 0)
        resumed = entry.symbols["after_resume"] if entry is not None else 0
        self._legal = {START: loaded.start, SAVED: self._saved, RESUMED: resumed, BACK: self._back}
        if {
            "check_slot",
            "go_on",
        } <= first.window.journey.kernel_a.symbols.keys() and "resume_entry" in self._b.symbols:
            self._legal[SLOT] = self._b.symbols["resume_entry"]
        self._doors = tuple(door for door in _door_words(scene) if door in self._legal)
        self._slot: SlotDoor | None = None
        self.spec = (
            Choice("door", self._doors),
            Word("address", 8 * self._word, self._atlas.points, tuple(self._legal.values()), 0.12),
            Choice("cookie", ("none", "none", "none", *_COOKIES)),
            noise_field(self._word),
        )
        self.rows = (LEGAL, FORGED, *self._atlas.classes)

    def seeds(self) -> Sequence[Case]:
        """Each door with its own legal address."""
        plain = neutral("entry", self.spec)
        doors = dict.fromkeys(self._doors)
        return [plain.with_value("door", door).with_value("address", self._legal[door]) for door in doors]

    def _slot_door(self) -> SlotDoor:
        trip = self.trip(SLOT)
        if self._slot is None:
            self._slot = SlotDoor(trip, self._legal[SLOT])
        return self._slot

    # ---- one case ------------------------------------------------------------------------------------------------

    def put(self, case: Case) -> tuple[Trip, bool]:
        """Reset, and put the input in; the window, and whether memory was changed besides."""
        door, address = case.word("door"), case.number("address")
        if door == SLOT:
            self._slot_door().put(address, _cookie(case.word("cookie")))
            return self.trip(SLOT), False
        trip = self.trip(SUSPEND if door == START else RETURN)
        trip.stage.reset()
        planted = self._plant(trip, address, case.word("cookie"))
        trip.set_noise(case.blob("registers"))
        self._put(trip, door, address)
        return trip, planted

    def run(self, case: Case) -> Result:
        """Let the address through its door, run, judge."""
        door, address = case.word("door"), case.number("address")
        if door == SLOT:
            return self._slot_door().run(address, _cookie(case.word("cookie")), LEGAL)
        trip, planted = self.put(case)
        legal = address == self._legal[door] and not planted
        if door == SAVED and (reason := self._refusal(trip, address)):
            return trip.must_refuse(trip.stage.run(LIMIT), self._row(trip, address), reason)
        if legal:
            return trip.legal(trip.stage.run(LIMIT), LEGAL, returns=_RETURNS.get(door))
        return self._at_own_risk(trip, trip.stage.run(LIMIT, WILD_INSTRUCTIONS), address)

    def _row(self, trip: Trip, address: int) -> str:
        """What kind of place an address is when the case begins."""
        name = trip.stage.name
        if name not in self._atlases:
            self._atlases[name] = Atlas(trip.window)
        return self._atlases[name].name(address)

    def _plant(self, trip: Trip, address: int, cookie: str) -> bool:
        """Lay a cookie before ``address``, where that is RAM and not B, who checks it; true if memory changed by it."""
        at = address - COOKIE_SIZE
        if cookie not in _COOKIE_OF or self._b.org - COOKIE_SIZE < at < self._b.end:
            return False
        ram = trip.stage.machine.ram
        if at < 0 or not (ram.is_ram(at) and ram.is_ram(at + COOKIE_SIZE - 1)):
            return False
        data = _cookie(cookie)
        if ram.read(at, COOKIE_SIZE) == data:
            return False
        trip.stage.write(at, data)
        return True

    def _put(self, trip: Trip, door: str, address: int) -> None:
        if door == START:
            trip.set_start(address)
        elif door == SAVED:
            trip.set_page(after_image_save=address)
        elif door == RESUMED:
            trip.enter(address)
        else:
            trip.set_back(address)

    def _refusal(self, trip: Trip, address: int) -> str:
        """The contract: inside the entry code page, behind a cookie of the right kind in that page; else why not."""
        if address & -PAGE_SIZE != self._entry_page or address & PAGE_MASK < COOKIE_SIZE:
            return "entry"
        found = trip.stage.machine.ram.read(address - COOKIE_SIZE, COOKIE_SIZE)
        return "" if found == _cookie("saved") else "cookie"

    def _at_own_risk(self, trip: Trip, ended: Ended, address: int) -> Result:
        """Code at an address that no contract covers ran: only its damage is looked at."""
        row = self._row(trip, address)
        return trip.at_own_risk(ended, row, past=self._went_in(trip.window, ended, address))

    def _went_in(self, window: Window, ended: Ended, address: int) -> bool:
        """Whether at least one instruction at ``address`` was fetched."""
        if ended.unfetchable and ended.at == address:
            return False
        own = {image.org for image in (window.loaded.stub, window.loaded.second) if image is not None}
        in_stub = ended.vector >= 0 and ended.at & -PAGE_SIZE in own
        return not in_stub or address & -PAGE_SIZE in own


TARGET = Target(
    "entry",
    "the addresses at which A and B enter each other: start, after_image_save, the slot, the way back on the stack",
    "B refuses an after_image_save without its cookie in the entry page, A a slot without one; others are as given",
    EntryWorld,
    (
        ("start", "relocate_new_kernel takes image->start from A, who loaded it: as in Linux"),
        ("back", "hand-off stack: a return address has no cookie, by design"),
        (FORGED, "who writes a cookie of the slot's kind into B's memory chooses where A enters it"),
    ),
)
