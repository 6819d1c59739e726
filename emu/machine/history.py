"""The past of a machine: checkpoints of what changed, and the way back to any instant of the run.

A checkpoint holds the processor, the devices, and the pages that changed since the one before; the base of RAM moves
along with it.  Going to an instant restores the checkpoint before it and runs forward, which is exact because a run
is deterministic.  Where the harness did something to the machine (a load, a change of policy) stands a *barrier*:
a checkpoint taken right behind it, from which later instants are reached, never through it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import NamedTuple

from emu.errors import EngineError
from emu.machine import events as ev
from emu.machine.machine import Machine, MachineSnapshot
from emu.machine.policy import PolicyState

EVERY = 100_000
"""Ticks between checkpoints at first; doubled whenever the history outgrows MOST_BYTES."""
MOST_BYTES = 240 << 20


class Instant(NamedTuple):
    """A boundary between two instructions (or iterations): ticks, then how many exceptions were delivered so far."""

    tick: int
    deliveries: int


@dataclass(slots=True)
class Checkpoint:
    """``barrier``: nothing before it is run through to reach what lies behind it."""

    at: Instant
    instructions: int
    state: MachineSnapshot
    barrier: bool
    policy: PolicyState


@dataclass(frozen=True, slots=True)
class Tail:
    """The part of a recording that a branch replaced; ``index`` is the last checkpoint that both share."""

    index: int
    checkpoints: list[Checkpoint]
    changed: list[list[int]]
    versions: dict[int, list[tuple[int, bytes]]]
    end: Instant
    outcome: ev.Outcome | None
    events: list[ev.Event]


class History:
    """Checkpoints of one machine.  Raises EngineError for an instant outside what was recorded."""

    def __init__(self, machine: Machine, every: int = EVERY) -> None:
        self.machine = machine
        self.every = every
        self.checkpoints: list[Checkpoint] = []
        self.events: list[ev.Event] = []
        self._versions: dict[int, list[tuple[int, bytes]]] = {}
        self._changed: list[list[int]] = []
        self._based_on = 0
        self._bytes = 0
        self.end = Instant(0, 0)
        self.outcome: ev.Outcome | None = None
        self.live = False

    @property
    def size(self) -> int:
        """Bytes of page copies that are kept."""
        return self._bytes

    @property
    def pages(self) -> int:
        """How many different page frames changed."""
        return len(self._versions)

    @property
    def based_on(self) -> int:
        """Index of the checkpoint that the machine last went to or took."""
        return self._based_on

    # ---- recording ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin here: the first checkpoint, and one every so many ticks from now on."""
        self.machine.loop.on_pause = self._pause
        self.live = True
        self.mark(barrier=True)

    def stop(self, outcome: ev.Outcome | None) -> None:
        """The run is over: its last instant is this one."""
        self.machine.loop.pause_at = None
        self.end = self.now()
        self.outcome = outcome
        self.events = list(self.machine.events)
        self.mark(barrier=False)
        self.machine.loop.pause_at = None
        self.live = False

    def cut(self) -> Tail:
        """Forget what was recorded behind the present instant: another past begins here.  See :meth:`rejoin`."""
        index = self.before(self.now())
        if index != self._based_on:
            raise EngineError("a branch can only begin where the machine stands")
        versions = {pfn: [version for version in kept if version[0] > index] for pfn, kept in self._versions.items()}
        tail = Tail(
            index, self.checkpoints[index + 1 :], self._changed[index + 1 :],
            {pfn: behind for pfn, behind in versions.items() if behind}, self.end, self.outcome, self.events,
        )  # fmt: skip
        self._truncate(index)
        self.end, self.outcome, self.live = self.now(), None, True
        return tail

    def rejoin(self, tail: Tail) -> None:
        """Forget what was recorded since :meth:`cut` gave ``tail``, and have the old past again.

        The machine is then at the checkpoint where the two part.
        """
        self.restore(tail.index)
        self._truncate(tail.index)
        self.checkpoints += tail.checkpoints
        self._changed += tail.changed
        for pfn, versions in tail.versions.items():
            self._versions.setdefault(pfn, []).extend(versions)
        self._bytes = sum(len(content) for versions in self._versions.values() for _, content in versions)
        self.end, self.outcome, self.events, self.live = tail.end, tail.outcome, tail.events, False
        self.machine.loop.pause_at = None

    def _truncate(self, index: int) -> None:
        del self.checkpoints[index + 1 :]
        del self._changed[index + 1 :]
        for pfn, versions in list(self._versions.items()):
            self._versions[pfn] = [version for version in versions if version[0] <= index]

    def now(self) -> Instant:
        """The present instant."""
        return Instant(self.machine.count.ticks, self.machine.deliveries)

    def mark(self, *, barrier: bool) -> None:
        """Take a checkpoint here."""
        machine = self.machine
        index = len(self.checkpoints)
        changes = machine.ram.rebase()
        self._changed.append(list(changes))
        for pfn, before in changes.items():
            versions = self._versions.setdefault(pfn, [(-1, before)])
            if versions == [(-1, before)]:
                self._bytes += len(before)
            versions.append((index, machine.ram.page(pfn)))
            self._bytes += len(before)
        self.checkpoints.append(
            Checkpoint(self.now(), machine.count.instructions, machine.snapshot(), barrier, machine.policy.state)
        )
        self._based_on = index
        machine.loop.pause_at = machine.count.ticks + self.every
        if self._bytes > MOST_BYTES:
            self._thin()

    def _pause(self) -> None:
        self.mark(barrier=False)

    def _thin(self) -> None:
        """Keep every second checkpoint (and all barriers); later ones come half as often."""
        self.every *= 2
        kept = [
            index
            for index, one in enumerate(self.checkpoints)
            if one.barrier or index % 2 == 0 or index == self._based_on
        ]
        new_index = {old: new for new, old in enumerate(kept)}
        self.checkpoints = [self.checkpoints[index] for index in kept]
        merged: list[list[int]] = []
        behind = -1
        for index in kept:
            merged.append(sorted({pfn for changed in self._changed[behind + 1 : index + 1] for pfn in changed}))
            behind = index
        self._changed = merged
        self._bytes = 0
        for pfn, versions in self._versions.items():
            thinned: dict[int, bytes] = {}
            for index, content in versions:
                at = -1 if index < 0 else next(new_index[k] for k in kept if k >= index)
                thinned[at] = content
            self._versions[pfn] = sorted(thinned.items())
            self._bytes += sum(len(content) for content in thinned.values())
        self._based_on = new_index[self._based_on]

    # ---- going -------------------------------------------------------------------------------------------------

    def before(self, at: Instant) -> int:
        """Index of the last checkpoint at or before ``at``."""
        keys = [one.at for one in self.checkpoints]
        index = bisect_right(keys, at) - 1
        if index < 0:
            raise EngineError(f"nothing was recorded before tick {at.tick:,}")
        return index

    def before_instruction(self, n: int) -> int:
        """Index of the last checkpoint with at most ``n`` instructions retired before it."""
        index = bisect_right([one.instructions for one in self.checkpoints], n) - 1
        if index < 0:
            raise EngineError(f"nothing was recorded before N {n:,}")
        while index and self.checkpoints[index].instructions == n and not self.checkpoints[index].barrier:
            index -= 1
        return index

    def restore(self, index: int) -> None:
        """The machine is at checkpoint ``index`` again, and remembers its events up to there."""
        machine, one = self.machine, self.checkpoints[index]
        pages: dict[int, bytes] = {}
        if index != self._based_on:
            low, high = sorted((index, self._based_on))
            for changed in self._changed[low + 1 : high + 1]:
                for pfn in changed:
                    pages[pfn] = self._content(pfn, index)
        self._based_on = index
        concerned = machine.ram.rewind(pages)
        machine.restore(replace(one.state, events=min(one.state.events, len(machine.events))), changed=concerned)
        machine.policy.state = one.policy

    def _content(self, pfn: int, index: int) -> bytes:
        """A page that changed somewhere in the recording, as it was at checkpoint ``index``."""
        versions = self._versions[pfn]
        return versions[max(bisect_right(versions, index, key=_version_index) - 1, 0)][1]


def _version_index(version: tuple[int, bytes]) -> int:
    return version[0]
