"""Those who interfere or watch from outside notice what they are there to notice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emu import resources
from emu.errors import ImageError
from emu.suite.claim_file import read_header
from emu.suite.coverage import Coverage
from emu.suite.modes import Mode
from emu.suite.runner import Runner
from emu.suite.stubs import stubs_for
from emu.suite.verdict import Verdict

HEADER = (
    "# A topic.\n# modes: {mode}\n# stubs: relocate_new_kernel\n"
    "# may change: ax cx dx si di r8 r9 r10 r11 stack context swap cs ss ds es idtr\n"
    '.include "claims.inc"\n.include "stubs.inc"\n'
)
JUMP = " call_relocate $IND_DONE, $peer, $RELOCATE_PRESERVE_CONTEXT\nholds\npeer: {} ret\n"
Drive = Callable[..., Verdict]


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    """Run one claim about a stub, of which texts are replaced first."""

    def run(
        body: str, *changes: tuple[str, str], mode: Mode = Mode.X86_64, coverage: Coverage | None = None
    ) -> Verdict:
        path = tmp_path / "mine.S"
        path.write_text(HEADER.format(mode=mode) + body)
        given = []
        if changes:
            folder = "x86_64" if mode.bits == 64 else "i386"
            text = (resources.asm_dir() / folder / "relocate_new_kernel.S").read_text()
            for old, new in changes:
                assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
                text = text.replace(old, new)
            given = [tmp_path / "stub.S"]
            given[0].write_text(text)
        file = read_header(path)
        runner = Runner(file, mode, stubs_for(mode, given)[0], coverage=coverage)
        (claim,) = file.claims(mode)
        verdict = runner.run(claim)
        runner.close()
        return verdict

    return run


def test_an_unknown_driver_is_an_error(drive: Drive) -> None:
    with pytest.raises(ImageError, match="nobody drives claims by 'nonsense'"):
        drive('claim x, "", , "nonsense"\nholds\n')


def test_a_stack_that_changes_in_two_steps_is_noticed_by_an_nmi(drive: Drive) -> None:
    body = (
        'claim survives, "", , "nmi 90"\n call catch_faults\n movl $nmi, %eax\n movl $idt, %edi\n movw %ax, 16(%edi)\n'
        + JUMP.format("")
        + "nmi: iretl\n"
    )
    assert drive(body, mode=Mode.I386).problems == ()
    two_steps = ("    leal    PAGE_SIZE(%esi), %esp\n", "    movl    %esi, %esp\n    addl    $PAGE_SIZE, %esp\n")
    bad = drive(body, two_steps, mode=Mode.I386)
    assert any("p:0x3fff4" in problem for problem in bad.problems)


def test_more_fatal_boundaries_than_allowed_are_noticed(drive: Drive) -> None:
    verdict = drive(f'claim survives, "", , "nmi 3"\n{JUMP.format("")}')
    assert any("more than 3" in problem for problem in verdict.problems)


PIC_SETUP = ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0))
BEFORE_THE_PAGES_MOVE = "caches_coherent:\n"


def test_interrupts_turned_on_are_noticed_by_an_irq(drive: Drive) -> None:
    init = "".join(f" movb ${value}, %al\n outb %al, ${port}\n" for port, value in PIC_SETUP)
    body = f'claim waits, "", , "irq"\n{init}{JUMP.format("")}'
    assert drive(body).problems == ()
    sti = (BEFORE_THE_PAGES_MOVE, f"{BEFORE_THE_PAGES_MOVE}    sti\n    nop\n    cli\n")
    assert drive(body, sti).problems != ()


def test_the_console_is_compared_with_addresses_put_in(drive: Drive) -> None:
    body = 'claim says, "", , "says rip {{at+1}} cr2"\n' + JUMP.format("at: int3;")
    assert drive(body.replace("{{", "{").replace("}}", "}")).problems == ()
    wrong = drive(body.replace("{{at+1}}", "{at+2}"))
    assert "the console does not say" in wrong.problems[0]


def test_a_stub_that_does_not_wait_for_the_transmitter_still_says_it(drive: Drive) -> None:
    body = 'claim says, "", , "says slowly vector 0000000000000003"\n' + JUMP.format("int3;")
    assert drive(body).problems == ()


def test_a_read_beyond_the_slot_is_noticed(drive: Drive) -> None:
    body = 'claim keeps_off, "", , "untouched after_swap"\n' + JUMP.format("{}")
    assert drive(body.format("")).problems == ()
    bad = drive(body.format("movq 16(%rsp), %rax;"))
    assert "reads p:0x43000" in bad.problems[0]


def test_how_often_an_instruction_is_executed_is_counted(drive: Drive) -> None:
    body = 'claim x, "", , "{}"\n' + JUMP.format("wbinvd;")
    assert drive(body.replace("{}", "executes wbinvd")).problems == ()
    assert drive(body.replace("{}", "never executes wbinvd")).problems != ()
    assert drive(body.replace("{}", "executes cpuid")).problems != ()


def test_a_post_code_is_asked_for(drive: Drive) -> None:
    body = 'claim x, "", , "posts 0x42"\n' + JUMP.format("{}")
    assert drive(body.replace("{}", "movb $0x42, %al; outb %al, $0x80;")).problems == ()
    assert drive(body.replace("{}", "")).problems != ()


def test_coverage_tells_what_was_executed_and_which_way_branches_went(drive: Drive) -> None:
    coverage = Coverage()
    drive("claim x\n" + JUMP.format(""), coverage=coverage)
    stub = next(one for path, one in coverage.stubs.items() if path.endswith("relocate_new_kernel.S"))
    missing = list(stub.missing())
    assert not stub.complete
    assert any("wbinvd  never executed" in line for line in missing)
    assert any("je" in line and "always taken" in line for line in missing)
    assert not any("lgdt" in line for line in missing)
    executed = len(stub.executed)
    assert f"{executed} of {len(stub.instructions)} instructions" in stub.summary()
