"""Target ``jumpbuf``: the jump page, field by field and byte by byte, as B finds it right before it jumps."""

from __future__ import annotations

from collections.abc import Sequence

from emu.errors import FuzzError
from emu.fuzz.case import Case
from emu.fuzz.fields import Blob, Choice, Word, neutral, noise_field
from emu.fuzz.points import Atlas
from emu.fuzz.target import Target
from emu.fuzz.trip import LIMIT, Trip
from emu.fuzz.verdict import Result
from emu.fuzz.window import RETURN
from emu.fuzz.world import TripWorld
from emu.journey.scene import Scene
from emu.kexec.jump_page import FIELDS, JumpPage, dword_sum, read_fields
from emu.kexec.layout import (
    COOKIE_MAGIC,
    COOKIE_SIZE,
    JUMP_PAGE_MAGIC,
    JUMP_PAGE_VERSION,
    MODE_LA57,
    MODE_PAE,
    CookieKind,
)
from emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

_IDENTITY_END = 1 << 32
"""B sees no more of physical memory."""
_SUM = next(field for field in FIELDS if field.name == "checksum")
_NAMES = tuple(field.name for field in FIELDS if field.name not in ("magic", "checksum"))
LEGAL, FORGED = "legal page", "forged entry"
_ROWS = ("magic", "version", "arch", "checksum", "entry", "cookie")


class JumpbufWorld(TripWorld):
    """The jump page of one scene."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        if scene.handoff != "page":
            raise FuzzError(f"hand-off {scene.handoff} has no jump page", where="jumpbuf", hint="--handoff page")
        trip = self.trip(RETURN)
        if trip.page is None or trip.window.loaded.jump_entry is None:
            raise FuzzError("the scene has no jump page", where="jumpbuf")
        self._page: JumpPage = trip.page
        self._legal = trip.window.loaded.jump_entry.symbols["after_image_save"]
        self.spec = (
            Blob("page", self._page.pack(), PAGE_SIZE, PAGE_SIZE, (JUMP_PAGE_MAGIC, b"KJMP\2\0\0\0")),
            Choice("field", ("none", *_NAMES, "after_image_save", "entry_page")),
            Word("value", 64, Atlas(trip.window).points, (self._legal,), 0.1),
            Choice("checksum", ("right", "right", "as it is")),
            noise_field(scene.arch.word),
        )
        self.rows = (LEGAL, FORGED, *_ROWS)

    def seeds(self) -> Sequence[Case]:
        """The page as it is."""
        return [neutral("jumpbuf", self.spec)]

    def page_of(self, case: Case) -> bytes:
        """The page that a case stands for."""
        page = bytearray(case.blob("page"))
        name = case.word("field")
        field = next((one for one in FIELDS if one.name == name), None)
        if field is not None:
            value = case.number("value") & (1 << 8 * field.size) - 1
            page[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
        if case.word("checksum") == "right":
            at = _SUM.offset
            page[at : at + 4] = bytes(4)
            page[at : at + 4] = (-dword_sum(page) & 0xFFFFFFFF).to_bytes(4, "little")
        return bytes(page)

    def put(self, case: Case) -> tuple[Trip, bool]:
        """Reset, and lay the page down."""
        trip = self.trip(RETURN)
        trip.stage.reset()
        trip.set_noise(case.blob("registers"))
        page = self.page_of(case)
        if page != self._page.pack():
            trip.stage.write(trip.jump_page, page)
        return trip, False

    def run(self, case: Case) -> Result:
        """Let B look at the page and do what it says."""
        trip, _ = self.put(case)
        page = self.page_of(case)
        why = self.refusal(trip, page)
        if why:
            return trip.must_refuse(trip.stage.run(LIMIT), why, why)
        ended = trip.stage.run(LIMIT)
        if read_fields(page)["after_image_save"] == self._legal:
            return trip.legal(ended, LEGAL)
        return trip.at_own_risk(ended, FORGED, past=True)

    def _right_mode(self, mode: int) -> bool:
        arch = self.scene.arch
        if arch.word == 4:
            return bool(mode & MODE_PAE) == arch.is_pae
        return bool(mode & MODE_LA57) == arch.is_la57

    def refusal(self, trip: Trip, page: bytes) -> str:
        """The contract: what B must find bad about a page; empty where it may use it."""
        read = read_fields(page)
        arch = self.scene.arch
        entry = read["after_image_save"]
        frame, offset = entry >> PAGE_SHIFT, entry & PAGE_MASK
        if page[:8] != JUMP_PAGE_MAGIC:
            return "magic"
        if read["version"] != JUMP_PAGE_VERSION:
            return "version"
        if read["arch"] != arch.machine or not self._right_mode(read["mode"]):
            return "arch"
        if dword_sum(page):
            return "checksum"
        if frame << PAGE_SHIFT != read["entry_page"] or offset < COOKIE_SIZE or entry >= _IDENTITY_END:
            return "entry"
        wanted = COOKIE_MAGIC.to_bytes(4, "little") + int(CookieKind.AFTER_IMAGE_SAVE).to_bytes(4, "little")
        if trip.stage.machine.ram.read(entry - COOKIE_SIZE, COOKIE_SIZE) != wanted:
            return "cookie"
        return ""


TARGET = Target(
    "jumpbuf",
    "the jump page, by fields and by bytes, with a right checksum or without",
    "B refuses a wrong magic, version, arch, checksum, entry outside its page, or cookie; else it goes there",
    JumpbufWorld,
    ((FORGED, "whoever writes a page with a right checksum, and a cookie into memory, chooses where B goes"),),
    handoffs=("page",),
)
