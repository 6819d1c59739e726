"""Routines of host machine code that the engine calls, assembled from ``asm/host`` into executable memory."""

from __future__ import annotations

import ctypes
import mmap
import platform
from functools import cache

from emu import resources
from emu.assembler import assemble
from emu.errors import EngineError
from emu.units import page_up

_HOST = "x86_64"
_READ_EXECUTE = mmap.PROT_READ | mmap.PROT_EXEC


@cache
def _loaded(source: str) -> tuple[int, dict[str, int]]:
    """Where the code of ``asm/host/<source>.S`` lies in this process, and its symbols."""
    if platform.machine() != _HOST:
        raise EngineError(
            f"this is a {platform.machine()} host, and asm/host/{source}.S is {_HOST} code", hint="run kjump on x86-64"
        )
    image = assemble(resources.asm_dir() / "host" / f"{source}.S", bits=64)
    return executable(image.code), dict(image.symbols)


def executable(code: bytes) -> int:
    """The host address of ``code``, which stays there as long as the process lives."""
    memory = mmap.mmap(-1, page_up(len(code)), prot=mmap.PROT_READ | mmap.PROT_WRITE)
    memory[: len(code)] = code
    _kept.append(memory)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect(address, len(memory), _READ_EXECUTE)
    return address


def protect(page: int, size: int, rights: int) -> None:
    """Change what may be done with pages of this process; EngineError where that is forbidden."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(size), rights):
        raise EngineError(
            f"the rights of host memory at {page:#x} cannot be changed: error {ctypes.get_errno()}",
            hint="a security module may forbid code that is made at run time: run kjump outside of it",
        )


def routine(name: str, source: str) -> int:
    """The host address of symbol ``name`` of ``asm/host/<source>.S``; it stays there as long as the process lives."""
    address, symbols = _loaded(source)
    return address + symbols[name]


_kept: list[mmap.mmap] = []
