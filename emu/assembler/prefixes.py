"""Prefix words before an instruction: which may stand where, and the order of their bytes (SDM 2, 2.1.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from emu.assembler.capstone_port import LEGACY_PREFIXES
from emu.assembler.operands import PREFIXES, SEGMENTS, Instruction, Memory
from emu.assembler.sizes import STRING, EncodingError, stem, words

_GROUP: dict[int, int] = {**dict.fromkeys(SEGMENTS.values(), 1), 0x67: 2, 0x66: 3, 0xF3: 4, 0xF2: 4, 0xF0: 5}
_LOCKABLE = words("add adc and btc btr bts cmpxchg cmpxchg8b cmpxchg16b dec inc neg not or sbb sub xor xadd xchg")


@dataclass(frozen=True, slots=True)
class Hole:
    """``size`` bytes at ``offset`` that take the value of operand number ``operand``."""

    offset: int
    size: int
    operand: int


@dataclass(frozen=True, slots=True)
class Encoding:
    """Bytes of one instruction, some of them holes."""

    code: bytes
    holes: tuple[Hole, ...] = ()


def _split(code: bytes) -> tuple[bytes, bytes]:
    count = 0
    while count < len(code) and code[count] in LEGACY_PREFIXES:
        count += 1
    return code[:count], code[count:]


def in_order(code: bytes) -> bytes:
    """``code`` with its legacy prefixes in the order of GNU as: segment, address, data, repeat, lock."""
    prefixes, rest = _split(code)
    ordered = sorted((_GROUP[byte], byte) for byte in prefixes)
    return bytes(byte for _, byte in ordered) + rest


def _is_pause(word: str, instruction: Instruction) -> bool:
    return instruction.mnemonic == "nop" and not instruction.operands and not word.startswith("repn")


def _is_avx(mnemonic: str) -> bool:
    return mnemonic.startswith("v") and not mnemonic.startswith(("ver", "vm"))


def _check_prefix(word: str, instruction: Instruction, bits: int) -> None:
    name, _ = stem(instruction.mnemonic)
    memory_target = bool(instruction.operands) and isinstance(instruction.operands[-1], Memory)
    if name == "xchg":
        memory_target = any(isinstance(operand, Memory) for operand in instruction.operands)
    if word == "lock" and not (name in _LOCKABLE and memory_target):
        raise EncodingError(f"'lock' cannot stand before {instruction.mnemonic!r} with these operands")
    if word.startswith("rep") and name not in STRING and name != "ret" and not _is_pause(word, instruction):
        raise EncodingError(f"{word!r} needs a string instruction, not {instruction.mnemonic!r}")
    if word.startswith("rex") and bits != 64:
        raise EncodingError(f"{word!r} exists in 64-bit code only")
    if (word in ("data16", "addr16") and bits == 16) or (word == "data32" and bits != 16):
        raise EncodingError(f"{word!r} is no prefix in {bits}-bit code, it is the default")
    if (word == "addr32" and bits == 32) or (word == "addr16" and bits == 64):
        raise EncodingError(f"{word!r} is no prefix in {bits}-bit code")
    if word == "notrack" and name not in ("jmp", "call"):
        raise EncodingError("'notrack' needs an indirect jmp or call")


def with_prefixes(encoding: Encoding, instruction: Instruction, bits: int) -> Encoding:
    """``encoding`` with the prefix words of ``instruction`` in their places; EncodingError where one is wrong."""
    legacy, rest = _split(encoding.code)
    rex = 0
    segments = [word for word in instruction.prefixes if word in SEGMENTS]
    segments += [one.segment for one in instruction.operands if isinstance(one, Memory) and one.segment]
    if len(segments) > 1 and set(instruction.prefixes) & set(SEGMENTS):
        raise EncodingError(f"two segments, {' and '.join(segments)}, for one instruction")
    if instruction.prefixes and _is_avx(instruction.mnemonic):
        raise EncodingError(f"{instruction.prefixes[0]!r} cannot stand before an AVX instruction")
    for word in instruction.prefixes:
        if instruction.mnemonic:
            _check_prefix(word, instruction, bits)
        byte = PREFIXES[word]
        if word.startswith("rex"):
            rex |= byte
            continue
        if byte in legacy:
            if word == "addr32":
                continue
            raise EncodingError(f"the prefix {word!r} is there already")
        legacy += bytes((byte,))
    if rex and rest and rest[0] & 0xF0 == 0x40 and bits == 64:
        if rest[0] & rex & 0xF:
            raise EncodingError("the bits of this REX prefix are there already")
        rest = bytes((rest[0] | rex,)) + rest[1:]
    elif rex:
        rest = bytes((rex,)) + rest
    code = in_order(legacy) + rest
    grown = len(code) - len(encoding.code)
    return Encoding(code, tuple(replace(hole, offset=hole.offset + grown) for hole in encoding.holes))
