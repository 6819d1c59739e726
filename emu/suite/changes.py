"""What a claim changed, and which of it nobody had declared."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from emu.assembler import Image
from emu.errors import ImageError
from emu.units import PAGE_SIZE, show_phys
from emu.x86.bits import Eflags

_ALWAYS = ("rip",)
_GENERAL = {
    name: f"r{base}"
    for base in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")
    for name in (base, f"e{base}", f"r{base}")
} | {f"r{number}": f"r{number}" for number in range(8, 16)}
_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs", "ldtr", "tr")
_GROUPS = {
    "flags": ("rflags",),
    "fpu": ("fcw", "fsw", "ftw", "mxcsr", *(f"st{i}" for i in range(8))),
    "sse": tuple(f"xmm{i}" for i in range(16)),
    "gdtr": ("gdtr.base", "gdtr.limit"),
    "idtr": ("idtr.base", "idtr.limit"),
} | {name: (name, f"{name}.base", f"{name}.limit", f"{name}.flags") for name in _SEGMENTS}
_ARITHMETIC = int(Eflags.CF | Eflags.PF | Eflags.AF | Eflags.ZF | Eflags.SF | Eflags.OF | Eflags.RF)
"""Flags that may always change; RF among them, which no instruction can read."""
EVERY_REGISTER = "registers"
_LIMIT = 0xF0000
"""Bits of a descriptor's flags that belong to its limit."""
EVENTS = ("hazard", "hole", "rom")
"""Words that allow an event of the machine instead of a change."""
_SPAN = re.compile(r"(.+)\+(0x[0-9a-f]+|\d+)$")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be different afterwards: registers by name, physical byte ranges (start, end), kinds of events."""

    registers: frozenset[str]
    ranges: tuple[tuple[int, int], ...]
    events: frozenset[str] = field(default_factory=frozenset)

    def unexpected_registers(self, before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
        """The registers that changed and may not, as ``name: before -> after``."""
        found = []
        for name, value in before.items():
            if name in self.registers:
                continue
            ignored = _ARITHMETIC if name == "rflags" else _LIMIT if name.endswith(".flags") else 0
            if (value ^ after[name]) & ~ignored:
                found.append(f"{name}: {value:#x} -> {after[name]:#x}")
        return found

    def allows(self, address: int) -> bool:
        """Whether the byte at physical ``address`` may change."""
        position = bisect_right(self.ranges, (address, 1 << 64)) - 1
        return position >= 0 and address < self.ranges[position][1]


Ranges = Mapping[str, Sequence[tuple[int, int]]]
"""Byte ranges (physical start, end) by a word of the world's: what a stub may write of its own page."""


def allowed(words: Iterable[str], program: Image, registers: Sequence[str], known: Ranges | None = None) -> Allowed:
    """What the ``words`` of a header and a claim stand for, besides those of ``known``.

    Raises:
        ImageError: a word that names no register, page or object.
    """
    names: set[str] = {*_ALWAYS}
    ranges = [(program.symbols["runtime_begin"], program.symbols["runtime_end"])]
    events: set[str] = set()
    for word in words:
        if word in EVENTS:
            events.add(word)
        elif word == EVERY_REGISTER:
            names.update(registers)
        elif known is not None and word in known:
            ranges += known[word]
        elif group := _registers(word, registers):
            names.update(group)
        else:
            ranges.append(_range_of(word, program))
    return Allowed(frozenset(names), tuple(_merged(ranges)), frozenset(events))


def _registers(word: str, known: Sequence[str]) -> tuple[str, ...]:
    if word in _GENERAL:
        return (_GENERAL[word],)
    if word in _GROUPS:
        return _GROUPS[word]
    return (word,) if word in known else ()


def _range_of(word: str, program: Image) -> tuple[int, int]:
    """The page ``word``_PAGE, the range ``word``_BEGIN to _END, or the object that symbol ``word`` begins."""
    numbers, upper = program.constants, word.upper()
    if span := _SPAN.match(word):
        first, _ = _range_of(span[1], program)
        return first, first + int(span[2], 0)
    if f"{upper}_PAGE" in numbers:
        return numbers[f"{upper}_PAGE"], numbers[f"{upper}_PAGE"] + PAGE_SIZE
    if f"{upper}_BEGIN" in numbers:
        return numbers[f"{upper}_BEGIN"], numbers[f"{upper}_END"]
    if word in program.symbols:
        start = program.symbols[word]
        later = [address for name, address in program.symbols.items() if address > start and not name.startswith(".L")]
        return start, min(later, default=program.end)
    raise ImageError(
        f"{word} is no register, page or object that may change",
        where=program.name,
        hint=f"a register, a symbol of the file, or NAME where {upper}_PAGE is set",
    )


def _merged(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    last: tuple[int, int] | None = None
    for start, end in sorted(ranges):
        if last is not None and start <= last[1]:
            last = last[0], max(last[1], end)
            continue
        if last is not None:
            yield last
        last = start, end
    if last is not None:
        yield last


def unexpected_bytes(before: Mapping[int, bytes], after: Mapping[int, bytes], may: Allowed) -> list[str]:
    """The bytes that changed and may not, as text, a run of them each; both are pages by physical address."""
    found = []
    for page, old in before.items():
        new = after[page]
        if old == new:
            continue
        wrong = [at for at in range(PAGE_SIZE) if old[at] != new[at] and not may.allows(page + at)]
        for first, last in _runs(wrong):
            was, now = old[first : last + 1], new[first : last + 1]
            found.append(f"{show_phys(page + first)}: {_hex(was)} -> {_hex(now)}")
    return found


def _runs(places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of places that are less than 8 apart, as (first, last)."""
    first = 0
    for number, place in enumerate(places):
        if number and place > places[number - 1] + 8:
            yield places[first], places[number - 1]
            first = number
    if places:
        yield places[first], places[-1]


def _hex(data: bytes) -> str:
    return data[:16].hex(" ") + (f" ... ({len(data)} bytes)" if len(data) > 16 else "")
