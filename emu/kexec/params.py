"""What the loader tells kernel A after a load: its ``kexec_params`` block and its ``busy_map``."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from emu.kexec.e820 import MemoryMap
from emu.kexec.image import KexecImage
from emu.kexec.layout import KexecParams, PageList

BUSY_MAP_SIZE: Final = 32 << 10
"""Bytes of A's ``busy_map``: one bit for each of 262,144 page frames, so 1 GiB."""


def pack_refusal(errno: int) -> bytes:
    """The parameter block after a load that was refused: ``status`` is ``-errno``, everything else 0."""
    return (-errno).to_bytes(8, "little", signed=True).ljust(KexecParams.SIZE, b"\0")


def pack_params(image: KexecImage, *, entry_offset: int, block: int) -> bytes:
    """The parameter block for a loaded ``image``, to be stored at ``block``, a linear address in A's map.

    ``entry_offset`` is that of relocate_new_kernel in the control page.
    """
    content = bytearray(KexecParams.SIZE)
    jump_page = image.jump.jump_page if image.jump is not None else 0
    is_i386 = image.arch.word == 4
    values = {
        KexecParams.STATUS: 0,
        KexecParams.ENTRY_VA: image.control_va + entry_offset,
        KexecParams.HEAD: image.head,
        KexecParams.PA_CONTROL: image.control_page,
        KexecParams.START: image.entry,
        KexecParams.FLAGS: int(image.relocate_flags),
        KexecParams.PAGE_LIST: block + KexecParams.ARRAY if is_i386 else 0,
        KexecParams.HAS_PAE: int(image.arch.is_pae),
        KexecParams.JUMP_PAGE: jump_page,
        KexecParams.JUMP_PAGE_VA: image.arch.direct(jump_page) if jump_page else 0,
        KexecParams.PAGES: len(image.pairs),
    }
    for offset, value in values.items():
        struct.pack_into("<Q", content, offset, value)
    if is_i386:
        struct.pack_into(f"<{PageList.PAGES_NR}I", content, KexecParams.ARRAY, *image.page_list())
    return bytes(content)


def busy_map(memory_map: MemoryMap, taken: Iterable[int]) -> bytes:
    """One bit a page frame, lowest bit first: set where the frame is in ``taken`` or is not wholly RAM."""
    bits = bytearray(b"\xff" * BUSY_MAP_SIZE)
    busy = set(taken)
    for pfn in memory_map.ram_pages():
        if pfn not in busy and pfn < BUSY_MAP_SIZE * 8:
            bits[pfn >> 3] &= ~(1 << (pfn & 7)) & 0xFF
    return bytes(bits)
