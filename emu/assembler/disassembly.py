"""Machine code as AT&T text, for listings and for the debugger."""

from __future__ import annotations

from dataclasses import dataclass

from emu.assembler.capstone_port import decode


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction at linear ``address``; a byte that is none has the mnemonic ``(bad)``."""

    address: int
    size: int
    bytes: bytes
    mnemonic: str
    operands: str
    text: str


def decode_one(code: bytes, address: int, bits: int) -> Instruction:
    """The instruction at the start of ``code``, which stands at linear ``address`` in ``bits``-bit code.

    Raises:
        ValueError: ``code`` is empty, or ``bits`` is not 16, 32 or 64.
    """
    if not code or bits not in (16, 32, 64):
        raise ValueError("decode_one needs at least one byte and 16, 32 or 64 bits")
    found = decode(bytes(code[:15]), address, bits)
    if found is None:
        return Instruction(address, 1, bytes(code[:1]), "(bad)", "", "(bad)")
    operands = found.text[len(found.mnemonic) :].strip()
    return Instruction(address, found.size, bytes(code[: found.size]), found.mnemonic, operands, found.text)


def disassemble(code: bytes, address: int, bits: int) -> list[Instruction]:
    """Every instruction of ``code``, one after the other, a bad byte being one of its own."""
    found: list[Instruction] = []
    at = 0
    while at < len(code):
        found.append(decode_one(code[at : at + 15], address + at, bits))
        at += found[-1].size
    return found
