"""No line that anybody can type ends the prompt with a traceback."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emu.debugger.repl import Repl
from emu.debugger.repl_parsing import SHORT
from emu.debugger.session import Session
from emu.journey.scene import find_journey, make_scene

PATIENCE = 0.3
"""Seconds until Ctrl-C is pressed: a changed guest may run for ever."""
WORDS = (
    *('""', "010:5", "1_", "1" * 5000, "(" * 200, "~" * 200, "/" + "9" * 5000 + "x", "0x", "1:2:3", "*" * 150),
    "$rsp", "$rip", "$rax", "$nothing", "swap_pages", "after_jump", "p:0x1000000", "p:0xffffffffffffff",
    "0x10:0x200", "relocate_new_kernel.S:143", "nowhere.S:1", "0", "1", "-1", "3", "0xffff888000000000",
    "99999999999999999999", "1.5", "100,000", "if", "=", "==", ">", "|", ";", "*", "(", ")", "/8xb", "/2i", "/s",
    "/zzz", "/-3gx", "/99999x", "/t", "/c", "mode", "control", "cr3", "port", "0x3f8", "transition", "suspend",
    "return", "start", "end", "all", "mem", "irq", "nmi", "fault", "13", "jumpbuf.resume_slot", "jumpbuf.nothing",
    "jumpbuf", "ranges", "pages", "registers", "b", "gdt", "idt", "tss", "events", "findings", "symbol", "line",
    "in", "display", "$rax=", "=5", '"nop"', '"cld; ret"', '"frob"', '"', "'", "de", "ad", "#", "?", "!", "@",
    "--help", "-h", "--", "-", "", "\\", "\t", "\x1b", "\u00e9", "\U0001f600", "{}", "%s", "[red]",
)  # fmt: skip
NEVER = {"quit", "q", "exit", "core", "save", "source", "src"}
"""They end the test, or write and read files of any name; they have tests of their own."""


@pytest.fixture(scope="module")
def repl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repl]:
    session = Session(make_scene(find_journey("jump"), ram="24M", target="2M@16M"))
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("fuzz"))
    yield Repl(session, stdin=io.StringIO(), stdout=io.StringIO())
    os.chdir(before)


@contextmanager
def impatient(repl: Repl) -> Iterator[None]:
    """Press Ctrl-C for as long as a command runs the machine."""

    def pressed(_signal: int, frame: FrameType | None) -> None:
        if repl._running:
            repl.sigint_handler(signal.SIGINT, frame)

    kept = signal.signal(signal.SIGALRM, pressed)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)


def begin(repl: Repl) -> None:
    session = repl.session
    while session.changes:
        session.undo()
    session.stops.stops.clear()
    repl.displays.all.clear()
    repl.aliases.clear()
    session.goto_transition("suspend")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_command_ends_in_a_traceback(repl: Repl, data: st.DataObject) -> None:
    begin(repl)
    known = sorted({*repl.get_all_commands(), *SHORT} - NEVER)
    for _ in range(data.draw(st.integers(1, 3))):
        command = data.draw(st.sampled_from(known))
        words = data.draw(st.lists(st.sampled_from(WORDS) | st.text(max_size=4), max_size=5))
        line = f"{command} {' '.join(words)}".replace("\n", " ")
        with impatient(repl):
            shown = repl.output_of(line)
        assert "internal error" not in shown, line
        assert "Traceback" not in shown, line
    assert repl.output_of("p 1") == "0x1\n"
