"""What a trial is, and how one is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from emu.kexec.arch import Arch
from emu.trials.bench import Bench
from emu.trials.stubs import StubSet

Body = Callable[[Bench], None]
"""Runs stubs on a bench that was reset, and notes on it what is wrong."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A named test of stubs: ``body`` on a bench for ``arch``, the control page's stub at byte ``offset``."""

    name: str
    arch: Arch
    body: Body
    offset: int = 0

    @property
    def folder(self) -> str:
        """The folder of the stubs that it runs."""
        return "i386" if self.arch.bits == 32 else "x86_64"


@cache
def bench_for(arch: Arch) -> Bench:
    """The one bench of this process for ``arch``."""
    return Bench(arch)


def run_trial(trial: Trial, stubs: StubSet) -> list[str]:
    """What is wrong, in words; nothing if ``stubs`` pass.  Raises AssemblyError for stubs that are no code."""
    bench = bench_for(trial.arch)
    bench.reset(stubs, offset=trial.offset)
    trial.body(bench)
    return bench.wrong
