"""Does the emitted instruction say what was written?  Capstone reads it back and every part is compared.

A difference is an error for the person who wrote the line: no byte leaves the assembler that does not decode to
the mnemonic, size, registers, displacement and immediates of its source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from emu.assembler.branches import CONDITION_CODES, branch_target
from emu.assembler.capstone_port import Decoded, DecodedOperand, Kind, decode
from emu.assembler.encode import FIXED_REAL, WAITING
from emu.assembler.operands import GENERAL, Immediate, Instruction, Memory, Operand, Register
from emu.assembler.sizes import STRING, address_size, family, operand_size, stem, words
from emu.assembler.verify_prefixes import bare, unexplained_prefix

_ALIASES = {
    "sal": "shl", "movabs": "mov", "cwtl": "cwde", "cbtw": "cbw", "cwtd": "cwd", "cltd": "cdq", "cltq": "cdqe",
    "cqto": "cqo", "xlat": "xlatb", "icebp": "int1", "fwait": "wait", "loopnz": "loopne", "loopz": "loope",
    "fildq": "fildll", "fistpq": "fistpll", "fisttpq": "fisttpll", "fcomip": "fcompi", "fucomip": "fucompi",
    "movsxd": "movslq",
}  # fmt: skip
_CONDITION_NAMES = {code: name for name, code in CONDITION_CODES.items()}
_SIZES = {"b": 1, "w": 2, "l": 4, "q": 8}
_IMPLIED_SIZE = words(
    "ret lret iret pushf popf push pop call jmp ljmp lcall enter leave lgdt lidt sgdt sidt ltr lldt str sldt lmsw "
    "smsw verr verw lar lsl int sysret sysexit nop in out crc32"
)
"""Mnemonics whose size is implied by the code size or by one operand, so that Capstone may show another suffix."""
_READS_WORD = words("lar lsl ltr lldt lmsw verr verw pinsrw")
"""Mnemonics that read 16 bits of their first operand whatever width of register is named."""
_ZERO_EXTENDS = words("str sldt smsw mov movmskps movmskpd pmovmskb pextrw")
"""Mnemonics whose 32-bit form clears the upper half, so that it is also the 64-bit form."""
_SHIFTS = words("rol ror rcl rcr shl shr sar")
_ACCUMULATORS = {1: "al", 2: "ax", 4: "eax", 8: "rax"}
_COMMUTATIVE = frozenset(("xchg", "test"))


class MismatchError(Exception):
    """Raised when an encoding does not say what the source says; the text is the difference."""


def canonical(mnemonic: str) -> tuple[str, int]:
    """One name for all spellings of a mnemonic, and the size that its suffix gives (0: none)."""
    mnemonic = _ALIASES.get(mnemonic, mnemonic)
    for lead in ("j", "set", "cmov"):
        rest = mnemonic.removeprefix(lead)
        if rest == mnemonic:
            continue
        if rest in CONDITION_CODES:
            return lead + _CONDITION_NAMES[CONDITION_CODES[rest]], 0
        if lead == "cmov" and rest[:-1] in CONDITION_CODES:
            return lead + _CONDITION_NAMES[CONDITION_CODES[rest[:-1]]], _SIZES.get(rest[-1], 0)
    name, size = stem(mnemonic)
    return _ALIASES.get(name, name), size


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One instruction as written, with its values, beside what its bytes decode to."""

    written: Instruction
    values: Sequence[int | None]
    decoded: Decoded
    bits: int

    def same_mnemonic(self) -> bool:
        written, given = canonical(self.written.mnemonic)
        found, size = canonical(bare(self.decoded.mnemonic))
        if written != found:
            return self._same_but_suffix(written, found)
        if given and size:
            return given == size
        wanted = operand_size(self.written, self.bits)
        return not (size and wanted) or size == wanted or written in _IMPLIED_SIZE or self._moves_segment()

    @staticmethod
    def _same_but_suffix(written: str, found: str) -> bool:
        """Whether one spelling is the other with a suffix, for mnemonics whose suffixes this layer does not know."""
        longer, shorter = (written, found) if len(written) > len(found) else (found, written)
        return longer[:-1] == shorter and longer[-1] in ("slt" if shorter.startswith("f") else "bwlq")

    def _moves_segment(self) -> bool:
        segments = ("es", "cs", "ss", "ds", "fs", "gs")
        return any(isinstance(operand, Register) and operand.name in segments for operand in self.written.operands)

    def difference(self) -> str:
        """Which written operand the bytes do not have, or what they have besides; empty where all agree."""
        found = self.decoded.operands
        if canonical(self.written.mnemonic)[0] in _SHIFTS and self._by_cl() != self.decoded.text.count("%cl,"):
            return "the count"
        wrong = self._compare(found)
        if wrong and canonical(self.written.mnemonic)[0] in _COMMUTATIVE:
            wrong = self._compare(found[::-1])
        return wrong

    def _names_stack_top(self) -> bool:
        """Whether the last operand is %st, which Capstone leaves out where it is implied."""
        last = self.written.operands[-1]
        implied = len(self.written.operands) > 1 and all(
            operand.register != "st(0)" for operand in self.decoded.operands
        )
        return isinstance(last, Register) and last.name in ("st", "st(0)") and implied

    def _by_cl(self) -> int:
        """How many operands but the last are %cl; of a shift in memory Capstone tells only in its text."""
        return sum(isinstance(one, Register) and one.name == "cl" for one in self.written.operands[:-1])

    def _compare(self, found: Sequence[DecodedOperand]) -> str:
        remaining = list(found)
        passed: list[DecodedOperand] = []
        for number, operand in enumerate(self.written.operands):
            if self._implied_accumulator(operand):
                continue
            while remaining:
                candidate = remaining.pop(0)
                if self._matches(number, candidate):
                    break
                passed.append(candidate)
            else:
                if number + 1 < len(self.written.operands) or not self._names_stack_top():
                    return f"operand {number + 1}"
                passed = [one for one in passed if one.register == "st(0)"]
        return "" if all(self._is_implied(one) for one in passed + remaining) else "an operand that was not written"

    def _is_implied(self, extra: DecodedOperand) -> bool:
        """Whether an operand that was not written is the one that the short spelling stands for."""
        name = canonical(self.written.mnemonic)[0]
        operands = self.written.operands
        if name in _SHIFTS:
            return len(operands) == 1 and extra.kind is Kind.IMMEDIATE and extra.value == 1
        if name == "imul" and len(operands) == 2:
            last = operands[-1]
            return isinstance(operands[0], Immediate) and isinstance(last, Register) and extra.register == last.name
        if name in STRING:
            return self._is_string_operand(extra)
        if name in ("aam", "aad"):
            return not operands and extra.value == 10
        if name.startswith("f"):
            return extra.register == ("st(0)" if operands else "st(1)")
        return False

    def _is_string_operand(self, extra: DecodedOperand) -> bool:
        if extra.kind is Kind.REGISTER:
            return extra.register in ("dx", *_ACCUMULATORS.values())
        wide = self.bits // 8
        if "addr32" in self.written.prefixes or "addr16" in self.written.prefixes:
            wide = 2 if self.bits == 32 else 4
        pointers = {name for name, size in GENERAL.items() if size == wide and family(name) in ("si", "di")}
        segments = {"", "es"} if family(extra.base) == "di" else {"", "ds", *self.written.prefixes}
        return extra.base in pointers and extra.segment in segments and not (extra.index or extra.value)

    def _implied_accumulator(self, operand: Operand) -> bool:
        """Whether ``operand`` is the accumulator of stos or scas, which Capstone does not list."""
        if canonical(self.written.mnemonic)[0] not in ("stos", "scas") or not isinstance(operand, Register):
            return False
        return operand.name == _ACCUMULATORS.get(operand_size(self.written, self.bits))

    def _matches(self, number: int, found: DecodedOperand) -> bool:
        operand: Operand = self.written.operands[number]
        value = self.values[number] or 0
        if isinstance(operand, Register):
            return found.kind is Kind.REGISTER and self._same_register(number, operand.name, found.register)
        if isinstance(operand, Immediate):
            width = max(found.size, self._widest_register()) or self.bits // 8
            return found.kind is Kind.IMMEDIATE and _equal(value, found.value, width)
        if found.kind is Kind.IMMEDIATE and branch_target(self.written) is operand:
            width = {"callw": 2, "calll": 4}.get(self.written.mnemonic, self.bits // 8)
            return _equal(value, found.value, width)
        return found.kind is Kind.MEMORY and self._same_memory(operand, value, found)

    def _widest_register(self) -> int:
        sizes = [item.size for item in self.decoded.operands if item.kind is not Kind.IMMEDIATE and item.size <= 8]
        return max(sizes, default=0)

    def _same_register(self, number: int, written: str, found: str) -> bool:
        written = "st(0)" if written == "st" else re.sub(r"^db(\d+)$", r"dr\1", written)
        if written == found:
            return True
        if GENERAL.get(written, 1) == 1 or family(written) != family(found):
            return False
        name = canonical(self.written.mnemonic)[0]
        into_segment = name == "mov" and number == 0 and self._moves_segment()
        if into_segment or (name in _READS_WORD and number == 0):
            return True
        extends = name in _ZERO_EXTENDS and (name != "mov" or self._moves_segment())
        return extends and (GENERAL[written], GENERAL[found]) == (8, 4)

    def _same_memory(self, written: Memory, value: int, found: DecodedOperand) -> bool:
        index = "" if written.index in ("riz", "eiz") else written.index
        if (written.base, index) != (found.base, "" if found.index in ("riz", "eiz") else found.index):
            return False
        if index and written.scale != found.scale:
            return False
        if written.segment != found.segment and not self._implied_segment(written, found):
            return False
        return _equal(value, found.value, address_size(written, self.bits, self.written.prefixes))

    def _implied_segment(self, written: Memory, found: DecodedOperand) -> bool:
        pair = {written.segment, found.segment}
        if pair == {"", "es"}:
            return written.base in ("di", "edi", "rdi") and canonical(self.written.mnemonic)[0] in STRING
        words = set(self.written.prefixes)
        return pair == {"", "ss" if written.base[-2:] in ("sp", "bp") else "ds"} or pair - {""} <= words


def _equal(value: int, found: int, size: int) -> bool:
    return (value - found) % (1 << (8 * size)) == 0


def _is_nop(instruction: Instruction, bits: int) -> bool:
    """An exchange of the accumulator with itself, where that is the same as a nop: not for eax in long mode."""
    if not all(isinstance(operand, Register) for operand in instruction.operands):
        return False
    names = {operand.name for operand in instruction.operands if isinstance(operand, Register)}
    wide = {"rax"} if bits == 64 else {"eax"}
    return stem(instruction.mnemonic)[0] == "xchg" and len(names) == 1 and names <= {"ax"} | wide


def _plain_spelling(instruction: Instruction, values: Sequence[int | None], bits: int) -> Instruction:
    """``instruction`` under the name that a disassembler gives it."""
    if instruction.mnemonic == "int" and values[0] == 3:
        return replace(instruction, mnemonic="int3", operands=())
    if _is_nop(instruction, bits):
        return replace(instruction, mnemonic="nop", operands=())
    if instruction.mnemonic == "nop" and set(instruction.prefixes) & {"rep", "repe", "repz"}:
        return replace(instruction, mnemonic="pause", prefixes=())
    return instruction


def _check_sse_prefix(code: bytes) -> None:
    """Capstone 5 takes the prefix 66 of an SSE instruction for an operand size when it decodes 16-bit code."""
    if b"\x66" in code[: code.find(b"\x0f")]:
        raise MismatchError(f"its bytes {code.hex(' ')} cannot be read back in 16-bit code")


def check(instruction: Instruction, values: Sequence[int | None], code: bytes, address: int, bits: int) -> None:
    """Compare ``code`` at linear ``address`` with what was written; ``values`` are the operands' final values.

    Raises:
        MismatchError: it decodes to something else, or not at all.
    """
    if instruction.mnemonic in WAITING and code[:1] == b"\x9b":
        check(replace(instruction, mnemonic=f"fn{instruction.mnemonic[1:]}"), values, code[1:], address + 1, bits)
        return
    if bits == 16 and FIXED_REAL.get(instruction.mnemonic) == code:
        return
    shown = code.hex(" ")
    if bits == 16 and any(isinstance(one, Register) and one.name.startswith("xmm") for one in instruction.operands):
        _check_sse_prefix(code)
    decoded = decode(code, address, bits)
    if decoded is None or decoded.size != len(code):
        raise MismatchError(f"its bytes {shown} do not decode to one instruction")
    comparison = _Comparison(_plain_spelling(instruction, values, bits), values, decoded, bits)
    if not comparison.same_mnemonic():
        raise MismatchError(f"its bytes {shown} decode to '{decoded.text}'")
    wrong = comparison.difference() or unexplained_prefix(instruction, code, bits)
    if wrong:
        raise MismatchError(f"its bytes {shown} decode to '{decoded.text}', which differs: {wrong}")
