"""Images that are read back, and images that are not."""

from dataclasses import replace
from pathlib import Path

import pytest

from emu.errors import ImageFileError
from emu.hibernate.layout import BLOCK_SIZE, COMMIT_SIZE, TAIL_SIZE, Commit
from emu.hibernate.reader import open_image
from emu.kexec.arch import Arch
from tests.hibernate_bench import RANGES, pages_of, record, save


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "zstd"])
@pytest.mark.parametrize("arch", list(Arch))
def test_what_was_written_is_read(tmp_path: Path, arch: Arch, *, compress: bool) -> None:
    path = tmp_path / "image"
    save(path, arch=arch, compress=compress)
    image = open_image(path)
    assert image.record == record(arch)
    assert image.ranges == RANGES
    assert list(image.pages()) == pages_of()
    assert max(len(data) for _, data in image.blocks()) == BLOCK_SIZE
    image.verify()


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    image = save(tmp_path / "image")
    told: list[tuple[int, int]] = []
    image.verify(lambda done, total: told.append((done, total)))
    assert told[-1] == (image.memory_size, image.memory_size)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_bad_block_is_named_with_its_memory(tmp_path: Path) -> None:
    path = tmp_path / "image"
    image = save(path)
    block = image.table[3]
    data = bytearray(path.read_bytes())
    data[block.offset + 5] ^= 0x10
    path.write_bytes(data)
    bad = open_image(path)
    with pytest.raises(ImageFileError, match=r"image, block 3: memory p:0x200000\.\.p:0x201000 is not") as caught:
        bad.verify()
    assert caught.value.block == 3


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "zstd"])
def test_a_bad_head_is_block_0(tmp_path: Path, *, compress: bool) -> None:
    path = tmp_path / "image"
    save(path, compress=compress)
    data = bytearray(path.read_bytes())
    data[0x40] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageFileError, match="block 0") as caught:
        open_image(path)
    assert caught.value.block == 0


def test_a_bad_table_and_what_lies_around_it_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "image"
    image = save(path, compress=True)
    good = path.read_bytes()
    last = image.commit.file_size - TAIL_SIZE - 1
    for at in (image.commit.table_offset + 9, image.commit.table_offset - 1, last):
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with pytest.raises(ImageFileError, match="table"):
            open_image(path)


@pytest.mark.parametrize("more", [b"", b"x"], ids=["cut", "longer"])
def test_another_length_is_no_image(tmp_path: Path, more: bytes) -> None:
    path = tmp_path / "image"
    save(path)
    good = path.read_bytes()
    path.write_bytes(good + more if more else good[:-1])
    with pytest.raises(ImageFileError, match="no commit record: the writing of this image was cut"):
        open_image(path)


def test_an_image_of_another_length_with_its_tail_in_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image"
    save(path)
    good = path.read_bytes()
    path.write_bytes(good[:0x2000] + bytes(0x1000) + good[0x2000:])
    with pytest.raises(ImageFileError, match="were written"):
        open_image(path)


def test_another_version_is_refused_before_anything_else_is_read(tmp_path: Path) -> None:
    path = tmp_path / "image"
    image = save(path)
    data = path.read_bytes()
    later = replace(image.commit, version=2, root=bytes(32)).pack()
    path.write_bytes(data[:-TAIL_SIZE] + later + data[-TAIL_SIZE + COMMIT_SIZE :])
    with pytest.raises(ImageFileError, match="version 2, this kjump reads 1"):
        open_image(path)


def test_a_damaged_commit_record_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "image"
    save(path)
    data = bytearray(path.read_bytes())
    data[-TAIL_SIZE + 0x20] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageFileError, match="commit record is damaged"):
        open_image(path)


def test_a_commit_record_reads_back(tmp_path: Path) -> None:
    image = save(tmp_path / "image")
    assert Commit.parse(image.commit.pack()) == image.commit
    assert image.path.stat().st_size == image.commit.file_size


def test_files_that_are_no_images_say_so(tmp_path: Path) -> None:
    path = tmp_path / "letter"
    path.write_text("Dear reader")
    with pytest.raises(ImageFileError, match="neither an ELF file nor a zstd one"):
        open_image(path)
    with pytest.raises(ImageFileError, match="No such file"):
        open_image(tmp_path / "nothing")
    with pytest.raises(ImageFileError, match="cannot be read: Is a directory"):
        open_image(tmp_path)
    path.write_bytes(b"\x7fELF")
    with pytest.raises(ImageFileError, match="no commit record"):
        open_image(path)
