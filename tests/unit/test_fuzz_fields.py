"""Fields: what is drawn, what is changed, what becomes smaller."""

from __future__ import annotations

import random

import pytest

from emu.errors import FuzzError
from emu.fuzz.case import Case, value_from, value_json
from emu.fuzz.fields import Blob, Choice, Field, Word, Words, fresh, mutated, weight
from emu.fuzz.minimize import minimize

WORD = Word("address", 64, (0x1000, 0x2000), (0xABC,), 0.2)
SPEC: tuple[Field, ...] = (
    Choice("door", ("a", "b")),
    WORD,
    Words("list", Word("entry", 32, (0x10,)), 20),
    Blob("page", bytes(64), 64, 64),
    Blob("line", b"", 0, 100, (b"x=1",)),
)


def source(text: str) -> random.Random:
    return random.Random(text)  # noqa: S311 - no secret


@pytest.mark.parametrize("value", [0, 5, 1 << 63, "start", b"", b"\x00\xff", (), (1, 2)])
def test_a_value_survives_a_file(value: object) -> None:
    assert value_from(value_json(value)) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["0xzz", "hex:0", ["zz"], 7, None])
def test_what_is_no_value_is_refused(text: object) -> None:
    with pytest.raises(FuzzError):
        value_from(text)


def test_the_same_random_source_gives_the_same_cases() -> None:
    one = [fresh(source("s"), "t", SPEC) for _ in range(3)]
    two = [fresh(source("s"), "t", SPEC) for _ in range(3)]
    assert one == two


def test_cases_stay_within_their_fields() -> None:
    rng = source("within")
    case = fresh(rng, "t", SPEC)
    for _ in range(500):
        case = mutated(rng, SPEC, case, fresh(rng, "t", SPEC))
        assert case.word("door") in ("a", "b")
        assert 0 <= case.number("address") < 1 << 64
        assert len(case.words("list")) <= 20
        assert all(0 <= word < 1 << 32 for word in case.words("list"))
        assert len(case.blob("page")) == 64
        assert len(case.blob("line")) <= 100


def test_legal_values_and_points_are_drawn_often() -> None:
    rng = source("often")
    drawn = [WORD.draw(rng) for _ in range(2000)]
    assert 300 < drawn.count(0xABC) < 600
    assert sum(1 for value in drawn if isinstance(value, int) and value & ~0xFFF in (0x1000, 0x2000)) > 500


def test_a_default_case_weighs_nothing() -> None:
    case = Case("t", tuple((field.name, field.default) for field in SPEC))
    assert weight(SPEC, case) == 0
    assert weight(SPEC, case.with_value("address", 0x1234)) == 2
    assert weight(SPEC, case.with_value("page", bytes(63) + b"\1")) == 1
    assert weight(SPEC, case.with_value("list", (0, 0x100))) == 1


def test_minimizing_keeps_what_matters_and_nothing_else() -> None:
    noise = source("noise").randbytes(64)
    page = noise[:40] + b"\x5a" + noise[41:]
    case = Case.of("t", {"door": "b", "address": 0x123456, "list": (7, 8, 9), "page": page, "line": b"x=1 y"})

    def key(one: Case) -> str:
        bad = one.blob("page")[40] == 0x5A and 8 in one.words("list")
        return "bad" if bad else "good"

    small = minimize(SPEC, case, "bad", key)
    assert key(small) == "bad"
    assert small.words("list") == (8,)
    assert small.blob("page") == bytes(40) + b"\x5a" + bytes(23)
    assert (small.word("door"), small.number("address"), small.blob("line")) == ("a", 0, b"")
    assert weight(SPEC, small) == 2
