"""The instructions that the machine looks at before the engine runs them, recognised from their bytes.

They are those whose rules the engine does not check (control and debug registers, MSRs, I/O privilege), whose
result must be virtual (time stamp counter), which end or begin a state of ours (HLT, IRET, STI, POPF), and the
repeated string instructions, whose iterations are counted apart.  Opcodes: SDM volume 2, appendix A.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """What a sensitive instruction does."""

    CR_READ = auto()
    CR_WRITE = auto()
    DR_READ = auto()
    DR_WRITE = auto()
    CLTS = auto()
    LMSW = auto()
    RDMSR = auto()
    WRMSR = auto()
    RDTSC = auto()
    RDTSCP = auto()
    RDPMC = auto()
    IN = auto()
    OUT = auto()
    HLT = auto()
    IRET = auto()
    STI = auto()
    POPF = auto()
    LGDT = auto()
    LIDT = auto()
    LLDT = auto()
    LTR = auto()
    INVLPG = auto()
    WBINVD = auto()
    CPUID = auto()
    SYSCALL = auto()
    MAGIC = auto()
    STRING = auto()


SERIALIZING = frozenset(
    {Kind.CR_WRITE, Kind.DR_WRITE, Kind.WRMSR, Kind.IRET, Kind.LGDT, Kind.LIDT, Kind.LLDT, Kind.LTR, Kind.INVLPG,
     Kind.WBINVD, Kind.CPUID}
)  # fmt: skip
"""Kinds that serialise instruction fetch (SDM 3A 9.3: MOV to CR0/CR3/CR4 and DR, WRMSR, IRET, LGDT ... CPUID)."""

_PREFIXES = {0x26: "es", 0x2E: "cs", 0x36: "ss", 0x3E: "ds", 0x64: "fs", 0x65: "gs"}
_SINGLE = {
    0xF4: Kind.HLT, 0xCF: Kind.IRET, 0xFB: Kind.STI, 0x9D: Kind.POPF, 0xE4: Kind.IN, 0xE5: Kind.IN, 0xEC: Kind.IN,
    0xED: Kind.IN, 0xE6: Kind.OUT, 0xE7: Kind.OUT, 0xEE: Kind.OUT, 0xEF: Kind.OUT, 0x6C: Kind.IN, 0x6D: Kind.IN,
    0x6E: Kind.OUT, 0x6F: Kind.OUT,
}  # fmt: skip
_TWO = {
    0x08: Kind.WBINVD, 0x09: Kind.WBINVD,
    0x20: Kind.CR_READ, 0x22: Kind.CR_WRITE, 0x21: Kind.DR_READ, 0x23: Kind.DR_WRITE, 0x06: Kind.CLTS,
    0x30: Kind.WRMSR, 0x31: Kind.RDTSC, 0x32: Kind.RDMSR, 0x33: Kind.RDPMC, 0xA2: Kind.CPUID, 0x05: Kind.SYSCALL,
    0x07: Kind.SYSCALL, 0x34: Kind.SYSCALL, 0x35: Kind.SYSCALL,
}  # fmt: skip
_STRINGS = frozenset({0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF})
_GROUP7 = {2: Kind.LGDT, 3: Kind.LIDT, 6: Kind.LMSW, 7: Kind.INVLPG}


STRING_IO = frozenset({0x6C, 0x6D, 0x6E, 0x6F})
"""Opcodes of INS and OUTS."""
NEVER_SENSITIVE = frozenset(range(256)) - {
    0x0F, 0x87, 0xF0, 0xF2, 0xF3, 0x66, 0x67, *range(0x40, 0x50), *_PREFIXES, *_SINGLE
}  # fmt: skip
"""First bytes of instructions that :func:`recognise` answers None for, whatever follows."""


@dataclass(frozen=True, slots=True)
class Sensitive:
    """One recognised instruction: opcode byte (after 0F where ``two_byte``), prefixes and ModRM as decoded.

    ``operand`` and ``address`` are sizes in bytes after prefixes; ``segment`` is the override or "".
    ``repeat`` is 0, 0xF2 or 0xF3.
    """

    kind: Kind
    size: int
    opcode: int
    operand: int
    address: int
    segment: str = ""
    repeat: int = 0
    modrm: int = 0
    rex: int = 0

    @property
    def register(self) -> int:
        """ModRM.reg with REX.R: the control or debug register."""
        return self.modrm >> 3 & 7 | (self.rex << 1 & 8)

    @property
    def general(self) -> int:
        """ModRM.rm with REX.B: the general register of a MOV to or from a control register."""
        return self.modrm & 7 | (self.rex << 3 & 8)


def _kind(two_byte: bool, opcode: int, modrm: int, repeat: int) -> Kind | None:
    if not two_byte:
        if opcode in _STRINGS:
            return Kind.STRING if repeat else None
        if opcode == 0x87 and modrm == 0xDB:
            return Kind.MAGIC
        return _SINGLE.get(opcode)
    if opcode == 0x01:
        if modrm == 0xF9:
            return Kind.RDTSCP
        group = modrm >> 3 & 7
        return _GROUP7.get(group) if modrm < 0xC0 or group == 6 else None
    if opcode == 0x00:
        return {2: Kind.LLDT, 3: Kind.LTR}.get(modrm >> 3 & 7)
    return _TWO.get(opcode)


def recognise(code: bytes, bits: int) -> Sensitive | None:
    """The sensitive instruction that ``code`` (exactly one instruction) is, or None.  ``bits`` is 16, 32 or 64."""
    at, segment, repeat, rex = 0, "", 0, 0
    size66 = size67 = False
    while at < len(code):
        byte = code[at]
        if byte in _PREFIXES:
            segment = _PREFIXES[byte]
        elif byte in (0xF2, 0xF3):
            repeat = byte
        elif byte == 0x66:
            size66 = True
        elif byte == 0x67:
            size67 = True
        elif byte != 0xF0:
            break
        at += 1
    if bits == 64 and at < len(code) and code[at] & 0xF0 == 0x40:
        rex = code[at]
        at += 1
    if at >= len(code):
        return None
    two_byte = code[at] == 0x0F and at + 1 < len(code)
    at += two_byte
    opcode = code[at]
    modrm = code[at + 1] if at + 1 < len(code) else 0
    kind = _kind(two_byte, opcode, modrm, repeat)
    if kind is None:
        return None
    operand = 8 if rex & 8 else {16: 4, 32: 2, 64: 2}[bits] if size66 else {16: 2, 32: 4, 64: 4}[bits]
    if not opcode & 1 and kind in (Kind.STRING, Kind.IN, Kind.OUT):
        operand = 1
    address = {16: 4, 32: 2, 64: 4}[bits] if size67 else bits // 8
    return Sensitive(kind, len(code), opcode, operand, address, segment, repeat, modrm, rex)
