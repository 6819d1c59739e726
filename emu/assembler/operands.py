"""AT&T instructions as written: prefixes, mnemonic, operands (GNU as manual, "i386-Syntax", "i386-Memory")."""

from __future__ import annotations

import re
from dataclasses import dataclass

from emu.assembler.expression import Expression, ExpressionError, parse
from emu.assembler.source import Statement, split_outside, strip_piece

_LEGACY = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_NEW = tuple(f"r{number}" for number in range(8, 16))
GENERAL: dict[str, int] = {
    **dict.fromkeys(("al", "cl", "dl", "bl", "ah", "ch", "dh", "bh", "spl", "bpl", "sil", "dil"), 1),
    **dict.fromkeys(_LEGACY, 2),
    **{f"e{name}": 4 for name in _LEGACY},
    **{f"r{name}": 8 for name in _LEGACY},
    **{f"{name}{suffix}": size for name in _NEW for suffix, size in (("b", 1), ("w", 2), ("d", 4), ("", 8))},
}
"""Size in bytes of each general register."""
LONG_MODE_REGISTERS = (
    frozenset(name for name in GENERAL if name[1:2].isdigit())
    | {"spl", "bpl", "sil", "dil", "rip", "eip", "riz"}
    | {f"{kind}{number}" for kind in ("cr", "dr", "db", "xmm", "ymm") for number in range(8, 16)}
)
"""Registers that only 64-bit code can name, besides the 64-bit general ones."""
SEGMENTS: dict[str, int] = {"es": 0x26, "cs": 0x2E, "ss": 0x36, "ds": 0x3E, "fs": 0x64, "gs": 0x65}
"""Override prefix byte of each segment register."""
REGISTERS = (
    frozenset(GENERAL)
    | frozenset(SEGMENTS)
    | {"rip", "eip", "eiz", "riz", "st"}
    | {f"{kind}{number}" for kind in ("cr", "db", "dr", "xmm", "ymm") for number in range(16)}
    | {f"{kind}{number}" for kind in ("mm", "bnd") for number in range(8)}
    | {f"k{number}" for number in range(8)}
    | {f"st({number})" for number in range(8)}
)
PREFIXES: dict[str, int] = {
    "rep": 0xF3,
    "repe": 0xF3,
    "repz": 0xF3,
    "repne": 0xF2,
    "repnz": 0xF2,
    "lock": 0xF0,
    "data16": 0x66,
    "data32": 0x66,
    "addr16": 0x67,
    "addr32": 0x67,
    "notrack": 0x3E,
    "bnd": 0xF2,
    **SEGMENTS,
    "rex": 0x40,
    "rex64": 0x48,
    **{
        f"rex.{''.join(letter for letter, bit in zip('wrxb', (8, 4, 2, 1), strict=True) if bits & bit)}": 0x40 | bits
        for bits in range(1, 16)
    },
}
"""Prefix words and their bytes."""
_REGISTER = re.compile(r"%(st\s*\(\s*\d\s*\)|[a-z]\w*)", re.IGNORECASE)
_SEGMENT = re.compile(r"%([c-g]s|ss)\s*:\s*", re.IGNORECASE)
_ADDRESS = re.compile(r"\(\s*(?:%(?P<base>\w+))?\s*(?:,\s*(?:%(?P<index>\w+))?\s*(?:,\s*(?P<scale>[^)]*?)\s*)?)?\)$")


@dataclass(frozen=True, slots=True)
class Register:
    """A register by its name without ``%``; ``indirect`` where a ``*`` stands before it."""

    name: str
    indirect: bool = False


@dataclass(frozen=True, slots=True)
class Immediate:
    """A value after ``$``."""

    value: Expression


@dataclass(frozen=True, slots=True)
class Memory:
    """``segment:displacement(base,index,scale)``; with nothing but a displacement also a branch target."""

    displacement: Expression | None
    base: str = ""
    index: str = ""
    scale: int = 1
    segment: str = ""
    indirect: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether this is an expression and nothing else: an absolute address, or where a branch goes."""
        return not (self.base or self.index or self.segment or self.indirect)


Operand = Register | Immediate | Memory


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction as written; without a mnemonic it is prefixes alone."""

    prefixes: tuple[str, ...]
    mnemonic: str
    operands: tuple[Operand, ...]


def _expression(statement: Statement, text: str, offset: int) -> Expression:
    try:
        return parse(text)
    except ExpressionError as error:
        raise statement.error(error.what, offset=offset + error.offset) from error


def _register(statement: Statement, name: str, offset: int) -> str:
    plain = re.sub(r"\s", "", name.lower())
    if plain not in REGISTERS:
        raise statement.error(f"%{name} is not a register", offset=offset)
    return plain


def _memory(statement: Statement, text: str, offset: int, segment: str, *, indirect: bool) -> Memory:
    found = _ADDRESS.search(text)
    if found is None or not re.match(r"\(\s*[%,]", found.group()):
        return Memory(_expression(statement, text, offset), segment=segment, indirect=indirect)
    base, index = (
        _register(statement, found[part], offset + found.start(part)) if found[part] else ""
        for part in ("base", "index")
    )
    scale = 1
    if found["scale"]:
        where = offset + found.start("scale")
        try:
            scale = int(found["scale"], 0)
        except ValueError:
            scale = 0
        if scale not in (1, 2, 4, 8):
            raise statement.error(f"a scale of {found['scale']} is not 1, 2, 4 or 8", offset=where)
    before = text[: found.start()]
    displacement = _expression(statement, before, offset) if before.strip() else None
    return Memory(displacement, base, index, scale, segment, indirect)


def parse_operand(statement: Statement, text: str, offset: int) -> Operand:
    """The operand that stands ``offset`` characters into ``statement``."""
    indirect = text.startswith("*")
    if indirect:
        offset, text = strip_piece(offset + 1, text[1:])
    segment = ""
    override = _SEGMENT.match(text)
    if override is not None:
        segment = override.group(1).lower()
        offset, text = offset + override.end(), text[override.end() :]
    if not text:
        raise statement.error("an operand is missing", offset=offset)
    if text[0] == "$":
        if indirect or segment:
            raise statement.error("an immediate can have neither '*' nor a segment", offset=offset)
        return Immediate(_expression(statement, text[1:], offset + 1))
    if text[0] == "%":
        whole = _REGISTER.fullmatch(text)
        if whole is None or segment:
            raise statement.error(f"cannot read the operand {text!r}", offset=offset)
        return Register(_register(statement, whole.group(1), offset), indirect)
    return _memory(statement, text, offset, segment, indirect=indirect)


def parse_instruction(statement: Statement) -> Instruction:
    """The instruction that ``statement`` is.

    Raises:
        AssemblyError: at the operand that cannot be read.
    """
    text, at = statement.text, 0
    prefixes: list[str] = []
    while True:
        word = re.compile(r"\S+").match(text, at)
        if word is None:
            return Instruction(tuple(prefixes), "", ())
        mnemonic = word.group().lower().removesuffix(",pt").removesuffix(",pn")
        if mnemonic not in PREFIXES:
            break
        prefixes.append(mnemonic)
        at = word.end() + len(text[word.end() :]) - len(text[word.end() :].lstrip())
    if not re.fullmatch(r"[a-z][a-z0-9]*", mnemonic):
        raise statement.error(f"{word.group()!r} is neither an instruction nor a known directive", offset=at)
    if mnemonic != word.group().lower():
        raise statement.error("branch hints are not supported", offset=at)
    rest = text[word.end() :]
    operands: list[Operand] = []
    if rest.strip():
        for offset, piece in split_outside(rest, ",", brackets=True):
            start, stripped = strip_piece(word.end() + offset, piece)
            operands.append(parse_operand(statement, stripped, start))
    return Instruction(tuple(prefixes), mnemonic, tuple(operands))
