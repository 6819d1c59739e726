"""The grammar of the prompt: what gdb means by a line, not what cmd2 would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.debugger.repl_parsing import SHORT, LineParser, resolve, split_line, uncommented, words_of
from emu.errors import DebuggerError

NAMES = ["break", "backtrace", "continue", "condition", "stepi", "x", "xp", "who-wrote", "help", "delete", "disable"]


@pytest.mark.parametrize(
    ("line", "command", "rest"),
    [
        ("x/8xb $rsp", "x", "/8xb $rsp"),
        ("  x /8xb $rsp", "x", "/8xb $rsp"),
        ("?", "?", ""),
        ("? stepi", "?", "stepi"),
        ("b swap_pages if $rcx > 3 | 1; 2", "b", "swap_pages if $rcx > 3 | 1; 2"),
        ("c # all the way", "c", ""),
        ("# nothing", "", ""),
        ("", "", ""),
        ("   ", "", ""),
        ("p/x 1", "p", "/x 1"),
    ],
)
def test_a_line_parts_as_in_gdb(line: str, command: str, rest: str) -> None:
    assert split_line(line) == (command, rest)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("a # b", "a "),
        ("a#b", "a#b"),
        ('asm 1 "nop # x"', 'asm 1 "nop # x"'),
        ("it's # here", "it's "),
        ("#", ""),
    ],
)
def test_comments_begin_behind_white_space_and_outside_of_quotes(line: str, kept: str) -> None:
    assert uncommented(line) == kept


def test_quotes_hold_words_together() -> None:
    assert words_of("asm $rip \"mov %eax, %ebx\" 'x y'z") == ["asm", "$rip", "mov %eax, %ebx", "x yz"]


@pytest.mark.parametrize("text", ['"', "a 'b", '"a" "'])
def test_an_open_quote_is_refused(text: str) -> None:
    with pytest.raises(DebuggerError, match="not closed"):
        words_of(text)


def test_names_are_shortened_as_in_gdb() -> None:
    wanted = {"b": "break", "bt": "backtrace", "where": "backtrace", "c": "continue", "s": "stepi", "si": "stepi"}
    wanted |= {"step": "stepi", "x": "x", "d": "delete", "dis": "disable", "who": "who-wrote", "?": "help"}
    assert {word: resolve(word, NAMES) for word in wanted} == wanted


def test_an_ambiguous_name_tells_what_it_could_be() -> None:
    with pytest.raises(DebuggerError, match="co is ambiguous: condition, continue"):
        resolve("co", NAMES)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(DebuggerError, match="no command is called frobnicate"):
        resolve("frobnicate", NAMES)


def test_every_short_word_is_not_itself() -> None:
    assert [word for word, meant in SHORT.items() if word == meant] == []


@pytest.mark.parametrize("text", ["a > b", "a >> b", "a | b", "a; b", "a;", "$rcx >= 1 && 2 < 3", "!x", "@y"])
def test_nothing_ends_or_redirects_a_command(text: str) -> None:
    statement = LineParser(NAMES).parse(f"break {text}")
    assert (statement.command, str(statement)) == ("break", text)
    assert (statement.redirector, statement.terminator, statement.suffix) == ("", "", "")


def test_words_that_look_like_options_are_none() -> None:
    _, words = LineParser(NAMES).get_command_arg_list("x", "-1 --help $rsp", preserve_quotes=False)
    assert words == [" -1", " --help", "$rsp"]


def test_aliases_are_expanded_and_may_be_recursive() -> None:
    parser = LineParser(NAMES)
    parser.aliases |= {"st": "x/2gx $rsp", "again": "again st", "two": "st 1"}
    assert str(parser.parse("st")) == "/2gx $rsp"
    assert parser.parse("two 2").command == "x"
    assert str(parser.parse("two 2")) == "/2gx $rsp 1 2"
    with pytest.raises(DebuggerError, match="no command is called again"):
        parser.parse("again")


def test_completion_keeps_silent_about_unknown_commands() -> None:
    assert LineParser(NAMES).parse_command_only("frobnicate 1").command == ""
    assert LineParser(NAMES).parse_command_only("b swap").command == "break"


@given(st.text())
def test_any_text_parses_or_is_refused_in_words(line: str) -> None:
    try:
        statement = LineParser(NAMES).parse(line)
        words_of(statement)
    except DebuggerError:
        return
    assert statement.command in {*NAMES, ""}
