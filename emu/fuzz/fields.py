"""The kinds of field that a case is made of: how one is drawn, changed, made smaller, and how large it is.

Values are drawn at the extremes: at the *points* that a target names (boundaries of every owner's ranges, symbols),
next to them, at sign bits and canonical edges.  All depends on the given random source and on nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from emu.errors import FuzzError
from emu.fuzz.case import Case, Value
from emu.units import PAGE_SIZE

_NEAR = (0, 0, 0, 1, -1, 2, -2, 4, -4, 8, -8, 16, PAGE_SIZE, -PAGE_SIZE, PAGE_SIZE - 1, 0x800)
_PLAIN = 0.25
"""Share of fields that hold their default in a fresh case."""
_BYTES_OF_NOTE = (0x00, 0xFF, 0x7F, 0x80, 0x01, 0x20, 0x22, 0x3D, 0x90, 0xCC, 0xF4)


class Field(Protocol):
    """One field of a case; ``default`` is what it holds where nothing is said, and what minimising leads to."""

    @property
    def name(self) -> str:
        """What it is called in a case."""
        ...

    @property
    def default(self) -> Value:
        """The neutral value."""
        ...

    def draw(self, rng: random.Random) -> Value:
        """A fresh value."""
        ...

    def change(self, rng: random.Random, value: Value, other: Value) -> Value:
        """``value`` changed a little, perhaps by a piece of ``other``."""
        ...

    def smaller(self, value: Value) -> Iterator[Value]:
        """Values that are simpler than ``value``, the simplest first."""
        ...

    def weight(self, value: Value) -> int:
        """How many bytes of ``value`` say something."""
        ...


def extremes(bits: int) -> tuple[int, ...]:
    """Numbers at which arithmetic of ``bits`` bits turns: sign bits, canonical edges, the ends."""
    edges = [0, 1, (1 << bits) - 1, 1 << bits - 1, (1 << bits - 1) - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
    if bits == 64:
        edges += [1 << 32, (1 << 47) - 1, 1 << 47, ~((1 << 47) - 1), (1 << 56) - 1, 1 << 56, ~((1 << 56) - 1), 1 << 52]
    return tuple(edge & (1 << bits) - 1 for edge in edges)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of ``options``; a repeated option is likelier."""

    name: str
    options: tuple[str, ...]

    @property
    def default(self) -> Value:
        """The first option."""
        return self.options[0]

    def draw(self, rng: random.Random) -> Value:
        """Any option."""
        return rng.choice(self.options)

    def change(self, rng: random.Random, value: Value, other: Value) -> Value:
        """Another one, or that of the other case."""
        del value
        return other if rng.random() < 0.3 else rng.choice(self.options)

    def smaller(self, value: Value) -> Iterator[Value]:
        """The default."""
        if value != self.default:
            yield self.default

    def weight(self, value: Value) -> int:
        """One, unless it is the default."""
        return int(value != self.default)


@dataclass(frozen=True, slots=True)
class Word:
    """A number of ``bits`` bits.

    ``points`` are values of interest, ``legal`` those that the design allows, drawn with probability ``share``.
    """

    name: str
    bits: int
    points: tuple[int, ...] = ()
    legal: tuple[int, ...] = ()
    share: float = 0.1
    neutral: int = 0

    @property
    def default(self) -> Value:
        """The neutral value."""
        return self.neutral

    @property
    def _mask(self) -> int:
        return (1 << self.bits) - 1

    def _point(self, rng: random.Random) -> int:
        pool = self.points if self.points and rng.random() < 0.85 else extremes(self.bits)
        return pool[int(rng.random() * len(pool))]

    def draw(self, rng: random.Random) -> Value:
        """Mostly at or near a point."""
        dice = rng.random()
        if self.legal and dice < self.share:
            return rng.choice(self.legal) & self._mask
        dice = rng.random()
        if dice < 0.5:
            value = self._point(rng) + rng.choice(_NEAR)
        elif dice < 0.8:
            value = (self._point(rng) & -PAGE_SIZE) + int(rng.random() * PAGE_SIZE)
        elif dice < 0.9:
            value = self._point(rng) ^ 1 << int(rng.random() * self.bits)
        else:
            value = rng.getrandbits(1 + int(rng.random() * self.bits))
        return value & self._mask

    def change(self, rng: random.Random, value: Value, other: Value) -> Value:
        """A bit flipped, a step to the side, a byte replaced, or drawn afresh."""
        if not isinstance(value, int) or not isinstance(other, int):
            raise FuzzError(f"field {self.name} is no number")
        dice = rng.random()
        if dice < 0.3:
            return value ^ 1 << int(rng.random() * self.bits)
        if dice < 0.6:
            return value + rng.choice(_NEAR) & self._mask
        if dice < 0.7:
            shift = 8 * int(rng.random() * self.bits / 8)
            return value & ~(0xFF << shift) | rng.getrandbits(8) << shift
        return other if dice < 0.8 else self.draw(rng)

    def smaller(self, value: Value) -> Iterator[Value]:
        """The default, then with each byte as in the default, then each bit."""
        if not isinstance(value, int) or value == self.neutral:
            return
        yield self.neutral
        for unit in (8, 1):
            part = (1 << unit) - 1
            for shift in range(0, self.bits, unit):
                one = value & ~(part << shift) | self.neutral & part << shift
                if one != value:
                    yield one

    def weight(self, value: Value) -> int:
        """Bytes that differ from the default's."""
        if not isinstance(value, int):
            raise FuzzError(f"field {self.name} is no number")
        different = value ^ self.neutral
        return sum(1 for shift in range(0, self.bits, 8) if different >> shift & 0xFF)


@dataclass(frozen=True, slots=True)
class Words:
    """A sequence of up to ``most`` numbers, each drawn by ``each``."""

    name: str
    each: Word
    most: int
    neutral: tuple[int, ...] = ()
    usual: int = 12

    @property
    def default(self) -> Value:
        """The neutral sequence."""
        return self.neutral

    def _one(self, rng: random.Random) -> int:
        value = self.each.draw(rng)
        return value if isinstance(value, int) else 0

    def draw(self, rng: random.Random) -> Value:
        """A few numbers."""
        return tuple(self._one(rng) for _ in range(int(rng.random() * min(self.usual, self.most + 1))))

    def change(self, rng: random.Random, value: Value, other: Value) -> Value:
        """One number changed, added, taken out, repeated, moved; or a piece of another sequence."""
        if not isinstance(value, tuple) or not isinstance(other, tuple):
            raise FuzzError(f"field {self.name} is no sequence")
        words = list(value)
        dice = rng.random()
        if not words or dice < 0.2:
            words.insert(int(rng.random() * (len(words) + 1)), self._one(rng))
        elif dice < 0.55:
            at = int(rng.random() * len(words))
            changed = self.each.change(rng, words[at], rng.choice(words))
            words[at] = changed if isinstance(changed, int) else 0
        elif dice < 0.7:
            del words[int(rng.random() * len(words))]
        elif dice < 0.8:
            words.insert(int(rng.random() * (len(words) + 1)), rng.choice(words))
        elif dice < 0.9:
            one, two = int(rng.random() * len(words)), int(rng.random() * len(words))
            words[one], words[two] = words[two], words[one]
        elif other:
            first = int(rng.random() * len(other))
            at = int(rng.random() * (len(words) + 1))
            words[at:at] = other[first : first + 1 + int(rng.random() * 4)]
        return tuple(words[: self.most])

    def smaller(self, value: Value) -> Iterator[Value]:
        """The default, halves, with one number less, with one number simpler."""
        if not isinstance(value, tuple) or value == self.neutral:
            return
        yield self.neutral
        size = len(value) // 2
        while size:
            for first in range(0, len(value), size):
                yield value[:first] + value[first + size :]
            size //= 2
        for at, word in enumerate(value):
            for simpler in self.each.smaller(word):
                if isinstance(simpler, int):
                    yield (*value[:at], simpler, *value[at + 1 :])

    def weight(self, value: Value) -> int:
        """Bytes of the numbers that are not in the default."""
        if not isinstance(value, tuple):
            raise FuzzError(f"field {self.name} is no sequence")
        if value == self.neutral:
            return 0
        return max(1, sum(self.each.weight(word) for word in value))


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes: ``least`` to ``most`` of them, made of ``tokens`` and noise, or ``neutral`` with some bytes changed.

    ``noise``: nothing but noise is ever drawn, as for registers that nobody may rely on.
    """

    name: str
    neutral: bytes
    least: int
    most: int
    tokens: tuple[bytes, ...] = ()
    noise: bool = False

    @property
    def default(self) -> Value:
        """The neutral bytes."""
        return self.neutral

    def draw(self, rng: random.Random) -> Value:
        """Tokens and noise, or the default with a few places changed."""
        if self.noise:
            return rng.randbytes(self.least)
        if self.least == self.most or (self.neutral and rng.random() < 0.3):
            value: Value = self.neutral
            for _ in range(1 + int(rng.random() * 6)):
                value = self.change(rng, value, self.neutral)
            return value
        data = bytearray()
        for _ in range(1 + int(rng.random() * 12)):
            if self.tokens and rng.random() < 0.8:
                data += rng.choice(self.tokens)
            else:
                data += rng.randbytes(1 + int(rng.random() * 6))
        return self._fit(data)

    def _fit(self, data: bytearray | bytes) -> bytes:
        return bytes(data[: self.most]).ljust(self.least, b"\0")

    def change(self, rng: random.Random, value: Value, other: Value) -> Value:
        """Bytes havoc; lengths stay where they are fixed."""
        if not isinstance(value, bytes) or not isinstance(other, bytes):
            raise FuzzError(f"field {self.name} holds no bytes")
        data = bytearray(value)
        fixed = self.least == self.most
        dice = rng.random()
        at = int(rng.random() * len(data)) if data else 0
        if data and dice < 0.25:
            data[at] ^= 1 << int(rng.random() * 8)
        elif data and dice < 0.4:
            data[at] = rng.choice(_BYTES_OF_NOTE)
        elif data and dice < 0.5:
            width = rng.choice((2, 4, 8))
            data[at : at + width] = rng.choice(extremes(8 * width)).to_bytes(width, "little")
        elif self.tokens and dice < 0.75:
            token = rng.choice(self.tokens)
            data[at : at + (len(token) if fixed or rng.random() < 0.5 else 0)] = token
        elif not fixed and data and dice < 0.85:
            del data[at : at + 1 + int(rng.random() * 8)]
        elif other:
            first = int(rng.random() * len(other))
            piece = other[first : first + 1 + int(rng.random() * 32)]
            data[at : at + (len(piece) if fixed else 0)] = piece
        return self._fit(data)

    def smaller(self, value: Value) -> Iterator[Value]:
        """The default, without pieces of every size, and with pieces as in the default."""
        if not isinstance(value, bytes) or value == self.neutral:
            return
        yield self.neutral
        size = max(len(value) // 2, 1)
        while size:
            for first in range(0, len(value), size):
                if self.least <= len(value) - size:
                    yield value[:first] + value[first + size :]
                same = self.neutral[first : first + size]
                if len(value) == len(self.neutral) and value[first : first + size] != same:
                    yield value[:first] + same + value[first + size :]
            size //= 2

    def weight(self, value: Value) -> int:
        """Bytes that differ from the default's, place by place."""
        if not isinstance(value, bytes):
            raise FuzzError(f"field {self.name} holds no bytes")
        different = sum(1 for one, two in zip(value, self.neutral, strict=False) if one != two)
        return different + abs(len(value) - len(self.neutral))


def fresh(rng: random.Random, target: str, spec: Sequence[Field]) -> Case:
    """A case drawn from nothing: every field afresh or, one time in four, its default (but for noise)."""

    def value(field: Field) -> Value:
        plain = rng.random() < _PLAIN and not (isinstance(field, Blob) and field.noise)
        return field.default if plain else field.draw(rng)

    return Case(target, tuple((field.name, value(field)) for field in spec))


def noise_field(word: int) -> Blob:
    """The field ``registers``: what general registers hold where nobody may rely on them."""
    return Blob("registers", bytes(16 * word), 16 * word, 16 * word, noise=True)


def neutral(target: str, spec: Sequence[Field]) -> Case:
    """Every field's default, and noise where there is noise: always the same."""
    rng = random.Random(target)  # noqa: S311 - no secret
    return Case(target, tuple((f.name, f.draw(rng) if isinstance(f, Blob) and f.noise else f.default) for f in spec))


def mutated(rng: random.Random, spec: Sequence[Field], case: Case, other: Case) -> Case:
    """``case`` with one to four changes, some of them pieces of ``other``."""
    values, others = case.values(), other.values()
    for _ in range(1 << int(rng.random() * 3)):
        field = rng.choice(spec)
        values[field.name] = field.change(rng, values[field.name], others[field.name])
    return Case.of(case.target, values)


def weight(spec: Sequence[Field], case: Case) -> int:
    """How many bytes of ``case`` say something."""
    values = case.values()
    return sum(field.weight(values[field.name]) for field in spec)
