"""Two records of executed instructions, compared: what was added, left out, changed, or went another way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.assembler import Image, assemble_text
from emu.journey import departure
from emu.journey.departure import Step
from emu.journey.symbols import Symbols
from emu.machine.events import Position

ORG = 0x5000
BUILT_IN = """
entry:
    movl    $0x200, %ecx        # how many
    cld
    rep movsq
    testl   $1, %eax
    jz      even
    incl    %eax
even:
    movq    %cr3, %rax
    movq    %rax, %cr3
    ret
"""


def image_of(source: str, name: str) -> Image:
    return assemble_text(source, name, org=ORG, bits=64)


def record(source: str, name: str = "my.S", *, without: tuple[str, ...] = ("incl",), lines: bool = True) -> list[Step]:
    """The steps of a straight run through ``source`` that leaves out lines which begin with one of ``without``."""
    image = image_of(source, name)
    if not lines:
        image = replace(image, lines=(), sources={})
    symbols = Symbols()
    symbols.add(image)
    addresses = [
        line.address for line in image_of(source, name).lines
        if not image_of(source, name).source_text(line).split()[0].startswith(without)
    ]  # fmt: skip
    executed = [(address, Position(100 + n)) for n, address in enumerate(addresses)]
    repeated = [(address, position) for address, position in executed for _ in range(3)]  # as iterations are seen
    return departure.steps_of(repeated, symbols)


def first(mine: str, **changes: bool) -> str:
    return departure.first(record(mine, **changes), record(BUILT_IN, "built_in.S"))  # type: ignore[arg-type]


def test_the_same_stub_departs_nowhere() -> None:
    assert first(BUILT_IN) == ""


def test_comments_labels_and_spaces_make_no_difference() -> None:
    assert first(BUILT_IN.replace("even:\n    movq", "even: movq").replace("# how many", "# a page")) == ""


def test_iterations_of_a_repeated_instruction_are_one_step() -> None:
    steps = record(BUILT_IN)
    assert [step.line for step in steps][:4] == ["movl $0x200, %ecx", "cld", "rep movsq", "testl $1, %eax"]
    assert [step.position.n for step in steps] == list(range(100, 108))


def test_a_line_that_was_left_out() -> None:
    said = first(BUILT_IN.replace("    cld\n", ""))
    assert said == (
        "departs from the built-in stub at N 101: `cld` (built_in.S:4 of the built-in stub) is missing between "
        "my.S:3 `movl $0x200, %ecx` and my.S:4 `rep movsq`"
    )


def test_two_lines_that_were_left_out() -> None:
    said = first(BUILT_IN.replace("    movq    %cr3, %rax\n    movq    %rax, %cr3\n", ""))
    assert "`movq %cr3, %rax` and `movq %rax, %cr3` (built_in.S:10 of the built-in stub) are missing between" in said


def test_a_line_that_was_added() -> None:
    said = first(BUILT_IN.replace("    ret\n", "    std\n    ret\n"))
    assert said == (
        "departs from the built-in stub at N 107: my.S:12 `std` is not in the built-in stub, "
        "after my.S:11 `movq %rax, %cr3`"
    )


def test_a_line_that_was_changed() -> None:
    said = first(BUILT_IN.replace("$0x200", "$0x1ff"))
    assert said == (
        "departs from the built-in stub at N 100: my.S:3 `movl $0x1ff, %ecx` where the built-in stub has "
        "`movl $0x200, %ecx` (built_in.S:3)"
    )


def test_a_line_that_was_moved() -> None:
    said = first(BUILT_IN.replace("    cld\n    rep movsq\n", "    rep movsq\n    cld\n"))
    assert "`cld` (built_in.S:4 of the built-in stub) is missing between" in said
    assert said.endswith("; it comes later, at my.S:5")


def test_a_branch_that_went_the_other_way() -> None:
    mine = record(BUILT_IN, without=("never",))
    said = departure.first(mine, record(BUILT_IN, "built_in.S"))
    assert said == (
        "departs from the built-in stub at N 105: after my.S:7 `jz even` it is at my.S:8 `incl %eax`, "
        "the built-in stub at `movq %cr3, %rax`"
    )


def test_a_symbol_with_another_value_is_seen_although_the_lines_are_the_same() -> None:
    source = BUILT_IN.replace("$0x200", "$COUNT")
    mine, theirs = (f".set COUNT, {value}{source}" for value in ("0x1ff", "0x200"))
    said = departure.first(record(mine), record(theirs, "built_in.S"))
    assert said.startswith("departs from the built-in stub at N 100: my.S:3 `movl $COUNT, %ecx` is `movl $0x1ff, %ecx`")
    assert said.endswith("`movl $0x200, %ecx` in the built-in stub")


def test_a_stub_that_ends_early() -> None:
    said = departure.first(record(BUILT_IN)[:3], record(BUILT_IN, "built_in.S"))
    assert said == (
        "the built-in stub goes on with built_in.S:6 `testl $1, %eax` where this one ends, after my.S:5 `rep movsq`"
    )


def test_a_stub_without_lines_is_compared_by_its_instructions() -> None:
    mine = BUILT_IN.replace("    ret\n", "    std\n    ret\n")
    said = first(mine, lines=False)
    assert "`std` is not in the built-in stub, after" in said
    assert first(BUILT_IN, lines=False) == ""


def test_where_the_stub_lies_makes_no_difference_to_its_instructions() -> None:
    source = "entry:\n\tleaq entry(%rip), %rax\n\tcall entry\n\tmovl $0x5004, %ecx\n"
    moved = "entry:\n\tnop\n" + source.split("\n", 1)[1]
    codes = [[step.code for step in record(text, lines=False)] for text in (source, moved)]
    assert codes[0] == [code for code in codes[1] if code != "nop"]


def test_a_stub_that_is_another_one_altogether_is_not_compared() -> None:
    other = "entry:\n\txorl %eax, %eax\n\tmovl %eax, %ebx\n\tmovl %ebx, %edx\n\tnop\n\tnop\n"
    assert first(other) == ""


@pytest.mark.parametrize("records", [([], "built"), ("mine", [])])
def test_without_a_record_nothing_is_said(records: tuple[object, object]) -> None:
    mine, theirs = (record(BUILT_IN) if isinstance(one, str) else [] for one in records)
    assert departure.first(mine, theirs) == ""
