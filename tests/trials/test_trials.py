"""The trials: the stubs as they are pass each, and what each is for makes it fail."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from emu.trials.registry import all_trials
from emu.trials.stubs import StubSet
from emu.trials.trial import Trial, run_trial

TRIALS = all_trials()
STUBS = {folder: StubSet(folder) for folder in ("i386", "x86_64")}


@pytest.mark.parametrize("trial", TRIALS.values(), ids=list(TRIALS))
def test_the_stubs_pass(trial: Trial) -> None:
    assert run_trial(trial, STUBS[trial.folder]) == []


@dataclass(frozen=True)
class Break:
    """A trial that fails when ``old`` in the stub is ``new``, and what it then says."""

    trial: str
    old: str
    new: str
    says: str = ""
    stub: str = "relocate_new_kernel"


BREAKS = (
    Break("plain x86_64", "    xorl    %r9d, %r9d\n", "", "r9: "),
    Break("preserve i386", "    leal    PAGE_SIZE(%eax), %esp ", "    nop #", "stack pointer: "),
    Break("spoiled x86_64", "    lgdt    saved_gdt(%rip)", "    nop #", "gdtr.base: "),
    Break("serialised x86_64", "    movq    %rax, %cr3                          # what", "    nop #", "serialised"),
    Break("list ignored i386", "    testb   $IND_SOURCE, %cl\n", "    testb   $0x10, %cl\n", "memory at p:"),
    Break("slot x86_64", "    popq    %rbp                                #", "    leaq 1(%rbp), %rbp #"),
    Break("caches x86_64", "    wbinvd ", "    nop # ", "WBINVD with flags 0x2"),
    Break("entries x86_64", "    movq    %rax, %dr7", "    nop #", stub="jump_entry"),
    Break("entries i386", "    lidt    no_table  ", "    nop #", "IDTR: ", "jump_entry"),
    Break("spoiled i386", "    lidt    no_table -", "    nop #", "IDTR: "),
    Break("purgatory plain i386", "    xorl    %ebx, %ebx\n", "", "rbx: ", stub="purgatory"),
    Break("breakpoint x86_64", "    popq    %rdi\n    popq    %rsi\n", "    popq    %rsi\n    popq    %rdi\n", "rdi: "),
    Break("exceptions x86_64", "    jz      transmitter_busy\n", "", "while the transmitter was busy"),
    Break("restores i386", "    movl    $RETURN_RESUMED, %ebp\n", "", "returned value: "),
    Break("unchanged code i386", "    movl    %edi, load_own_page + 1 -", "    incb load_own_page + 4 -", "code: "),
    Break(
        "linked elsewhere x86_64", "    leaq    gdt(%rip), %rax ", "    movabsq $gdt, %rax ", "bytes of", "purgatory"
    ),
)


@pytest.mark.parametrize("how", BREAKS, ids=lambda how: how.trial)
def test_a_broken_stub_fails(how: Break) -> None:
    trial = TRIALS[how.trial]
    stubs = STUBS[trial.folder]
    text = stubs.source(how.stub)
    assert text.count(how.old) == 1
    wrong = run_trial(trial, stubs.with_text(how.stub, text.replace(how.old, how.new)))
    assert wrong
    assert how.says in "; ".join(wrong)


def test_the_bench_forgets_a_broken_stub() -> None:
    trial = TRIALS["plain x86_64"]
    stubs = STUBS["x86_64"]
    words = ("kexec_va_control_page", "kexec_pa_table_page", "kexec_pa_swap_page", "saved_context")
    endless = "relocate_new_kernel: jmp relocate_new_kernel\n" + "".join(f"{name}: .quad 0\n" for name in words)
    assert "StepLimit" in run_trial(trial, stubs.with_text("relocate_new_kernel", endless))[0]
    assert run_trial(trial, stubs) == []
