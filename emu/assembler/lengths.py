"""Where the instructions of a piece of machine code begin, by Capstone, with nothing else computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import Final

from capstone import (
    CS_AC_WRITE,
    CS_ARCH_X86,
    CS_GRP_CALL,
    CS_GRP_INT,
    CS_GRP_IRET,
    CS_GRP_JUMP,
    CS_GRP_RET,
    CS_MODE_16,
    CS_MODE_32,
    CS_MODE_64,
    Cs,
    x86_const,
)

_MODES: Final = {16: CS_MODE_16, 32: CS_MODE_32, 64: CS_MODE_64}


@cache
def _decoder(bits: int) -> Cs:
    return Cs(CS_ARCH_X86, _MODES[bits])


@lru_cache(maxsize=1024)
def lengths(code: bytes, bits: int) -> tuple[int, ...]:
    """Sizes in bytes of the consecutive instructions of ``code``; an undecodable byte ends the list."""
    return tuple(size for _, size, _, _ in _decoder(bits).disasm_lite(code, 0))


def line_size(code: bytes, bits: int) -> int:
    """Bytes of ``code`` up to and with its first branch, interrupt or return."""
    size = 0
    for insn in _detailed(bits).disasm(code, 0):
        size += insn.size
        if not _BRANCHES.isdisjoint(insn.groups):
            break
    return size


def movable_size(code: bytes, least: int) -> int:
    """Bytes of the first whole instructions of 64-bit ``code``, ``least`` at the fewest, that do the same elsewhere.

    0 where one of them branches or depends on RIP.
    """
    size = 0
    for insn in _detailed(64).disasm(code, 0):
        places = [operand.mem.base for operand in insn.operands if operand.type == x86_const.X86_OP_MEM]
        if x86_const.X86_REG_RIP in places or not _BRANCHES.isdisjoint(insn.groups):
            return 0
        size += int(insn.size)
        if size >= least:
            return size
    return 0


_BRANCHES: Final = frozenset({CS_GRP_JUMP, CS_GRP_CALL, CS_GRP_RET, CS_GRP_INT, CS_GRP_IRET})
_GPR: Final = {
    getattr(x86_const, f"X86_REG_{prefix}{name}"): index
    for index, name in enumerate(("AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI"))
    for prefix in ("R", "E", "")
} | {getattr(x86_const, f"X86_REG_R{number}"): number for number in range(8, 16)}
_PUSHES: Final = frozenset({x86_const.X86_INS_PUSH, x86_const.X86_INS_CALL, x86_const.X86_INS_LCALL,
                            x86_const.X86_INS_PUSHF, x86_const.X86_INS_PUSHFD, x86_const.X86_INS_PUSHFQ})  # fmt: skip
_POPS: Final = frozenset({x86_const.X86_INS_POP, x86_const.X86_INS_RET, x86_const.X86_INS_RETF,
                          x86_const.X86_INS_POPF, x86_const.X86_INS_POPFD, x86_const.X86_INS_POPFQ})  # fmt: skip


@cache
def _detailed(bits: int) -> Cs:
    decoder = Cs(CS_ARCH_X86, _MODES[bits])
    decoder.detail = True
    return decoder


def memory_operands(code: bytes, bits: int, gpr: Callable[[int], int], address: int) -> Iterator[tuple[int, int, str]]:
    """What the first instruction of ``code``, at linear ``address``, reads and writes: (offset, size, "read"/"write").

    Offsets are in the operand's segment, linear where its base is 0.  ``gpr(index)`` gives general registers.
    """
    insn = next(_detailed(bits).disasm(code, address, 1), None)
    if insn is None:
        return
    mask = (1 << bits) - 1
    for operand in insn.operands:
        if operand.type == x86_const.X86_OP_MEM and insn.id not in (x86_const.X86_INS_LEA, x86_const.X86_INS_NOP):
            memory = operand.mem
            place = memory.disp
            if memory.base in (x86_const.X86_REG_RIP, x86_const.X86_REG_EIP):
                place += address + insn.size
            elif memory.base in _GPR:
                place += gpr(_GPR[memory.base])
            if memory.index in _GPR:
                place += gpr(_GPR[memory.index]) * memory.scale
            yield place & mask, operand.size, "write" if operand.access & CS_AC_WRITE else "read"
    word = bits // 8
    if insn.id in _PUSHES:
        yield (gpr(4) - word) & mask, word, "write"
    elif insn.id in _POPS:
        yield gpr(4) & mask, word, "read"
