"""The 6.14 form of relocate_kernel as it lies in a control page: its parts and its data words, by where its code leads.

In a running kernel no symbols are needed: the code reaches its data relative to RIP.  Source: Linux
arch/x86/kernel/relocate_kernel_64.S from 6.14 on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from emu.assembler import Instruction, disassemble
from emu.kernelfile.forms import CODE_MAX_SIZE, SIGNATURES, Parts, StubForm

_STORES: Final = {b"\x4c\x89\x2d": "cr4", b"\x48\x89\x25": "rsp", b"\x48\x89\x3d": "head"}
"""A move of %r13, %rsp or %rdi to a word of the page."""
_STORE_RAX, _LOAD_RAX, _LOAD_R9 = b"\x48\x89\x05", b"\x48\x8b\x05", b"\x4c\x8b\x0d"
_LOADS_STACK: Final = (b"\x48\x8b\x25", b"\x4c\x8b\x15")
"""A move of a word of the page to %rsp or %r10, from which the peer's stack is made."""
_ENTER_PEER, _RETURN, _CALL, _TRAP = b"\xff\xd2", b"\xc3", b"\xe8", b"\xcc"


@dataclass(frozen=True, slots=True)
class PageForm:
    """Offsets in the page: of the entry, of the parts (from the entry), and of the data words."""

    entry: int
    parts: Parts
    words: Mapping[str, int]


def find_page_form(content: bytes) -> PageForm | None:
    """The stub in a page; None where the page has none, or one that does not go on as the form does."""
    found = SIGNATURES[StubForm.X86_64_6_14].search(content, 0, CODE_MAX_SIZE)
    if found is None:
        return None
    entry = found.start()
    steps = disassemble(content[entry:CODE_MAX_SIZE], entry, StubForm.X86_64_6_14.bits)
    try:
        return _follow(steps, entry)
    except StopIteration:
        return None


def _follow(steps: Sequence[Instruction], entry: int) -> PageForm | None:
    """Raises StopIteration where something is missing."""
    leave = _first(steps, 0, lambda step: step.bytes[:1] == b"\xff" and 0xE0 <= step.bytes[1] <= 0xE7)
    enter = _first(steps, leave, lambda step: step.bytes == _ENTER_PEER)
    back = _first(steps, enter, lambda step: step.bytes == _RETURN)
    words: dict[str, int] = {}
    for step in steps[:leave]:
        if step.bytes[:3] in _STORES:
            words.setdefault(_STORES[step.bytes[:3]], _word(step))
        elif step.bytes[:3] == _STORE_RAX:
            words.setdefault("cr0" if "cr3" in words else "cr3", _word(step))
        elif step.bytes[:3] == _LOAD_R9:
            words.setdefault("tables", _word(step))
    words["swap_page"] = next(_word(step) for step in reversed(steps[:enter]) if step.bytes[:3] in _LOADS_STACK)
    words["linear"] = next(_word(step) for step in reversed(steps[:back]) if step.bytes[:3] == _LOAD_RAX)
    call = steps[_first(steps, leave, lambda step: step.bytes[:1] == _CALL)]
    swap = call.address + call.size + int.from_bytes(call.bytes[1:5], "little", signed=True)
    virtual = _first(steps, back + 1, lambda step: step.bytes != _TRAP)
    end = steps[_first(steps, 0, lambda step: step.address >= swap and step.bytes == _RETURN)]
    if words.keys() != {"cr0", "cr3", "cr4", "rsp", "head", "tables", "swap_page", "linear"}:
        return None
    parts = Parts(*(at - entry for at in (steps[leave + 1].address, steps[virtual].address, swap, end.address + 1)))
    return PageForm(entry, parts, words)


def _first(steps: Sequence[Instruction], start: int, wanted: Callable[[Instruction], bool]) -> int:
    return next(number for number in range(start, len(steps)) if wanted(steps[number]))


def _word(step: Instruction) -> int:
    """The offset in the page of the word that an instruction of 7 bytes names relative to RIP."""
    return step.address + step.size + int.from_bytes(step.bytes[3:7], "little", signed=True)
