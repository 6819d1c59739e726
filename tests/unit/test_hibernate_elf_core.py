"""The ELF core: what pyelftools reads in it is what was meant."""

import struct
from pathlib import Path

import pytest
import zstandard
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from emu.errors import ImageFileError
from emu.hibernate.elf_core import MOST_LOADS, CoreHead, Load, Note, find_note, parse_head
from emu.hibernate.prstatus import prstatus
from emu.hibernate.writer import core_head
from emu.kexec.arch import Arch
from emu.kexec.e820 import Range
from emu.units import GIB, MIB, PAGE_SIZE, Phys
from tests.hibernate_bench import NOISE, RANGES, REGISTERS, record, save


@pytest.mark.parametrize("arch", list(Arch))
def test_pyelftools_reads_the_image(tmp_path: Path, arch: Arch) -> None:
    path = tmp_path / "image"
    save(path, arch=arch)
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert (elf.header["e_type"], elf["e_machine"], elf.elfclass) == (
            "ET_CORE",
            "EM_X86_64" if arch.bits == 64 else "EM_386",
            arch.bits,
        )
        note, *loads = elf.iter_segments()
        kinds = [(one["n_name"], one["n_type"]) for one in note.iter_notes()]
        assert kinds == [("CORE", "NT_PRSTATUS"), ("KJUMP", 0x4B4A0001), ("KJUMP", 0x4B4A0002)]
        assert [(one["p_type"], one["p_paddr"], one["p_filesz"], one["p_memsz"]) for one in loads] == [
            ("PT_LOAD", part.start, part.size, part.size) for part in RANGES
        ]
        assert [one["p_vaddr"] for one in loads] == [arch.direct(part.start) for part in RANGES]
        assert [one.data() for one in loads] == [NOISE[part.start : part.end] for part in RANGES]


def test_a_compressed_image_without_its_frames_is_the_plain_one(tmp_path: Path) -> None:
    save(tmp_path / "packed", compress=True)
    plain = save(tmp_path / "plain")
    with (tmp_path / "packed").open("rb") as file:
        unpacked = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    core = plain.head.size + plain.memory_size
    assert unpacked == (tmp_path / "plain").read_bytes()[:core]


def test_prstatus_has_each_register_where_gdb_looks() -> None:
    wide = prstatus(Arch.X86_64, REGISTERS).data
    assert len(wide) == 336
    assert struct.unpack_from("<Q", wide, 112 + 16 * 8) == (REGISTERS["rip"],)
    assert struct.unpack_from("<Q", wide, 112 + 19 * 8) == (REGISTERS["rsp"],)
    narrow = prstatus(Arch.I386_PAE, REGISTERS).data
    assert len(narrow) == 144
    assert struct.unpack_from("<I", narrow, 72 + 12 * 4) == (REGISTERS["rip"],)
    assert struct.unpack_from("<I", narrow, 72) == (REGISTERS["rbx"],)


def test_memory_beyond_the_direct_map_has_no_linear_address() -> None:
    ranges = (Range(Phys(MIB), Phys(896 * MIB)), Range(Phys(896 * MIB), Phys(GIB)))
    head = core_head(ranges, record(Arch.I386))
    assert not head.wide
    assert [load.linear for load in parse_head(head.pack()).loads] == [0xC0100000, 0xFFFFFFFF]


def test_a_32_bit_image_of_memory_above_4_gib_is_elf64() -> None:
    ranges = (Range(Phys(4 * GIB), Phys(4 * GIB + MIB)),)
    head = core_head(ranges, record(Arch.I386_PAE))
    assert head.wide
    assert parse_head(head.pack()).loads[0].physical == 4 * GIB
    with pytest.raises(ImageFileError, match="up to 4 GiB"):
        CoreHead(3, wide=False, notes=(), loads=head.loads).pack()


def test_too_many_ranges_are_refused() -> None:
    loads = (Load(0, 0, 0, PAGE_SIZE),) * (MOST_LOADS + 1)
    with pytest.raises(ImageFileError, match="60001 ranges"):
        CoreHead(62, wide=True, notes=(), loads=loads).pack()


GOOD = CoreHead(62, wide=True, notes=(Note("KJUMP", 1, b"abc"),), loads=(Load(0x1000, 0, 0, 0x1000),)).pack()


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0, 0, "no ELF header"),
        (4, 3, "no known class"),
        (5, 2, "no known class"),
        (16, 2, "not a core"),
        (54, 55, "not a core"),
        (56, 0, "not a core"),
        (57, 0xFF, "program headers are cut off"),
        (64 + 33, 0xFF, "notes are cut off"),
        (64 + 32, 17, "a note is cut off|longer than its segment"),
        (64 + 112 + 4, 0xFF, "longer than its segment"),
    ],
)
def test_a_head_that_makes_no_sense_is_refused(at: int, value: int, why: str) -> None:
    bad = bytearray(GOOD)
    bad[at] = value
    with pytest.raises(ImageFileError, match=why) as caught:
        parse_head(bytes(bad))
    assert caught.value.block == 0


notes = st.builds(
    Note,
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12),
    st.integers(0, (1 << 32) - 1),
    st.binary(max_size=70),
)
numbers = st.integers(0, (1 << 30) - 1)
loads_of_any_kind = st.builds(Load, numbers, numbers, numbers, numbers)


@given(st.booleans(), st.lists(notes, max_size=5), st.lists(loads_of_any_kind, max_size=5))
def test_a_head_is_read_as_it_was_made(wide: bool, some: list[Note], loads: list[Load]) -> None:
    head = CoreHead(62, wide, tuple(some), tuple(loads))
    packed = head.pack()
    assert len(packed) == head.size
    assert parse_head(packed) == head
    for note in some:
        assert find_note(head.notes, note.name, note.type) is not None


@given(st.binary(max_size=400), st.integers(0, 300))
def test_any_bytes_are_a_head_or_an_error(noise: bytes, at: int) -> None:
    for data in (noise, GOOD[:at] + noise + GOOD[at + len(noise) :], GOOD[: len(noise)]):
        try:
            parse_head(data)
        except ImageFileError as error:
            assert error.block == 0  # noqa: PT017 - the other outcome is right too
