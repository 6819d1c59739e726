"""An ELF core of the machine at one instant, which gdb and pyelftools open.

RAM is in the file once; each run of linear memory that is mapped now is a PT_LOAD that points into it, with the linear
address as p_vaddr and the physical one as p_paddr.  A note holds the registers in the layout of a Linux x86-64 core
(struct elf_prstatus); outside 64-bit code RIP is the linear address.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from emu.errors import DebuggerError
from emu.machine.machine import Machine
from emu.x86.paging import PagingMode, mappings, merge

_ET_CORE, _EM_X86_64, _PT_LOAD, _PT_NOTE, _NT_PRSTATUS = 4, 62, 1, 4, 1
_EHDR, _PHDR, _PAGE = 64, 56, 0x1000
_MOST_LOADS = 4000
# The order of struct user_regs_struct (Linux arch/x86/include/asm/user_64.h).
_USER_REGS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "rax",
    "rip", "cs", "rflags", "rsp", "ss", "fs.base", "gs.base", "ds", "es", "fs", "gs",
)  # fmt: skip
_PRSTATUS_HEAD = 112


class _Load(NamedTuple):
    linear: int
    physical: int
    size: int
    writable: bool
    executable: bool


def _runs(machine: Machine) -> Iterator[_Load]:
    """What is mapped now and backed by memory, cut at the ends of banks."""
    state = machine.cpu.paging()
    if state.mode is PagingMode.NONE:
        for bank in machine.ram.banks:
            yield _Load(bank.start, bank.start, bank.size, writable=not bank.rom, executable=True)
        return
    for one in merge(mappings(machine.ram.read_int, state)):
        for bank in machine.ram.banks:
            start, end = max(one.physical, bank.start), min(one.physical + one.size, bank.end)
            if start < end:
                linear = one.linear + start - one.physical
                yield _Load(linear, start, end - start, one.rights.writable, one.rights.executable)


def _note(machine: Machine) -> bytes:
    registers = machine.cpu.registers()
    registers["rip"] = machine.cpu.pc
    values = b"".join(struct.pack("<Q", registers[name]) for name in _USER_REGS)
    body = bytes(32) + struct.pack("<I", 1) + bytes(_PRSTATUS_HEAD - 36) + values + bytes(8)
    return struct.pack("<III", 5, len(body), _NT_PRSTATUS) + b"CORE\0\0\0\0" + body


def write_core(machine: Machine, path: Path) -> int:
    """Write the core to ``path``; the answer is its size in bytes.  Raises DebuggerError when it cannot be written."""
    loads = list(islice(_runs(machine), _MOST_LOADS))
    note = _note(machine)
    headers = _EHDR + _PHDR * (len(loads) + 1)
    data = (headers + len(note) + _PAGE - 1) & -_PAGE
    offsets, cursor = {}, data
    for bank in machine.ram.banks:
        offsets[bank.start] = cursor
        cursor += bank.size
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    count = len(loads) + 1
    ehdr = (ident, _ET_CORE, _EM_X86_64, 1, 0, _EHDR, 0, 0, _EHDR, _PHDR, count, 0, 0, 0)
    out = [struct.pack("<16sHHIQQQIHHHHHH", *ehdr)]
    out.append(struct.pack("<IIQQQQQQ", _PT_NOTE, 0, headers, 0, 0, len(note), 0, 4))
    starts = sorted(offsets)
    for load in loads:
        first = starts[bisect_right(starts, load.physical) - 1]
        rights = 4 | (2 if load.writable else 0) | (1 if load.executable else 0)
        offset = offsets[first] + load.physical - first
        out.append(
            struct.pack("<IIQQQQQQ", _PT_LOAD, rights, offset, load.linear, load.physical, load.size, load.size, _PAGE)
        )
    head = b"".join(out) + note
    try:
        with path.open("wb") as file:
            file.write(head.ljust(data, b"\0"))
            for bank in machine.ram.banks:
                file.write(bank.view)
    except OSError as error:
        raise DebuggerError(f"cannot be written: {error.strerror}", where=str(path)) from error
    return cursor
