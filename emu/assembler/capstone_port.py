"""The one door to Capstone: bytes in, typed instructions out, in AT&T syntax."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache

import capstone
from capstone import x86, x86_const

_MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
LEGACY_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")


class Kind(Enum):
    """What an operand is."""

    REGISTER = "register"
    IMMEDIATE = "immediate"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class DecodedOperand:
    """One operand as decoded; ``value`` is the immediate or the displacement, ``size`` its bytes."""

    kind: Kind
    size: int
    register: str = ""
    value: int = 0
    segment: str = ""
    base: str = ""
    index: str = ""
    scale: int = 1


@dataclass(frozen=True, slots=True)
class Field:
    """Where a displacement or immediate sits in an instruction: offset and size in bytes; size 0: absent."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """One instruction; ``modrm`` is the offset of its ModRM byte, 0 where it has none."""

    size: int
    mnemonic: str
    text: str
    operands: tuple[DecodedOperand, ...]
    modrm: int
    displacement: Field
    immediate: Field


@cache
def _engine(bits: int) -> capstone.Cs:
    engine = capstone.Cs(capstone.CS_ARCH_X86, _MODES[bits])
    engine.syntax = capstone.CS_OPT_SYNTAX_ATT
    engine.detail = True
    return engine


def _name(found: capstone.CsInsn, register: int) -> str:
    return str(found.reg_name(register)) if register else ""


def _operand(found: capstone.CsInsn, raw: x86.X86Op) -> DecodedOperand:
    if raw.type == x86_const.X86_OP_REG:
        return DecodedOperand(Kind.REGISTER, raw.size, register=_name(found, raw.reg))
    if raw.type == x86_const.X86_OP_IMM:
        return DecodedOperand(Kind.IMMEDIATE, raw.size, value=raw.imm)
    memory = raw.mem
    return DecodedOperand(
        Kind.MEMORY,
        raw.size,
        value=memory.disp,
        segment=_name(found, memory.segment),
        base=_name(found, memory.base),
        index=_name(found, memory.index),
        scale=memory.scale,
    )


@lru_cache(maxsize=65536)
def decode(code: bytes, address: int, bits: int) -> Decoded | None:
    """The instruction at the start of ``code``, or None where there is none that Capstone knows."""
    for found in _engine(bits).disasm(code[:15], address, 1):
        encoding = found.encoding
        return Decoded(
            size=found.size,
            mnemonic=found.mnemonic,
            text=f"{found.mnemonic} {found.op_str}".strip(),
            operands=tuple(_operand(found, raw) for raw in found.operands),
            modrm=encoding.modrm_offset,
            displacement=Field(encoding.disp_offset, encoding.disp_size),
            immediate=Field(encoding.imm_offset, encoding.imm_size),
        )
    return None
