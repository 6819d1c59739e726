"""NT_PRSTATUS: the general registers as gdb reads them from a core.

The layout is struct elf_prstatus of Linux (include/linux/elfcore.h) with the register order of struct
user_regs_struct (arch/x86/include/asm/user_64.h, user_32.h).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from emu.hibernate.elf_core import Note
from emu.kexec.arch import Arch

_NT_PRSTATUS: Final = 1
_PID: Final = 1


class _Layout(NamedTuple):
    word: int
    registers: tuple[str, ...]
    pid_at: int
    registers_at: int


_64: Final = _Layout(
    8,
    (
        "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "rax",
        "rip", "cs", "rflags", "rsp", "ss", "fs.base", "gs.base", "ds", "es", "fs", "gs",
    ),
    32,
    112,
)  # fmt: skip
_32: Final = _Layout(
    4,
    (
        "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rax", "ds", "es", "fs", "gs", "rax", "rip", "cs", "rflags", "rsp",
        "ss",
    ),
    24,
    72,
)  # fmt: skip


def prstatus(arch: Arch, registers: Mapping[str, int]) -> Note:
    """The note; a register that is not named is 0.  orig_ax, of no meaning outside a system call, is ax."""
    layout = _64 if arch.bits == 64 else _32
    mask = (1 << 8 * layout.word) - 1
    values = [(registers.get(name, 0) & mask).to_bytes(layout.word, "little") for name in layout.registers]
    head = bytearray(layout.registers_at)
    head[layout.pid_at : layout.pid_at + 4] = _PID.to_bytes(4, "little")
    # pr_fpvalid is 0: no floating-point note goes with it.
    return Note("CORE", _NT_PRSTATUS, bytes(head) + b"".join(values) + bytes(layout.word))
