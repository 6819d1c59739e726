"""Claims that do not hold, in every way in which a claim can fail, are noticed and say where."""

from __future__ import annotations

from pathlib import Path

import pytest

from emu.errors import ImageError
from emu.suite.claim_file import read_header
from emu.suite.modes import Mode
from emu.suite.runner import run_file
from emu.suite.stubs import stubs_for
from emu.suite.verdict import Verdict

HEADER = '# A topic.\n#\n# modes:       {modes}\n# may change:  ax stack\n\n.include "claims.inc"\n'


def verdicts(folder: Path, body: str, modes: str = "32", stubs: str = "") -> list[Verdict]:
    path = folder / "mine.S"
    header = HEADER.format(modes=modes)
    if stubs:
        header = header.replace("# may", f"# stubs: {stubs}\n# may") + '.include "stubs.inc"\n'
    path.write_text(header + body)
    file = read_header(path)
    return run_file(file, stubs_for(file.modes[0], [])[0])


def only(folder: Path, body: str, modes: str = "32") -> Verdict:
    (verdict,) = verdicts(folder, body, modes)
    return verdict


@pytest.mark.parametrize("mode", list(Mode))
def test_a_claim_that_holds_says_so_everywhere(mode: Mode, tmp_path: Path) -> None:
    verdict = only(tmp_path, "claim one_is_one\n movl $1, %eax\n phase 0x42\n equall $1, %eax\nholds\n", mode)
    assert (verdict.word, verdict.problems) == ("PASS", ())
    assert verdict.console == "PASS one_is_one\n"
    assert verdict.posted == (0x42, 0xAA)


@pytest.mark.parametrize("mode", list(Mode))
def test_a_failed_assert_has_its_line_and_its_values(mode: Mode, tmp_path: Path) -> None:
    verdict = only(tmp_path, "claim one_is_two\n movl $1, %eax\n equall $2, %eax\nholds\n", mode)
    assert verdict.word == "FAIL"
    assert verdict.place.endswith("mine.S:9")
    assert verdict.problems == ("`equall $2, %eax` does not hold: %eax = 0x1",)
    assert verdict.console == "FAIL one_is_two\n"
    assert verdict.posted == (0xFF,)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("incl %ecx", "rcx: 0xa11a0111 -> 0xa11a0112"),
        ("std", "rflags: 0x2 -> 0x402"),
        ("movl $CODE32, %eax; movl $DATA, %eax; movl %eax, %fs; movl $0, %eax; movl %eax, %fs", "fs: 0x18 -> 0x0"),
        ("incl 0x120000", "p:0x120000: 00 -> 01"),
        ("incl object", "p:{object}: 00 -> 01"),
        ("movl %cr0, %eax; orl $CR0_TS, %eax; movl %eax, %cr0", "cr0: 0x11 -> 0x19"),
        ("fninit", "fcw: 0x40 -> 0x37f"),
    ],
)
def test_what_nobody_declared_must_not_change(code: str, problem: str, tmp_path: Path) -> None:
    verdict = only(tmp_path, f"claim nothing_changes\n {code}\nholds\nobject: .long 0\n")
    assert verdict.word == "FAIL"
    if "{object}" in problem:
        problem = verdict.problems[0]
        assert problem.startswith("p:0x8")
    assert problem in verdict.problems


def test_a_claim_declares_objects_pages_and_registers(tmp_path: Path) -> None:
    body = 'claim a_lot_changes, "cx object far+4"\n incl %ecx; incl object; incl 0x120000; incl %ecx\nholds\n'
    body += ".set FAR_PAGE, 0x120000\nobject: .long 0\nbeside: .long 0\n"
    assert only(tmp_path, body).word == "PASS"
    beside = only(tmp_path, body.replace("incl object", "incl beside"))
    assert len(beside.problems) == 1
    further = only(tmp_path, body.replace("incl 0x120000", "incl 0x120004"))
    assert further.problems == ("p:0x120004: 04 -> 05",)


def test_a_word_that_means_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nonsense is no register, page or object"):
        only(tmp_path, 'claim x, "nonsense"\nholds\n')


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("ud2", "a triple fault at x"),
        ("hlt", "a halt at x"),
        ("jmp .", "no end in sight"),
        ("never", "`never` does not hold"),
        ("movl 0xa0000, %eax", "hole at x"),
    ],
)
def test_a_claim_that_does_not_come_to_its_end_says_how(
    code: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emu.suite.runner.TICK_LIMIT", 100_000)
    verdict = only(tmp_path, f"claim x\n {code}\nholds\n")
    assert verdict.word == "FAIL"
    assert problem in verdict.problems[0]


def test_another_end_can_be_what_is_claimed(tmp_path: Path) -> None:
    body = "claim it_dies, , {}\n {}\nholds\nhere: hlt\n"
    assert only(tmp_path, body.format('"triple fault"', "ud2")).word == "PASS"
    assert only(tmp_path, body.format('"halt at here"', "jmp here")).word == "PASS"
    wrong = only(tmp_path, body.format('"halt at here"', "hlt"))
    assert "the halt is at it_dies" in wrong.problems[0]
    assert only(tmp_path, body.format('"triple fault"', "hlt")).word == "FAIL"
    assert only(tmp_path, body.format('"triple fault"', "incl 0x120000; ud2")).word == "FAIL"


def test_an_expected_failure_is_one_and_holding_it_is_too_much(tmp_path: Path) -> None:
    body = 'claim x, xfail="known"\n {}\nholds\n'
    assert only(tmp_path, body.format("never")).word == "XFAIL"
    assert only(tmp_path, body.format("never")).console == "XFAIL x\n"
    assert only(tmp_path, body.format("nop")).word == "XPASS"


def test_each_claim_begins_in_a_fresh_machine(tmp_path: Path) -> None:
    body = "claim {}, data\n equall $5, data\n movl $6, data\nholds\n"
    found = verdicts(tmp_path, f"{body.format('first')}{body.format('second')}data: .long 5\n")
    assert [one.word for one in found] == ["PASS", "PASS"]


@pytest.mark.parametrize("mode", list(Mode))
def test_exceptions_are_caught_and_one_that_nobody_waits_for_fails(mode: Mode, tmp_path: Path) -> None:
    changes = '"cx di idtr ivt"'
    body = f"claim it_faults, {changes}\n call catch_faults\n raises 6, 0, ud2\n traps 3, 0, int3\nholds\n"
    assert only(tmp_path, body, mode).problems == ()
    body = f"claim it_does_not, {changes}\n call catch_faults\n raises 6, 0, nop\nholds\n"
    assert only(tmp_path, body, mode).word == "FAIL"
    body = f"claim nobody_waits, {changes}\n call catch_faults\n ud2\nholds\n"
    assert only(tmp_path, body, mode).word == "FAIL"


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode.arch])
def test_a_stub_is_called_on_page_tables_as_a_kernel_has_them(mode: Mode, tmp_path: Path) -> None:
    body = "claim it_returns, {}\n call_relocate $IND_DONE, $peer, $RELOCATE_PRESERVE_CONTEXT\nholds\npeer: {} ret\n"
    changes = '"cx dx si di r8 r9 r10 r11 control swap ss ds es cs idtr"'
    good = body.format(changes, "")
    assert [one.word for one in verdicts(tmp_path, good, mode, "relocate_new_kernel")] == ["PASS"]
    (bad,) = verdicts(tmp_path, body.format(changes, "incl 0x120000;"), mode, "relocate_new_kernel")
    assert bad.problems == ("p:0x120000: 00 -> 01",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# nothing\n", "names no modes"),
        ("# x\n# modes: 31\n", "no mode is called 31"),
        ("# x\n# modes: i386\n# stubs: relocate\n", "no stub is called relocate"),
        ('# x\n# modes: 32\n.include "claims.inc"\n', "has no claim"),
    ],
)
def test_a_file_that_is_no_claim_file_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.S"
    path.write_text(text)
    with pytest.raises(ImageError, match=complaint):
        run_file(read_header(path), {})


def test_a_header_goes_on_over_lines(tmp_path: Path) -> None:
    path = tmp_path / "mine.S"
    path.write_text("# A topic.\n#\n# modes:       16, 32\n#              x86_64\n# may change:  ax\n#   none: so\n")
    file = read_header(path)
    assert file.topic == "A topic"
    assert file.modes == (Mode.REAL, Mode.FLAT, Mode.X86_64)
    assert file.changes == ("ax",)
