"""What every target has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from emu.fuzz.case import Case
from emu.fuzz.fields import Field
from emu.fuzz.verdict import Result
from emu.journey.scene import HANDOFFS, TRANSFERS, Scene
from emu.kexec.entry_list import Mode, Pair
from emu.machine.events import Position

Cover = tuple[str, str, int]
"""One thing that was covered: transition (or part), edge or kind, processor mode or a count."""


IRQ, NMI = "interrupt", "nmi"
TIMER = 0
"""The line of the interrupt."""


@dataclass(frozen=True, slots=True)
class Signal:
    """An interrupt that waits from then on (``IRQ``, by line TIMER), or an ``NMI``, so many ticks behind the begin."""

    kind: str
    ticks: int


@dataclass(frozen=True, slots=True)
class Script:
    """A case as things done to the machine at ``position`` of the journey: physical stores, registers by name.

    ``moved`` comes before them: (destination, source) pages that the case's list does not have, for they are where it
    would have brought them, in ``mode``.  ``bad`` are physical ranges (start, behind) of memory that the case changed
    and must not: a store there is wrong.
    """

    position: Position
    writes: tuple[tuple[int, bytes], ...]
    registers: tuple[tuple[str, int], ...]
    moved: tuple[Pair, ...] = ()
    mode: Mode = Mode.SWAP
    signal: Signal | None = None
    bad: tuple[tuple[int, int], ...] = ()


class World(Protocol):
    """A target opened for one scene, where cases are run.  Two worlds of equal scenes give equal results."""

    @property
    def spec(self) -> Sequence[Field]:
        """The fields of a case, in order."""
        ...

    @property
    def rows(self) -> Sequence[str]:
        """The classes of input that results are counted under, in the order of a table."""
        ...

    def seeds(self) -> Sequence[Case]:
        """What the journey itself does, as cases: where a campaign begins."""
        ...

    def begin_batch(self, covered: frozenset[Cover] = frozenset()) -> None:
        """``covered`` is no news any more, whatever ran here before."""
        ...

    def run(self, case: Case) -> Result:
        """Run one case from the beginning."""
        ...

    def news(self) -> frozenset[Cover]:
        """What the last case covered beyond what was covered when the batch began."""
        ...

    def reset_fully(self) -> None:
        """Put everything back, whatever was changed where."""
        ...

    def unheard(self) -> bool:
        """Whether a case since the last question changed memory where nobody listens; it is put back."""
        ...

    def strayed(self, case: Case, result: Result) -> Result:
        """What ``result`` becomes when ``case`` changed memory where nobody listens."""
        ...

    def script(self, case: Case) -> Script | None:
        """The input of ``case`` as things done to the machine of the journey; None where no machine runs."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """One target; ``open`` makes its world, ``known`` names the classes that are known by design, with the reason.

    ``transfers`` and ``handoffs`` are those with which it goes; none where they make no difference to it.
    """

    name: str
    summary: str
    contract: str
    open: Callable[[Scene], World]
    known: tuple[tuple[str, str], ...] = ()
    transfers: tuple[str, ...] = TRANSFERS
    handoffs: tuple[str, ...] = HANDOFFS
