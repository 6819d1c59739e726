"""Static programs for an initramfs: assembled here, wrapped into an ELF file of one segment."""

from __future__ import annotations

import struct
from pathlib import Path

from emu.assembler import assemble

BASE = 0x10000000
HEADERS = {64: 64 + 56, 32: 52 + 32}


def elf(code: bytes, bits: int) -> bytes:
    """An executable whose one segment, readable, writable and executable, is the file itself at BASE."""
    start = HEADERS[bits]
    size, entry = start + len(code), BASE + start
    ident = b"\x7fELF" + bytes((bits // 32, 1, 1)) + bytes(9)
    if bits == 64:
        head = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        return head + struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, size, size, 0x1000) + code
    head = struct.pack("<16sHHIIIIIHHHHHH", ident, 2, 3, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    return head + struct.pack("<IIIIIIII", 1, 0, BASE, BASE, size, size, 7, 0x1000) + code


def jumping_init(bits: int, gdt: int, *, pae: bool = False, flags: int = 2) -> bytes:
    """The /init that jumps three times, on a kernel whose descriptor table is at linear ``gdt``.

    With ``flags`` 0 (x86_64 only) it jumps once, and its image does not come back.
    """
    name = "init_x86_64.S" if bits == 64 else "init_i386.S"
    defines = {"CR4": 0x20 if pae else 0, "GDT": gdt, "FLAGS": flags}
    image = assemble(Path(__file__).with_name(name), org=BASE + HEADERS[bits], bits=bits, defines=defines, include=[])
    return elf(image.code, bits)
