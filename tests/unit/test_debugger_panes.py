"""The panes of a stop: what they say at the places of a jump that matter, at 80 and at 100 columns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rich.text import Text

from emu.debugger import panes
from emu.debugger.entry_walk import position, progress_bar
from emu.debugger.session import Session
from emu.kexec.arch import Arch

NARROW, WIDE = 80, 100


def plain(lines: list[Text], width: int = NARROW) -> list[str]:
    shown = [line.plain for line in lines]
    assert all(len(line) <= width and line.isascii() and line.isprintable() for line in shown), shown
    return shown


def into_swap(session: Session) -> None:
    loaded = session.journey.require_loaded()
    session.goto_transition("suspend")
    session.run_to(loaded.stub.symbols["swap_pages"])
    while not panes.brief(session).plain.split(":  ")[1].startswith("rep"):
        session.step()


def test_the_first_stop(recorded: Session) -> None:
    recorded.goto(0)
    shown = plain(panes.stop_pane(recorded))
    assert shown[0].startswith("-- load  N 0  ")
    assert " CPL0 IF=0 DF=0 ---" in shown[0]
    assert shown[1].startswith((" a64.S  entry64", " a32.S  image_start"))
    (here,) = [line for line in shown if line.startswith("> ")]
    assert here.split()[2] == f"{recorded.pc:x}"
    assert any(line.startswith(" stack") for line in shown)
    assert not any(line.startswith(" list") for line in shown)


@pytest.mark.parametrize("width", [NARROW, WIDE, 140])
def test_every_width_is_kept(recorded: Session, width: int) -> None:
    into_swap(recorded)
    recorded.iterate(10)
    shown = plain(panes.stop_pane(recorded, None, width), width)
    assert any(" | " in line for line in shown) == (width >= WIDE)
    assert "iteration 11 of " in "\n".join(shown)


def test_the_list_in_the_middle_of_a_page(recorded: Session) -> None:
    into_swap(recorded)
    recorded.iterate(10)
    at = position(recorded)
    assert at is not None
    destination, source = recorded.journey.require_loaded().image.pairs[0]
    assert (at.step.source, at.step.destination) == (source, destination)
    word = recorded.scene.arch.word
    assert at.stage == f"source -> swap page, {10 * word} of 4,096 bytes"
    shown = "\n".join(plain(panes.stop_pane(recorded)))
    assert f" list   entry 3/{len(at.steps):,}  SRC  p:{source:#x} <-> p:{destination:#x}" in shown
    assert "[....................] 0 of " in shown
    assert " write " in shown
    assert "  swap" in shown


def test_a_whole_page_takes_three_moves(recorded: Session) -> None:
    into_swap(recorded)
    stages = []
    for _ in range(12):
        at = position(recorded)
        if at is not None and at.stage:
            stages.append(at.stage.split(",")[0])
        recorded.step()
    assert stages == ["source -> swap page", "destination -> source", "swap page -> destination"]


def test_the_list_at_its_first_and_last_page(recorded: Session) -> None:
    loaded = recorded.journey.require_loaded()
    recorded.goto_transition("suspend")
    recorded.run_to(loaded.stub.symbols["swap_pages"])
    first = position(recorded)
    assert first is not None
    assert (first.index, first.moved) == (0, 0)
    recorded.run_to(loaded.stub.symbols["list_done"])
    last = position(recorded)
    assert last is not None
    assert (last.index, last.moved) == (len(last.steps) - 1, last.pages)
    assert "[####################]" in "\n".join(plain(panes.entry_list(recorded)))


def test_mode_and_control_registers_follow_a_step(session_of: Callable[[Arch], Session]) -> None:
    session = session_of(Arch.I386_PAE)
    session.goto_transition("suspend")
    assert "32-bit protected PAE" in panes.head(session)[0].plain
    while session.machine.cpu.cr0 >> 31:
        session.step()
    assert "32-bit protected CPL0" in panes.head(session)[0].plain
    shown = "\n".join(plain(panes.control(session)))
    assert "cr0 " in shown
    assert " * PE" in shown
    assert "PG" not in shown.replace("PGE", "")
    session.step_back()
    assert "32-bit protected PAE" in panes.head(session)[0].plain


def test_a_direction_flag_is_pointed_at(session_of: Callable[[Arch], Session]) -> None:
    session = session_of(Arch.X86_64)
    session.goto(5)
    session.machine.cpu.rflags |= 1 << 10
    text = panes.head(session)[0].plain
    session.machine.cpu.rflags &= ~(1 << 10)
    assert "DF=1!" in text


def test_a_store_that_would_fault_is_announced(session_of: Callable[[Arch], Session]) -> None:
    session = session_of(Arch.X86_64)
    session.goto_transition("suspend")
    (operand,) = plain(panes.memory(session))
    assert operand.startswith(" memory write ")
    session.machine.cpu.rsp = 0x10
    (operand,) = plain(panes.memory(session))
    session.goto(0)
    assert "faults: supervisor write" in operand


def test_code_that_changed_is_shown_from_memory(session_of: Callable[[Arch], Session]) -> None:
    session = session_of(Arch.X86_64)
    session.goto_transition("return")
    code = session.machine.ram.read(session.pc, 1)
    session.machine.ram.write(session.pc, b"\x90")
    shown = plain(panes.code(session))
    session.machine.ram.write(session.pc, code)
    assert any("memory is not what its source was assembled to" in line for line in shown)
    assert any(line.startswith("> ") and line.endswith("nop") for line in shown)


def test_the_end_says_how(recorded: Session) -> None:
    recorded.goto_transition("return")
    stopped = recorded.resume()
    shown = plain(panes.stop_pane(recorded, stopped))
    assert "stop: end of the recording: the guest ended with exit status 0" in "\n".join(shown[:2])


def test_a_breakpoint_s_reason_is_shown(recorded: Session) -> None:
    recorded.goto_transition("suspend")
    stop = recorded.add_break(f"{recorded.journey.require_loaded().stub.symbols['swap_pages']:#x}")
    stopped = recorded.resume()
    recorded.stops.remove(stop.number)
    assert f"stop: breakpoint {stop.number}" in "\n".join(plain(panes.stop_pane(recorded, stopped))[:2])
    recorded.step()
    assert "stop:" not in "\n".join(plain(panes.stop_pane(recorded, recorded.step())))


def test_progress() -> None:
    assert progress_bar(0, 4, 8) == "[........]"
    assert progress_bar(3, 4, 8) == "[######..]"
    assert progress_bar(4, 4, 8) == "[########]"
    assert progress_bar(0, 0, 4) == "[####]"
