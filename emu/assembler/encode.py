"""One written instruction into bytes, with holes where a value is known only after layout.

Keystone encodes; this layer picks the form that GNU as would pick, orders prefixes as it does, and supplies what
Keystone lacks or gets wrong.  Whatever comes out is checked against what was written in :mod:`.verify`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from emu.assembler import keystone_port
from emu.assembler.capstone_port import Decoded, Field, decode
from emu.assembler.operands import (
    GENERAL,
    LONG_MODE_REGISTERS,
    SEGMENTS,
    Immediate,
    Instruction,
    Memory,
    Operand,
    Register,
)
from emu.assembler.prefixes import Encoding, Hole, in_order, with_prefixes
from emu.assembler.sizes import (
    BYTE_IMMEDIATE,
    WORD_IMMEDIATE,
    EncodingError,
    address_size,
    family,
    immediate_size,
    operand_size,
    resized,
    stem,
)

WAITING = {"finit", "fclex", "fstcw", "fstsw", "fstenv", "fsave"}
"""Mnemonics that are a wait followed by the form with n."""
_FIXED = {
    "endbr64": b"\xf3\x0f\x1e\xfa",
    "endbr32": b"\xf3\x0f\x1e\xfb",
    "wbnoinvd": b"\xf3\x0f\x09",
    "icebp": b"\xf1",
    "int1": b"\xf1",
}
FIXED_REAL = {"cbtw": b"\x98", "cwtl": b"\x66\x98", "cwtd": b"\x99", "cltd": b"\x66\x99"}
"""Conversions in 16-bit code, where Capstone 5 calls both sizes by the name of the larger one (SDM 2, CBW, CWD)."""
_TEMPLATE = {
    **{f"{name}{suffix}": (b"\xff", digit, suffix) for name, digit in (("ljmp", 5), ("lcall", 3)) for suffix in "wlq"},
    **{f"nop{suffix}": (b"\x0f\x1f", 0, suffix) for suffix in "wlq"},
}
"""Mnemonic to opcode, ModRM digit and operand size of instructions with one memory operand, encoded from inc."""
_POINTERS = {
    "movs": ("si", "di"),
    "cmps": ("di", "si"),
    **dict.fromkeys(("stos", "scas", "ins"), ("di",)),
    **dict.fromkeys(("lods", "outs"), ("si",)),
    **dict.fromkeys(("xlat", "xlatb"), ("bx",)),
}
"""The registers that hold the addresses of instructions which have no other, in AT&T order."""
_LONG_MODE = frozenset(("swapgs",))
"""Instructions of long mode that Capstone also reads elsewhere."""
_IMMEDIATE_MARK = {1: 0x5B, 2: 0x2345, 4: 0x23456789, 8: 0x2233445566778899}
_DISPLACEMENT_MARK = {2: 0x1234, 4: 0x12345678, 8: 0x1122334455667788}


def _fold_to_size(value: int, size: int, what: str) -> int:
    """``value`` as a signed number of ``size`` bytes; it may be written signed or unsigned."""
    top = 1 << (8 * size)
    if not -top // 2 <= value < top and not (size == 4 and value >> 32 == -1):
        raise EncodingError(f"{what} {value:#x} does not fit {size} byte{'s' if size > 1 else ''}")
    value %= top
    return value - top if value >= top // 2 else value


def _show(value: int) -> str:
    return f"-{-value:#x}" if value < 0 else f"{value:#x}"


@dataclass(slots=True)
class _Renderer:
    """Writes an instruction for Keystone and notes which operands got a mark in place of their value."""

    instruction: Instruction
    bits: int
    known: Sequence[int | None]
    marks: list[tuple[int, bool, int]]

    def operand(self, number: int, operand: Operand) -> str:
        if isinstance(operand, Register):
            return f"{'*' if operand.indirect else ''}%{operand.name}"
        if isinstance(operand, Immediate):
            return "$" + self._immediate(number)
        return self._memory(number, operand)

    def _immediate(self, number: int) -> str:
        value = self.known[number]
        wide_move = stem(self.instruction.mnemonic)[0] == "mov" and operand_size(self.instruction, self.bits) == 8
        if value is None or (wide_move and -(1 << 31) <= value < 1 << 31):
            size = immediate_size(self.instruction, self.bits)
            self.marks.append((number, True, size))
            return _show(_IMMEDIATE_MARK[size])
        name = stem(self.instruction.mnemonic)[0]
        size = operand_size(self.instruction, self.bits) if name not in BYTE_IMMEDIATE else 0
        size = 2 if self.instruction.mnemonic in WORD_IMMEDIATE else size
        return _show(_fold_to_size(value, size, "the immediate") if size in (1, 2, 4) else value)

    def _memory(self, number: int, memory: Memory) -> str:
        prefixes = self.instruction.prefixes
        size = address_size(memory, self.bits, prefixes)
        absolute = not (memory.base or memory.index)
        implied = memory.segment == "ss" and family(memory.base) in ("sp", "bp")
        text = f"%{memory.segment}:" if memory.segment and not implied else ""
        far_absolute = absolute and stem(self.instruction.mnemonic)[0] == "movabs"
        if memory.displacement is not None:
            text += self._displacement(number, size, absolute=absolute, full=far_absolute)
        elif absolute:
            raise EncodingError("a memory operand is empty")
        if not absolute:
            index = f",%{memory.index},{memory.scale:#x}" if memory.index else ""
            text += f"({'%' + memory.base if memory.base else ''}{index})"
        elif self.bits == 64 and not far_absolute:
            text += "(,%riz,0x1)"
        elif self.bits == 16 and size == 4:
            text += "(,%eiz,0x1)"
        return ("*" if memory.indirect else "") + text

    def _displacement(self, number: int, size: int, *, absolute: bool, full: bool) -> str:
        value = self.known[number]
        field = size if full else min(size, 4)
        if value is None or (absolute and self.bits == 16 and size == 4):
            self.marks.append((number, False, field))
            return _show(_DISPLACEMENT_MARK[field])
        if full or (absolute and size == 8):
            return _show(value)
        return _show(_fold_to_size(value, field, "the displacement"))


def _render(
    instruction: Instruction, bits: int, known: Sequence[int | None]
) -> tuple[str, list[tuple[int, bool, int]]]:
    renderer = _Renderer(instruction, bits, known, [])
    words = [renderer.operand(number, operand) for number, operand in enumerate(instruction.operands)]
    return f"{instruction.mnemonic} {', '.join(words)}".strip(), renderer.marks


def _decoded(code: bytes, bits: int) -> Decoded:
    decoded = decode(code, 0, bits)
    if decoded is None or decoded.size != len(code):
        raise EncodingError(f"Keystone encodes it as {code.hex(' ')}, which is not one instruction")
    return decoded


def _hole(code: bytes, field: Field, mark: tuple[int, bool, int]) -> Hole:
    number, is_immediate, size = mark
    value = (_IMMEDIATE_MARK if is_immediate else _DISPLACEMENT_MARK)[size]
    if field.size != size or code[field.offset : field.offset + size] != value.to_bytes(size, "little"):
        raise EncodingError("this form cannot take a value that is known only after layout")
    return Hole(field.offset, size, number)


def _from_template(instruction: Instruction, bits: int, known: Sequence[int | None]) -> Encoding:
    opcode, digit, suffix = _TEMPLATE[instruction.mnemonic]
    if digit == 0 and any(isinstance(operand, Memory) and operand.indirect for operand in instruction.operands):
        raise EncodingError(f"{instruction.mnemonic!r} takes no '*'")
    operands = tuple(
        replace(operand, indirect=False) if isinstance(operand, Memory) else operand for operand in instruction.operands
    )
    inc = _plain(replace(instruction, mnemonic=f"inc{suffix}", operands=operands), bits, known)
    modrm = _decoded(inc.code, bits).modrm
    grown = len(opcode) - 1
    changed = bytes((inc.code[modrm] | digit << 3,))
    code = inc.code[: modrm - 1] + opcode + changed + inc.code[modrm + 1 :]
    return Encoding(code, tuple(replace(hole, offset=hole.offset + grown) for hole in inc.holes))


def _opcode_replaced(instruction: Instruction, bits: int, known: Sequence[int | None]) -> Encoding:
    """The instruction bound, made from lea, which has its operands in the other order; Keystone drops bound."""
    if bits == 64 or len(instruction.operands) != 2:
        raise EncodingError(f"'bound' with these operands does not exist in {bits}-bit code")
    numbers = (1, 0)
    lea = _plain(instruction, bits, tuple(known[number] for number in numbers))
    at = _decoded(lea.code, bits).modrm - 1
    holes = tuple(replace(hole, operand=numbers[hole.operand]) for hole in lea.holes)
    return Encoding(lea.code[:at] + b"\x62" + lea.code[at + 1 :], holes)


def _as_keystone_wants(instruction: Instruction, bits: int) -> Instruction:
    """``instruction`` in the spelling for which Keystone picks the form that GNU as picks."""
    name, _ = stem(instruction.mnemonic)
    operands = instruction.operands
    if name == "mov" and len(operands) == 2:
        if any(isinstance(operand, Register) and operand.name in SEGMENTS for operand in operands):
            return _segment_move(instruction, bits)
        if isinstance(operands[0], Immediate) and operand_size(instruction, bits) == 8:
            return replace(instruction, mnemonic="movq")
    if name in ("str", "sldt") and len(operands) == 1 and isinstance(operands[0], Register):
        wide = GENERAL.get(operands[0].name) == 8
        return replace(instruction, operands=(resized(operands[0], 4) if wide else operands[0],))
    return instruction


def _segment_move(instruction: Instruction, bits: int) -> Instruction:
    """Loads of a segment register have no operand size, stores have one only into a register (SDM 2, MOV)."""
    source, target = instruction.operands
    default = 2 if bits == 16 else 4
    if isinstance(source, Register) and source.name in GENERAL:
        return replace(instruction, mnemonic="mov", operands=(resized(source, default), target))
    if isinstance(target, Register) and target.name in GENERAL:
        size = GENERAL[target.name]
        return replace(instruction, mnemonic="mov", operands=(source, resized(target, min(size, 4))))
    return replace(instruction, mnemonic="movw" if bits == 16 else "mov")


def _without_index(code: bytes, bits: int) -> bytes:
    """An absolute 32-bit address without the SIB byte that only long mode needs for it."""
    at = _decoded(code, bits).modrm
    if at and code[at] & 0xC7 == 0x04 and code[at + 1] == 0x25:
        return code[:at] + bytes((code[at] | 1,)) + code[at + 2 :]
    return code


def _check_implied_address(instruction: Instruction) -> None:
    """Refuse a string instruction or xlat with any address but its own: Keystone ignores it, or crashes on it."""
    name = stem(instruction.mnemonic)[0]
    wanted = _POINTERS.get(name)
    if wanted is None:
        return
    memories = [operand for operand in instruction.operands if isinstance(operand, Memory)]
    plain = all(not one.index and one.displacement is None and not one.indirect for one in memories)
    if memories and not (plain and tuple(family(one.base) for one in memories) == wanted):
        raise EncodingError(
            f"{instruction.mnemonic!r} has no such address", f"it uses {' and '.join(wanted)}, and nothing else"
        )


def _check_mode(instruction: Instruction, bits: int) -> None:
    """Refuse registers of long mode elsewhere, and pairs of registers on which Keystone ends the process."""
    names: set[str] = set()
    addresses: set[str] = set()
    for operand in instruction.operands:
        if isinstance(operand, Register):
            names.add(operand.name)
        elif isinstance(operand, Memory):
            addresses |= {operand.base, operand.index}
    names |= addresses
    if bits == 64:
        rex = operand_size(instruction, bits) == 8 or names & LONG_MODE_REGISTERS - {"rip", "eip", "riz"}
        if names & {"ah", "ch", "dh", "bh"} and (rex or any(GENERAL.get(name) == 8 for name in names - addresses)):
            raise EncodingError("ah, bh, ch and dh cannot be named where a REX prefix is needed")
        return
    if instruction.mnemonic in _LONG_MODE:
        raise EncodingError(f"{instruction.mnemonic!r} does not exist in {bits}-bit code")
    for name in sorted(names):
        if GENERAL.get(name) == 8 or name in LONG_MODE_REGISTERS:
            raise EncodingError(f"%{name} does not exist in {bits}-bit code")


def _plain(instruction: Instruction, bits: int, known: Sequence[int | None]) -> Encoding:
    """What Keystone makes of the instruction without its prefix words."""
    _check_implied_address(instruction)
    _check_mode(instruction, bits)
    if stem(instruction.mnemonic)[0] == "nop" and instruction.operands:
        raise EncodingError("'nop' takes a memory operand or none")
    if instruction.mnemonic == "mov" and any(
        isinstance(one, Register) and "mm" in one.name for one in instruction.operands
    ):
        raise EncodingError("'mov' does not take such a register", "movd, movq, movaps and movups do")
    text, marks = _render(_as_keystone_wants(instruction, bits), bits, known)
    try:
        code = keystone_port.machine_code(text, bits)
    except keystone_port.RejectedError as error:
        raise EncodingError(f"{instruction.mnemonic!r} with these operands cannot be encoded: {error}") from error
    code = in_order(code)
    if "eiz" in text and "eiz" not in {
        operand.index for operand in instruction.operands if isinstance(operand, Memory)
    }:
        code = _without_index(code, bits)
    decoded = _decoded(code, bits)
    holes = [_hole(code, decoded.immediate if mark[1] else decoded.displacement, mark) for mark in marks]
    return Encoding(code, tuple(holes))


def encode(instruction: Instruction, bits: int, known: Sequence[int | None]) -> Encoding:
    """The bytes of ``instruction``; ``known`` holds each operand's value where it is known already.

    Raises:
        EncodingError: it has no encoding in ``bits``-bit code, or none that this layer can vouch for.
    """
    name = instruction.mnemonic
    if not name:
        return with_prefixes(Encoding(b""), instruction, bits)
    if name in WAITING:
        inner = encode(replace(instruction, mnemonic=f"fn{name[1:]}"), bits, known)
        return Encoding(b"\x9b" + inner.code, tuple(replace(hole, offset=hole.offset + 1) for hole in inner.holes))
    if name in _FIXED and not instruction.operands:
        encoding = Encoding(_FIXED[name])
    elif name in FIXED_REAL and not instruction.operands and bits == 16:
        encoding = Encoding(FIXED_REAL[name])
    elif name == "bound":
        encoding = _opcode_replaced(
            replace(instruction, mnemonic="lea", operands=instruction.operands[::-1]), bits, known
        )
    elif name in ("ljmp", "lcall") and len(instruction.operands) == 1:
        suffix = "w" if bits == 16 else "l"
        encoding = _from_template(replace(instruction, mnemonic=name + suffix), bits, known)
    elif name in _TEMPLATE and len(instruction.operands) == 1 and isinstance(instruction.operands[0], Memory):
        encoding = _from_template(instruction, bits, known)
    else:
        encoding = _plain(instruction, bits, known)
    return with_prefixes(encoding, instruction, bits)
