"""The prefix bytes of an instruction against those that its source calls for (SDM 2, 2.1.1 and 2.2.1)."""

from __future__ import annotations

import re

from emu.assembler.capstone_port import LEGACY_PREFIXES, decode
from emu.assembler.operands import GENERAL, PREFIXES, SEGMENTS, Instruction, Memory, Register
from emu.assembler.sizes import address_size, stem

_WORDS = re.compile(r"^(?:lock|repn?[ez]?|repn?z|notrack|bnd|data16|data32|addr32|[c-g]s|ss|rex\S*) ")
_SEGMENT_BYTES = {byte: name for name, byte in SEGMENTS.items()}


def bare(mnemonic: str) -> str:
    """A decoded mnemonic without the prefix words that Capstone puts before it."""
    while (found := _WORDS.match(mnemonic)) is not None:
        mnemonic = mnemonic[found.end() :]
    return mnemonic


def unexplained_prefix(instruction: Instruction, code: bytes, bits: int) -> str:
    """The first prefix that is there without a reason, or missing; empty where all is as written."""
    count = 0
    while count < len(code) and code[count] in LEGACY_PREFIXES:
        count += 1
    legacy, rest = code[:count], code[count:]
    rex = rest[0] if bits == 64 and rest[:1] and rest[0] & 0xF0 == 0x40 else 0
    for word in instruction.prefixes:
        byte = PREFIXES[word]
        if word.startswith("rex") and rex & byte != byte:
            return f"{word} is missing"
        if not word.startswith("rex") and byte not in legacy:
            return f"{word} is missing"
    if len(set(legacy)) != len(legacy):
        return "a prefix stands twice"
    for number, byte in enumerate(legacy):
        without = code[:number] + code[number + 1 :]
        if not _explained(instruction, byte, code, without, bits):
            return f"prefix {byte:02x} was not written"
    if rex & 8 and not _wide(instruction, code, code[:count] + bytes((rex & ~8,)) + rest[1:]):
        return "REX.W was not written"
    return ""


def _explained(instruction: Instruction, byte: int, code: bytes, without: bytes, bits: int) -> bool:
    if any(PREFIXES[word] == byte and not word.startswith("rex") for word in instruction.prefixes):
        return True
    memories = [operand for operand in instruction.operands if isinstance(operand, Memory)]
    if byte in _SEGMENT_BYTES:
        return any(memory.segment == _SEGMENT_BYTES[byte] for memory in memories)
    if byte == 0x67:
        counts = {"jcxz": 2, "jecxz": 4}.get(instruction.mnemonic, bits // 8)
        return counts * 8 != bits or any(address_size(memory, bits) * 8 != bits for memory in memories)
    if byte == 0xF0:
        return False
    if _is_mandatory(code, without, bits):
        return True
    if instruction.mnemonic == "pause":
        return byte == 0xF3
    return byte == 0x66 and _other_size(instruction, code, bits)


def _is_mandatory(code: bytes, without: bytes, bits: int) -> bool:
    """Whether the prefix is part of the opcode: then the rest is another instruction, or none."""
    with_it, rest = decode(code, 0, bits), decode(without, 0, bits)
    if with_it is None or b"\x0f" not in code[:6]:
        return False
    if rest is None or rest.size != len(without):
        return True
    names = (stem(bare(with_it.mnemonic))[0], stem(bare(rest.mnemonic))[0])
    return names[0] != names[1] or any("mm" in operand.register for operand in with_it.operands)


def _other_size(instruction: Instruction, code: bytes, bits: int) -> bool:
    """Whether the source names the operand size that 66 selects."""
    size = 4 if bits == 16 else 2
    if stem(instruction.mnemonic)[1] == size:
        return True
    if any(isinstance(one, Register) and GENERAL.get(one.name) == size for one in instruction.operands):
        return True
    if bits == 16 and any(isinstance(one, Register) and one.name[:2] in ("cr", "dr") for one in instruction.operands):
        return False
    decoded = decode(code, 0, bits)
    return decoded is not None and bare(decoded.mnemonic) == instruction.mnemonic


def _wide(instruction: Instruction, code: bytes, without: bytes) -> bool:
    """Whether the source names the 64-bit size that REX.W selects, or it selects nothing."""
    written = any(PREFIXES[word] & 8 for word in instruction.prefixes if word.startswith("rex"))
    if written or stem(instruction.mnemonic)[1] == 8:
        return True
    if any(isinstance(one, Register) and GENERAL.get(one.name) == 8 for one in instruction.operands):
        return True
    wide, narrow = decode(code, 0, 64), decode(without, 0, 64)
    if wide is None:
        return False
    return bare(wide.mnemonic) == instruction.mnemonic or (narrow is not None and narrow.text == wide.text)
