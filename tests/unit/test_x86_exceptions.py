"""Exception vectors, classes and the double-fault table."""

from __future__ import annotations

import pytest

from emu.x86.exceptions import (
    ExceptionClass,
    ExceptionKind,
    Meeting,
    Vector,
    class_of,
    describe_page_fault,
    describe_selector_error,
    has_error_code,
    kind_of,
    meet,
    vector_name,
    vector_title,
)

BENIGN, CONTRIBUTORY, PAGE, DOUBLE = ExceptionClass

TABLE_6_5 = {
    (BENIGN, BENIGN): Meeting.SERIAL,
    (BENIGN, CONTRIBUTORY): Meeting.SERIAL,
    (BENIGN, PAGE): Meeting.SERIAL,
    (CONTRIBUTORY, BENIGN): Meeting.SERIAL,
    (CONTRIBUTORY, CONTRIBUTORY): Meeting.DOUBLE_FAULT,
    (CONTRIBUTORY, PAGE): Meeting.SERIAL,
    (PAGE, BENIGN): Meeting.SERIAL,
    (PAGE, CONTRIBUTORY): Meeting.DOUBLE_FAULT,
    (PAGE, PAGE): Meeting.DOUBLE_FAULT,
    (DOUBLE, BENIGN): Meeting.SERIAL,
    (DOUBLE, CONTRIBUTORY): Meeting.SHUTDOWN,
    (DOUBLE, PAGE): Meeting.SHUTDOWN,
}


@pytest.mark.parametrize(("first", "second"), TABLE_6_5, ids=lambda each: each.name)
def test_double_fault_table(first: ExceptionClass, second: ExceptionClass) -> None:
    assert meet(first, second) is TABLE_6_5[first, second]


def test_classes() -> None:
    contributory = {vector for vector in range(256) if class_of(vector) is CONTRIBUTORY}
    assert contributory == {0, 10, 11, 12, 13, 21}
    assert {vector for vector in range(256) if class_of(vector) is PAGE} == {14, 20}
    assert {vector for vector in range(256) if class_of(vector) is DOUBLE} == {8}


def test_error_codes() -> None:
    assert [vector for vector in range(256) if has_error_code(vector)] == [8, 10, 11, 12, 13, 14, 17, 21]


def test_kinds() -> None:
    assert kind_of(Vector.PF) is ExceptionKind.FAULT
    assert kind_of(Vector.BP) is ExceptionKind.TRAP
    assert kind_of(Vector.DF) is ExceptionKind.ABORT
    assert kind_of(0x20) is ExceptionKind.INTERRUPT


def test_names() -> None:
    assert [vector_name(vector) for vector in (0, 2, 8, 14, 15, 32)] == [
        "#DE", "NMI", "#DF", "#PF", "vector 0xf", "vector 0x20",
    ]  # fmt: skip
    assert vector_title(13) == "general protection"
    assert vector_title(0x80) == "interrupt"
    assert all(vector_title(vector) != "interrupt" for vector in Vector)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0x0, "read by supervisor of a page that is not present"),
        (0x3, "write by supervisor of a present page"),
        (0x15, "fetch by user of a present page"),
        (0x9, "read by supervisor of a present page, reserved bit set in an entry"),
    ],
)
def test_page_fault_error_codes(code: int, text: str) -> None:
    assert describe_page_fault(code) == text


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "0"), (1, "null selector, external"), (0x72, "IDT gate 14"), (0x73, "IDT gate 14, external"),
     (0x10, "GDT selector 0x10"), (0x14, "LDT selector 0x10")],
)  # fmt: skip
def test_selector_error_codes(code: int, text: str) -> None:
    assert describe_selector_error(code) == text
