"""Where a replaced stub departs from the built-in one: two records of executed instructions, compared line by line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from emu.assembler import Image, decode_one
from emu.journey.symbols import Place, Symbols, tidy
from emu.machine.events import Position
from emu.units import PAGE_SIZE

WINDOW = 64
"""Instructions around the departure in which insertion, deletion and change are told apart."""
_LABEL = re.compile(r"^[A-Za-z_.$][\w.$]*:\s*|^\d+:\s*")
_NUMBER = re.compile(r"(-?0x[0-9a-f]+|-?\b\d+\b)")
_RELATIVE = re.compile(r"-?(0x[0-9a-f]+|\d+)(?=\(%rip\))")
_MOST_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Step:
    """One executed instruction: ``line`` is its tidied source (empty where unknown), ``code`` its text as decoded.

    In ``code`` numbers that say where in memory the stub lies are blanked, so that equal instructions of two stubs are
    equal.  ``size`` is in bytes, ``symbol`` the nearest symbol at or before it.
    """

    address: int
    size: int
    position: Position
    place: Place
    line: str
    code: str

    @property
    def text(self) -> str:
        """The source if it is known, else the instruction as decoded."""
        return self.line or self.code

    def shown(self) -> str:
        """``file:line `source` `` for a sentence."""
        return f"{self.place.position} `{self.text}`"


def steps_of(record: Sequence[tuple[int, Position]], symbols: Symbols) -> list[Step]:
    """A record of (linear address, position) as steps; iterations of a repeated instruction count as one."""
    known: dict[int, tuple[int, Place, str, str]] = {}
    steps: list[Step] = []
    last = -1
    for address, position in record:
        if address == last:
            continue
        last = address
        if address not in known:
            known[address] = _describe(address, symbols)
        size, place, line, code = known[address]
        steps.append(Step(address, size, position, place, line, code))
    return steps


def _describe(address: int, symbols: Symbols) -> tuple[int, Place, str, str]:
    place = symbols.place(address)
    found = symbols.image_at(address)
    if found is None:
        return 0, place, "", f"{address:#x}"
    image, linked = found
    decoded = decode_one(image.code[linked - image.org :] or b"\0", linked, image.bits_at(linked))
    line = image.line_at(linked)
    source = _LABEL.sub("", tidy(image.source_text(line))) if line is not None and line.address == linked else ""
    return decoded.size, place, source, _blanked(decoded.text, image)


def _blanked(text: str, image: Image) -> str:
    def blank(match: re.Match[str]) -> str:
        value = int(match.group(), 0)
        return "." if image.org <= value < image.org + PAGE_SIZE else match.group()

    return _NUMBER.sub(blank, _RELATIVE.sub(".", text))


def first(mine: Sequence[Step], theirs: Sequence[Step]) -> str:
    """The first place where ``mine`` departs from ``theirs``, the built-in stub's, as a sentence; empty: nowhere."""
    if not mine or not theirs:
        return ""
    sourced = all(step.place.file for step in (*mine, *theirs))
    keys, other_keys = ([step.text if sourced else step.code for step in steps] for steps in (mine, theirs))
    found = _compare(mine, theirs, keys, other_keys)
    if found or not sourced:
        return found
    # The same lines: a symbol that has another value still makes another instruction.
    for one, other in zip(mine, theirs, strict=False):
        if one.code != other.code and one.size == other.size and not _jumps(one):
            return (
                f"departs from the built-in stub at N {one.position}: {one.shown()} is `{one.code}` here, "
                f"`{other.code}` in the built-in stub"
            )
    return ""


def _compare(mine: Sequence[Step], theirs: Sequence[Step], keys: list[str], other_keys: list[str]) -> str:
    both = min(len(keys), len(other_keys))
    at = next((i for i in range(both) if keys[i] != other_keys[i]), both)
    if at == len(keys) == len(other_keys) or not _alike(keys, other_keys):
        return ""
    if at == len(keys):
        return f"the built-in stub goes on with {theirs[at].shown()} where this one ends, after {mine[-1].shown()}"
    if at == len(other_keys):
        return f"goes on where the built-in stub ends, at N {mine[at].position}: {mine[at].shown()}"
    head = f"departs from the built-in stub at N {mine[at].position}: "
    if at and _went_elsewhere(mine[at - 1 : at + 1], theirs[at - 1 : at + 1]):
        return (
            f"{head}after {mine[at - 1].shown()} it is at {mine[at].shown()}, the built-in stub at `{theirs[at].text}`"
        )
    before = mine[at - 1].shown() if at else "the entry"
    return head + _change(mine[at:], theirs[at:], keys[at:], other_keys[at:], before)


def _alike(keys: Sequence[str], other_keys: Sequence[str]) -> bool:
    """One is a changed copy of the other, so that a comparison line by line says something."""
    few, others = set(keys), set(other_keys)
    return len(few & others) * 2 >= min(len(few), len(others))


def _change(mine: Sequence[Step], theirs: Sequence[Step], keys: list[str], other_keys: list[str], before: str) -> str:
    """What was added, left out or changed behind ``before``, where all four begin."""
    matcher = SequenceMatcher(None, keys[:WINDOW], other_keys[:WINDOW], autojunk=False)
    kind, a, b, c, d = next(code for code in matcher.get_opcodes() if code[0] != "equal")
    added, left_out = mine[a:b], theirs[c:d]
    are = "are" if len(added or left_out) > 1 else "is"
    if kind == "delete":
        return f"{_list([step.shown() for step in added])} {are} not in the built-in stub, after {before}"
    was = _list([f"`{step.text}`" for step in left_out])
    where = left_out[0].place.position
    if kind == "insert":
        later = mine[keys.index(other_keys[c], a, WINDOW)].place.position if other_keys[c] in keys[a:WINDOW] else ""
        moved = f"; it comes later, at {later}" if later and len(left_out) == 1 else ""
        return f"{was} ({where} of the built-in stub) {are} missing between {before} and {mine[a].shown()}{moved}"
    return f"{_list([step.shown() for step in added])} where the built-in stub has {was} ({where})"


def _list(texts: Sequence[str]) -> str:
    shown = list(texts[:_MOST_SHOWN])
    if len(texts) > _MOST_SHOWN:
        shown.append(f"{len(texts) - _MOST_SHOWN} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _mnemonic(step: Step) -> str:
    return step.code.split(" ", 1)[0]


def _jumps(step: Step) -> bool:
    name = _mnemonic(step)
    return name.startswith(("j", "call", "ret", "lret", "lcall", "ljmp", "iret", "loop"))


def _went_elsewhere(mine: Sequence[Step], theirs: Sequence[Step]) -> bool:
    """The same jump went two ways: it is the data that differ, not the code behind it."""
    if not _jumps(mine[0]):
        return False
    taken, others = (pair[1].address != pair[0].address + pair[0].size for pair in (mine, theirs))
    if taken != others:
        return True
    return taken and mine[1].place.symbol.split("+")[0] != theirs[1].place.symbol.split("+")[0]
