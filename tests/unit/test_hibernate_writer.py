"""Writing an image: what is left out, what it costs, and what is left when it fails."""

import tracemalloc
from pathlib import Path

import pytest

from emu.errors import ImageFileError
from emu.hibernate.elf_core import MOST_LOADS
from emu.hibernate.memory import OldMemory
from emu.hibernate.reader import open_image
from emu.hibernate.writer import PARTIAL, without_free, write_image
from emu.kexec.e820 import Range, default_map
from emu.units import MIB, PAGE_SIZE, Phys
from tests.hibernate_bench import RANGES, memory, pages_of, record, save


def test_free_pages_are_left_out(tmp_path: Path) -> None:
    free = {0x100, 0x105, 0x112, 0x200}
    image = save(tmp_path / "image", is_free=free.__contains__)
    assert list(image.pages()) == [(at, data) for at, data in pages_of() if at // PAGE_SIZE not in free]


def test_short_runs_of_free_pages_are_kept_where_there_are_too_many_ranges() -> None:
    pages = 4 * MOST_LOADS
    whole = [Range(Phys(0), Phys(pages * PAGE_SIZE))]
    kept = without_free(whole, lambda pfn: pfn % 3 == 2)
    assert len(kept) <= MOST_LOADS
    assert kept[0].start == 0
    long_run = range(9000, 9500)
    kept = without_free(whole, lambda pfn: pfn % 3 == 2 or pfn in long_run)
    assert not any(one.start // PAGE_SIZE <= 9250 < one.end // PAGE_SIZE for one in kept)


def test_nothing_to_save_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="no memory to save"):
        save(tmp_path / "image", is_free=lambda _pfn: True)


def test_memory_that_may_not_be_read_leaves_no_file(tmp_path: Path) -> None:
    little = OldMemory(lambda _address, size: bytes(size), [Range(Phys(0x100000), Phys(0x104000))])
    with pytest.raises(ImageFileError, match="may read"):
        write_image(tmp_path / "image", little, RANGES, record())
    assert list(tmp_path.iterdir()) == []


def test_an_older_image_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "image"
    save(path, image_id=1)
    ids: list[int] = []
    write_image(
        path,
        memory(),
        RANGES,
        record(image_id=2),
        progress=lambda _done, _total: ids.append(open_image(path).record.image_id),
    )
    assert set(ids) == {1}
    assert open_image(path).record.image_id == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["image"]


def test_a_partial_file_of_a_killed_writer_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.with_name("image" + PARTIAL).write_bytes(b"left behind" * 100000)
    save(path)
    open_image(path).verify()
    assert [entry.name for entry in tmp_path.iterdir()] == ["image"]


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    assert save(tmp_path / "image").path.stat().st_mode & 0o777 == 0o600


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "image")
    save(link)
    assert link.is_symlink()
    open_image(tmp_path / "image").verify()


@pytest.mark.parametrize(("where", "why"), [("no/such/image", "No such file"), ("", "not a regular file")])
def test_places_where_no_file_can_be(tmp_path: Path, where: str, why: str) -> None:
    with pytest.raises(ImageFileError, match=why):
        save(tmp_path / where)


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "zstd"])
def test_memory_use_does_not_grow_with_the_image(tmp_path: Path, *, compress: bool) -> None:
    noise = bytes(range(256)) * 256
    size = 64 * MIB
    old = OldMemory(lambda _address, count: noise[:count], default_map(size).ram_ranges)
    ranges = default_map(size).ram_ranges
    tracemalloc.start()
    try:
        image = write_image(tmp_path / "image", old, ranges, record(), compress=compress)
        image.verify()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert image.memory_size > 63 * MIB
    assert peak < 2 * MIB
