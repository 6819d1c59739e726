"""The record: what it says, and for whom it is not."""

from dataclasses import replace

import pytest

from emu.errors import ImageFileError
from emu.hibernate.record import ImageRecord, check_version, e820_digest
from emu.kexec.arch import Arch
from emu.kexec.e820 import E820Type, MemoryMap, Range, default_map
from emu.units import MIB, Phys
from tests.hibernate_bench import MAP, record


def test_a_record_is_read_as_it_was_written() -> None:
    for arch in Arch:
        one = record(arch)
        assert ImageRecord.unpack(one.pack(), one.pack_registers()) == one


def test_the_fixed_part_is_the_bytes_written_by_hand() -> None:
    fixed = replace(record(Arch.I386_PAE), e820_digest=bytes(range(32))).pack()
    assert fixed.hex(" ", 8) == (
        "0100000003000000 1d00000000000000 1000200000000000 0010200000000000 "
        "0001020304050607 08090a0b0c0d0e0f 1011121314151617 18191a1b1c1d1e1f "
        "693338362d706165 0000000000000000 7061676500000000 0000000000000000 "
        "6b6a756d7020746f 7920410000000000 " + " ".join(["0000000000000000"] * 6)
    )


@pytest.mark.parametrize(("image", "here"), [(Arch.X86_64, Arch.I386), (Arch.I386_PAE, Arch.X86_64_LA57)])
def test_another_word_size_is_refused(image: Arch, here: Arch) -> None:
    with pytest.raises(ImageFileError, match=f"of a {image.bits}-bit kernel, this one has {here.bits} bits"):
        record(image).require(here, MAP)


@pytest.mark.parametrize(("image", "here"), [(Arch.X86_64, Arch.X86_64_LA57), (Arch.I386, Arch.I386_PAE)])
def test_another_paging_is_refused(image: Arch, here: Arch) -> None:
    with pytest.raises(ImageFileError, match=f"of {image}, this kernel is {here}"):
        record(image).require(here, MAP)


def test_another_memory_map_is_refused() -> None:
    record().require(Arch.X86_64, MAP)
    other = MemoryMap.of([*MAP.ranges, Range(Phys(64 * MIB), Phys(65 * MIB), E820Type.RESERVED)])
    with pytest.raises(ImageFileError, match=f"another e820 map.*here {e820_digest(other).hex()[:16]}"):
        record().require(Arch.X86_64, other)
    with pytest.raises(ImageFileError, match="another e820 map"):
        replace(record(), e820_digest=bytes(32)).require(Arch.X86_64, default_map(4 * MIB))


def test_an_entry_outside_ram_is_refused() -> None:
    with pytest.raises(ImageFileError, match="p:0xf0000000 is not in RAM"):
        replace(record(), entry=0xF0000000).require(Arch.X86_64, MAP)


def test_another_version_is_refused() -> None:
    with pytest.raises(ImageFileError, match="version 2, this kjump reads 1"):
        check_version(2)
    fixed = record().pack()
    with pytest.raises(ImageFileError, match="version 7"):
        ImageRecord.unpack(b"\x07" + fixed[1:])


@pytest.mark.parametrize(
    "change",
    [
        {"image_id": 0},
        {"image_id": 1 << 64},
        {"entry": -1},
        {"e820_digest": b"short"},
        {"handoff": "a hand-off with a long name"},
        {"kernel_build": "naïve"},
        {"kernel_build": "nul\0"},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ImageFileError):
        replace(record(), **change)  # type: ignore[arg-type]


def test_a_register_wider_than_its_note_is_refused() -> None:
    with pytest.raises(ImageFileError, match="rax"):
        replace(record(), registers={"rax": 1 << 128}).pack_registers()


def test_what_is_no_record_is_refused() -> None:
    fixed = record().pack()
    with pytest.raises(ImageFileError, match="wrong length"):
        ImageRecord.unpack(fixed[:-1])
    with pytest.raises(ImageFileError, match="architecture 'i386', machine 62"):
        ImageRecord.unpack(fixed.replace(b"x86_64", b"i386\0\0"))
