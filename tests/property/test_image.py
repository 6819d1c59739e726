"""Saved images: what is true of every record, commit record and set of ranges."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from emu.errors import ImageFileError
from emu.hibernate.layout import COMMIT_SIZE, Block, Commit, pack_table, parse_table, pieces
from emu.hibernate.marks import Mark, mark_block, read_mark
from emu.hibernate.memory import OldMemory, without
from emu.hibernate.reader import open_image
from emu.hibernate.record import ImageRecord
from emu.hibernate.writer import write_image
from emu.kexec.arch import Arch
from emu.kexec.e820 import Range
from emu.units import PAGE_SIZE, Phys
from tests.hibernate_bench import record

qwords = st.integers(0, (1 << 64) - 1)
digests = st.binary(min_size=32, max_size=32)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=16)
records = st.builds(
    ImageRecord,
    image_id=st.integers(1, (1 << 64) - 1),
    arch=st.sampled_from(list(Arch)),
    e820_digest=digests,
    entry=qwords,
    handoff=names,
    kernel_build=names,
    jump_page=qwords,
    registers=st.dictionaries(names, st.integers(0, (1 << 128) - 1), max_size=8),
)
commits = st.builds(
    Commit,
    image_id=qwords,
    file_size=qwords,
    table_offset=qwords,
    blocks=qwords,
    memory_size=qwords,
    root=digests,
    compressed=st.booleans(),
    version=st.just(1),
)
blocks = st.builds(Block, qwords, qwords, st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1), digests)


@st.composite
def page_ranges(draw: st.DrawFn, pages: int = 200) -> tuple[Range, ...]:
    cuts = sorted(draw(st.sets(st.integers(0, pages), min_size=2, max_size=12)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return tuple(Range(Phys(start * PAGE_SIZE), Phys(end * PAGE_SIZE)) for start, end in pairs)


def pfns(ranges: tuple[Range, ...]) -> set[int]:
    return {pfn for one in ranges for pfn in one.pages()}


@given(records)
def test_a_record_reads_back(one: ImageRecord) -> None:
    assert ImageRecord.unpack(one.pack(), one.pack_registers()) == one


@given(commits, st.integers(0, COMMIT_SIZE * 8 - 1))
def test_a_commit_record_reads_back_and_with_any_bit_flipped_does_not(one: Commit, bit: int) -> None:
    packed = bytearray(one.pack())
    assert Commit.parse(bytes(packed)) == one
    packed[bit >> 3] ^= 1 << (bit & 7)
    try:
        Commit.parse(bytes(packed))
    except ImageFileError:
        return
    raise AssertionError(f"bit {bit} may be flipped")


@given(commits, commits, st.sampled_from([Mark.FRESH, Mark.USED, Mark.INVALID]))
def test_a_mark_is_of_one_image(one: Commit, other: Commit, mark: Mark) -> None:
    block = mark_block(mark, one)
    assert read_mark(block, one) is mark
    if (one.image_id, one.root) != (other.image_id, other.root):
        assert read_mark(block, other) is Mark.TORN


@given(st.lists(blocks, max_size=20))
def test_a_table_reads_back(some: list[Block]) -> None:
    assert parse_table(pack_table(some)) == some


@given(page_ranges(), page_ranges())
def test_without_is_a_difference_of_sets(one: tuple[Range, ...], taken: tuple[Range, ...]) -> None:
    assert pfns(without(one, taken)) == pfns(one) - pfns(taken)


@given(page_ranges())
def test_pieces_cover_their_ranges_once(ranges: tuple[Range, ...]) -> None:
    covered = [pfn for at, size in pieces(ranges) for pfn in range(at // PAGE_SIZE, (at + size) // PAGE_SIZE)]
    assert covered == sorted(pfns(ranges))


@settings(max_examples=40)
@given(page_ranges(), page_ranges(), st.booleans(), st.binary(min_size=1, max_size=64))
def test_every_page_that_is_not_free_is_saved_and_no_other(
    ranges: tuple[Range, ...], free: tuple[Range, ...], compress: bool, pattern: bytes
) -> None:
    ram = (pattern * (200 * PAGE_SIZE // len(pattern) + 1))[: 200 * PAGE_SIZE]
    kept = pfns(ranges) - pfns(free)
    memory = OldMemory(lambda address, size: ram[address : address + size], ranges)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image")
        try:
            write_image(path, memory, ranges, record(), compress=compress, is_free=pfns(free).__contains__)
        except ImageFileError:
            assert not kept
            return
        saved = dict(open_image(path).pages())
    assert saved == {pfn * PAGE_SIZE: ram[pfn * PAGE_SIZE : (pfn + 1) * PAGE_SIZE] for pfn in kept}
