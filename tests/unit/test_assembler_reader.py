"""Macros, repetitions, conditions and includes, seen through what they assemble to."""

from __future__ import annotations

from pathlib import Path

import pytest

from emu.assembler import assemble, assemble_text, reader
from emu.errors import AssemblyError


def data(text: str, **defines: int) -> list[int]:
    return list(assemble_text(text, defines=defines).code)


@pytest.mark.parametrize(
    ("definition", "call", "wanted"),
    [
        ("m a, b\n.byte \\a, \\b", "m 1, 2", [1, 2]),
        ("m a b\n.byte \\a, \\b", "m 1 2", [1, 2]),
        ("m a, b=7\n.byte \\a, \\b", "m 1", [1, 7]),
        ("m a, b=7\n.byte \\a, \\b", "m b=3, a=2", [2, 3]),
        ("m a:req\n.byte \\a", "m 4 + 5", [9]),
        ("m a, rest:vararg\n.byte \\a\n.byte \\rest", "m 1, 2, 3", [1, 2, 3]),
        ('m s\n.ascii "\\s"', 'm "a, b"', list(b"a, b")),
        ("m\n.byte \\@", "m\nm", [0, 1]),
        ("m p\nx\\p\\()_y = 3\n.byte x\\p\\()_y", "m 1", [3]),
        ("m a\n.byte \\a; .byte 2", "m 1", [1, 2]),
        ("m\n.byte 1\n.exitm\n.byte 2", "m", [1]),
        ("m a\n.ifb \\a\n.byte 0\n.else\n.byte \\a\n.endif", "m\nm 5", [0, 5]),
        ("m a\n.ifc \\a,x\n.byte 1\n.endif\n.ifnc \\a, x\n.byte 2\n.endif", "m x\nm y", [1, 2]),
        ("m n\n.if \\n\n.byte \\n\nm \\n-1\n.endif", "m 3", [3, 2, 1]),
    ],
)
def test_macros(definition: str, call: str, wanted: list[int]) -> None:
    assert data(f".macro {definition}\n.endm\n{call}\n") == wanted


def test_a_macro_may_define_a_macro_and_be_purged() -> None:
    first = ".macro outer\n.macro inner\n.byte 9\n.endm\n.endm\nouter\ninner\n"
    assert data(first + ".purgem inner\n.macro inner\n.byte 8\n.endm\ninner") == [9, 8]


def test_names_of_macros_do_not_care_for_case() -> None:
    assert data(".macro Put\n.byte 1\n.endm\nPUT\nput") == [1, 1]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (".rept 3\n.byte 1\n.endr", [1, 1, 1]),
        (".rept 0\n.byte 1\n.endr", []),
        (".rept 2\n.rept 2\n.byte 1\n.endr\n.byte 2\n.endr", [1, 1, 2, 1, 1, 2]),
        ("i = 0\n.rept 3\n.byte i\ni = i + 1\n.endr", [0, 1, 2]),
        (".irp r, 1, 2, 3\n.byte \\r\n.endr", [1, 2, 3]),
        (".irp r 1 2\n.byte \\r\n.endr", [1, 2]),
        (".irpc c, 123\n.byte \\c\n.endr", [1, 2, 3]),
        ("a: .rept 2\n.byte . - a\n.endr", [0, 1]),
    ],
)
def test_repetitions(text: str, wanted: list[int]) -> None:
    assert data(text) == wanted


@pytest.mark.parametrize(
    ("condition", "x", "wanted"),
    [
        (".if X == 1", 1, 1),
        (".if X == 1", 2, 2),
        (".if X > 1 && X < 4", 3, 1),
        (".ifdef X", 0, 1),
        (".ifdef Y", 0, 2),
        (".ifndef Y", 0, 1),
        (".ifeq X", 0, 1),
        (".ifne X", 0, 2),
        (".ifgt X", 5, 1),
        (".ifle X", 5, 2),
        ('.ifeqs "a","a"', 0, 1),
    ],
)
def test_conditions(condition: str, x: int, wanted: int) -> None:
    assert data(f"{condition}\n.byte 1\n.else\n.byte 2\n.endif", X=x) == [wanted]


@pytest.mark.parametrize(("x", "wanted"), [(1, 1), (2, 2), (3, 3), (4, 4)])
def test_elseif_takes_the_first_true_branch(x: int, wanted: int) -> None:
    text = ".if X == 1\n.byte 1\n.elseif X <= 2\n.byte 2\n.elseif X <= 3\n.byte 3\n.else\n.byte 4\n.endif"
    assert data(text, X=x) == [wanted]


def test_skipped_text_is_not_read() -> None:
    assert data('.if 0\n.error "no"\nbogus %xyz\n.if undefined\n.endif\n.include "nowhere"\n.endif\n.byte 1') == [1]


def test_a_condition_may_ask_for_a_distance() -> None:
    assert data("a: .skip 3\n.if . - a == 3\n.byte 1\n.endif") == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (".if 1\nnop", 1, "no .endif"),
        ("nop\n.endif", 2, ".endif without .if"),
        (".else", 1, ".else without .if"),
        (".if 1\n.else\n.else\n.endif", 3, "after .else"),
        (".macro m\nnop", 1, "no .endm"),
        (".rept 2\nnop", 1, "no .endr"),
        ("nop\n.endm", 2, "never opened"),
        (".exitm", 1, "outside a macro"),
        (".macro m a\n.endm\nm 1, 2", 3, "too many arguments"),
        (".macro m a:req\n.endm\nm", 3, "needs a value for a"),
        (".macro m a a\n.endm", 1, "two parameters"),
        (".macro m\n.endm\n.macro m\n.endm", 3, "defined already"),
        (".macro m\nm\n.endm\nm", 2, "nested more than"),
        (".if later\n.endif\nlater = 1", 1, "not defined yet"),
        (".if a - b\n.endif\na: jmp c\nb: nop\nc:", 1, "not defined yet"),
        ("a: jmp c\n.skip 200\nb:\n.if b - a\n.endif\nc:", 4, "not known before layout"),
        (".rept -1\n.endr", 1, "cannot repeat"),
        (".rept 100000000\nnop\n.endr", 1, "cannot repeat"),
        (".purgem m", 1, "no macro"),
        (".ifdef 1 2\n.endif", 1, "one symbol name"),
    ],
)
def test_faults_are_reported_where_they_are(text: str, line: int, what: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(text)
    assert what in caught.value.what
    assert caught.value.line == line


def test_runaway_repetitions_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_STATEMENTS", 1000)
    with pytest.raises(AssemblyError, match="more than 1000 statements"):
        assemble_text(".rept 100\n.rept 100\nnop\n.endr\n.endr")


def test_an_error_in_a_macro_names_its_line_and_the_call() -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(".macro m r\n  mov $1, %\\r\n.endm\nnop\nm xyz\n", "x.S")
    assert (caught.value.file, caught.value.line) == ("x.S", 2)
    assert "expanded from x.S:5" in caught.value.hint
    assert "\\r" in caught.value.source


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "asm" / "stub").mkdir(parents=True)
    (tmp_path / "asm" / "include").mkdir()
    (tmp_path / "asm" / "include" / "x.inc").write_text(".set FOUND, 7\n")
    (tmp_path / "asm" / "stub" / "near.inc").write_text('.include "x.inc"\n.byte 1\n')
    (tmp_path / "secret").write_text(".byte 42\n")
    return tmp_path


def included(tree: Path, text: str) -> bytes:
    source = tree / "asm" / "stub" / "a.S"
    source.write_text(text)
    return assemble(source, include=[tree / "asm" / "include"]).code


def test_includes_come_from_the_folder_of_the_file_and_the_list(tree: Path) -> None:
    assert included(tree, '.include "near.inc"\n.byte FOUND\n') == bytes((1, 7))
    assert included(tree, '.include "../include/x.inc"\n.byte FOUND\n') == bytes((7,))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ('"../../secret"', "outside"),
        ('"/etc/passwd"', "outside"),
        ('"missing.inc"', "not found"),
        ('""', "file name in quotes"),
        ("near.inc", "file name in quotes"),
    ],
)
def test_nothing_else_can_be_included(tree: Path, name: str, what: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        included(tree, f"nop\n  .include {name}\n")
    assert what in caught.value.what
    assert (caught.value.line, caught.value.column) == (2, 12)


def test_a_link_that_leads_outside_is_not_followed(tree: Path) -> None:
    (tree / "asm" / "stub" / "link.inc").symlink_to(tree / "secret")
    with pytest.raises(AssemblyError, match="outside"):
        included(tree, '.include "link.inc"\n')


def test_a_file_that_includes_itself_is_stopped(tree: Path) -> None:
    with pytest.raises(AssemblyError, match="nested more than"):
        included(tree, '.include "a.S"\n')
