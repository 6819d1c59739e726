"""GDT and IDT in words, for ``info gdt`` and ``info idt``, SDM 3A 3.5.1 and 6.10."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from emu.x86.segments import Descriptor, Gate, SystemType

_GATE_TYPES: Final = frozenset(
    {
        SystemType.CALL_GATE16,
        SystemType.TASK_GATE,
        SystemType.INTERRUPT_GATE16,
        SystemType.TRAP_GATE16,
        SystemType.CALL_GATE,
        SystemType.INTERRUPT_GATE,
        SystemType.TRAP_GATE,
    }
)


def explain_gdt(raw: bytes, *, long: bool) -> Iterator[str]:
    """The lines of ``info gdt`` for a table's bytes; ``long``: IA-32e mode, where system descriptors take two slots."""
    offset = 0
    while offset + 8 <= len(raw):
        narrow = Descriptor.decode(raw[offset : offset + 8])
        wide = long and narrow.is_system and narrow.type not in {0, SystemType.TASK_GATE} and offset + 16 <= len(raw)
        size = 16 if wide else 8
        slot = raw[offset : offset + size]
        if offset == 0 and not any(slot):
            text = "null"
        elif not any(slot):
            text = "empty"
        elif narrow.is_system and narrow.type in _GATE_TYPES:
            text = Gate.decode(slot).describe(long=long)
        else:
            text = Descriptor.decode(slot).describe(long=long)
        yield f"{offset:#06x}  {text}"
        offset += size
    if offset < len(raw):
        yield f"{offset:#06x}  {len(raw) - offset} bytes that are no whole descriptor"


def explain_idt(raw: bytes, *, long: bool, real: bool = False) -> Iterator[str]:
    """The lines of ``info idt`` for a table's bytes: gates of 8 or (``long``) 16 bytes, or vectors (``real``)."""
    size = 4 if real else 16 if long else 8
    for vector in range(len(raw) // size):
        slot = raw[vector * size : (vector + 1) * size]
        if real:
            offset, selector = struct.unpack("<HH", slot)
            yield f"{vector:#04x}  {selector:#06x}:{offset:#06x}"
        else:
            yield f"{vector:#04x}  {Gate.decode(slot).describe(long=long) if any(slot) else 'empty'}"
