"""Target ``regs``: everything that the convention leaves undefined when A's entry is jumped to, or the stub called."""

from __future__ import annotations

from collections.abc import Sequence

from emu.fuzz.case import Case
from emu.fuzz.fields import Choice, Word, neutral, noise_field
from emu.fuzz.target import Target
from emu.fuzz.trip import LIMIT, Trip
from emu.fuzz.verdict import Result
from emu.fuzz.window import RETURN, SUSPEND
from emu.fuzz.world import TripWorld
from emu.journey.scene import Scene
from emu.machine.cpu import GPR_NAMES
from emu.x86.bits import Cr0, Cr4, Efer, Eflags

ENTER, CALL = "enter", "call"
_FREE_FLAGS = (
    Eflags.CF | Eflags.PF | Eflags.AF | Eflags.ZF | Eflags.SF | Eflags.DF | Eflags.OF | Eflags.NT | Eflags.AC
    | Eflags.ID
)  # fmt: skip
_FIXED = 2
_FREE_CR0 = Cr0.MP | Cr0.EM | Cr0.TS | Cr0.NE | Cr0.WP | Cr0.AM
_FREE_CR4 = Cr4.TSD | Cr4.DE | Cr4.MCE | Cr4.PGE | Cr4.PCE | Cr4.OSFXSR | Cr4.OSXMMEXCPT
_FREE_EFER = Efer.SCE
_DR7_LOCAL_GLOBAL = 0xFF


class RegsWorld(TripWorld):
    """The undefined state of one scene.  Every input is legal: everything must hold."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        word = scene.arch.word
        trip = self.trip(RETURN)
        entry = trip.window.loaded.jump_entry
        self._entry = entry.symbols["after_image_save"] if entry is not None else None
        self._points = tuple(1 << bit for bit in range(22))
        self.spec = (
            Choice("door", (ENTER, ENTER, CALL) if self._entry is not None else (CALL,)),
            noise_field(word),
            Word("flags", 22, self._points, neutral=_FIXED),
            Word("cr0", 32, tuple(1 << bit for bit in (1, 2, 3, 5, 16, 18)), share=0.0),
            Word("cr4", 32, tuple(1 << bit for bit in (2, 3, 6, 7, 8, 9, 10)), share=0.0),
            Word("efer", 12, (1, 0x801), share=0.0),
            Word("dr7", 32, (1, 2, 4, 0x10, 0x40, 0xFF, 0x400), share=0.0),
            Word("dr0", 8 * word, (self._entry or 0, trip.window.loaded.stub.org)),
        )
        self.rows = (ENTER, CALL)

    def seeds(self) -> Sequence[Case]:
        """Nothing out of the ordinary, by each door."""
        plain = neutral("regs", self.spec)
        doors = (ENTER, CALL) if self._entry is not None else (CALL,)
        return [plain.with_value("door", door) for door in doors]

    def put(self, case: Case) -> tuple[Trip, bool]:
        """Reset, and leave the processor in the state of ``case``."""
        enter = case.word("door") == ENTER
        trip = self.trip(RETURN if enter else SUSPEND)
        trip.stage.reset()
        if enter:
            self._enter(trip, case)
        else:
            trip.set_noise(case.blob("registers"))
            trip.stage.set_state({"rflags": case.number("flags") & _FREE_FLAGS | _FIXED})
        return trip, False

    def _enter(self, trip: Trip, case: Case) -> None:
        engine = trip.stage.machine.engine
        word = self.scene.arch.word
        noise = case.blob("registers")
        if any(noise):
            names = GPR_NAMES[: 16 if word == 8 else 8]
            chunks = (int.from_bytes(noise[word * i : word * i + word], "little") for i in range(len(names)))
            trip.stage.set_registers(dict(zip(names, chunks, strict=True)))
        cr0, cr4 = engine.cr(0), engine.cr(4)
        free4 = _FREE_CR4 if word == 8 else _FREE_CR4 & ~Cr4.PGE
        state = {
            "cr0": cr0 ^ case.number("cr0") & _FREE_CR0,
            "cr4": cr4 ^ case.number("cr4") & free4,
            "efer": engine.efer ^ case.number("efer") & _FREE_EFER,
            "rflags": case.number("flags") & _FREE_FLAGS | _FIXED,
            "rip": self._entry or 0,
        }
        if case.number("dr7") & _DR7_LOCAL_GLOBAL:
            state["dr0"] = case.number("dr0")
        trip.stage.set_state(state)

    def run(self, case: Case) -> Result:
        """Go in; everything must hold."""
        trip, _ = self.put(case)
        return trip.legal(trip.stage.run(LIMIT), case.word("door"))


TARGET = Target(
    "regs",
    "registers, flags and control bits that the convention leaves undefined, at A's entry and at the call",
    "nothing of it matters: A comes back whole, or B is entered as the convention says",
    RegsWorld,
)
