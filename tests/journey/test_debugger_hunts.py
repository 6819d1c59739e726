"""One command of the debugger, from the finding of each broken stub, names the instruction to blame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emu.debugger.address import Address
from emu.debugger.session import Session
from emu.journey.findings import Finding
from emu.journey.scene import Scene
from emu.kexec.arch import Arch
from tests.journey.test_broken_stubs import B64

# What to ask at the finding ("" is who-wrote at its address, else a register), and the line that the answer must name.
# Where a line is missing, or a page was not moved, the answer is what came last in its place.
ANSWERS = {
    "no CR3 reload after the swap": ("$cr3", "movq %rax, %cr3"),
    "one page skipped": ("", ""),
    "one byte beyond the swap page": ("", "movb $0x55, (%rdi)"),
    "return with DF set": ("$rflags", "std"),
    "a callee-saved register wrong": ("$r14", "popq %r14"),
    "a jump page field clobbered": ("", "incl entry_page + PAGE_SIZE + 0x48(%rip)"),
    "a wrong GDT on return": ("$gdtr.base", "lgdt (%rsp)"),
    "entry + 1": ("$rdx", "incq %rdx"),
}


def blamed(session: Session, finding: Finding, ask: str) -> str:
    assert finding.position is not None
    session.goto(*finding.position)
    if ask:
        return session.symbols.place(session.who_changed(ask).pc).source
    assert finding.address is not None
    session.step()  # past the store itself, where the finding stands on one
    record = session.who_wrote(Address(finding.address, physical=True))
    return session.symbols.place(record.pc).source


@pytest.mark.parametrize("name", B64)
def test_one_command_names_the_culprit(
    name: str, scene_of: Callable[..., Scene], changed_stub: Callable[..., Path]
) -> None:
    how = B64[name]
    stub = changed_stub(Arch.X86_64, how.file, (how.old, how.new))
    session = Session(scene_of(Arch.X86_64, stubs=(stub,)))
    findings = session.journey.result.findings
    assert len(findings) == 1
    ask, line = ANSWERS[name]
    source = blamed(session, findings[0], ask)
    assert (line in source) if line else ("rep movsq" not in source)
    session.machine.close()
