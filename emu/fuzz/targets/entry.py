"""Target ``entry``: the addresses at which kernels enter each other, through every door that takes one.

Doors: ``start`` is image->start, which relocate_new_kernel takes from A without a look; ``saved`` is after_image_save
in the jump page, which B checks; ``resumed`` is where whoever restored A goes, having looked for its cookie (that look
is C's and not part of this target); ``back`` is the return address of the hand-off ``stack``, which nobody can check.
The resume slot has no door of its own: A hands what it holds to the stub as ``start``.
"""

from __future__ import annotations

from collections.abc import Sequence

from emu.fuzz.case import Case
from emu.fuzz.fields import Choice, Word, neutral, noise_field
from emu.fuzz.points import Atlas
from emu.fuzz.stage import Ended
from emu.fuzz.target import Target
from emu.fuzz.trip import LIMIT, WILD_INSTRUCTIONS, Trip
from emu.fuzz.verdict import Result
from emu.fuzz.window import RETURN, SUSPEND, Window
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


def _door_words(scene: Scene) -> tuple[str, ...]:
    """The doors of a scene; the unchecked ones are likelier, for the others mostly end at the check."""
    if not scene.preserve:
        return (START,)
    return (START, START, BACK, RESUMED, SAVED, SAVED) if scene.handoff == "page" else (START, BACK)


class EntryWorld(TripWorld):
    """The entry addresses of one scene."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._word = scene.arch.word
        first = self.trip(SUSPEND)
        self._atlas = Atlas(first.window)
        loaded = first.window.loaded
        entry = loaded.jump_entry
        self._b = first.window.journey.kernel_b
        self._saved = entry.symbols["after_image_save"] if entry is not None else 0
        self._entry_page = entry.org if entry is not None else -1
        self._back = loaded.stub.symbols.get("back_from_peer", 0)
        resumed = entry.symbols["after_resume"] if entry is not None else 0
        self._legal = {START: loaded.start, SAVED: self._saved, RESUMED: resumed, BACK: self._back}
        self.spec = (
            Choice("door", _door_words(scene)),
            Word("address", 8 * self._word, self._atlas.points, tuple(self._legal.values()), 0.12),
            Choice("cookie", ("none", "none", "none", *_COOKIES)),
            noise_field(self._word),
        )
        self.rows = (LEGAL, *self._atlas.classes)

    def seeds(self) -> Sequence[Case]:
        """Each door with its own legal address."""
        doors = dict.fromkeys(_door_words(self.scene))
        plain = neutral("entry", self.spec)
        return [plain.with_value("door", door).with_value("address", self._legal[door]) for door in doors]

    # ---- one case ------------------------------------------------------------------------------------------------

    def put(self, case: Case) -> tuple[Trip, bool]:
        """Reset, and put the input in; the window, and whether memory was changed besides."""
        door, address = case.word("door"), case.number("address")
        trip = self.trip(SUSPEND if door == START else RETURN)
        trip.stage.reset()
        planted = self._plant(trip, address, case.word("cookie"))
        trip.set_noise(case.blob("registers"))
        self._put(trip, door, address)
        return trip, planted

    def run(self, case: Case) -> Result:
        """Let the address through its door, run, judge."""
        door, address = case.word("door"), case.number("address")
        trip, planted = self.put(case)
        legal = address == self._legal[door] and not planted
        if door == SAVED and (reason := self._refusal(trip, address)):
            return trip.must_refuse(trip.stage.run(LIMIT), self._atlas.name(address), reason)
        if legal:
            return trip.legal(trip.stage.run(LIMIT), LEGAL, returns=_RETURNS.get(door))
        return self._at_own_risk(trip, trip.stage.run(LIMIT, WILD_INSTRUCTIONS), address)

    def _plant(self, trip: Trip, address: int, cookie: str) -> bool:
        """Lay a cookie before ``address``, where that is RAM and not B, who checks it; true if memory changed by it."""
        at = address - COOKIE_SIZE
        if cookie not in _COOKIE_OF or self._b.org - COOKIE_SIZE < at < self._b.end:
            return False
        ram = trip.stage.machine.ram
        if at < 0 or not (ram.is_ram(at) and ram.is_ram(at + COOKIE_SIZE - 1)):
            return False
        magic, kind = _COOKIE_OF[cookie]
        data = magic.to_bytes(4, "little") + int(kind).to_bytes(4, "little")
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
        magic, kind = _COOKIE_OF["saved"]
        wanted = magic.to_bytes(4, "little") + int(kind).to_bytes(4, "little")
        return "" if trip.stage.machine.ram.read(address - COOKIE_SIZE, COOKIE_SIZE) == wanted else "cookie"

    def _at_own_risk(self, trip: Trip, ended: Ended, address: int) -> Result:
        """Code at an address that no contract covers ran: only its damage is looked at."""
        row = self._atlas.name(address)
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
    "the addresses at which A and B enter each other: start, after_image_save, the way back on the stack",
    "B refuses an after_image_save without its cookie in the entry code page; start and back are taken as given",
    EntryWorld,
    (
        ("start", "relocate_new_kernel takes image->start from A, who loaded it: as in Linux"),
        ("back", "hand-off stack: a return address has no cookie, by design"),
    ),
)
