"""The fixed list of small damages: at most six for an instruction.

drop        the instruction is gone
swap        it changes places with the one after it
register    its last general register is another
constant    an immediate is one more; of a mask the lowest bit flips, and the highest (two of the six)
address     a displacement is one more
condition   a condition is inverted
size        an access (to memory or a port) is half as wide, a byte twice; or a repeat prefix is cut
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MOST = 6
_MNEMONIC = re.compile(r"^((?:rep\w*\s+)?\S+)\s*(.*)$", re.DOTALL)
_REGISTER = re.compile(r"%([a-z0-9]+)")
_64 = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{n}" for n in range(8, 16)))
_32 = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", *(f"r{n}d" for n in range(8, 16)))
_16 = ("ax", "bx", "cx", "dx", "si", "di", "bp", *(f"r{n}w" for n in range(8, 16)))
_8 = ("al", "bl", "cl", "dl", "sil", "dil", "bpl", *(f"r{n}b" for n in range(8, 16)))
_HIGH = ("ah", "bh", "ch", "dh")
_SEGMENTS = ("ds", "es", "ss")
_STACK = {"rsp": "esp", "esp": "sp", "sp": "spl"}
_SHORT_RING = 7
_NARROWER = {
    **dict(zip(_64, _32, strict=True)),
    **dict(zip(_32, _16, strict=True)),
    **dict(zip(_16, _8, strict=True)),
    "rsp": "esp",
    "esp": "sp",
}
_WIDER = dict(zip(_8, _16, strict=True))
_SUFFIX = {"q": "l", "l": "w", "w": "b", "b": "w"}
_INVERSE = {
    "z": "nz", "e": "ne", "s": "ns", "o": "no", "p": "np", "b": "ae", "c": "nc", "a": "be", "l": "ge", "g": "le",
}  # fmt: skip
_INVERSE |= {inverse: condition for condition, inverse in _INVERSE.items()}
_MASKS = frozenset({"and", "or", "xor", "test"})
_SIZED = frozenset(
    {
        "mov", "add", "sub", "and", "or", "xor", "test", "cmp", "inc", "dec", "shl", "shr", "rol", "ror", "push",
        "pop", "pushf", "popf", "lods", "movs", "stos", "scas", "in", "out", "neg", "not", "sar", "adc", "sbb",
    }
)  # fmt: skip
_ACCESSES = frozenset({"push", "pop", "pushf", "popf", "lods", "movs", "stos", "scas", "in", "out"})
"""They access memory or a port although no operand says so."""
_OTHERS = {"lretq": "lretl", "iretq": "iretl", "pushfl": "pushfw", "popfl": "popfw"}
_PLAIN = {"pushfq": "pushfw", "popfq": "popfw"}
_UNTOUCHED = ("cr", "dr", "ds", "es", "ss", "fs", "gs", "cs")


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of an instruction: its kind and its new text (empty: none), ``swap`` with the next line."""

    kind: str
    text: str
    swap: bool = False


def changes(text: str, value_of: Callable[[str], int | None], *, next_text: str = "") -> tuple[Change, ...]:
    """The damages of the instruction ``text``; ``value_of`` gives the value of a constant expression if it has one.

    ``next_text`` is the instruction after it, empty where there is none to change places with.
    """
    found = [Change("drop", "")]
    if next_text and next_text != text:
        found.append(Change("swap", "", swap=True))
    match = _MNEMONIC.match(text)
    if match is None:
        return tuple(found)
    mnemonic, operands = match.group(1), match.group(2)
    for kind, make in (("register", _register), ("condition", _condition), ("size", _size)):
        changed = make(mnemonic, operands)
        if changed and changed != text:
            found.append(Change(kind, changed))
    found.extend(_constants(mnemonic, operands, value_of))
    return tuple(found[:MOST])


def _stem(mnemonic: str) -> str:
    return mnemonic[:-1] if mnemonic[-1:] in _SUFFIX and mnemonic[:-1] in _SIZED else mnemonic


def split_operands(operands: str) -> list[str]:
    """Operands at the commas outside parentheses and quotes."""
    parts, depth, start, quote = [], 0, 0, ""
    for at, char in enumerate(operands):
        if quote:
            quote = "" if char == quote and operands[at - 1] != "\\" else quote
        elif char == "'":
            quote = char
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char == "," and not depth:
            parts.append(operands[start:at].strip())
            start = at + 1
    return [*parts, operands[start:].strip()] if operands.strip() else []


def _register(mnemonic: str, operands: str) -> str:
    """The last general register is the next of its ring (of the seven that every mode has)."""
    names = list(_REGISTER.finditer(operands))
    for ring in (_64, _32, _16, _8, _HIGH, _SEGMENTS):
        for match in reversed(names):
            if match.group(1) in ring:
                short = ring[:4] if ring in (_8, _HIGH) else ring[:_SHORT_RING]
                name = match.group(1)
                other = short[(short.index(name) + 1) % len(short)] if name in short else short[0]
                return f"{mnemonic} {operands[: match.start(1)]}{other}{operands[match.end(1) :]}"
    return ""


def _condition(mnemonic: str, operands: str) -> str:
    for stem in ("set", "cmov", "j"):
        if mnemonic.startswith(stem) and mnemonic[len(stem) :] in _INVERSE:
            return f"{stem}{_INVERSE[mnemonic[len(stem) :]]} {operands}"
    return ""


def _size(mnemonic: str, operands: str) -> str:
    if mnemonic.startswith("rep"):
        return mnemonic.split(None, 1)[1]
    if mnemonic in _OTHERS or mnemonic in _PLAIN:
        return f"{_OTHERS.get(mnemonic) or _PLAIN[mnemonic]} {operands}".strip()
    stem = _stem(mnemonic)
    if stem == mnemonic or any(name.startswith(_UNTOUCHED) for name in _REGISTER.findall(operands)):
        return ""
    parts = split_operands(operands)
    if stem not in _ACCESSES and not any(_moved(part, branch=False) for part in parts):
        return ""  # registers only: no access
    suffix = _SUFFIX[mnemonic[-1]]
    if stem in ("push", "pop") and suffix != "w":
        suffix = "w"
    return f"{stem}{suffix} {', '.join(_resized(one, mnemonic[-1], suffix) for one in parts)}".strip()


def _resized(operand: str, old: str, new: str) -> str:
    if not operand.startswith("%"):
        return operand
    name = operand[1:]
    if old == "b":
        return f"%{_WIDER.get(name, name)}"
    for _ in range("qlwb".index(new) - "qlwb".index(old)):
        name = _NARROWER.get(name, name)
    return f"%{name}"


def _constants(mnemonic: str, operands: str, value_of: Callable[[str], int | None]) -> Iterator[Change]:
    parts = split_operands(operands)
    for at, part in enumerate(parts):
        if part.startswith("$"):
            for expression in _other_values(_stem(mnemonic), part[1:], value_of):
                yield Change("constant", f"{mnemonic} {', '.join([*parts[:at], f'${expression}', *parts[at + 1 :]])}")
    for at, part in enumerate(parts):
        moved = _moved(part, branch=mnemonic.startswith(("j", "call", "loop")))
        if moved:
            yield Change("address", f"{mnemonic} {', '.join([*parts[:at], moved, *parts[at + 1 :]])}")


def _other_values(stem: str, expression: str, value_of: Callable[[str], int | None]) -> list[str]:
    value = value_of(expression)
    if stem not in _MASKS or value is None:
        return [f"({expression} + 1)"]
    bits = [bit for bit in range(64) if value >> bit & 1] if value > 0 else _edge_of(value)
    flipped = dict.fromkeys((bits[0], bits[-1])) if bits else {0: None}
    return [f"({expression} ^ {1 << bit:#x})" for bit in flipped]


def _edge_of(value: int) -> list[int]:
    """Of a negative mask (all high bits set): the lowest set bit."""
    return [next(bit for bit in range(64) if value >> bit & 1)] if value else []


def _moved(part: str, *, branch: bool) -> str:
    """A memory operand with a displacement that is one more; empty for anything else."""
    star = "*" if part.startswith("*") else ""
    body = part[len(star) :]
    if body.startswith(("$", "%")) or not body:
        return ""
    opened = body.rfind("(")
    if opened >= 0 and body.endswith(")") and "%" in body[opened:]:
        displacement = body[:opened].strip()
        return f"{star}{displacement} + 1{body[opened:]}" if displacement else f"{star}1{body[opened:]}"
    return f"{star}{body} + 1" if star or not branch else ""
