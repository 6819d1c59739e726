"""Kinds of files by their first bytes."""

from pathlib import Path

import pytest

from emu.cli_info import KINDS
from emu.errors import KjumpError
from emu.filekind import START_SIZE, FileKind, kind_of

SHORT = FileKind("a note", lambda start: start.startswith(b"note"), lambda path: ({"size": path.stat().st_size}, []))
REST = FileKind("a page", lambda start: len(start) == START_SIZE, lambda _path: ({}, []))


def test_the_first_kind_that_matches_is_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"note".ljust(9000))
    assert kind_of(path, [SHORT, REST]) is SHORT
    assert kind_of(path, [REST, SHORT]) is REST
    assert SHORT.describe(path)[0] == {"size": 9000}


def test_no_kind_is_an_error_that_names_them_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    with pytest.raises(KjumpError, match="a note, a page"):
        kind_of(path, [SHORT, REST])


def test_a_core_is_an_image_and_another_elf_file_a_kernel(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for kind, name in ((4, "a saved image"), (2, "a kernel")):
        path.write_bytes(b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + bytes([kind, 0]))
        assert kind_of(path, KINDS).name == name
