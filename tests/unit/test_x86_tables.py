"""``info gdt`` and ``info idt``."""

from __future__ import annotations

import struct

from emu.x86.segments import CODE_64, DATA_32, PRESENT, Descriptor, Gate, SystemType
from emu.x86.tables import explain_gdt, explain_idt

TSS = Descriptor.of(base=0xFFFF_8000_0000_1000, limit=0x67, flags=PRESENT | SystemType.TSS_BUSY << 8)


def test_a_long_mode_gdt_gives_a_tss_two_slots() -> None:
    code = Descriptor.of(limit=0xFFFFFFFF, flags=CODE_64)
    data = Descriptor.of(limit=0xFFFFFFFF, flags=DATA_32)
    raw = bytes(8) + code.encode() + data.encode() + TSS.encode_wide() + bytes(8) + b"\1\2\3"
    assert list(explain_gdt(raw, long=True)) == [
        "0x0000  null",
        "0x0008  base 0x0 limit 0xffffffff code 64-bit DPL0 read",
        "0x0010  base 0x0 limit 0xffffffff data 32-bit DPL0 write",
        "0x0018  base 0xffff800000001000 limit 0x67 TSS64 busy DPL0",
        "0x0028  empty",
        "0x0030  3 bytes that are no whole descriptor",
    ]


def test_a_call_gate_in_a_legacy_gdt() -> None:
    raw = bytes(8) + Gate(SystemType.CALL_GATE, 8, 0x12345678).encode()
    assert list(explain_gdt(raw, long=False))[1] == "0x0008  call gate 32 -> 0x8:0x12345678 DPL0"


def test_an_idt_of_each_mode() -> None:
    wide = Gate(SystemType.INTERRUPT_GATE, 0x10, 0xFFFF_8000_0000_2000, ist=2).encode_wide()
    assert list(explain_idt(wide + bytes(16), long=True)) == [
        "0x00  interrupt gate 64 -> 0x10:0xffff800000002000 DPL0 IST2",
        "0x01  empty",
    ]
    narrow = Gate(SystemType.TASK_GATE, 0x28, 0, dpl=3, present=False).encode()
    assert list(explain_idt(narrow, long=False)) == ["0x00  task gate -> 0x28 DPL3 not present"]
    assert list(explain_idt(struct.pack("<HH", 0x1234, 0xF000), long=False, real=True)) == ["0x00  0xf000:0x1234"]
