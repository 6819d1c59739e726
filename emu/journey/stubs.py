"""Stubs as they lie in their pages: the words that the loader fills are filled."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from emu.assembler import Image
from emu.errors import ImageError
from emu.journey import programs
from emu.kexec.arch import Arch
from emu.kexec.image import KexecImage
from emu.kexec.layout import ENTRY64_OFFSET, PURGATORY_REGIONS, ControlData
from emu.units import PAGE_SIZE

_MASK = 0xFFFF_FFFF


def patched(image: Image, words: Mapping[str, int], size: int, code: bytes | None = None) -> bytes:
    """The code of ``image``, or ``code``, with a little-endian word of ``size`` bytes at each named symbol."""
    content = bytearray(image.code if code is None else code)
    for name, value in words.items():
        if name not in image.symbols:
            raise ImageError(f"has no symbol {name}, which the loader fills", where=image.name)
        at = image.symbols[name] - image.org
        content[at : at + size] = value.to_bytes(size, "little")
    return bytes(content)


def relocate_bytes(stub: Image, image: KexecImage, *, second: bool) -> bytes:
    """relocate_new_kernel for its control page, or (``second``) for the page that A's entry points call."""
    inverse = 0 if second else image.inverse_head
    if image.arch.bits == 32:  # everything else comes as arguments
        at = ControlData.CP_PA_INVERSE_MAP
        content = bytearray(stub.code.ljust(at + 4, b"\0") if inverse else stub.code)
        if inverse:
            content[at : at + 4] = inverse.to_bytes(4, "little")
        return bytes(content)
    words = {
        "kexec_va_control_page": stub.org if second else int(image.control_va),
        "kexec_pa_table_page": int(image.table_root),
        "kexec_pa_swap_page": int(image.swap_page or 0),
    }
    if inverse:
        words["pa_inverse_map"] = inverse
    return patched(stub, words, 8)


def entry_bytes(entry: Image, stub: Image, second: Image, image: KexecImage) -> bytes:
    """The entry code page: A's entry points and what they hand to relocate_new_kernel."""
    words = {
        "je_head": image.way_back[0],
        "je_relocate": programs.relocate_entry(second),
        "je_start_saved": stub.symbols["restore_after_save"],
        "je_start_resumed": stub.symbols["restore_after_resume"],
    }
    if image.arch.bits == 64:
        return patched(entry, words | {"je_pa_control": second.org, "je_flags": int(image.return_flags)}, 8)
    words["je_has_pae"] = int(image.arch.is_pae)
    if "je_flags" in entry.symbols or image.is_copied:
        words["je_flags"] = int(image.return_flags)
    code = bytearray(patched(entry, words, 4))
    at = entry.symbols["je_page_list"] - entry.org
    code[at : at + 16] = struct.pack("<4I", *image.page_list(second_copy=True))
    return bytes(code)


def has_protocol(purgatory: Image) -> bool:
    """Whether a purgatory verifies what was loaded and can tell the kernel of the way back."""
    return "sum_regions" in purgatory.symbols and "cmdline_end" in purgatory.symbols


def purgatory_bytes(purgatory: Image, arch: Arch, *, entry: int, boot_params: int) -> bytes:
    """purgatory, told where the kernel is."""
    return patched(purgatory, {"kernel_entry": entry, "boot_params": boot_params}, arch.word)


def purgatory_sums(
    purgatory: Image, arch: Arch, code: bytes, *, regions: Sequence[tuple[int, int]], expected: int, cmdline_end: int
) -> bytes:
    """``code``, told what to verify (start, size in bytes) and the NUL of the command line, 0 to append nothing."""
    if len(regions) > PURGATORY_REGIONS:
        raise ImageError(f"{len(regions)} ranges to verify; purgatory has {PURGATORY_REGIONS}", where=purgatory.name)
    word = arch.word
    content = bytearray(patched(purgatory, {"cmdline_end": cmdline_end}, word, code))
    at = purgatory.symbols["sum_regions"] - purgatory.org
    for start, size in regions:
        content[at : at + 2 * word] = start.to_bytes(word, "little") + size.to_bytes(word, "little")
        at += 2 * word
    return patched(purgatory, {"sum_expected": expected}, 4, bytes(content))


def add_to_sum(content: bytes, total: int = 0) -> int:
    """The sum that purgatory makes of its ranges: for each dword, rotate left by one and add, modulo 2**32."""
    for (dword,) in struct.iter_unpack("<I", content):
        total = ((total << 1 | total >> 31) + dword) & _MASK
    return total


def volatile_of_stub(stub: Image, arch: Arch) -> list[tuple[int, int]]:
    """The byte ranges (physical start, end) of a control page that the stub may write: saved context and stack."""
    page = stub.org & -PAGE_SIZE
    data = page + ControlData.ESP if arch.bits == 32 else stub.symbols.get("saved_context", stub.end) & ~7
    return [(data, page + PAGE_SIZE)]


def linked_entry(kernel: Image, arch: Arch) -> int:
    """Where a boot loader or purgatory enters a kernel image, physical."""
    return kernel.org + (ENTRY64_OFFSET if arch.bits == 64 else 0)
