"""Sizes that a mnemonic, a register or the code size imply, as GNU as infers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from emu.assembler.operands import GENERAL, Instruction, Memory, Register


def words(text: str) -> frozenset[str]:
    """The set of the words of ``text``."""
    return frozenset(text.split())


_SHIFTS = ("rol", "ror", "rcl", "rcr", "shl", "sal", "shr", "sar")
BYTE_IMMEDIATE = {"int", "in", "out", "bt", "bts", "btr", "btc", "shld", "shrd", "aam", "aad", *_SHIFTS}
WORD_IMMEDIATE = {"ret", "lret", "retq", "retl", "retw", "lretq", "lretl", "lretw"}
STRING = words("movs cmps scas lods stos ins outs")
"""The string instructions, without suffix."""
_SUFFIX = {"b": 1, "w": 2, "l": 4, "q": 8}


class EncodingError(Exception):
    """Raised when an instruction has no encoding here; ``hint`` says what would have one."""

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(what)


def stem(mnemonic: str) -> tuple[str, int]:
    """A mnemonic without its size suffix, and that size in bytes (0: it has none)."""
    if mnemonic[:-1] in SUFFIXED and mnemonic[-1] in _SUFFIX:
        return mnemonic[:-1], _SUFFIX[mnemonic[-1]]
    return mnemonic, 0


SUFFIXED = words(
    "mov add adc sub sbb and or xor cmp test inc dec neg not mul imul div idiv xchg cmpxchg xadd lea push pop "
    "bt bts btr btc shld shrd bsf bsr rol ror rcl rcr shl sal shr sar in out movs cmps scas lods stos ins outs "
    "lgdt lidt sgdt sidt call jmp ljmp lcall ret lret iret pushf popf lar lsl ltr lldt str sldt lmsw smsw nop "
    "bswap movnti popcnt tzcnt lzcnt sysret sysexit enter leave movabs crc32"
)
"""Mnemonics that take one of the suffixes b, w, l, q."""


def operand_size(instruction: Instruction, bits: int) -> int:
    """The operand size in bytes: from the suffix, else from the last general register, else 0."""
    name, size = stem(instruction.mnemonic)
    if size:
        return size
    for operand in reversed(instruction.operands):
        if isinstance(operand, Register) and operand.name in GENERAL:
            return GENERAL[operand.name]
    return {"push": 2 if bits == 16 else bits // 8}.get(name, 0)


def address_size(memory: Memory, bits: int, prefixes: Sequence[str] = ()) -> int:
    """The size in bytes of the addresses that ``memory`` computes."""
    for name in (memory.base, memory.index):
        if name in GENERAL:
            return GENERAL[name]
    if "addr32" in prefixes:
        return 4
    return {"rip": 8, "eip": 4, "eiz": 4, "riz": 8}.get(memory.base or memory.index, bits // 8)


def immediate_size(instruction: Instruction, bits: int) -> int:
    """The size in bytes of the immediate in the form that GNU as picks for a value it does not know yet."""
    name, _ = stem(instruction.mnemonic)
    if name == "movabs":
        return 8
    if name in BYTE_IMMEDIATE:
        return 1
    if instruction.mnemonic in WORD_IMMEDIATE:
        return 2
    size = operand_size(instruction, bits)
    if not size:
        raise EncodingError("the size of the immediate is unknown", "write the mnemonic with a suffix b, w, l or q")
    return min(size, 4)


def resized(register: Register, size: int) -> Register:
    """The same register in another size; a byte register stays what it is."""
    if GENERAL.get(register.name, 1) == 1 or GENERAL[register.name] == size:
        return register
    core = family(register.name)
    if core[1:].isdigit():
        return replace(register, name=core + {2: "w", 4: "d", 8: ""}[size])
    return replace(register, name={2: "", 4: "e", 8: "r"}[size] + core)


def family(register: str) -> str:
    """The name that ax, eax and rax share, or r8w, r8d and r8; other registers are their own family."""
    if GENERAL.get(register, 1) == 1:
        return register
    return register.rstrip("wd") if register[1:2].isdigit() else register[-2:]
