"""The prompt on one recorded jump: gdb's words, cmd2's traps, errors, Enter, Ctrl-C, scripts, pipes."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emu.debugger import main as debug
from emu.debugger.main import DebugOptions, debug_main
from emu.debugger.repl import Repl, history_file
from emu.debugger.session import Session
from emu.errors import DebuggerError
from emu.machine.history import Instant

from .conftest import small_scene

PIPED = """
from emu.debugger.main import DebugOptions, debug_main
from emu.journey.scene import find_journey, make_scene
raise SystemExit(debug_main(make_scene(find_journey("jump"), ram="24M", target="2M@16M"), DebugOptions(at="suspend")))
"""


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(small_scene())


@pytest.fixture
def repl(session: Session) -> Iterator[Repl]:
    session.stops.stops.clear()
    session.goto_transition("suspend")
    yield Repl(session, stdin=io.StringIO(), stdout=io.StringIO())
    while session.changes:
        session.undo()


def said(repl: Repl, *lines: str) -> str:
    return "".join(repl.output_of(line) for line in lines)


def place(session: Session) -> Instant:
    return session.timeline.now


# ---- gdb's words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["si", "s", "stepi", "step", "iter", "ni", "n", "nexti"])
def test_one_forward_and_one_back(repl: Repl, line: str) -> None:
    here = place(repl.session)
    assert "relocate_new_kernel+0x1" in said(repl, line)
    assert place(repl.session) == Instant(here.tick + 1, here.deliveries)
    said(repl, "rsi")
    assert place(repl.session) == here


def test_counts_are_expressions(repl: Repl) -> None:
    n = repl.session.position.n
    said(repl, "si 1 + 2")
    assert repl.session.position.n == n + 3
    assert "0 is no number of times" in said(repl, "si 0")
    said(repl, "undo")
    assert repl.session.position.n == n


def test_breakpoints_conditions_and_counts(repl: Repl) -> None:
    assert "1    break swap_pages" in said(repl, "b swap_pages if $rcx >= 0 && 1 < 2 | 4")
    assert "stop: breakpoint 1 at swap_pages" in said(repl, "c")
    assert "hit 1 time" in said(repl, "i b")
    assert "disabled" in said(repl, "disable 1", "info breakpoints")
    assert "ignores 2 more" in said(repl, "enable 1", "ignore 1 2")
    assert "if $rax == 1" in said(repl, "condition 1 $rax == 1")
    assert "if" not in said(repl, "condition 1")
    assert "no breakpoints" in said(repl, "d", "i b")
    assert "no breakpoint" in said(repl, "delete 1")


def test_a_temporary_breakpoint_goes_when_it_was_met(repl: Repl) -> None:
    assert "temporary" in said(repl, "tb identity_mapped")
    assert "identity_mapped" in said(repl, "c")
    assert repl.session.stops.stops == {}


def test_watching_forwards_and_backwards(repl: Repl) -> None:
    here = place(repl.session)
    assert "8 bytes" in said(repl, "watch $rsp - 8 8", "c")
    assert "watchpoint" in said(repl, "rc")
    assert place(repl.session) == here
    assert "cannot be watched" in said(repl, "watch $rsp 99999")


def test_code_is_met_wherever_it_is_mapped(repl: Repl) -> None:
    assert "breakpoint" in said(repl, "xwatch swap_pages 16", "c")
    assert "swap_pages" in said(repl, "info where")
    here = place(repl.session)
    assert "identity_mapped" in said(repl, "d", "goto transition suspend", "until identity_mapped")
    assert place(repl.session) < here
    assert repl.session.stops.stops == {}


def test_catching_a_control_register(repl: Repl) -> None:
    assert "cr3 0x" in said(repl, "catch control cr3", "c")
    assert "one of mode, control" in said(repl, "catch weather")


def test_goto_and_transitions(repl: Repl) -> None:
    n = repl.session.position.n
    said(repl, f"goto {n + 5:,}")
    assert repl.session.position.n == n + 5
    assert "return B->A" in said(repl, "transition")
    assert "no transition begins after here" in said(repl, "transition")
    assert "suspend A->B" in said(repl, "goto transition suspend")
    assert said(repl, "goto start", "info where").count("N 0") >= 1
    assert "the instruction at N" in said(repl, "goto 5.3")
    assert "no transition moon was reached" in said(repl, "goto transition moon")


def test_printing(repl: Repl) -> None:
    assert said(repl, "p 1 + 2 * 3") == "0x7\n"
    assert said(repl, "p/d -5") == "-5\n"
    assert said(repl, "p -1") == "0xffffffffffffffff\n"
    assert said(repl, "p/t 5", "p/c 65", "p/a swap_pages").splitlines()[:2] == ["101", "65 'A'"]
    assert "is not mapped" in said(repl, "p *0x123456789")
    assert said(repl, "p *$rsp == after_jump") == "0x1\n"


def test_x_as_one_word_and_enter_goes_on(repl: Repl) -> None:
    first = said(repl, "x/8xb $rip")
    assert len(first.partition(":")[2].split()) == 8
    second = said(repl, "")
    assert second != first
    assert said(repl, "x/8xb $rip + 8") == second
    assert said(repl, "x/2i $pc").startswith("=> ")
    assert said(repl, "xp/4xw 0x1000000").startswith("p:0x1000000")
    assert "no format" in said(repl, "x/8q 0")


def test_displays(repl: Repl) -> None:
    assert said(repl, "display/x $rsp").startswith("1: /x $rsp = 0x")
    assert "2: x/i $pc" in said(repl, "display/i $pc")
    assert said(repl, "si").count("1: /x $rsp = 0x") == 1
    assert said(repl, "undisplay 1", "info display") == "2: /i $pc\n"
    assert "no display 7" in said(repl, "undisplay 7")
    assert said(repl, "undisplay", "info display") == "nothing is displayed\n"


def test_changes_branch_and_undo_comes_back(repl: Repl) -> None:
    here, rax = place(repl.session), repl.session.machine.cpu.registers()["rax"]
    said(repl, "set $rax = 0x1234")
    assert said(repl, "p $rax") == "0x1234\n"
    said(repl, "set mem $rsp = 0x90/b")
    assert said(repl, "p *$rsp & 0xff") == "0x90\n"
    said(repl, 'asm $rip "cld; jmp swap_pages"')
    assert "cld" in said(repl, "x/2i $rip")
    said(repl, "undo", "undo", "undo")
    assert repl.session.machine.cpu.registers()["rax"] == rax
    assert place(repl.session) == here
    assert "does not fit" in said(repl, "set mem $rsp = 256/b")
    assert "nothing is assigned" in said(repl, "set width 80")
    assert "cannot be set" in said(repl, "set width = 80")
    assert "is out of range" in said(repl, "inject irq 999")
    assert "vector is wanted" in said(repl, "inject fault")
    assert "no device has line 8" in said(repl, "inject line 8")
    said(repl, "inject line 0")
    assert repl.session.machine.board.pic.pending_vector() is not None
    said(repl, "undo")
    assert repl.session.machine.board.pic.pending_vector() is None


@pytest.mark.parametrize(
    "line",
    [
        "regs", "creg", "sreg", "walk", "v2p", "p2v p:0x1000000", "maps", "jumpbuf", "kimage", "kimage 1 5",
        "kimage ranges", "owner", "console", "cmdline", "bt", "disas", "disas swap_pages 3", "disas $rip,+8",
        "list", "search 0xd5aa in $rip 64", "post-mortem", "who-wrote $rsp", "help", "i r rax rip", "i transitions",
        "i findings", "i symbol swap_pages", "i line", "i events 3", "i gdt", "i idt", "i tss", "i e820",
        "i owners", "i devices",
    ],
)  # fmt: skip
def test_every_view_shows_something_and_moves_nothing(repl: Repl, line: str) -> None:
    here = place(repl.session)
    assert said(repl, line).strip()
    assert repl.failed == 0
    assert place(repl.session) == here


# ---- what cmd2 would do ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "shell ls",
        "!ls",
        "edit x",
        "run_pyscript x",
        "run_script x",
        "py",
        "macro create a b",
        "shortcuts",
        "@x",
        "set_x 1",
    ],
)
def test_cmd2s_own_commands_are_not_there(repl: Repl, line: str) -> None:
    assert "no command is called" in said(repl, line)
    assert repl.failed == 1


def test_redirections_and_terminators_are_text(repl: Repl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said(repl, "p 2 > 1") == "0x1\n"
    assert said(repl, "p 2 | 1") == "0x3\n"
    assert said(repl, "p 16 >> 1") == "0x8\n"
    assert "cannot read ';" in said(repl, "p 1; p 2")
    assert list(tmp_path.iterdir()) == []


def test_aliases_are_gdbs(repl: Repl) -> None:
    assert said(repl, "alias top = x/2gx $rsp", "top").startswith("0x")
    assert said(repl, "alias") == "top = x/2gx $rsp\n"
    assert "is an alias of" in said(repl, "help top")
    assert "is a command already" in said(repl, "alias stepi = quit")
    assert "NAME = COMMAND" in said(repl, "alias nonsense")
    assert "no command is called top" in said(repl, "unalias top", "top")


def test_every_command_has_help(repl: Repl) -> None:
    for name in repl.get_all_commands():
        shown = said(repl, f"help {name}")
        assert shown.lower().startswith(f"usage: {name}"), name
        assert len(shown.strip().splitlines()) >= 3, name
    assert repl.failed == 0
    assert "Also: s, si, step" in said(repl, "? stepi")


def test_completion_knows_commands_and_symbols(repl: Repl) -> None:
    assert "who-wrote" in repl.complete("who", "who", 0, 3).to_strings()
    assert "swap_pages" in repl.complete("swap_p", "b swap_p", 2, 8).to_strings()
    assert "mode" in repl.complete("mo", "catch mo", 6, 8).to_strings()
    assert "do_set" not in repl.complete("", "", 0, 0).to_strings()


# ---- lines and errors ------------------------------------------------------------------------------------------------


def test_enter_repeats_moves_but_not_everything(repl: Repl) -> None:
    n = repl.session.position.n
    said(repl, "si 2", "", "   ")
    assert repl.session.position.n == n + 6
    said(repl, "goto 100", "")
    assert repl.session.position.n == 100
    assert said(repl, "info display", "") == "nothing is displayed\n"


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "break nowhere",
        "until",
        "p",
        "p (1",
        "p 1 +",
        "info",
        "info weather",
        "x/99999x 0",
        "set",
        "ignore 1",
        'asm 1 "',
    ],
)
def test_an_error_is_one_line(repl: Repl, line: str) -> None:
    shown = said(repl, line)
    assert repl.failed == 1
    assert shown.count("\n") == 1
    assert "internal error" not in shown


def test_a_fault_of_ours_is_one_line_too(repl: Repl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repl.session, "step", lambda _count: 1 // 0)
    assert said(repl, "si") == "internal error, please report: ZeroDivisionError: integer division or modulo by zero\n"


def test_ctrl_c_ends_a_run_and_keeps_the_prompt(repl: Repl, monkeypatch: pytest.MonkeyPatch) -> None:
    session, here = repl.session, place(repl.session)

    def pressed(count: int) -> object:
        repl.sigint_handler(signal.SIGINT, None)
        return type(session).step(session, count)

    monkeypatch.setattr(session, "step", pressed)
    assert "stop: interrupted" in said(repl, "si 100000")
    assert place(session) == here
    monkeypatch.undo()
    assert "relocate_new_kernel" in said(repl, "si")


def test_ctrl_c_going_back_leaves_the_place(repl: Repl, monkeypatch: pytest.MonkeyPatch) -> None:
    session, here = repl.session, place(repl.session)

    def pressed() -> object:
        repl.sigint_handler(signal.SIGINT, None)
        return type(session).reverse_continue(session)

    monkeypatch.setattr(session, "reverse_continue", pressed)
    assert "interrupted" in said(repl, "rc")
    assert place(session) == here


def test_ctrl_c_breaks_off_what_only_looks(repl: Repl) -> None:
    with pytest.raises(KeyboardInterrupt):
        repl.sigint_handler(signal.SIGINT, None)
    assert "rax" in said(repl, "regs")


class Typist(io.StringIO):
    """Lines of a person, of which one is Ctrl-C."""

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override] # of bytes, says the base
        line = super().readline(-1 if size is None else size)
        if line == "^C\n":
            raise KeyboardInterrupt
        return line


def test_ctrl_c_at_the_prompt_drops_the_line(session: Session) -> None:
    session.goto_transition("suspend")
    n = session.position.n
    Repl(session, stdin=Typist("si\n\n^C\n\n"), stdout=io.StringIO()).cmdloop()
    assert session.position.n == n + 2


def test_the_end_of_input_leaves(session: Session) -> None:
    out = io.StringIO()
    assert Repl(session, stdin=io.StringIO("echo last\n"), stdout=out).cmdloop() == 0
    assert out.getvalue().startswith("(kjump) echo last\nlast\n")


# ---- scripts, saving, the command line -------------------------------------------------------------------------------


def test_a_script_ends_at_its_first_error(repl: Repl, tmp_path: Path) -> None:
    script = tmp_path / "look.kj"
    script.write_text("# comment\n\necho one\nbreak nowhere\necho two\n")
    shown = said(repl, f"source {script}")
    assert "one" in shown
    assert "two" not in shown
    assert "look.kj:4: the script ends here" in shown
    assert "cannot be read" in said(repl, f"source {tmp_path / 'none'}")


def test_a_script_that_runs_itself_is_stopped(repl: Repl, tmp_path: Path) -> None:
    script = tmp_path / "self.kj"
    script.write_text(f"source {script}\n")
    assert "too deep" in said(repl, f"source {script}")


def test_saving_and_cores(repl: Repl, tmp_path: Path) -> None:
    assert "kjump debug" in said(repl, f"save {tmp_path / 'a.kj'}")
    assert (tmp_path / "a.kj").stat().st_size > 100
    assert "MiB" in said(repl, f"core {tmp_path / 'a.core'}") or "KiB" in said(repl, f"core {tmp_path / 'a.core'}")
    assert "cannot be written" in said(repl, f"core {tmp_path / 'no' / 'where'}")


def test_batch_runs_scripts_then_commands(session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "x.kj"
    script.write_text("echo from the script\n")
    options = DebugOptions(at="suspend", scripts=(str(script),), commands=("echo then this", "p 1"), batch=True)
    assert debug_main(session, options) == 0
    out = capsys.readouterr().out
    assert out.endswith("(kjump) echo then this\nthen this\n(kjump) p 1\n0x1\n")
    assert "\nfrom the script\n(kjump) echo then this" in out
    assert "suspend A->B" in out
    assert debug_main(session, DebugOptions(commands=("break nowhere", "p 2"), batch=True)) == 2
    assert "no symbol is called nowhere" in capsys.readouterr().err


def test_at_takes_positions_and_transitions(session: Session) -> None:
    assert debug.go_to(session, "1,000").position.n == 1000
    begin = next(mark for mark in session.marks() if mark.name == "return")
    assert debug.go_to(session, "return").position.n == begin.n
    assert debug.go_to(session, f"{begin.n}").position.n == begin.n
    with pytest.raises(DebuggerError, match="no transition moon"):
        debug.go_to(session, "moon")


def test_history_lists_the_last_lines(repl: Repl) -> None:
    repl.onecmd_plus_hooks("echo one")
    repl.onecmd_plus_hooks("echo two")
    assert said(repl, "history 1") == "    2  echo two\n"


def test_history_is_kept_where_the_person_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KJUMP_HISTORY", "")
    assert history_file() == ""
    monkeypatch.delenv("KJUMP_HISTORY")
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert history_file() == "state/kjump/history"


@pytest.mark.slow
def test_a_pipe_is_read_like_a_person(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PIPED],
        input="si\n\np $rax > 1\nfrobnicate\nx/2xb $rip\n",
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stdout.count("-- suspend A->B") == 3
    assert "(kjump) si\n" in done.stdout
    assert "\x1b[" not in done.stdout + done.stderr
    assert done.stderr == "no command is called frobnicate (help lists them)\n"
    assert list(tmp_path.iterdir()) == []
