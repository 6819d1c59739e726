"""What an instruction reads and writes: registers, flags, memory; for judging whether two may change places."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

import capstone
from capstone import x86_const

_MODES: Final = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
_NAMES: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
FLAGS: Final = "flags"
_WHOLE: Final = {
    **{f"{prefix}{name}": name for name in _NAMES for prefix in ("r", "e", "")},
    **{f"{name[0]}{half}": name for name in _NAMES[:4] for half in ("l", "h")},
    **{f"{name}l": name for name in _NAMES[4:]},
    **{f"r{number}{part}": f"r{number}" for number in range(8, 16) for part in ("", "d", "w", "b")},
    **dict.fromkeys(("rflags", "eflags", "flags"), FLAGS),
    **dict.fromkeys(("rip", "eip", "ip"), ""),
}
_SEGMENTS: Final = ("ds", "es", "ss", "fs", "gs")
_CONTROL: Final = ("cr", "dr")
DIRECTION: Final = "df"
_TABLE_LOADS: Final = ("lgdt", "lidt")
_TABLE_STORES: Final = ("sgdt", "sidt")
_TABLE_SIZE: Final = 10
_STRINGS: Final = ("movs", "lods", "stos", "scas", "cmps")
_SYSTEM: Final = frozenset(
    {
        "lldt", "ltr", "rdmsr", "wrmsr", "wbinvd", "in", "out", "cpuid", "invlpg"    }
)  # fmt: skip
_ALONE: Final = frozenset({"hlt", "iretq", "iretd", "cli", "sti", "int3"})


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory operand: base and index register (whole names), displacement, bytes; ``writes`` if it is stored to.

    A RIP-relative operand has no base, and its address as displacement.
    """

    base: str
    index: str
    displacement: int
    size: int
    writes: bool
    reads: bool


@dataclass(frozen=True, slots=True)
class Effects:
    """One instruction.

    ``reads`` and ``writes`` are whole registers by the last two letters of their names (``ax``, ``r8``), ``flags``,
    ``df``, segment, table and control registers; a register of which only a part is written is read as well.
    ``system``: it does more, which an access to memory may notice, but no arithmetic on registers; ``alone``: anything.
    ``zeroes``: it is a XOR of a register with itself, which reads nothing and always leaves the same flags.
    ``target`` is where a direct branch leads; ``branch`` is ``""``, ``jump``, ``jcc``, ``call`` or ``ret``.
    """

    size: int
    mnemonic: str
    reads: frozenset[str]
    writes: frozenset[str]
    memory: tuple[Memory, ...]
    system: bool
    alone: bool
    zeroes: bool
    branch: str
    target: int | None


@cache
def _decoder(bits: int) -> capstone.Cs:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, _MODES[bits])
    decoder.detail = True
    return decoder


@lru_cache(maxsize=65536)
def effects_of(code: bytes, address: int, bits: int) -> Effects | None:
    """The effects of the first instruction of ``code``, which stands at ``address``; None for no instruction."""
    found = next(iter(_decoder(bits).disasm(code[:15], address, 1)), None)
    if found is None:
        return None
    read, written = found.regs_access()
    reads, writes = _registers(found, read), _registers(found, written)
    special, names = False, []
    whole = 4 if bits == 64 else bits // 8
    for number, operand in enumerate(found.operands):
        if operand.type == x86_const.X86_OP_REG:
            name = str(found.reg_name(operand.reg))
            names.append(name)
            special |= name.startswith(_CONTROL) and not number
            if name in _SEGMENTS or name.startswith(_CONTROL):
                (reads if number else writes).add(name)
            if name in _SEGMENTS and not number:
                reads.add("gdtr")
            if name in _WHOLE and operand.access & capstone.CS_AC_WRITE and operand.size < whole:
                reads |= {_WHOLE[name]}
    mnemonic = str(found.mnemonic)
    zeroes = mnemonic == "xor" and len(names) == 2 and names[0] == names[1] and found.operands[0].size >= whole
    if zeroes:
        reads -= {_WHOLE.get(names[0], "")}
    memory = _memory(found, address, bits)
    if bits != 64:
        reads |= {"ss" if operand.base in ("sp", "bp") else "ds" for operand in memory}
        reads |= {"es", "ds"} if mnemonic.rsplit(maxsplit=1)[-1].startswith(_STRINGS) else set()
    if _touches_flags(found, written=True):
        writes |= {FLAGS}
    if _touches_flags(found, written=False):
        reads |= {FLAGS}
    if mnemonic in _TABLE_LOADS:
        writes |= {mnemonic[1:] + "r"}
    if mnemonic in _TABLE_STORES:
        reads |= {mnemonic[1:] + "r"}
    if mnemonic.startswith("popf"):
        writes |= {FLAGS, DIRECTION}
    if mnemonic in ("cld", "std"):
        writes = {DIRECTION}
    if mnemonic.rsplit(maxsplit=1)[-1].startswith(_STRINGS):
        reads = (reads - {FLAGS}) | {DIRECTION}
    branch, target = _branch(found)
    return Effects(
        size=found.size,
        mnemonic=mnemonic,
        reads=frozenset(reads - {""}),
        writes=frozenset(writes - {""}),
        memory=memory,
        system=special or mnemonic in _SYSTEM or mnemonic.startswith(("popf", "pushf")),
        alone=mnemonic in _ALONE,
        zeroes=zeroes,
        branch=branch,
        target=target,
    )


def _registers(found: capstone.CsInsn, numbers: list[int]) -> set[str]:
    return {_WHOLE[name] for number in numbers if (name := str(found.reg_name(number))) in _WHOLE}


def _touches_flags(found: capstone.CsInsn, *, written: bool) -> bool:
    words = ("MODIFY", "SET", "RESET", "UNDEFINED") if written else ("TEST",)
    bits = sum(
        value
        for name, value in vars(x86_const).items()
        if name.startswith("X86_EFLAGS_") and name.split("_")[2] in words
    )
    return bool(found.eflags & bits) if not _is_fpu(found) else False


def _is_fpu(found: capstone.CsInsn) -> bool:
    return str(found.mnemonic).startswith("f")


def _memory(found: capstone.CsInsn, address: int, bits: int) -> tuple[Memory, ...]:
    kept = []
    for operand in found.operands:
        if operand.type != x86_const.X86_OP_MEM or found.id == x86_const.X86_INS_LEA:
            continue
        base, index = (str(found.reg_name(one)) if one else "" for one in (operand.mem.base, operand.mem.index))
        place = operand.mem.disp
        if base in ("rip", "eip"):
            base, place = "", place + address + found.size
        writes, reads = (bool(operand.access & bit) for bit in (capstone.CS_AC_WRITE, capstone.CS_AC_READ))
        if str(found.mnemonic) in _TABLE_STORES:
            kept.append(
                Memory(_WHOLE.get(base, base), _WHOLE.get(index, index), place, _TABLE_SIZE, writes=True, reads=False)
            )
            continue
        kept.append(Memory(_WHOLE.get(base, base), _WHOLE.get(index, index), place, operand.size, writes, reads))
    word = bits // 8
    if str(found.mnemonic).startswith(("push", "call", "lcall")):
        kept.append(Memory("sp", "", -word, word, writes=True, reads=False))
    if str(found.mnemonic).startswith(("pop", "ret", "lret", "iret")):
        kept.append(Memory("sp", "", 0, word, writes=False, reads=True))
    return tuple(kept)


def _branch(found: capstone.CsInsn) -> tuple[str, int | None]:
    first = found.operands[0] if found.operands else None
    target = int(first.imm) if first is not None and first.type == x86_const.X86_OP_IMM else None
    if found.group(capstone.CS_GRP_CALL):
        return "call", target
    if found.group(capstone.CS_GRP_RET) or found.group(capstone.CS_GRP_IRET):
        return "ret", None
    if found.group(capstone.CS_GRP_JUMP):
        return ("jump" if str(found.mnemonic) in ("jmp", "ljmp") else "jcc"), target
    return "", None
