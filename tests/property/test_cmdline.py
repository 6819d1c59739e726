import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emu.errors import BadCommandLine
from emu.kexec.cmdline import parse_command_line, split_words
from emu.kexec.memparse import memparse
from emu.kexec.target import parse_target
from emu.units import MIB

texts = st.text("0123456789abcdefxXkKmMgGtTpPeE@-+:, ", max_size=14)


def slow_memparse(text: str) -> tuple[int, int]:
    """The rules again, one character at a time and with no help from int()."""
    digits = {c: n for n, c in enumerate("0123456789abcdef")} | {c: n for n, c in enumerate("ABCDEF", 10)}
    base, at = 10, 0
    if text[:1] == "0":
        base = 8
        if text[1:2] in ("x", "X") and text[2:3] in digits and text[2:3]:
            base, at = 16, 2
    value = 0
    while at < len(text) and digits.get(text[at], 99) < base:
        value = value * base + digits[text[at]]
        at += 1
    for letters in ("kK", "mM", "gG", "tT", "pP", "eE"):
        value *= 1024
        if at < len(text) and text[at] in letters:
            return value, at + 1
    return value >> 60, at


@given(texts)
@settings(max_examples=1000)
def test_memparse_agrees_with_a_slow_model(text: str) -> None:
    assert memparse(text) == slow_memparse(text)


@given(texts, st.integers(0, 14))
def test_memparse_from_a_position_is_memparse_of_the_rest(text: str, at: int) -> None:
    assume(at <= len(text))
    value, end = memparse(text, at)
    assert (value, end - at) == slow_memparse(text[at:])


def slow_words(line: str) -> list[tuple[str, str | None]]:
    """next_arg as a machine of states, on a list of characters."""
    words: list[tuple[str, str | None]] = []
    rest = list(line)
    while rest:
        if rest[0].isspace():
            rest.pop(0)
            continue
        word: list[str] = []
        inside = False
        while rest and (inside or not rest[0].isspace()):
            inside ^= rest[0] == '"'
            word.append(rest.pop(0))
        words.append(slow_word("".join(word)))
    return words


def slow_word(word: str) -> tuple[str, str | None]:
    quoted = word[:1] == '"'
    body = word[1:] if quoted else word
    place = body.find("=", 1)
    if place < 0:
        return (body[:-1] if quoted and body[-1:] == '"' else body), None
    name, value = body[:place], body[place + 1 :]
    if value[:1] == '"':
        value = value[1:]
        quoted = True
    return name, (value[:-1] if quoted and value[-1:] == '"' else value)


lines = st.text("ab=\" \t\n'", max_size=30)


@given(lines)
@settings(max_examples=1000)
def test_words_agree_with_a_slow_model(line: str) -> None:
    assert [(word.param, word.value) for word in split_words(line)] == slow_words(line)


@given(lines)
def test_columns_point_at_the_words(line: str) -> None:
    for word in split_words(line):
        assert not line[word.column - 1].isspace()
        assert line[word.value_column - 1 :].startswith(word.value or "")


@given(st.text(string.printable.replace("\0", ""), max_size=80))
@settings(max_examples=500)
def test_any_line_is_understood_or_refused_with_a_column_in_it(line: str) -> None:
    column = None
    try:
        parsed = parse_command_line(line)
    except BadCommandLine as error:
        column = error.column
    if column is None:
        assert len(parsed.unknown) <= len(parsed.words)
    else:
        assert 1 <= column <= len(line) + 1


values = st.text("0123456789xKMG@-:,hiow", max_size=20)


@given(values, st.integers(1, 64))
@settings(max_examples=1000)
def test_any_value_is_a_target_or_refused_with_a_column(value: str, ram: int) -> None:
    column = None
    try:
        choice = parse_target(value, 12).choose(ram * 16 * MIB)
    except BadCommandLine as error:
        column = error.column
    if column is None:
        assert choice is None or 0 < choice.size < ram * 16 * MIB
    else:
        assert 12 <= column <= 12 + len(value)


starts = st.integers(0, 400).map(lambda n: n * MIB)
sizes = st.integers(0, 160).map(lambda n: n * MIB)


@given(
    st.lists(st.tuples(starts, st.integers(1, 512).map(lambda n: n * MIB), sizes), min_size=1, max_size=4),
    st.integers(1, 300).map(lambda n: n * MIB),
)
@settings(max_examples=500)
def test_ranges_choose_as_the_words_of_the_rule_say(ranges: list[tuple[int, int, int]], ram: int) -> None:
    text = ",".join(f"{start}-{start + length}:{size}" for start, length, size in ranges)
    rounded = (ram + 128 * MIB - 1) // (128 * MIB) * 128 * MIB
    before: list[int] = []
    found = 0
    for start, length, size in ranges:
        before.append(size)
        if start <= rounded < start + length:
            found = size
            break
    spec = parse_target(text)
    if any(size >= rounded for size in before) or found >= ram:
        with pytest.raises(BadCommandLine):
            spec.choose(ram)
    else:
        choice = spec.choose(ram)
        assert (choice.size if choice else 0) == found
