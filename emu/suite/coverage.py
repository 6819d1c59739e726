"""Which instructions of the stubs the claims execute, and which ways of their branches they take.

Kept by source line, so that what two architectures or two copies of a stub have in common counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from emu.assembler import Image, Instruction, decode_one

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


@dataclass(frozen=True, slots=True)
class _Map:
    """The instructions of one assembled stub by address: key, size, whether it is a conditional branch."""

    image: Image
    coverage: StubCoverage
    at: Mapping[int, tuple[Key, int, bool]]


class Coverage:
    """What was seen of the stubs, in any number of worlds."""

    def __init__(self) -> None:
        self.stubs: dict[str, StubCoverage] = {}
        self._maps: dict[int, _Map] = {}
        self._branch: tuple[StubCoverage, Key, int] | None = None

    def include(self, image: Image) -> None:
        """Count the instructions of ``image`` among what there is to cover."""
        if id(image) in self._maps:
            return
        coverage = self.stubs.setdefault(image.name, StubCoverage(image.name))
        at = {}
        for key, address, decoded in _instructions(image):
            coverage.instructions.setdefault(key, decoded.text)
            branch = _CONDITIONAL.fullmatch(decoded.mnemonic) is not None
            if branch:
                coverage.branches.add(key)
            at[address] = key, decoded.size, branch
        self._maps[id(image)] = _Map(image, coverage, at)

    def see(self, image: Image | None, address: int) -> None:
        """The instruction at ``address`` of ``image`` (None: of no stub) is about to be executed."""
        if self._branch is not None:
            coverage, key, behind = self._branch
            (coverage.passed if address == behind else coverage.taken).add(key)
            self._branch = None
        known = self._maps.get(id(image)) if image is not None else None
        entry = known.at.get(address) if known is not None else None
        if known is None or entry is None:
            return
        key, size, branch = entry
        known.coverage.executed.add(key)
        if branch:
            self._branch = known.coverage, key, address + size


def _instructions(image: Image) -> Iterator[tuple[Key, int, Instruction]]:
    """Every instruction of ``image`` that a source line names: key, address, decoded."""
    for line in image.lines:
        if _LABELS.sub("", image.source_text(line)).startswith("."):
            continue  # data and padding
        done = 0
        while done < line.size:
            at = line.address + done
            code = image.code[at - image.org : line.address + line.size - image.org]
            decoded = decode_one(code, at, image.bits_at(at))
            yield (line.line, line.called_first, done), at, decoded
            done += decoded.size
