"""A world whose cases run on windows of a journey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from emu.fuzz.case import Case
from emu.fuzz.fields import Field
from emu.fuzz.target import Cover, Script
from emu.fuzz.trip import Trip
from emu.fuzz.verdict import Result, Verdict
from emu.fuzz.window import open_window
from emu.journey.scene import Scene


class TripWorld:
    """Windows by transition, opened when they are first wanted; subclasses say what a case is and judge it."""

    spec: Sequence[Field]
    rows: Sequence[str]
    still = True

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._trips: dict[str, Trip] = {}
        self._last: Trip | None = None
        self._covered: frozenset[Cover] = frozenset()
        self._extra: set[Cover] = set()

    def trip(self, name: str) -> Trip:
        """The window at transition ``name``; it is the one that the case at hand runs on."""
        if name not in self._trips:
            self._trips[name] = Trip(open_window(self.scene, name, still=self.still))
            self._trips[name].stage.begin_batch(self._covered)
        self._last = self._trips[name]
        return self._last

    def covers(self, kind: str, number: int) -> None:
        """The case at hand covers something that is no block: a kind of entry, a position."""
        self._extra.add((self._last.stage.name if self._last is not None else "", kind, number))

    def run(self, case: Case) -> Result:
        """Run one case from the beginning."""
        raise NotImplementedError

    def put(self, case: Case) -> tuple[Trip, bool]:
        """Reset a window and put the input of ``case`` in."""
        raise NotImplementedError

    def script(self, case: Case) -> Script | None:
        """The input of ``case`` as things done to the machine of the journey, and what it did that is bad."""
        trip, _ = self.put(case)
        script = trip.script()
        self.run(case)
        return replace(script, bad=trip.harmed())

    def begin_batch(self, covered: frozenset[Cover] = frozenset()) -> None:
        """``covered`` is no news any more."""
        self._covered = covered
        self._extra.clear()
        for trip in self._trips.values():
            trip.stage.begin_batch(covered)

    def news(self) -> frozenset[Cover]:
        """What the last case covered beyond what was covered when the batch began."""
        edges = self._last.stage.news() if self._last is not None else frozenset()
        found = edges | self._extra - self._covered
        self._extra.clear()
        return found

    def unheard(self) -> bool:
        """Whether pages changed that nobody listens to; they are put back."""
        found = [trip.stage.unheard() for trip in self._trips.values()]
        return any(found)

    def reset_fully(self) -> None:
        """Put everything back, whatever was written where."""
        for trip in self._trips.values():
            trip.stage.reset_fully()

    def strayed(self, case: Case, result: Result) -> Result:
        """Memory changed behind everybody's back: damage."""
        del case
        legal = result.verdict in (Verdict.COMPLETED, Verdict.REFUSED)
        return replace(result, verdict=Verdict.OWNER if legal else Verdict.WILD, detail="memory changed unheard")

    def close(self) -> None:
        """Give the machines back."""
        for trip in self._trips.values():
            trip.window.journey.machine.close()
        self._trips.clear()
