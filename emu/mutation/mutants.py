"""All mutants of a stub: its source with one small damage each, which still is code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from emu.assembler import Image, assemble_text
from emu.errors import AssemblyError
from emu.mutation.lines import SourceLine, instruction_lines, split_line
from emu.mutation.operators import changes
from emu.trials.stubs import Damage, StubSet
from emu.units import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mutant.

    ``line`` is the number of the damaged source line, ``text`` the instruction on it, ``nth`` which of the lines with
    this text it is; ``new`` is what stands there instead (``swap``: the next instruction, and this one after it).
    """

    folder: str
    stub: str
    line: int
    text: str
    nth: int
    kind: str
    new: str
    offset: int
    size: int

    @property
    def change(self) -> str:
        """The damage in a few words."""
        return f"`{self.text}` -> {f'`{self.new}`' if self.new else 'nothing'} ({self.kind})"

    def __str__(self) -> str:
        return f"{self.folder}/{self.stub}.S:{self.line}: {self.change}"


class StubUnderTest:
    """A stub, its lines, and its mutants."""

    def __init__(self, stubs: StubSet, name: str) -> None:
        self.stubs, self.name = stubs, name
        self.image: Image = stubs.assembled(name, 0)
        self.source = stubs.source(name).splitlines(keepends=True)
        self.lines = instruction_lines(self.image, self.source)
        self._by_number = {line.number: at for at, line in enumerate(self.lines)}

    def mutants(self) -> Iterator[Mutant]:
        """Every mutant, line by line; some are no code (a register that an instruction cannot take)."""
        seen: dict[str, int] = {}
        for at, line in enumerate(self.lines):
            seen[line.text] = seen.get(line.text, 0) + 1
            neighbour = self._neighbour(at)
            for change in changes(line.text, self._value, next_text=neighbour.text if neighbour else ""):
                new = neighbour.text if change.swap and neighbour else change.text
                yield Mutant(
                    self.stubs.folder, self.name, line.number, line.text, seen[line.text], change.kind, new,
                    line.offset, line.places[0][1],
                )  # fmt: skip

    def _neighbour(self, at: int) -> SourceLine | None:
        """The instruction after line ``at``, if no label stands between."""
        if at + 1 >= len(self.lines):
            return None
        here, there = self.lines[at], self.lines[at + 1]
        between = self.source[here.number : there.number - 1]
        if there.label.strip() or any(_speaks(line) for line in between) or len(here.places) != len(there.places):
            return None
        return there

    def stubs_of(self, mutant: Mutant) -> StubSet:
        """The stubs with ``mutant`` in its place: a few other bytes if they fit, else another text.

        Raises AssemblyError for what is no code.
        """
        here = self.lines[self._by_number[mutant.line]]
        if len(here.places) == 1:
            text, size = mutant.new, here.places[0][1]
            if mutant.kind == "swap":
                there = self.lines[self._by_number[mutant.line] + 1]
                text, size = f"{mutant.new}\n{here.text}", there.offset + there.places[0][1] - here.offset
            stubs = self.stubs.with_damage(Damage(self.name, here.offset, size, text))
            try:
                stubs.at(self.name, PAGE_SIZE)
            except AssemblyError:
                pass  # longer, perhaps
            else:
                return stubs
        stubs = self.stubs.with_text(self.name, self.text_of(mutant))
        stubs.at(self.name, PAGE_SIZE)
        return stubs

    def text_of(self, mutant: Mutant) -> str:
        """The whole source of ``mutant``."""
        lines = list(self.source)
        at = self._by_number[mutant.line]
        here = self.lines[at]
        lines[here.number - 1] = f"{here.label}    {mutant.new}\n"
        if mutant.kind == "swap":
            there = self.lines[at + 1]
            lines[there.number - 1] = f"{there.label}    {here.text}\n"
        return "".join(lines)

    def _value(self, expression: str) -> int | None:
        return _value_of(expression, tuple(sorted(self.image.constants.items())))


def _speaks(line: str) -> bool:
    label, text = split_line(line)
    return bool(label.strip() or text)


@lru_cache(maxsize=1024)
def _value_of(expression: str, constants: tuple[tuple[str, int], ...]) -> int | None:
    """The value of an expression of constants; None where it has a label or a macro argument in it."""
    known: Mapping[str, int] = {name: value for name, value in constants if name in expression}
    try:
        code = assemble_text(f".quad {expression}", bits=64, defines=known).code
    except AssemblyError:
        return None
    return int.from_bytes(code, "little", signed=True)
