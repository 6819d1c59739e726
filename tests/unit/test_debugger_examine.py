"""gdb's ``x``: every format against Python's own idea of the same bytes."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.debugger.address import Address
from emu.debugger.examine import FORMATS, examine, following, show_item, unit_size
from emu.debugger.session import Session
from emu.errors import DebuggerError
from emu.kexec.arch import Arch

SIZES = st.sampled_from([1, 2, 4, 8])
ITEMS = SIZES.flatmap(lambda size: st.binary(min_size=size, max_size=size))
FLOATS = {2: "<e", 4: "<f", 8: "<d"}


@given(ITEMS)
def test_integers_read_back(raw: bytes) -> None:
    value = int.from_bytes(raw, "little")
    assert int(show_item(raw, "x"), 16) == value
    assert len(show_item(raw, "x")) == 2 + 2 * len(raw)
    assert int(show_item(raw, "u")) == value
    assert int(show_item(raw, "d")) == int.from_bytes(raw, "little", signed=True)
    assert int(show_item(raw, "o"), 8) == value
    assert int(show_item(raw, "t"), 2) == value
    assert len(show_item(raw, "t")) == 8 * len(raw)


@given(st.sampled_from([2, 4, 8]).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
def test_floats_read_back(raw: bytes) -> None:
    value = struct.unpack(FLOATS[len(raw)], raw)[0]
    shown = float(show_item(raw, "f"))
    if math.isnan(value):
        assert math.isnan(shown)
    else:
        assert struct.pack(FLOATS[len(raw)], shown) == raw


@given(st.integers(0, 255))
def test_a_character_is_shown_with_its_number(byte: int) -> None:
    number, quoted = show_item(bytes([byte]), "c").split(" ", 1)
    assert int(number) & 0xFF == byte
    assert quoted[0] == quoted[-1] == "'"
    assert quoted.isascii()
    assert quoted.isprintable()


@pytest.fixture(scope="module")
def session(session_of: Callable[[Arch], Session]) -> Session:
    session = session_of(Arch.X86_64)
    session.goto(0)
    return session


def put(session: Session, data: bytes) -> Address:
    """Bytes in a page that nobody uses at power-on."""
    session.machine.ram.write(0x50000, data)
    return Address(0x50000, physical=True)


def test_rows_are_labelled_and_wrapped(session: Session) -> None:
    at = put(session, struct.pack("<4Q", 1, 2, 3, 0xFFFF_FFFF_FFFF_FFFF))
    lines = examine(session, at, 4, "x", "g")
    assert lines == [
        "p:0x50000:  0x0000000000000001  0x0000000000000002",
        "p:0x50010:  0x0000000000000003  0xffffffffffffffff",
    ]


def test_bytes_come_eight_to_a_row(session: Session) -> None:
    at = put(session, bytes(range(10)))
    first, second = examine(session, at, 10, "u", "b")
    assert first.split(":  ")[1].split() == [str(number) for number in range(8)]
    assert second == "p:0x50008:  8  9"


def test_strings_end_at_their_nul(session: Session) -> None:
    at = put(session, b'one\0t"wo\n\0')
    assert examine(session, at, 2, "s") == ['p:0x50000:  "one"', 'p:0x50004:  "t\\"wo\\n"']
    assert following(session, at, 2, "s") == Address(0x5000A, physical=True)


def test_a_long_string_keeps_to_the_width(session: Session) -> None:
    at = put(session, b"x" * 300 + b"\0")
    lines = examine(session, at, 1, "s", width=80)
    assert max(map(len, lines)) <= 80
    assert lines[-1].endswith('"...')


def test_instructions_have_symbols_and_source(session: Session) -> None:
    lines = examine(session, Address(session.pc), 3, "i")
    assert lines[0].startswith("=> 0x1000200 <entry64>:  cli")
    assert "a64.S:" in lines[0]
    assert following(session, Address(session.pc), 2, "i") == Address(0x1000202)


def test_pointers_are_named(session: Session) -> None:
    at = put(session, struct.pack("<Q", 0x1000200))
    assert examine(session, at, 1, "a") == ["p:0x50000:  0x1000200 <entry64>"]


def test_a_negative_count_looks_back(session: Session) -> None:
    at = put(session, bytes([7, 8, 9]))
    behind = Address(at.value + 3, physical=True)
    assert examine(session, behind, -3, "d", "b") == ["p:0x50000:  7  8  9"]
    assert following(session, behind, -3, "d", "b") == at


@pytest.mark.parametrize(("form", "unit"), [("q", ""), ("x", "q"), ("f", "b"), ("", ""), ("xx", "")])
def test_what_is_no_format_is_refused(form: str, unit: str) -> None:
    with pytest.raises(DebuggerError):
        unit_size(form, unit)


def test_what_is_not_mapped_says_so(session: Session) -> None:
    with pytest.raises(DebuggerError, match="not mapped"):
        examine(session, Address(0xFFFF_8000_0000_0000), 1)
    top = session.scene.ram
    assert examine(session, Address(top - 4), 2)[-1].endswith("not mapped here")


@given(
    address=st.integers(-(1 << 66), 1 << 66),
    physical=st.booleans(),
    form=st.sampled_from(FORMATS),
    unit=st.sampled_from(["", "b", "h", "w", "g"]),
    count=st.integers(-20, 20),
)
def test_nothing_but_a_refusal_comes_of_odd_arguments(
    session_of: Callable[[Arch], Session], *, address: int, physical: bool, form: str, unit: str, count: int
) -> None:
    lines = []
    with suppress(DebuggerError):
        lines = examine(session_of(Arch.X86_64), Address(address, physical), count, form, unit)
    assert all(line.isascii() for line in lines)
