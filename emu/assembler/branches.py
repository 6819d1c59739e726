"""Direct branches and far transfers: their length is a matter of layout, so they are encoded here.

Opcodes: SDM volume 2, Jcc, JMP, CALL, LOOP, JCXZ.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.assembler.operands import Immediate, Instruction, Memory
from emu.assembler.sizes import EncodingError

_CONDITIONS = "o,no,b c nae,ae nb nc,e z,ne nz,be na,a nbe,s,ns,p pe,np po,l nge,ge nl,le ng,g nle"
CONDITION_CODES = {name: code for code, names in enumerate(_CONDITIONS.split(",")) for name in names.split()}
"""Condition name to its number in the opcode (SDM 2, appendix B, "Condition Test Field")."""
_LOOPS = {"loopne": 0xE0, "loopnz": 0xE0, "loope": 0xE1, "loopz": 0xE1, "loop": 0xE2}
_COUNT_ZERO = {"jcxz": 2, "jecxz": 4, "jrcxz": 8}
_WIDTH = {"w": 2, "l": 4}


@dataclass(frozen=True, slots=True)
class BranchForm:
    """How one direct branch may be encoded; an empty opcode means that form does not exist.

    ``width`` is the size of the long form's displacement in bytes.
    """

    short: bytes
    long: bytes
    width: int

    def encode(self, address: int, target: int, bits: int, *, long: bool) -> bytes:
        """The bytes at linear ``address`` for a branch to ``target``; what does not fit raises OverflowError."""
        opcode, width = (self.long, self.width) if long else (self.short, 1)
        distance = target - (address + len(opcode) + width)
        if width == 2 or (width == 4 and bits == 32):
            top = 1 << (8 * width)
            distance = (distance + top // 2) % top - top // 2
        return opcode + distance.to_bytes(width, "little", signed=True)

    def size(self, *, long: bool) -> int:
        """The size in bytes of one of the forms."""
        return len(self.long) + self.width if long else len(self.short) + 1


def branch_target(instruction: Instruction) -> Memory | None:
    """The operand that says where a direct branch goes, or None where ``instruction`` is no direct branch."""
    if len(instruction.operands) != 1:
        return None
    operand = instruction.operands[0]
    if isinstance(operand, Memory) and operand.is_plain and _is_branch(instruction.mnemonic):
        return operand
    return None


def _is_branch(mnemonic: str) -> bool:
    near = ("jmp", "jmpw", "jmpl", "jmpq", "call", "callw", "calll", "callq")
    return mnemonic in near or mnemonic in _LOOPS or mnemonic in _COUNT_ZERO or _condition(mnemonic) >= 0


def _condition(mnemonic: str) -> int:
    return CONDITION_CODES.get(mnemonic[1:], -1) if mnemonic[:1] == "j" else -1


def branch_form(instruction: Instruction, bits: int) -> BranchForm:
    """The encodings of a direct branch in ``bits``-bit code.

    Raises:
        EncodingError: the suffix or the counter register does not exist in that mode.
    """
    mnemonic = instruction.mnemonic
    if instruction.prefixes and instruction.prefixes != ("bnd",):
        raise EncodingError(f"{instruction.prefixes[0]!r} cannot stand before a direct branch")
    lead = b"\xf2" if instruction.prefixes else b""
    default = 2 if bits == 16 else 4
    if mnemonic in _LOOPS:
        return BranchForm(lead + bytes((_LOOPS[mnemonic],)), b"", 0)
    if mnemonic in _COUNT_ZERO:
        size = _COUNT_ZERO[mnemonic]
        if size * 8 == bits:
            return BranchForm(lead + b"\xe3", b"", 0)
        if size == 8 or (bits == 64 and size == 2):
            raise EncodingError(f"{mnemonic!r} does not exist in {bits}-bit code")
        return BranchForm(lead + b"\x67\xe3", b"", 0)
    condition = _condition(mnemonic)
    if condition >= 0:
        return BranchForm(lead + bytes((0x70 | condition,)), lead + bytes((0x0F, 0x80 | condition)), default)
    if mnemonic == "jmp":
        return BranchForm(lead + b"\xeb", lead + b"\xe9", default)
    width = {"call": default, "callw": 2, "calll": 4, "callq": 4}.get(mnemonic, 0)
    if not width or ((bits == 64) != (mnemonic == "callq") and mnemonic != "call"):
        raise EncodingError(f"a direct {mnemonic!r} does not exist in {bits}-bit code", f"write {mnemonic[:-1]}")
    return BranchForm(b"", (b"\x66" if width != default else b"") + lead + b"\xe8", width)


@dataclass(frozen=True, slots=True)
class FarForm:
    """A direct far jump or call: opcode bytes, then ``width`` bytes of offset, then two of selector."""

    opcode: bytes
    width: int
    selector: Immediate
    offset: Immediate


def far_form(instruction: Instruction, bits: int) -> FarForm | None:
    """The encoding of ``ljmp $selector, $offset`` or lcall; None where ``instruction`` is neither.

    Raises:
        EncodingError: in 64-bit code, which has no such instruction (SDM 2, JMP).
    """
    name = instruction.mnemonic
    base = name[:-1] if name[:-1] in ("ljmp", "lcall") else name
    if base not in ("ljmp", "lcall") or len(instruction.operands) != 2 or instruction.prefixes:
        return None
    selector, offset = instruction.operands
    if not (isinstance(selector, Immediate) and isinstance(offset, Immediate)):
        return None
    default = 2 if bits == 16 else 4
    width = default if base == name else _WIDTH.get(name[-1], 0)
    if bits == 64 or not width:
        raise EncodingError(
            f"{name!r} with immediate operands does not exist in {bits}-bit code",
            "push the selector and the offset and use lretq, or jump through memory",
        )
    opcode = b"\xea" if base == "ljmp" else b"\x9a"
    return FarForm((b"\x66" if width != default else b"") + opcode, width, selector, offset)
