"""Who may write whose pages now.  A store that breaks the policy is an event with its writer, caught as it happens.

Host code looks at each store and asks about those into forbidden page frames (``guard`` in ``asm/host/stores.inc``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emu.machine.events import OwnerViolation
from emu.machine.owners import intervals
from emu.machine.straddling import pieces
from emu.units import PAGE_SHIFT

if TYPE_CHECKING:
    from emu.machine.machine import Machine

MOST_REPORTED = 64
"""Violations kept of one phase: a runaway copy is one cause, not ten thousand events."""


@dataclass(frozen=True, slots=True)
class PolicyState:
    """Forbidden runs of page frames (first, behind the last), who is running, and how many violations were met."""

    runs: tuple[tuple[int, int], ...] = ()
    writer: str = "A"
    reported: int = 0


class Policy:
    """The forbidden page frames of the present phase.  ``enforced`` on a strict machine, and where somebody says so."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._guard: int | None = None
        self._runs: list[tuple[int, int]] = []
        self._starts: list[int] = []
        self._reported = 0
        self.enforced = machine.strict
        self.writer = "A"
        machine.engine.judge_writes(self._stored)

    def forbid(self, pfns: Iterable[int], writer: str) -> None:
        """From now on a store to any of ``pfns`` is a violation; ``writer`` names who is running."""
        self.writer = writer
        self._reported = 0
        self._put(intervals(pfns))

    def _put(self, runs: list[tuple[int, int]]) -> None:
        engine = self._machine.engine
        self._runs = runs
        self._starts = [first for first, _ in runs]
        self._machine.careful(runs, always=self.enforced)
        guarded = bool(runs) and self.enforced
        if guarded and self._guard is None:
            self._guard = engine.guard_writes()
        elif not guarded and self._guard is not None:
            engine.unwatch(self._guard)
            self._guard = None

    def clear(self) -> None:
        """Everything is allowed."""
        self._put([])

    @property
    def state(self) -> PolicyState:
        """The policy in force, as a value."""
        return PolicyState(tuple(self._runs), self.writer, self._reported)

    @state.setter
    def state(self, state: PolicyState) -> None:
        if tuple(self._runs) != state.runs:
            self._put(list(state.runs))
        self.writer, self._reported = state.writer, state.reported

    def allows(self, physical: int, size: int) -> bool:
        """True if no page of the range is forbidden."""
        first, last = physical >> PAGE_SHIFT, (physical + size - 1) >> PAGE_SHIFT
        if first == last or not self._starts:
            return not self._forbidden(first)
        return not any(self._forbidden(pfn) for pfn in range(first, last + 1))

    def _forbidden(self, pfn: int) -> bool:
        index = bisect_right(self._starts, pfn) - 1
        return index >= 0 and pfn < self._runs[index][1]

    def _stored(self, address: int, size: int, value: int) -> None:
        machine = self._machine
        for piece in pieces(machine.engine, machine.cpu, address, size):
            if not self.allows(piece.physical, 1):
                machine.sync_time()
                self._report(piece.physical, piece.size, piece.of(value), self.writer)

    def processor_store(self, address: int, data: bytes) -> None:
        """The processor is about to push ``data`` at physical ``address`` for an exception frame."""
        if self.enforced and not self.allows(address, len(data)):
            self._report(address, len(data), int.from_bytes(data, "little"), self.writer)

    def device_store(self, address: int, data: bytes, name: str) -> None:
        """A device wrote ``data`` at physical ``address``."""
        if self.enforced and not self.allows(address, len(data)):
            self._report(address, len(data), int.from_bytes(data[:8], "little"), name)

    def _report(self, address: int, size: int, value: int, writer: str) -> None:
        self._reported += 1
        if self._reported > MOST_REPORTED:
            return
        machine = self._machine
        owner = str(machine.owners.at(address))
        machine.emit(OwnerViolation(*machine.here(), address, size, value & (1 << 8 * size) - 1, owner, writer))
