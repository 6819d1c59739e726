"""Properties of the assembler that hold for any text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from emu.assembler import Image, assemble_text, decode_one
from emu.errors import AssemblyError

TEXT = (
    "mov movl add incl jmp call lea push pop ret rep lock .byte .long .if .endif .macro .endm .rept .endr .set .org "
    ".skip .balign .ascii .include .code16 .code64 1: 1b 1f x x: %eax %rax %al $1 $x 4(%rax) (%rax,%rbx,8) * , ; # \n "
    "\" ' \\ ( ) 0x10 010 -1 1<<40 == = . .else .irp \\x %st(1) %gs:0 /* */ // {"
)
WORDS = TEXT.split(" ")


def image_or_error(text: str) -> Image | AssemblyError:
    try:
        return assemble_text(text, org=0x1000)
    except AssemblyError as error:
        return error


@given(st.lists(st.sampled_from(WORDS), max_size=40))
@settings(max_examples=400, deadline=None)
def test_any_text_gives_an_image_or_an_assembly_error(words: list[str]) -> None:
    text = " ".join(words)
    outcome = image_or_error(text)
    if isinstance(outcome, AssemblyError):
        assert (outcome.line >= 1, outcome.what != "") == (True, True)
    else:
        assert sum(line.size for line in outcome.lines) <= len(outcome.code)


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_characters_give_an_image_or_an_assembly_error(text: str) -> None:
    outcome = image_or_error(text)
    assert (outcome.file if isinstance(outcome, AssemblyError) else outcome.name) == "<text>"


@given(st.lists(st.integers(-(1 << 63), (1 << 64) - 1), min_size=1, max_size=20), st.integers(0, 1 << 40))
def test_numbers_come_out_as_they_went_in(numbers: list[int], org: int) -> None:
    text = "\n".join(f".quad {number}" for number in numbers)
    code = assemble_text(text, org=org).code
    assert code == b"".join((number % (1 << 64)).to_bytes(8, "little") for number in numbers)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 150)), min_size=1, max_size=25))
@settings(deadline=None)
def test_branches_reach_their_targets_wherever_they_are(steps: list[tuple[bool, int]]) -> None:
    rows = [
        f"l{number}: {'jmp' if jump else 'jne'} l{(number * 7 + 3) % len(steps)}\n.skip {gap}, 0x90"
        for number, (jump, gap) in enumerate(steps)
    ]
    image = assemble_text("\n".join(rows))
    for number in range(len(steps)):
        start = image.symbols[f"l{number}"]
        found = decode_one(image.code[start:], start, 64)
        target = image.symbols[f"l{(number * 7 + 3) % len(steps)}"]
        assert int(found.operands, 16) == target
        distance = target - (start + 2)
        assert found.size > 2 or -128 <= distance <= 127
