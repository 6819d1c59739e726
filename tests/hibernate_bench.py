"""Small images of noise for tests of the image room."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from emu.hibernate.memory import OldMemory
from emu.hibernate.reader import SavedImage
from emu.hibernate.record import ImageRecord, e820_digest
from emu.hibernate.writer import write_image
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range, default_map
from emu.units import MIB, PAGE_SIZE, Phys

MAP = default_map(4 * MIB)
NOISE = random.Random(5).randbytes(4 * MIB)  # noqa: S311 - the same every time
RANGES = (
    Range(Phys(0x100000), Phys(0x113000)),
    Range(Phys(0x200000), Phys(0x201000)),
    Range(Phys(0x300000), Phys(0x320000)),
)
REGISTERS = {
    "rip": 0x1001234, "rsp": 0x2FF8, "rax": 0x11, "rbx": 0x22, "rdi": 0x33, "cs": 0x10, "ss": 0x18, "rflags": 0x46,
    "cr3": 0x5000, "xmm0": 1 << 127,
}  # fmt: skip


def memory(noise: bytes = NOISE) -> OldMemory:
    return OldMemory(lambda address, size: noise[address : address + size], MAP.ram_ranges)


def record(arch: Arch = Arch.X86_64, *, image_id: int = 0x1D, memory_map: MemoryMap = MAP) -> ImageRecord:
    return ImageRecord(
        image_id=image_id,
        arch=arch,
        e820_digest=e820_digest(memory_map),
        entry=0x200010,
        handoff="page",
        kernel_build="kjump toy A",
        jump_page=0x201000,
        registers=REGISTERS,
    )


def save(
    path: Path,
    *,
    arch: Arch = Arch.X86_64,
    image_id: int = 0x1D,
    compress: bool = False,
    is_free: Callable[[int], bool] | None = None,
    noise: bytes = NOISE,
) -> SavedImage:
    return write_image(path, memory(noise), RANGES, record(arch, image_id=image_id), compress=compress, is_free=is_free)


def pages_of(ranges: tuple[Range, ...] = RANGES, noise: bytes = NOISE) -> list[tuple[int, bytes]]:
    return [(at, noise[at : at + PAGE_SIZE]) for one in ranges for at in range(one.start, one.end, PAGE_SIZE)]
