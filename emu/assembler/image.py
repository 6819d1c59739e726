"""What the assembler makes: bytes at an address, with the symbols and source lines behind them."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Line:
    """``size`` bytes at ``address`` (of the image's own address space) come from line ``line`` of ``file``.

    ``called_from`` is the place of the macro call (``file:line``) that led to the line, ``called_first`` that of the
    outermost one; both are empty outside macros.  Padding has no line.
    """

    address: int
    size: int
    file: str
    line: int
    called_from: str = ""
    called_first: str = ""


@dataclass(frozen=True)
class Image:
    """A flat program: ``code`` at address ``org``.

    Addresses are those that the program was assembled for (link addresses; kjump's stubs and kernels are linked
    at physical ones).  ``bits`` is the code size at the first byte, ``modes`` every later change of it as
    ``(address, bits)``.  ``symbols`` holds addresses, ``constants`` the ``.set`` symbols that are plain numbers.
    """

    code: bytes
    org: int
    bits: int
    symbols: Mapping[str, int]
    lines: tuple[Line, ...]
    name: str
    modes: tuple[tuple[int, int], ...] = ()
    constants: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _places: tuple[tuple[int, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", tuple(line.address for line in self.lines))
        places = sorted((address, name) for name, address in self.symbols.items())
        object.__setattr__(self, "_places", tuple(places))

    @property
    def end(self) -> int:
        """The address after the last byte."""
        return self.org + len(self.code)

    @property
    def sha256(self) -> str:
        """The hex digest of the bytes."""
        return hashlib.sha256(self.code).hexdigest()

    def symbol_at(self, address: int) -> str:
        """The nearest symbol at or before ``address``, as ``name`` or ``name+0x2e``; the bare address where none is."""
        position = bisect_right(self._places, (address, "\U0010ffff"))
        if not position or not self.org <= address <= self.end:
            return f"{address:#x}"
        start = self._places[position - 1][0]
        first = next(name for place, name in self._places if place == start)
        return first if start == address else f"{first}+{address - start:#x}"

    def line_at(self, address: int) -> Line | None:
        """The line whose bytes hold ``address``; None in padding and outside."""
        position = bisect_right(self._starts, address) - 1
        if position < 0:
            return None
        line = self.lines[position]
        return line if address < line.address + line.size else None

    def bits_at(self, address: int) -> int:
        """The code size (16, 32 or 64) in which the bytes at ``address`` were written."""
        bits = self.bits
        for place, changed in self.modes:
            if place > address:
                break
            bits = changed
        return bits

    def source_text(self, line: Line) -> str:
        """The source line behind ``line``, comments included; empty where the source is not at hand."""
        lines = self.sources.get(line.file, ())
        return lines[line.line - 1] if 0 < line.line <= len(lines) else ""
