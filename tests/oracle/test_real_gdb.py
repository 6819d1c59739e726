"""The real gdb against the server: across the whole jump instruction by instruction, and back again."""

from __future__ import annotations

import re
import subprocess
from functools import partial
from pathlib import Path

import pytest

from emu.debugger import recording
from emu.debugger.session import Session
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch
from emu.machine.history import History
from tests.gdb_bench import at_the_stub, served, stub_position

pytestmark = [pytest.mark.oracle("gdb"), pytest.mark.slow]

SHOWN = (
    "rip", "rsp", "rbp", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "eflags", "cs", "ss", "ds", "fs_base", "gs_base", "cr0", "cr3", "cr4", "efer", "gdtr_base", "idtr_base",
)  # fmt: skip
PREPARED = f"""
set pagination off
set confirm off
set architecture i386:x86-64
define at
printf "AT{" %lx" * len(SHOWN)}\\n", {", ".join("$" + name for name in SHOWN)}
end
target remote 127.0.0.1:"""


def run_gdb(session: Session, tmp_path: Path, script: str, seconds: int = 240) -> list[str]:
    """The lines that gdb prints for a script, attached at the place where the session is."""
    file = tmp_path / "script.gdb"
    with served(session) as port:
        file.write_text(f"{PREPARED}{port}\n{script}\ndetach\n", encoding="utf-8")
        done = subprocess.run(
            ["gdb", "-nx", "-batch", "-x", str(file)], capture_output=True, text=True, timeout=seconds, check=False
        )
    assert not re.search("[Ee]rror|assertion|warning: (?!No exec)", done.stderr), done.stderr
    return [*done.stdout.splitlines(), *done.stderr.splitlines()]  # gdb says what `monitor` says on stderr


def stops_of(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("AT ")]


def test_the_whole_jump_forwards_and_back_has_equal_registers_at_every_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints stand close, so that thousands of steps back take seconds."""
    monkeypatch.setattr(recording, "History", partial(History, every=4000))
    session = Session(make_scene(find_journey("jump"), ram="24M", target="128K@16M"))
    session.machine.strict = False  # the recording has reported the hazards; that look at all page tables is slow
    begin = stub_position(session)
    session.goto(begin)
    first = session.pc
    assert session.journey.loaded is not None
    session.run_to(int(session.journey.loaded.start))
    steps, stride = session.position.n - begin + 60, 20
    assert steps > 4000
    session.goto(begin)
    loop = """
        set $left = {strides}
        while $left > 0
        {step} {stride}
        at
        set $left = $left - 1
        end
    """
    ahead = loop.format(strides=steps // stride, step="stepi", stride=stride)
    back = loop.format(strides=steps // stride, step="reverse-stepi", stride=stride)
    lines = run_gdb(session, tmp_path, f'at\n{ahead}\nprintf "TURN\\n"\nat\n{back}')
    turn = lines.index("TURN")
    forwards, backwards = stops_of(lines[:turn]), stops_of(lines[turn:])
    assert len(forwards) == steps // stride + 1
    assert forwards == backwards[::-1]
    assert len(set(forwards)) > len(forwards) * 0.9
    assert int(forwards[0].split()[1], 16) == first == session.pc
    assert session.position.n == begin


def test_breakpoints_watchpoints_and_the_ends_of_the_recording(tmp_path: Path) -> None:
    session = at_the_stub()
    session.step(8)
    far, sp = session.pc, session.machine.cpu.rsp
    session.goto(stub_position(session))
    near, top = session.pc, session.machine.cpu.rsp
    lines = run_gdb(
        session,
        tmp_path,
        f"""
        break *{far:#x}
        continue
        printf "BREAK %lx %lx\\n", $rip, $rsp
        delete
        watch *(long *) {top - 8:#x}
        reverse-continue
        printf "WATCH %lx\\n", $rip
        delete
        hbreak *{far:#x}
        continue
        printf "HARD %lx\\n", $rip
        delete
        reverse-continue
        printf "BEGIN %lx\\n", $rip
        """,
    )
    assert f"BREAK {far:x} {sp:x}" in lines
    assert f"WATCH {near:x}" in lines
    assert f"HARD {far:x}" in lines
    session.goto(0)
    assert f"BEGIN {session.pc:x}" in lines
    assert any("No more reverse-execution history" in line for line in lines)


def test_system_registers_memory_threads_and_monitor(tmp_path: Path) -> None:
    session = at_the_stub()
    cpu = session.machine.cpu
    code = cpu.peek(session.pc, 4)
    physical = cpu.walk(session.pc).physical
    lines = run_gdb(
        session,
        tmp_path,
        f"""
        info registers cr3 cr0 efer
        info threads
        x/1xw $pc
        monitor hello there
        maintenance packet Qqemu.PhyMemMode:1
        x/1xw {physical:#x}
        maintenance packet Qqemu.PhyMemMode:0
        disassemble $pc,+1
        """,
    )
    text = "\n".join(lines)
    assert code is not None
    assert re.search(rf"^cr3 +{cpu.cr3:#x} ", text, re.MULTILINE)
    assert re.search(r"^cr0 .*\[ .*PG.* \]$", text, re.MULTILINE)
    assert re.search(r"^efer .*\[ .*LMA.* \]$", text, re.MULTILINE)
    assert "you said hello there" in lines
    assert cpu.mode() in text
    assert text.count(f"{int.from_bytes(code, 'little'):#010x}") == 2
    assert "push   %rbx" in text


@pytest.mark.parametrize("arch", [Arch.I386, Arch.I386_PAE])
def test_paging_goes_off_and_gdb_follows(arch: Arch, tmp_path: Path) -> None:
    session = at_the_stub(arch)
    paged = session.pc
    while session.machine.cpu.cr0 >> 31:
        session.step()
    flat, steps = session.pc, session.position.n - stub_position(session)
    session.goto(stub_position(session))
    lines = run_gdb(
        session,
        tmp_path,
        f"""
        at
        stepi {steps}
        at
        info registers cr0
        reverse-stepi {steps}
        at
        break *{flat:#x}
        continue
        at
        """,
    )
    stops = stops_of(lines)
    assert [int(stop.split()[1], 16) for stop in stops] == [paged, flat, paged, flat]
    assert stops[0] == stops[2]
    assert stops[1] == stops[3]
    assert any(re.match(r"cr0 .*\[ ", line) and "PG" not in line for line in lines)


def test_gdb_after_gdb(tmp_path: Path) -> None:
    session = at_the_stub()
    begin = session.position.n
    for number in range(3):
        assert session.position.n == begin + number
        assert len(stops_of(run_gdb(session, tmp_path, "stepi\nat"))) == 1
