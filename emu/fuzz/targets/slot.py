"""The door ``slot`` of target ``entry``: the address at which A enters B again, and what A must find before it.

A goes through the slot when it is back and all is intact.  B's pages are not in their places then: the cookie before
the address is looked for in the source page that was exchanged with B's.  A's check is called as a routine; what
follows it, once it is content, is the door ``start``.
"""

from __future__ import annotations

from emu.fuzz.points import Atlas
from emu.fuzz.trip import LIMIT, Trip
from emu.fuzz.verdict import Result, Verdict
from emu.kexec.entry_list import pairs_of, walk
from emu.kexec.layout import COOKIE_MAGIC, COOKIE_SIZE, CookieKind
from emu.machine.cpu import GPR_NAMES
from emu.units import PAGE_MASK

_ROOM = 0x100
FORGED = "forged slot"
_WANTED = COOKIE_MAGIC.to_bytes(4, "little") + int(CookieKind.RESUME_SLOT).to_bytes(4, "little")


class SlotDoor:
    """A's check of the slot, on the window where A is back."""

    def __init__(self, trip: Trip, legal: int) -> None:
        self._trip = trip
        window = trip.window
        journey, image = window.journey, window.loaded.image
        self._ram, self._cpu = journey.machine.ram, journey.machine.cpu
        self._arch = journey.scene.arch
        self._legal = legal
        self._reserved = journey.scene.target_range if journey.scene.is_reserved else None
        steps = walk(lambda at: self._ram.read_int(int(at), image.word), image.head, image.word)
        self._source = {int(to): int(page) for to, page in pairs_of(steps)}
        self._check = self._arch.text_base + journey.kernel_a.symbols["check_slot"]
        self._back = self._arch.text_base + journey.kernel_a.symbols["go_on"]
        self.atlas = Atlas(window)

    def put(self, address: int, cookie: bytes) -> None:
        """Reset, lay ``cookie`` where the check will look for it, and call the check of ``address``."""
        stage, word = self._trip.stage, self._arch.word
        stage.reset()
        place = self._place(address)
        if cookie and place is not None:
            stage.write(place, cookie)
        sp = self._cpu.rsp - _ROOM & -16
        at = self._cpu.walk(sp & (1 << 8 * word) - 1).physical
        stage.write(at or 0, self._back.to_bytes(word, "little"))
        stage.set_registers({"rsp": sp, "rax": address})
        stage.set_state({"rip": self._check})

    def _place(self, address: int) -> int | None:
        """Physical address of the bytes before the entry, where B's page waits; None where it does not wait."""
        source = self._source.get(address & ~PAGE_MASK)
        offset = address & PAGE_MASK
        return None if source is None or offset < COOKIE_SIZE else source + offset - COOKIE_SIZE

    def must_refuse(self, address: int) -> bool:
        """The contract: a cookie of the slot's kind before it in its page, or an address in what is reserved."""
        if address & PAGE_MASK < COOKIE_SIZE:
            return True
        if address & ~PAGE_MASK not in self._source:
            return self._reserved is None or not self._reserved.start <= address & ~PAGE_MASK < self._reserved.end
        place = self._place(address)
        return place is None or self._ram.read(place, COOKIE_SIZE) != _WANTED

    def run(self, address: int, cookie: bytes, legal_row: str) -> Result:
        """Let A look at the address, and compare with the contract."""
        self.put(address, cookie)
        must_refuse = self.must_refuse(address)
        stage, row = self._trip.stage, self.atlas.name(address)
        ended = stage.run(LIMIT, LIMIT)
        given = {at & ~PAGE_MASK for at, _ in stage.written}
        if damage := [page for page in stage.pages.damaged() if page not in given]:
            return self._trip.result(Verdict.OWNER, ended, row, "store by the check of the slot", hex(damage[0]))
        if ended.arrived != self._back:
            return self._trip.result(Verdict.LOST, ended, row)
        refused = bool(stage.machine.engine.gpr(GPR_NAMES.index("rsi")) & (1 << 8 * self._arch.word) - 1)
        if refused != must_refuse:
            verdict, why = (Verdict.MODEL, "refused") if refused else (Verdict.ACCEPTED, "not refused: slot")
            return self._trip.result(verdict, ended, row, why)
        if refused:
            return self._trip.result(Verdict.REFUSED, ended, row, "slot", past=False)
        return self._trip.result(Verdict.COMPLETED, ended, legal_row if address == self._legal else FORGED)
