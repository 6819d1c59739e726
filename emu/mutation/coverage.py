"""Which instructions of a stub each trial executes."""

from __future__ import annotations

from collections.abc import Callable

from emu.trials.bench import Bench
from emu.trials.stubs import StubSet
from emu.trials.trial import Trial, bench_for, run_trial
from emu.units import PAGE_SIZE

Executed = dict[str, frozenset[int]]
"""Offsets in the image of executed bytes, by stub."""


def executed_by(trial: Trial, stubs: StubSet) -> Executed:
    """The bytes of each stub that are in a block which ``trial`` ran.

    Each reset of the bench drops all translated code, so every block that runs is translated, and heard of, once more.
    """
    bench = bench_for(trial.arch)
    blocks: list[tuple[int, int]] = []
    scan = bench.machine.engine.on_new_code

    def listen(linear: int, size: int) -> bool:
        blocks.append((linear, size))
        return scan(linear, size)

    bench.machine.engine.on_new_code = listen
    try:
        run_trial(trial, stubs)
    finally:
        bench.machine.engine.on_new_code = scan
    return _offsets(bench, blocks, trial.offset)


def _offsets(bench: Bench, blocks: list[tuple[int, int]], offset: int) -> Executed:
    at, direct = bench.at, bench.arch.direct
    homes = {
        at.control: ("relocate_new_kernel", offset),
        int(direct(at.control)): ("relocate_new_kernel", offset),
        at.second: ("relocate_new_kernel", 0),
        at.entry: ("jump_entry", 0),
        at.purgatory: ("purgatory", 0),
    }
    found: dict[str, set[int]] = {}
    for linear, size in blocks:
        home = homes.get(linear & -PAGE_SIZE)
        if home is not None:
            start = (linear & PAGE_SIZE - 1) - home[1]
            found.setdefault(home[0], set()).update(range(start, start + size))
    return {name: frozenset(offsets) for name, offsets in found.items()}


def coverage(
    trials: dict[str, Trial], stubs: StubSet, told: Callable[[str], None] = lambda _name: None
) -> dict[str, Executed]:
    """What each of ``trials`` executes of ``stubs``, by name of the trial."""
    found = {}
    for name, trial in trials.items():
        told(name)
        if trial.folder == stubs.folder:
            found[name] = executed_by(trial, stubs)
    return found
