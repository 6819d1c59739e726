"""From an address to the source line behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from emu.assembler import assemble_text
from emu.journey.symbols import Place, Symbols, tidy

SOURCE = "start:\n\tnop\t\t# nothing\n\tmovl   $1,  %eax   # one\n"


def test_a_place_says_file_line_symbol_and_source() -> None:
    symbols = Symbols()
    symbols.add(assemble_text(SOURCE, "/some/where/my.S", org=0x1000, bits=64))
    place = symbols.place(0x1001)
    assert str(place) == "/some/where/my.S:3: start+0x1 `movl $1, %eax`"
    assert (place.position, place.file) == ("my.S:3", "/some/where/my.S")


def test_a_program_can_be_seen_at_another_address() -> None:
    symbols = Symbols()
    image = assemble_text(SOURCE, "my.S", org=0x1000, bits=64)
    symbols.add(image, 0xFFFF800000001000)
    assert symbols.place(0xFFFF800000001000).symbol == "start"
    assert symbols.image_at(0xFFFF800000001001) == (image, 0x1001)
    assert symbols.image_at(0x1000) is None


def test_what_was_added_last_hides_what_was_there() -> None:
    symbols = Symbols()
    symbols.add(assemble_text("old:\n\tnop\n", "old.S", org=0x1000, bits=64), size=0x1000)
    symbols.add(assemble_text("new:\n\tnop\n", "new.S", org=0x1000, bits=64))
    assert symbols.place(0x1000).symbol == "new"
    assert symbols.place(0x1002).file == ""


def test_an_unknown_address_is_itself() -> None:
    assert str(Symbols().place(0x1234)) == "0x1234"
    assert Place(0x1234, "0x1234").position == "0x1234"


def test_tidy_takes_comments_and_spaces_away() -> None:
    assert tidy("\tmovl   $1,  %eax   # one # two") == "movl $1, %eax"
    assert tidy("# nothing") == ""


def test_a_file_below_this_folder_is_named_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    place = Place(0, "start", str(tmp_path / "asm" / "my.S"), 7, "nop")
    assert str(place) == "asm/my.S:7: start `nop`"
