"""The rules by which a mutant does the same as the stub: what they let pass, and what they must not."""

from __future__ import annotations

import pytest

from emu.assembler import Image
from emu.errors import AssemblyError
from emu.mutation.equivalence import DEAD, INDEPENDENT, SAME_BYTES, equivalent
from emu.mutation.flow import Flow
from emu.mutation.mutants import Mutant, StubUnderTest
from emu.trials.stubs import StubSet


def rules_of(text: str, *, folder: str = "x86_64", line: int = 1) -> dict[tuple[str, str], str]:
    """By (kind, new text): the rule for each mutant of one line of a stub that is ``text``."""
    under_test = StubUnderTest(StubSet(folder, {"relocate_new_kernel": text}), "relocate_new_kernel")
    flow = Flow("relocate_new_kernel", under_test.image, under_test.lines)
    found = {}
    for mutant in under_test.mutants():
        image = _image(under_test, mutant)
        if mutant.line == line and image is not None:
            found[mutant.kind, mutant.new] = equivalent(mutant, under_test.image, image, flow)
    return found


def _image(under_test: StubUnderTest, mutant: Mutant) -> Image | None:
    try:
        return under_test.stubs.with_text(mutant.stub, under_test.text_of(mutant)).assembled(mutant.stub, 0)
    except AssemblyError:
        return None


def test_the_same_bytes_are_the_same() -> None:
    assert rules_of("nop\nxchg %eax, %eax\nret\n", folder="i386")["swap", "xchg %eax, %eax"] == SAME_BYTES


def test_a_register_that_is_written_before_it_is_read_is_dead() -> None:
    rules = rules_of("movl $1, %eax\nmovl $2, %eax\nmovq %rax, (%rbx)\nret\n")
    assert rules["drop", ""] == DEAD
    assert rules["constant", "movl $(1 + 1), %eax"] == DEAD
    assert rules["register", "movl $1, %ebx"] == ""  # rbx is read


@pytest.mark.parametrize(
    "text",
    [
        "movl $1, %eax\nmovq %rax, (%rbx)\nret\n",  # read
        "movl $1, %eax\nmovw $2, %ax\nmovq %rax, (%rbx)\nret\n",  # only a part is written again
        "movl $1, %eax\njz over\nmovl $2, %eax\nover: movq %rax, (%rbx)\nret\n",  # one way does not write it
        "movl $1, %eax\njmp *%rcx\n",  # who knows
        "movl $1, %eax\nret\n",  # the caller may read it
        "movq %rax, (%rbx)\nmovl $2, %eax\nmovl %eax, (%rbx)\nret\n",  # a store
        "movq (%rbx), %rax\nmovl $2, %eax\nret\n",  # may fault; to drop it is another matter
    ],
)
def test_a_register_that_may_be_read_is_not_dead(text: str) -> None:
    rules = rules_of(text)
    changed = {rule for (kind, _), rule in rules.items() if kind in ("register", "constant", "address")}
    assert DEAD not in changed


def test_a_return_of_a_called_routine_leads_behind_its_calls() -> None:
    text = "movl $1, %eax\nret\ncall {0}\nmovl $2, %eax\nmovq %rax, (%rbx)\nhlt\n"
    assert rules_of("f: " + text.format("f"))["drop", ""] == DEAD
    assert rules_of("f: " + text.format("f").replace("movl $2, %eax\n", ""))["drop", ""] == ""


def test_a_return_to_a_brings_what_a_call_may_count_on() -> None:
    text = "{}movl $1, {}\nret\n"
    assert rules_of(text.format("virtual_mapped: ", "%ecx"))["drop", ""] == DEAD
    assert rules_of(text.format("virtual_mapped: ", "%ebx"))["drop", ""] == ""
    assert rules_of(text.format("virtual_mapped: ", "%eax"))["drop", ""] == ""
    assert rules_of(text.format("identity_mapped: ", "%ecx"))["drop", ""] == ""  # the plain path: all of them are 0
    assert rules_of(text.format("virtual_mapped: ", "%esi"), folder="i386")["drop", ""] == ""


def test_flags_count_as_a_register() -> None:
    text = "cmpl %eax, %ebx\n{0}jz over\nnop\nover: movl $0, %eax\nhlt\n"
    assert rules_of(text.format("cmpl %ecx, %edx\n"))["drop", ""] == DEAD
    assert rules_of(text.format(""))["drop", ""] == ""


@pytest.mark.parametrize(
    "text",
    [
        "movl $1, %eax\nmovl $2, %ebx\nret\n",
        "movq %rax, 8(%rbx)\nmovq %rcx, (%rbx)\nret\n",
        "movq %rax, one(%rip)\nmovq %rcx, two(%rip)\nret\none: .quad 0\ntwo: .quad 0\n",
        "xorl %eax, %eax\nxorl %ebx, %ebx\nret\n",
        "movq %rcx, %cr3\nmovl $1, %eax\nret\n",
        "movl %eax, %ds\nmovl %eax, %es\nret\n",
        "movq %cr3, %rbx\nmovq (%rdx), %rax\nret\n",
        "movq %rax, %cr3\nmovq %cr4, %rbx\nret\n",
        "stosb\ndecl %ecx\nret\n",
        "cld\npushq %rax\nret\n",
        "popfq\nmovq %rbx, %rax\nret\n",
        "lgdt (%rbx)\nmovq 16(%rbx), %rax\nret\n",
        "sgdt 16(%rbx)\nmovq %rax, 8(%rbx)\nret\n",
    ],
)
def test_independent_neighbours_may_change_places(text: str) -> None:
    assert next(rule for (kind, _), rule in rules_of(text).items() if kind == "swap") == INDEPENDENT


def swap_beside_branch(taken: str) -> str:
    text = f"jz away\nmovl $1, %eax\nmovl %eax, (%rbx)\nhlt\naway: {taken}\nhlt\n"
    return rules_of(text)["swap", "movl $1, %eax"]


def test_a_branch_and_a_register_that_is_dead_where_it_leads_may_change_places() -> None:
    assert swap_beside_branch("xorl %eax, %eax\nmovl %eax, (%rbx)") == INDEPENDENT
    assert swap_beside_branch("movl %eax, (%rbx)") == ""
    flags = "jz away\nincl %eax\nmovl %eax, (%rbx)\nhlt\naway: xorl %eax, %eax\nmovl %eax, (%rbx)\nhlt\n"
    assert rules_of(flags)["swap", "incl %eax"] == ""  # the branch would see other flags


@pytest.mark.parametrize(
    "text",
    [
        "movl $1, %eax\nmovl %eax, %ebx\nret\n",  # the second reads what the first writes
        "movl %eax, %ebx\nmovl $1, %eax\nret\n",  # the other way round
        "movl $1, %eax\nmovl $2, %eax\nret\n",  # both write
        "movq %rax, 4(%rbx)\nmovq %rcx, (%rbx)\nret\n",  # they overlap
        "movq %rax, (%rdx)\nmovq %rcx, (%rbx)\nret\n",  # who knows
        "movq %rax, (%rbx,%rdx)\nmovq %rcx, 64(%rbx)\nret\n",
        "pushq %rax\npushq %rbx\nret\n",
        "addl %eax, %ebx\naddl %ecx, %edx\nret\n",  # the flags of the last one are read, perhaps
        "movq %rcx, %cr3\nmovq (%rbx), %rax\nret\n",  # other translations
        "movq %rcx, %cr3\nmovq %rax, %cr4\nret\n",
        "popfq\naddl $1, %eax\nret\n",
        "popfq\npopq %rax\nret\n",
        "lgdt (%rbx)\nmovl %eax, %ds\nret\n",
        "cld\nlodsb\nret\n",
        "sgdt 16(%rbx)\nmovq %rax, 24(%rbx)\nret\n",
        "movq %cr3, %rbx\nmovq %rax, %cr3\nret\n",
        "movl %eax, %ebx\nret\n",  # control leaves
    ],
)
def test_neighbours_that_depend_on_each_other_may_not(text: str) -> None:
    assert next(rule for (kind, _), rule in rules_of(text).items() if kind == "swap") == ""


def test_in_32_bit_code_a_segment_load_and_an_access_may_not() -> None:
    text = "movl %eax, %ds\nmovl (%ebx), %ecx\nret\n"
    assert rules_of(text, folder="i386")["swap", "movl (%ebx), %ecx"] == ""
