"""The rows of x86.inc and ports.inc: register and page-table bits, MSR numbers and ports by assembly's names."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from emu.x86.bits import EFLAGS_FIXED, IOPL_MASK, Cr0, Cr4, Efer, Eflags, Msr

Row = tuple[str, int, str]


def _bits(table: type[IntEnum], prefix: str, note: str) -> tuple[Row, ...]:
    return tuple((f"{prefix}_{bit.name}", bit.value, f"{note} {bit.value.bit_length() - 1}") for bit in table)


_FLAGS: Final[tuple[Row, ...]] = (
    *_bits(Eflags, "EFLAGS", "EFLAGS bit"),
    ("EFLAGS_FIXED", EFLAGS_FIXED, "EFLAGS bit 1, reads as 1"),
    ("EFLAGS_IOPL", IOPL_MASK, "EFLAGS bits 12-13, I/O privilege level"),
)

_MSRS: Final[tuple[Row, ...]] = (
    *((f"MSR_{msr.name}", msr.value, "model-specific register") for msr in Msr),
    ("MSR_SFMASK", Msr.FMASK, "model-specific register, the kernel's name of FMASK"),
)

_PAGE_TABLE_BITS: Final[tuple[Row, ...]] = (
    ("PTE_P", 1 << 0, "present"),
    ("PTE_RW", 1 << 1, "writable"),
    ("PTE_US", 1 << 2, "user"),
    ("PTE_PWT", 1 << 3, "write-through"),
    ("PTE_PCD", 1 << 4, "cache disable"),
    ("PTE_A", 1 << 5, "accessed"),
    ("PTE_D", 1 << 6, "dirty"),
    ("PTE_PS", 1 << 7, "large page"),
    ("PTE_G", 1 << 8, "global"),
    ("PTE_NX", 1 << 63, "no execute"),
    ("PTE_NX_HIGH", 1 << 31, "no execute, in the high dword"),
)

X86: Final[tuple[Row, ...]] = (
    *_bits(Cr0, "CR0", "CR0 bit"),
    *_bits(Cr4, "CR4", "CR4 bit"),
    *_bits(Efer, "EFER", "EFER bit"),
    *_FLAGS,
    *_MSRS,
    *_PAGE_TABLE_BITS,
)

PORTS: Final[tuple[Row, ...]] = (
    ("COM1", 0x3F8, "serial console: data"),
    ("COM1_IER", 0x3F9, "serial console: interrupt enable"),
    ("COM1_LCR", 0x3FB, "serial console: line control"),
    ("COM1_MCR", 0x3FC, "serial console: modem control"),
    ("COM1_LSR", 0x3FD, "serial console: line status"),
    ("COM1_LSR_THRE", 0x20, "line status: transmitter empty"),
    ("POST_PORT", 0x80, "POST code"),
    ("DEBUG_PORT", 0xE9, "debug console"),
    ("EXIT_PORT", 0xF4, "exit, value is the status"),
    ("PIC1_COMMAND", 0x20, "master PIC: command"),
    ("PIC1_DATA", 0x21, "master PIC: mask"),
    ("PIC2_COMMAND", 0xA0, "slave PIC: command"),
    ("PIC2_DATA", 0xA1, "slave PIC: mask"),
    ("PIC_EOI", 0x20, "PIC: non-specific end of interrupt"),
    ("PIC_ICW1", 0x11, "PIC: initialise, ICW4 follows"),
    ("PIC_ICW4", 0x01, "PIC: 8086 mode"),
    ("PIC_READ_ISR", 0x0B, "PIC: OCW3, next read is the in-service register"),
    ("PIT_CHANNEL0", 0x40, "PIT: counter 0"),
    ("PIT_CHANNEL1", 0x41, "PIT: counter 1"),
    ("PIT_CHANNEL2", 0x42, "PIT: counter 2"),
    ("PIT_COMMAND", 0x43, "PIT: control word"),
    ("PIT_RATE_GENERATOR", 0x34, "PIT: counter 0, low then high byte, mode 2"),
    ("PIT_ONE_SHOT", 0x30, "PIT: counter 0, low then high byte, mode 0 (idle until a count is written)"),
    ("PIT_1KHZ", 1193, "PIT: divisor for 1 kHz"),
    ("CMOS_INDEX", 0x70, "CMOS: index, bit 7 masks NMI"),
    ("CMOS_DATA", 0x71, "CMOS: data"),
    ("BUS_MASTER_RING", 0x5C0, "bus master: physical address of the ring"),
    ("BUS_MASTER_LENGTH", 0x5C4, "bus master: bytes of the ring"),
    ("BUS_MASTER_PERIOD", 0x5C8, "bus master: ticks between writes"),
    ("BUS_MASTER_CONTROL", 0x5CC, "bus master: 1 run, 0 stop; reads 1 while it runs"),
    ("HOST_PORT", 0x5E0, "host request"),
)
