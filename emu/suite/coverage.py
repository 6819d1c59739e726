"""Which instructions of the stubs the claims execute, and which ways of their branches they take.

Kept by source line, so that what two architectures or two copies of a stub have in common counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emu.assembler import Image, decode_one
from emu.suite.world import World

Key = tuple[int, str, int]
"""Of an instruction: line, the place of the outermost macro call, how many bytes into that line's code."""
_CONDITIONAL = re.compile(r"j(?!mp)\w+|loop\w*")
_LABELS = re.compile(r"^\s*(?:[\w.$]+:\s*)*")


@dataclass(slots=True)
class StubCoverage:
    """Of one source: its instructions as text, which of them were executed, which ways branches went."""

    path: str
    instructions: dict[Key, str] = field(default_factory=dict)
    branches: set[Key] = field(default_factory=set)
    executed: set[Key] = field(default_factory=set)
    taken: set[Key] = field(default_factory=set)
    passed: set[Key] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        """Whether every instruction was executed and every branch went both ways."""
        return not list(self.missing())

    def missing(self) -> Iterator[str]:
        """What was never seen, as file:line: text."""
        for key, text in sorted(self.instructions.items()):
            where = f"{self.path}:{key[0]}: {text}"
            if key not in self.executed:
                yield f"{where}  never executed"
            elif key in self.branches:
                if key not in self.taken:
                    yield f"{where}  never taken"
                if key not in self.passed:
                    yield f"{where}  always taken"

    def summary(self) -> str:
        """One line: how much of the stub was seen."""
        ways = len(self.taken & self.branches) + len(self.passed & self.branches)
        return (
            f"{self.path}  {len(self.executed)} of {len(self.instructions)} instructions, "
            f"{ways} of {2 * len(self.branches)} branch ways"
        )


@dataclass(slots=True)
class _Map:
    """The instructions of one assembled stub: key, size and whether it is a branch, by address."""

    coverage: StubCoverage
    at: dict[int, tuple[Key, int, bool]]


class Coverage:
    """Watches the stubs of any number of worlds."""

    def __init__(self) -> None:
        self.stubs: dict[str, StubCoverage] = {}
        self._maps: dict[Image, _Map] = {}
        self._last: tuple[_Map, int] | None = None

    def watch(self, world: World, stub_at: object) -> int:
        """Look at every instruction of ``world`` from now on; the answer ends it."""
        raise NotImplementedError

    def _map(self, image: Image) -> _Map:
        """Its instructions, counted among what there is to cover."""
        known = self._maps.get(id(image))  # type: ignore[call-overload]
        return known
