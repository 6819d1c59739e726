"""Numbers and sizes as a kernel reads them from its command line (Linux lib/cmdline.c memparse, simple_strtoull)."""

from __future__ import annotations

from string import hexdigits
from typing import Final

_SUFFIXES: Final = "KMGTPE"
_DIGITS: Final = {8: "01234567", 10: "0123456789", 16: hexdigits}


def parse_number(text: str, at: int = 0) -> tuple[int, int]:
    """The unsigned number at position ``at`` by C's rules of base, and the position after it.

    ``0x`` before a hexadecimal digit is base 16, a leading ``0`` base 8, else base 10.  No sign, no space; where there
    is no digit the value is 0 and the position is ``at``.  The value is exact, not cut to 64 bits.
    """
    base = 10
    if text.startswith("0", at):
        base = 16 if text[at + 1 : at + 2] in {"x", "X"} and text[at + 2 : at + 3] in set(hexdigits) else 8
    start = at + 2 if base == 16 else at
    end = start
    while end < len(text) and text[end] in _DIGITS[base]:
        end += 1
    return (int(text[start:end], base) if end > start else 0), end


def memparse(text: str, at: int = 0) -> tuple[int, int]:
    """The size at position ``at`` in bytes, and the position after it.

    A number as :func:`parse_number` reads it, then at most one of K M G T P E in either case, each 2**10 times the one
    before.  As in the kernel the suffix is taken even when no digit precedes it (the value is then 0).
    """
    value, end = parse_number(text, at)
    suffix = text[end : end + 1].upper()
    if suffix and suffix in _SUFFIXES:
        return value << (10 * (_SUFFIXES.index(suffix) + 1)), end + 1
    return value, end
