"""Where everything goes: chunks of fixed bytes, branches that choose their length, padding.

Every branch starts short and grows when its target is out of reach, until nothing changes; as in GNU as, growth
is never taken back, so the loop ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emu.assembler.branches import BranchForm
from emu.assembler.expression import Expression, ExpressionError, Location, evaluate
from emu.assembler.source import Statement

_HALF = 1 << 63
MAX_SIZE = 64 << 20
"""Largest image in bytes; a flat image beyond it is a mistake in a .fill or .org."""


@dataclass(frozen=True, slots=True)
class Patch:
    """``size`` bytes at ``offset`` of a chunk that take ``value``, less the address of ``end`` where that is given."""

    offset: int
    size: int
    value: Expression
    statement: Statement
    end: int | None = None
    signed_only: bool = False


@dataclass(slots=True)
class Bytes:
    """Bytes whose number is known, some of them patched after layout."""

    data: bytearray = field(default_factory=bytearray)
    patches: list[Patch] = field(default_factory=list)


@dataclass(slots=True)
class Branch:
    """A direct branch, short until its target is out of reach."""

    form: BranchForm
    target: Expression
    statement: Statement
    bits: int
    long: bool


@dataclass(frozen=True, slots=True)
class Align:
    """Padding up to a multiple of ``boundary``, unless that takes more than ``most`` bytes (0: no limit)."""

    boundary: int
    fill: bytes
    most: int


@dataclass(frozen=True, slots=True)
class Advance:
    """Padding up to ``target``, or over ``count`` times the fill.

    ``offset`` is the target where it is a plain number: then it counts from the start of the image, as in GNU as.
    """

    target: Expression | None
    count: Expression | None
    fill: bytes
    statement: Statement
    offset: int | None = None


Chunk = Bytes | Branch | Align | Advance


@dataclass(slots=True)
class Layout:
    """The chunks in order, and where each starts once :meth:`settle` has run."""

    org: int
    chunks: list[Chunk] = field(default_factory=lambda: [Bytes()])
    starts: list[int] = field(default_factory=list)

    def here(self) -> Location:
        """The place where the next byte goes."""
        return Location(len(self.chunks) - 1, len(self.tail().data))

    def tail(self) -> Bytes:
        """The chunk that takes further bytes."""
        last = self.chunks[-1]
        if not isinstance(last, Bytes):
            last = Bytes()
            self.chunks.append(last)
        return last

    def add(self, chunk: Chunk) -> int:
        """Append ``chunk`` and open a new one behind it; its number."""
        self.tail()
        self.chunks += [chunk, Bytes()]
        return len(self.chunks) - 2

    def address(self, location: Location) -> int:
        """The linear address of ``location`` in the settled layout."""
        return self.starts[location.chunk] + location.offset

    def settle(self, resolve: Callable[[str | Location], int]) -> None:
        """Give every chunk its address; ``resolve`` gives the present value of a name or place.

        Raises:
            AssemblyError: a target out of reach, a backward .org, a layout that never settles.
        """
        self.starts = self._optimistic()
        for _ in range(len(self.chunks) + 10):
            before = list(self.starts)
            grew = self._grow(resolve)
            at = self.org
            for number, chunk in enumerate(self.chunks):
                self.starts[number] = at
                at += self._size(chunk, at, resolve, final=False)
            if not grew and before == self.starts:
                break
        else:
            for chunk in self.chunks:
                if isinstance(chunk, Advance):
                    raise chunk.statement.error("the layout does not settle: a size depends on itself")
        for number, chunk in enumerate(self.chunks):
            self._size(chunk, self.starts[number], resolve, final=True)

    def size_of(self, number: int) -> int:
        """The size in bytes of chunk ``number`` in the settled layout."""
        after = self.starts[number + 1] if number + 1 < len(self.starts) else self.starts[number]
        return after - self.starts[number]

    def _optimistic(self) -> list[int]:
        starts: list[int] = []
        at = self.org
        for chunk in self.chunks:
            starts.append(at)
            if isinstance(chunk, Bytes):
                at += len(chunk.data)
            elif isinstance(chunk, Branch):
                at += chunk.form.size(long=chunk.long)
        return starts

    def _grow(self, resolve: Callable[[str | Location], int]) -> bool:
        grew = False
        for number, chunk in enumerate(self.chunks):
            if not isinstance(chunk, Branch) or chunk.long or not chunk.form.long:
                continue
            target = _value(chunk.target, chunk.statement, resolve)
            distance = target - (self.starts[number] + chunk.form.size(long=False))
            if not -128 <= distance <= 127:
                chunk.long = grew = True
        return grew

    def _size(self, chunk: Chunk, at: int, resolve: Callable[[str | Location], int], *, final: bool) -> int:
        if isinstance(chunk, Bytes):
            return len(chunk.data)
        if isinstance(chunk, Branch):
            return chunk.form.size(long=chunk.long)
        if isinstance(chunk, Align):
            gap = -at % chunk.boundary
            return gap if not chunk.most or gap <= chunk.most else 0
        size = self._advance(chunk, at, resolve)
        if size < 0 and final:
            raise chunk.statement.error(
                f"this would move the location back by {-size} bytes", hint=f"it stands at offset {at - self.org:#x}"
            )
        if size > MAX_SIZE:
            raise chunk.statement.error(f"padding of {size:#x} bytes is more than an image may have ({MAX_SIZE:#x})")
        return max(size, 0)

    def _advance(self, chunk: Advance, at: int, resolve: Callable[[str | Location], int]) -> int:
        if chunk.count is not None:
            return _value(chunk.count, chunk.statement, resolve) * max(len(chunk.fill), 1) if chunk.fill else 0
        if chunk.offset is not None:
            return self.org + chunk.offset - at
        if chunk.target is None:
            return 0
        return _value(chunk.target, chunk.statement, resolve) - at

    def bytes_of(self, number: int, resolve: Callable[[str | Location], int]) -> bytes:
        """The final bytes of chunk ``number``.

        Raises:
            AssemblyError: a value that does not fit its field, a branch that does not reach.
        """
        chunk, at = self.chunks[number], self.starts[number]
        if isinstance(chunk, Bytes):
            return self._patched(chunk, at, resolve)
        if isinstance(chunk, Branch):
            target = _value(chunk.target, chunk.statement, resolve)
            try:
                return chunk.form.encode(at, target, chunk.bits, long=chunk.long)
            except OverflowError:
                raise chunk.statement.error(f"the target {target:#x} is out of reach from {at:#x}") from None
        size = self._size(chunk, at, resolve, final=True)
        repeated = chunk.fill * (size // len(chunk.fill) + 1) if chunk.fill else b""
        return repeated[:size]

    def _patched(self, chunk: Bytes, at: int, resolve: Callable[[str | Location], int]) -> bytes:
        data = bytearray(chunk.data)
        for patch in chunk.patches:
            value = _value(patch.value, patch.statement, resolve)
            if patch.end is not None:
                value = (value - at - patch.end + _HALF) % (2 * _HALF) - _HALF  # addresses wrap at 64 bits
            top = 1 << (8 * patch.size)
            least, most = -top // 2, top // 2 if patch.signed_only else top
            if patch.size < 8 and not least <= value < most:
                raise patch.statement.error(f"{value:#x} does not fit {patch.size} byte{'s' * (patch.size > 1)}")
            data[patch.offset : patch.offset + patch.size] = (value % top).to_bytes(patch.size, "little")
        return bytes(data)


def _value(expression: Expression, statement: Statement, resolve: Callable[[str | Location], int]) -> int:
    try:
        return evaluate(expression, resolve)
    except ExpressionError as error:
        raise statement.error(error.what, hint=error.hint) from error
