"""Stubs broken by hand, one way each: one finding, which names the line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from emu.journey.journey import Journey
from emu.journey.result import RunResult
from emu.journey.scene import Scene
from emu.kexec.arch import Arch

STUB, ENTRY = "relocate_new_kernel.S", "jump_entry.S"


@dataclass(frozen=True)
class Break:
    """One way to break a stub: ``says`` are texts that the evidence must have, ``kind`` is the check that it fails."""

    old: str
    new: str
    kind: str
    says: tuple[str, ...]
    file: str = STUB


B64 = {
    "no CR3 reload after the swap": Break(
        "    movq    %cr3, %rax                          # serialise: code has changed under our feet, and drop\n"
        "    movq    %rax, %cr3                          # what was cached of tables that have moved\n",
        "",
        "unserialised code",
        ("`movq %cr3, %rax` and `movq %rax, %cr3` (relocate_new_kernel.S:", "are missing between my_", "`ret`"),
    ),
    "one page skipped": Break(
        "    movq    %rcx, %rsi\n    andq    $-PAGE_SIZE, %rsi\n",
        "    movq    %rcx, %rsi\n    andq    $-PAGE_SIZE, %rsi\n    cmpl    $0x90000, %edi\n    je      next_entry\n",
        "memory",
        ("`cmpl $0x90000, %edi`", "not in the built-in stub", "list entry 145 of 671", "nothing stored to page p:0x9"),
    ),
    "one byte beyond the swap page": Break(
        "    movq    %rdx, %rsi                          # destination -> source\n",
        "    movb    $0x55, (%rdi)\n    movq    %rdx, %rsi                          # destination -> source\n",
        "memory",
        ("`movb $0x55, (%rdi)` is not in the built-in stub", "last store to page ", "no list entry"),
    ),
    "return with DF set": Break(
        "    popq    %rbp\n    popq    %rbx\n    ret\n",
        "    popq    %rbp\n    popq    %rbx\n    std\n    ret\n",
        "registers",
        ("`std` is not in the built-in stub",),
    ),
    "a callee-saved register wrong": Break(
        "    popfq\n    popq    %r15\n    popq    %r14\n",
        "    popfq\n    popq    %r14\n    popq    %r15\n",
        "registers",
        ("`popq %r15` (relocate_new_kernel.S:", "is missing between my_", "it comes later, at my_"),
    ),
    "a jump page field clobbered": Break(
        "    call    *je_relocate(%rip)",
        "    incl    entry_page + PAGE_SIZE + 0x48(%rip)\n    call    *je_relocate(%rip)",
        "owner violation",
        ("`incl entry_page + PAGE_SIZE + 0x48(%rip)` is not in the built-in stub", "stored by ", "/my_jump_entry.S:"),
        ENTRY,
    ),
    "a wrong GDT on return": Break(
        "    lgdt    saved_gdt(%rip)                     # A is about to load selectors of its own\n",
        "",
        "registers",
        ("`lgdt saved_gdt(%rip)` (relocate_new_kernel.S:", "is missing between my_"),
    ),
    "entry + 1": Break(
        "    call    *%rdx\n",
        "    incq    %rdx\n    call    *%rdx\n",
        "wrong entry",
        ("`incq %rdx` is not in the built-in stub", "it is +0x1 from where it should be"),
    ),
}

B32 = {
    "no CR3 reload after the swap": Break(
        "    xorl    %eax, %eax                          # serialise: code has changed under our feet\n"
        "    movl    %eax, %cr3\n",
        "",
        "unserialised code",
        ("`xorl %eax, %eax` and `movl %eax, %cr3` (relocate_new_kernel.S:", "are missing between my_", "`ret`"),
    ),
    "one page skipped": Break(
        "    movl    %ecx, %esi\n    andl    $-PAGE_SIZE, %esi\n",
        "    movl    %ecx, %esi\n    andl    $-PAGE_SIZE, %esi\n    cmpl    $0x90000, %edi\n    je      next_entry\n",
        "memory",
        ("`cmpl $0x90000, %edi`", "not in the built-in stub", "list entry 145 of 671", "nothing stored to page p:0x9"),
    ),
    "one byte beyond the swap page": Break(
        "    movl    %edx, %esi                          # destination -> source\n",
        "    movb    $0x55, (%edi)\n    movl    %edx, %esi                          # destination -> source\n",
        "memory",
        ("`movb $0x55, (%edi)` is not in the built-in stub", "last store to page ", "no list entry"),
    ),
    "return with DF set": Break(
        "    popl    %esi\n    popl    %ebx\n    ret\n",
        "    popl    %esi\n    popl    %ebx\n    std\n    ret\n",
        "registers",
        ("`std` is not in the built-in stub",),
    ),
    "a callee-saved register wrong": Break(
        "    popfl\n    popl    %ebp\n    popl    %edi\n    popl    %esi\n",
        "    popfl\n    popl    %ebp\n    popl    %esi\n    popl    %edi\n",
        "registers",
        ("`popl %edi` (relocate_new_kernel.S:", "is missing between my_", "it comes later, at my_"),
    ),
    "a jump page field clobbered": Break(
        "    call    *je_relocate",
        "    incl    entry_page + PAGE_SIZE + 0x48\n    call    *je_relocate",
        "owner violation",
        ("`incl entry_page + PAGE_SIZE + 0x48` is not in the built-in stub", "stored by ", "/my_jump_entry.S:"),
        ENTRY,
    ),
    "a wrong GDT on return": Break(
        "    lgdt    CONTROL_GDTR(%edi)                  # A is about to load selectors of its own\n",
        "    lgdt    CONTROL_ESP(%edi)\n",
        "registers",
        ("`lgdt CONTROL_ESP(%edi)` where the built-in stub has `lgdt CONTROL_GDTR(%edi)`",),
    ),
    "entry + 1": Break(
        "    call    *%edx\n",
        "    incl    %edx\n    call    *%edx\n",
        "wrong entry",
        ("`incl %edx` is not in the built-in stub", "it is +0x1 from where it should be"),
    ),
}

# The same sources serve two architectures each: all breaks on one of them, on the other those that paging changes.
PAGING = ("no CR3 reload after the swap", "a wrong GDT on return")
CASES = [
    pytest.param(arch, name, id=f"{arch}-{name}")
    for arch, names in (
        (Arch.X86_64, tuple(B64)),
        (Arch.I386, tuple(B32)),
        (Arch.X86_64_LA57, PAGING),
        (Arch.I386_PAE, PAGING),
    )
    for name in names
]


@pytest.mark.parametrize(("arch", "name"), CASES)
def test_a_broken_stub_gives_one_finding_that_names_the_line(
    arch: Arch, name: str, scene_of: Callable[..., Scene], changed_stub: Callable[..., Path]
) -> None:
    how = (B64 if arch.bits == 64 else B32)[name]
    stub = changed_stub(arch, how.file, (how.old, how.new))
    result: RunResult = Journey(scene_of(arch, stubs=(stub,))).run()
    assert not result.ok
    assert len(result.findings) == 1
    finding = result.findings[0]
    assert finding.kind == how.kind
    evidence = "\n".join(finding.because)
    for text in how.says:
        assert text in evidence
    assert "departs from the built-in stub at N " in finding.because[0]
    assert f"{stub.name}:" in finding.because[0]
