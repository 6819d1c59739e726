"""Target ``irq``: an interrupt that waits, or an NMI, at any instruction of either movement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from emu.fuzz.case import Case
from emu.fuzz.fields import Choice, Word, neutral, noise_field
from emu.fuzz.stage import Ended
from emu.fuzz.target import IRQ, NMI, TIMER, Script, Signal, Target
from emu.fuzz.trip import LIMIT, Trip
from emu.fuzz.verdict import Result, Verdict
from emu.fuzz.window import RETURN, SUSPEND
from emu.fuzz.world import TripWorld
from emu.journey.scene import Scene
from emu.machine import events as ev


class IrqWorld(TripWorld):
    """Interrupts in one scene.  ``at`` counts ticks from the beginning of the window.

    ``begins`` are, by transition, the ticks at which an instruction begins.
    """

    still = False  # an NMI may need any page of A's or B's

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._came: Signal | None = None
        word = scene.arch.word
        self.begins = {name: self._begins(name) for name in (SUSPEND, RETURN)}
        self._length = {name: max(ticks) + 1 for name, ticks in self.begins.items()}
        longest = max(self._length.values())
        points = tuple(sorted({*self.begins[SUSPEND], *self.begins[RETURN]}))
        self.spec = (
            Choice("transition", (SUSPEND, RETURN)),
            Choice("kind", (IRQ, NMI)),
            Word("at", longest.bit_length(), points, share=0.0),
            noise_field(word),
        )
        self.rows = (IRQ, NMI)

    def _begins(self, name: str) -> list[int]:
        """Ticks of a whole movement at which an instruction begins.

        Most ticks are iterations amid a page: what is drawn among all of them hardly meets the code around the list.
        """
        trip = self.trip(name)
        machine = trip.stage.machine
        trip.stage.reset()
        before, found = machine.count.ticks, []
        behind = trip.after if name == RETURN else trip.window.loaded.start
        while machine.cpu.pc != behind and machine.count.ticks - before < LIMIT:
            found.append(machine.count.ticks - before)
            machine.run(instructions=1)
        return found

    def seeds(self) -> Sequence[Case]:
        """Each kind at the first instruction of each movement."""
        plain = neutral("irq", self.spec)
        return [
            plain.with_value("transition", name).with_value("kind", kind)
            for name in (SUSPEND, RETURN)
            for kind in (IRQ, NMI)
        ]

    def put(self, case: Case) -> tuple[Trip, bool]:
        """Reset, and run to the instruction at which it comes."""
        name = case.word("transition")
        trip = self.trip(name)
        trip.stage.reset()
        trip.set_noise(case.blob("registers"))
        return trip, False

    def run(self, case: Case) -> Result:
        """Run to the instruction, let it come, run on."""
        trip, _ = self.put(case)
        kind, machine, self._came = case.word("kind"), trip.stage.machine, None
        at = case.number("at") % self._length[trip.stage.name]
        outcome = machine.run(at) if at else None
        if outcome is not None and not isinstance(outcome, ev.StepLimit):
            return trip.legal(Ended("early", machine.cpu.pc, machine.cpu.mode()), kind)
        self._came = Signal(kind, at)
        if kind == NMI:
            machine.inject_nmi()
        else:
            machine.board.ask(TIMER)
        return self._judge(trip, trip.stage.run(LIMIT), kind)

    def script(self, case: Case) -> Script | None:
        """What it comes to on a machine of the journey: the interrupt too, unless the run was over before."""
        script = super().script(case)
        return None if script is None else replace(script, signal=self._came)

    def _judge(self, trip: Trip, ended: Ended, kind: str) -> Result:
        result = trip.legal(ended, kind)
        if kind == NMI and result.verdict is Verdict.LOST:
            return trip.result(Verdict.DETECTED, ended, kind)
        return result


TARGET = Target(
    "irq",
    "an external interrupt that waits, or an NMI, at any instruction of either movement",
    "an interrupt waits until A takes it; an NMI is survived, or stops the machine with memory intact",
    IrqWorld,
    ((NMI, "between the tables of one kernel and those of the next nobody can take an NMI: the machine stops"),),
)
