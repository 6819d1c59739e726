from __future__ import annotations

import pytest

from emu.assembler.expression import (
    ExpressionError,
    Here,
    Location,
    Name,
    Number,
    Relative,
    bind,
    degree,
    evaluate,
    fold,
    names_in,
    parse,
)


def value(text: str) -> int:
    return evaluate(parse(text), lambda _: 0)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("10", 10),
        ("0x10", 16),
        ("010", 8),
        ("0b101", 5),
        ("'a", 97),
        ("'a'", 97),
        ("'\\n", 10),
        ("-5", -5),
        ("~0", -1),
        ("!0", 1),
        ("!7", 0),
        ("--4", 4),
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("1|2+4", 7),
        ("1+2|4", 7),
        ("8-4-2", 2),
        ("1<<12", 4096),
        ("0x1000>>4", 0x100),
        ("-1>>60", 15),
        ("-7/2", -3),
        ("-7%2", -1),
        ("7%4", 3),
        ("6&3", 2),
        ("6^3", 5),
        ("6|1", 7),
        ("5==5", -1),
        ("5!=5", 0),
        ("5<>4", -1),
        ("1<2", -1),
        ("2>=3", 0),
        ("1&&2", 1),
        ("1&&0", 0),
        ("0||3", 1),
        ("1+1==2", -1),
        ("0xffffffffffffffff", -1),
        ("0xffffffff80000000", -(1 << 31)),
        ("0x7fffffffffffffff+1", -(1 << 63)),
    ],
)
def test_values(text: str, wanted: int) -> None:
    assert value(text) == wanted


@pytest.mark.parametrize(
    ("text", "what", "offset"),
    [
        ("", "missing", 0),
        ("1+", "ends too early", 2),
        ("(1", "')' is missing", 2),
        ("1 2", "unexpected '2'", 2),
        ("1 @ 2", "cannot read", 2),
        ("089", "octal", 0),
        ("0x10000000000000000", "64 bits", 0),
        ("12ab", "cannot read", 0),
        ("(" * 300 + "1" + ")" * 300, "nested too deeply", 200),
    ],
)
def test_what_is_no_expression_is_refused_at_its_column(text: str, what: str, offset: int) -> None:
    with pytest.raises(ExpressionError, match=what.replace("(", r"\(").replace(")", r"\)")) as caught:
        parse(text)
    assert caught.value.offset == offset


@pytest.mark.parametrize("text", ["1/0", "1%0", "1<<64", "1>>-1"])
def test_what_has_no_value_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        value(text)


def test_local_label_references_are_names() -> None:
    assert parse("1f") == Name("1f")
    assert parse("1b+0b1") != parse("1b")
    assert names_in(parse("1f - 2b + x")) == {"1f", "2b", "x"}


def test_bind_puts_in_what_is_known_and_leaves_the_rest() -> None:
    bound = bind(parse("a+b"), {"a": Number(3)}.get)
    assert names_in(bound) == {"b"}
    assert evaluate(bound, lambda _: 4) == 7


def test_distance_of_labels_in_one_chunk_is_a_number() -> None:
    places = {"a": Location(0, 4), "b": Location(0, 20), "c": Location(2, 0)}
    assert fold(parse("b-a"), places.get) == Relative(16)
    assert fold(parse("b-a+1"), places.get) == Relative(17)
    assert fold(parse("a+1"), places.get) == Relative(5, 0)
    assert fold(parse("c-a"), places.get) is None
    assert fold(parse("a*2"), places.get) is None
    assert fold(parse("a<b"), places.get) == Relative(-1)
    assert fold(parse("missing"), places.get) is None


def test_degree_tells_addresses_from_distances() -> None:
    here = Here(Location(0, 0))
    assert degree(here) == 1
    assert [degree(parse(text)) for text in ("a", "a+4", "a-b", "4", "-a", "a-b+c", "a&b")] == [1, 1, 0, 0, -1, 1, 0]
