"""The symbols that a stripped kernel carries: the compressed tables of kallsyms, found by their own structure.

Source: Linux scripts/kallsyms.c (what is written) and kernel/kallsyms.c (how it is read), from 4.20 on.  In memory,
each aligned to a word: number of symbols, names, markers (the offset in the names of every 256th), token table, token
index, and before or after them (since 6.4) the offsets and the base that they are relative to.  Since 7.0 each is
aligned to 4 bytes, and the offsets, after the token index, are relative to their own places.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from emu.kernelfile.vmlinux import Piece, Vmlinux

TOKENS: Final = 256
MARKED: Final = 256
"""Symbols from one marker to the next."""
# A character that symbols use stands for itself: the tokens 0x30 to 0x39 are the ten digits.
_DIGITS: Final = re.compile(rb"".join(b"%d\0" % digit for digit in range(10)))
_MOST_SYMBOLS: Final = 1 << 20
_LONGEST_NAME: Final = 512
_FARTHEST: Final = 32 << 20
"""How far before the token table the names may begin."""


@dataclass(frozen=True, slots=True)
class _Tables:
    """Offsets in ``data``: ``names`` of the first name, ``before`` of the count, ``after`` behind the token index.

    ``word`` is the kernel's, ``step`` what the tables are aligned to.
    """

    data: bytes
    word: int
    step: int
    count: int
    names: int
    before: int
    after: int
    tokens: tuple[bytes, ...]


def read_kallsyms(kernel: Vmlinux) -> dict[str, int]:
    """Names and linear addresses, as far as the kernel's tables are found and hold together; else nothing."""
    try:
        return _read(kernel)
    except (IndexError, ValueError, struct.error):  # tables that lead outside their section
        return {}


def _read(kernel: Vmlinux) -> dict[str, int]:
    for piece in kernel.pieces:
        if not piece.name.startswith((".rodata", ".init.rodata", ".data")):
            continue
        tables = _find(piece, kernel.bits // 8)
        if tables is None:
            continue
        names = list(_names(tables))
        inside = _inside(kernel)
        for addresses in _readings(tables, piece.address):
            if addresses and sum(map(inside, addresses)) * 2 > len(addresses):
                return {name: address for name, address in zip(names, addresses, strict=True) if inside(address)}
    return {}


def _inside(kernel: Vmlinux) -> Callable[[int], bool]:
    """Whether an address is that of something in the kernel's image."""
    loaded = [piece for piece in kernel.pieces if piece.address]
    low = min((piece.address for piece in loaded), default=0)
    high = max((piece.end for piece in loaded), default=0) + (64 << 20)  # .bss has no bytes
    return lambda address: low <= address < high


def _up(at: int, word: int) -> int:
    return -(-at // word) * word


def _find(piece: Piece, word: int) -> _Tables | None:
    for match in _DIGITS.finditer(piece.data):
        for step in dict.fromkeys((word, 4)):
            found = _token_table(piece.data, match.start(), step)
            if found is not None:
                start, after, tokens = found
                before = _names_before(piece.data, start, step)
                if before is not None:
                    count, at = before
                    return _Tables(piece.data, word, step, count, at + step, at, after, tokens)
    return None


def _token_table(data: bytes, digits: int, step: int) -> tuple[int, int, tuple[bytes, ...]] | None:
    """The token table around the token for "0" at ``digits``: its start, the end of its index, the tokens."""
    at = digits
    for _ in range(TOKENS - ord("0")):
        end = data.find(b"\0", at, at + _LONGEST_NAME)
        if end < 0:
            return None
        at = end + 1
    index_at = _up(at, step)
    if index_at + 2 * TOKENS > len(data):
        return None
    index = struct.unpack_from(f"<{TOKENS}H", data, index_at)
    start = digits - index[ord("0")]
    if index[0] or start < 0 or any(left >= right for left, right in pairwise(index)):
        return None
    tokens = tuple(data[start + one : data.index(b"\0", start + one)] for one in index)
    return start, index_at + 2 * TOKENS, tokens


def _names_before(data: bytes, start: int, step: int) -> tuple[int, int] | None:
    """The count before the token table at ``start`` from which names and markers lead right up to it, and its place."""
    first = max(start - _FARTHEST, 0) // step * step
    words = struct.unpack_from(f"<{(start - first) // 4}I", data, first)[:: step // 4]
    for number in range(len(words) - 1, -1, -1):
        if not MARKED < words[number] <= _MOST_SYMBOLS:
            continue
        at = first + number * step
        if _leads_to(data, at + step, words[number], start, step):
            return words[number], at
    return None


def _leads_to(data: bytes, names: int, count: int, start: int, step: int) -> bool:
    """Whether ``count`` names are followed by their markers, and those by ``start``.

    Some kernels around 6.2, and stable 6.1, keep the order of the sorted names between the two: 3 bytes a symbol.
    """
    at = names
    for _ in range(MARKED):
        length, begin = _length(data, at)
        at = begin + length
        if not length or at + 1 >= start:
            return False
    size = 4 * -(-count // MARKED)
    needle = struct.pack("<II", 0, at - names)
    for end in (start, start - _up(3 * count, step)):
        markers = (end - size) // step * step
        if names < markers and data[markers : markers + 8] == needle:
            return True
    return False


def _length(data: bytes, at: int) -> tuple[int, int]:
    """The number of tokens of the name at ``at``, and where they begin; two bytes where one is not enough."""
    first = data[at]
    return (first & 0x7F | data[at + 1] << 7, at + 2) if first & 0x80 else (first, at + 1)


def _names(tables: _Tables) -> Iterator[str]:
    """The names in order; the first character of each is the type that nm shows, left out here."""
    at = tables.names
    for _ in range(tables.count):
        length, begin = _length(tables.data, at)
        at = begin + length
        yield b"".join([tables.tokens[one] for one in tables.data[begin:at]])[1:].decode("ascii", "replace")


def _readings(tables: _Tables, address: int) -> Iterator[list[int]]:
    """The addresses as each layout would have them; the section is at linear ``address``."""
    word, step = tables.word, tables.step
    size = _up(4 * tables.count, word)
    behind = _up(tables.after, step)
    if step == word:
        yield _relative_to_base(tables, behind, behind + size)
        base = tables.before - word
        yield _relative_to_base(tables, base - size, base)
    if step == 4 and behind + 4 * tables.count <= len(tables.data):
        offsets = struct.unpack_from(f"<{tables.count}i", tables.data, behind)
        mask = (1 << 8 * word) - 1
        yield [address + behind + 4 * number + offset & mask for number, offset in enumerate(offsets)]


def _relative_to_base(tables: _Tables, offsets: int, base: int) -> list[int]:
    """The addresses; a negative offset counts back from the base where per-CPU symbols have absolute ones."""
    data, word = tables.data, tables.word
    if offsets < 0 or base + word > len(data):
        return []
    relative = int.from_bytes(data[base : base + word], "little")
    values = struct.unpack_from(f"<{tables.count}i", data, offsets)
    if word == 4 or not any(value < 0 for value in values):
        return [relative + (value & 0xFFFF_FFFF) for value in values]
    return [relative - 1 - value if value < 0 else value for value in values]
