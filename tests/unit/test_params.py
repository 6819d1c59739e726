import struct

import pytest

from emu.kexec.allocator import PagePool
from emu.kexec.arch import Arch
from emu.kexec.e820 import default_map
from emu.kexec.image import KexecImage
from emu.kexec.layout import KexecParams, LoadFlag
from emu.kexec.load import KexecState, LoadRequest, load
from emu.kexec.params import busy_map, pack_params, pack_refusal
from emu.kexec.segments import Segment
from emu.units import MIB

MAP = default_map(8 * MIB)


class Memory:
    def read(self, _address: int, size: int) -> bytes:
        return bytes(size)

    def write(self, _address: int, content: bytes) -> None:
        assert len(content) == 4096


def image_of(arch: Arch, flags: LoadFlag) -> KexecImage:
    request = LoadRequest(0x3000, (Segment.of(b"x" * 8192, 0x3000),), flags)
    image = load(request, Memory(), KexecState(arch, MAP, PagePool.of_map(MAP)))
    assert image is not None
    return image


def test_x86_64_parameters() -> None:
    image = image_of(Arch.X86_64, LoadFlag.PRESERVE_CONTEXT)
    block = pack_params(image, entry_offset=0x40, block=0xFFFFFFFF81000000)
    assert len(block) == KexecParams.SIZE
    assert struct.unpack("<12Q", block[:0x60]) == (
        0,
        0xFFFF888000000000 + image.control_page + 0x40,
        image.head,
        image.control_page,
        0x3000,
        1,
        0,
        0,
        0,
        0,
        2,
        0,
    )
    assert block[0x60:] == bytes(KexecParams.SIZE - 0x60)


@pytest.mark.parametrize(("arch", "has_pae"), [(Arch.I386, 0), (Arch.I386_PAE, 1)])
def test_i386_parameters_carry_the_page_list(arch: Arch, has_pae: int) -> None:
    image = image_of(arch, LoadFlag(0))
    block = pack_params(image, entry_offset=0, block=0xC1000000)
    assert struct.unpack_from("<3Q", block, 0x28) == (0, 0xC1000060, has_pae)
    assert struct.unpack_from("<4I", block, 0x60) == image.page_list()


def test_a_refusal_is_a_negative_errno() -> None:
    assert pack_refusal(22) == bytes.fromhex("eaffffffffffffff").ljust(KexecParams.SIZE, b"\0")


def test_the_busy_map_marks_taken_pages_and_what_is_not_ram() -> None:
    bits = busy_map(MAP, [3, 2047])
    assert len(bits) == 32768
    free = {pfn for pfn in range(len(bits) * 8) if not bits[pfn >> 3] >> (pfn & 7) & 1}
    assert free == set(MAP.ram_pages()) - {3, 2047}
