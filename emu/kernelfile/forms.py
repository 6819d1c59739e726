"""The forms that relocate_kernel has had, told by how it begins and by where its own code leads.

Source: Linux arch/x86/kernel/relocate_kernel_32.S and relocate_kernel_64.S, from 2.6.27 on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from emu.assembler import Instruction, disassemble

CODE_MAX_SIZE: Final = 2048
"""KEXEC_CONTROL_CODE_MAX_SIZE: what a classic stub has for its code, before its data in the same page."""


class StubForm(StrEnum):
    """How A calls it, where its data are, and what it does for A on the way back."""

    I386 = "classic i386"
    X86_64 = "classic x86_64"
    X86_64_6_14 = "6.14 x86_64"

    @property
    def bits(self) -> int:
        """32 or 64."""
        return 32 if self is StubForm.I386 else 64

    @property
    def is_classic(self) -> bool:
        """Whether the stub takes a page list and keeps its data in the second half of the page."""
        return self is not StubForm.X86_64_6_14


_OF_A_PATTERN: Final = {"..": b".", "[": b"(?:", "]": b")?"}


def _pattern(text: str) -> re.Pattern[bytes]:
    """A pattern from hex bytes; ``..`` is any, and what stands in brackets may be missing."""
    parts = [_OF_A_PATTERN.get(one) or re.escape(bytes.fromhex(one)) for one in text.split()]
    return re.compile(b"".join(parts), re.DOTALL)


# Callee-saved registers and flags are pushed; then the page list leads to the page's linear address, where the
# stack pointer is saved (classic), or, flags cleared (from 6.16 on, IDT and GDT given up too), CR3 is loaded from a
# word of the page itself (6.14).
SIGNATURES: Final = {
    StubForm.X86_64: _pattern("53 55 41 54 41 55 41 56 41 57 9c 4c 8b 5e 08 49 89 a3 00 08 00 00"),
    StubForm.I386: _pattern("53 56 57 55 9c 8b 6c 24 1c 8b 7d 04 89 a7 00 08 00 00"),
    StubForm.X86_64_6_14: _pattern(
        "53 55 41 54 41 55 41 56 41 57 9c 6a 00 [ 6a 00 0f 01 1c 24 0f 01 14 24 48 83 c4 08 ] 9d "
        "0f 20 d8 4c 8b 0d .. .. .. .. 41 0f 22 d9"
    ),
}
_ENTER_PEER: Final = b"\xff\xd2"  # call *%edx or *%rdx
_PUSH_ENTRY: Final = b"\x52"  # push %rdx
_RETURN: Final = b"\xc3"
_TRAP: Final = b"\xcc"
# movq $imm32,%rax; lgdt disp(%rax)
_LGDT: Final = re.compile(rb"\x48\xc7\xc0(.{4})\x0f\x01(?:\x90(.{4})|\x50(.)|\x10)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parts:
    """Offsets from the stub's entry, and how many bytes it has."""

    identity_mapped: int
    virtual_mapped: int
    swap_pages: int
    size: int


def form_at(code: bytes) -> StubForm | None:
    """The form of the stub at the start of ``code``."""
    return next((form for form, signature in SIGNATURES.items() if signature.match(code)), None)


def follow(code: bytes, form: StubForm, linear: int) -> Parts | None:
    """The parts of the classic stub ``code``, whose entry is at ``linear`` in the kernel: where its jumps lead.

    None where the code does not go on as the form does.
    """
    steps = disassemble(code[:CODE_MAX_SIZE], 0, form.bits)
    first_return = next((number for number, step in enumerate(steps) if step.bytes == _RETURN), len(steps))
    targets = [_pushed(steps[at - 2 : at + 1]) for at in range(2, len(steps)) if steps[at].bytes == _RETURN]
    leads = [target for target in targets if target is not None]
    swap = next((target for step in steps[first_return:] if (target := _called(step)) is not None), None)
    if len(leads) < 2 or swap is None:
        return None
    virtual = leads[1] - linear if form is StubForm.X86_64 else leads[1]
    end = next((step for step in steps if step.address >= swap and step.bytes == _RETURN), None)
    if end is None or not 0 < leads[0] < virtual < swap < CODE_MAX_SIZE:
        return None
    size = end.address + 1
    return Parts(leads[0], virtual, swap, size + (code[size : size + 1] == _TRAP))


def _pushed(steps: Sequence[Instruction]) -> int | None:
    """The constant of the first instruction where the three are: an addition or a move, push, ret."""
    load, push, _ = steps
    if not push.mnemonic.startswith("push"):
        return None
    code = load.bytes
    if code[:3] in (b"\x49\x81\xc0", b"\x48\xc7\xc0"):  # add $imm32,%r8; mov $imm32,%rax
        value = int.from_bytes(code[3:7], "little", signed=True)
        return value & (1 << 64) - 1
    if code[:1] == b"\x05":  # add $imm32,%eax
        return int.from_bytes(code[1:5], "little")
    if code[:2] == b"\x83\xc0" or code[:3] == b"\x49\x83\xc0":  # the same, one byte
        return code[-1]
    return None


def _called(step: Instruction) -> int | None:
    """Where a direct call leads; a call of the next instruction only asks where it is."""
    distance = int.from_bytes(step.bytes[1:5], "little", signed=True)
    return step.address + 5 + distance if step.bytes[:1] == b"\xe8" and distance else None


def has_slot(code: bytes) -> bool:
    """Whether the entry is pushed above the return address, for the peer to write where it wants to be entered next."""
    return _PUSH_ENTRY + _ENTER_PEER in code


def gdt_restored_from(code: bytes) -> tuple[int, int] | None:
    """6.14: the linear address of the kernel's saved_context and the offset in it from which the GDTR is loaded."""
    match = _LGDT.search(code)
    if match is None:
        return None
    offset = match.group(2) or match.group(3) or b"\0"
    base = int.from_bytes(match.group(1), "little", signed=True)
    return base & (1 << 64) - 1, int.from_bytes(offset, "little", signed=True)
