"""Routines of host machine code that the engine calls, assembled from ``asm/host`` into executable memory."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache

from emu import resources
from emu.assembler import assemble
from emu.units import page_up


@cache
def routine(name: str, source: str) -> int:
    """The host address of symbol ``name`` of ``asm/host/<source>.S``; it stays there as long as the process lives."""
    image = assemble(resources.asm_dir() / "host" / f"{source}.S", bits=64)
    memory = mmap.mmap(-1, page_up(len(image.code)), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory[: len(image.code)] = image.code
    _kept.append(memory)
    return ctypes.addressof(ctypes.c_char.from_buffer(memory)) + image.symbols[name]


_kept: list[mmap.mmap] = []
