from __future__ import annotations

import pytest

from emu.assembler.source import read_statements, split_outside, strip_comments
from emu.errors import AssemblyError


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("nop # comment", "nop"),
        ("nop // comment", "nop"),
        ("/ a line comment", ""),
        ("nop /* one */ ", "nop"),
        ('.ascii "a # b // c"  # d', '.ascii "a # b // c"'),
        ("mov $'#, %al # hash", "mov $'#, %al"),
        ("mov $'\\n, %al", "mov $'\\n, %al"),
        ("mov $4/2, %al", "mov $4/2, %al"),
        ('.ascii "a\\"b # c"', '.ascii "a\\"b # c"'),
    ],
)
def test_comments_go_and_strings_stay(text: str, left: str) -> None:
    assert strip_comments(text).strip() == left


def test_a_block_comment_keeps_lines_and_columns() -> None:
    statements = read_statements("/* one\n two */ nop\n  hlt", "x.S")
    assert [(one.text, one.at.line, one.at.column) for one in statements] == [("nop", 2, 9), ("hlt", 3, 3)]


def test_semicolons_separate_statements_outside_strings() -> None:
    statements = read_statements('nop; .ascii "a;b" ; hlt', "x.S")
    assert [one.text for one in statements] == ["nop", '.ascii "a;b"', "hlt"]
    assert [one.at.column for one in statements] == [1, 6, 21]


def test_commas_in_parentheses_and_characters_do_not_split() -> None:
    pieces = [piece.strip() for _, piece in split_outside('4(%eax,%ebx), $\',, "a,b"', ",", brackets=True)]
    assert pieces == ["4(%eax,%ebx)", "$',", '"a,b"']


@pytest.mark.parametrize("line", ["#include <linux/kexec.h>", "#define X 1", "#ifdef CONFIG_X", "#else", "#endif"])
def test_preprocessor_lines_are_refused_and_not_taken_for_comments(line: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        read_statements(f"nop\n{line}\n", "x.S")
    assert (caught.value.line, caught.value.column) == (2, 1)
    assert "C preprocessor" in caught.value.what


@pytest.mark.parametrize("line", ["# include this", "#!shebang", "#else we lose", "## a heading", "#defined elsewhere"])
def test_comments_that_only_resemble_them_are_comments(line: str) -> None:
    assert read_statements(line, "x.S") == ()
