"""The session: exact in both directions, stops, changes and undo, saved and opened again, cores."""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from emu.debugger import core_file, save_file
from emu.debugger.address import Address
from emu.debugger.session import Session
from emu.errors import DebuggerError
from emu.kexec.arch import Arch
from emu.kexec.entry_list import Mode
from emu.machine.events import Position


@pytest.fixture
def session(recorded: Session) -> Iterator[Session]:
    """A recorded session at its beginning, without stops; changes made by a test are undone behind it."""
    recorded.stops.stops.clear()
    yield recorded
    recorded.stops.stops.clear()
    while recorded.changes:
        recorded.undo()


def state(session: Session) -> tuple[object, ...]:
    """Everything that a guest could notice, and where we are."""
    machine = session.machine
    memory = hashlib.sha256()
    for bank in machine.ram.banks:
        memory.update(bank.view)
    registers = tuple(sorted(machine.cpu.registers().items()))
    return session.timeline.now, session.position, memory.hexdigest(), registers, machine.board.snapshot()[1]


def test_a_position_is_the_same_however_one_came_there(session: Session) -> None:
    last = session.recording.history.checkpoints[-1].instructions
    places = random.Random(3).sample(range(last), 6)  # noqa: S311 - places that repeat
    seen = {}
    for place in places:
        session.goto(place)
        seen[place] = state(session)
    for place in reversed(places):
        session.goto(max(place - 12, 0))
        while session.position.n < place:
            session.step()
        assert state(session) == seen[place]
        session.step(9)
        session.step_back(9)
        assert state(session) == seen[place]


def test_a_repeated_instruction_is_one_step_and_its_iterations_have_places(session: Session) -> None:
    session.goto_transition("suspend")
    session.add_catch("control", "cr3")
    session.resume()
    session.stops.stops.clear()
    while not session.watcher.disassembly(session.pc).startswith("rep movs"):
        session.step()
    n = session.position.n
    before = state(session)
    session.iterate(5)
    assert session.position == Position(n, 5)
    inside = state(session)
    session.step()
    assert session.position == Position(n + 1, 0)
    session.goto(n, 5)
    assert state(session) == inside
    session.step_back()
    assert state(session) == before


def test_breakpoints_stop_forwards_and_backwards_with_conditions_and_counts(session: Session) -> None:
    session.goto_transition("suspend")
    stop = session.add_break("swap_pages")
    first = session.resume()
    assert [hit.number for hit in first.hits] == [stop.number]
    second = session.resume()
    assert second.at > first.at
    assert session.reverse_continue().at == first.at
    assert stop.hits >= 2
    stop.condition = "0"
    assert session.resume().ended
    stop.condition, stop.temporary = "", True
    session.goto_transition("suspend")
    assert session.resume().at == first.at
    assert stop.number not in session.stops.stops


def test_a_watchpoint_meets_every_store_and_who_wrote_names_the_last(session: Session) -> None:
    loaded = session.journey.require_loaded()
    destination = int(loaded.image.pairs[-1][0])
    session.goto_transition("suspend")
    session.add_watch(f"p:{destination:#x}", 4, "watch")
    stopped = session.resume()
    assert f"p:{destination:#x}" in stopped.why
    session.stops.stops.clear()
    record = session.who_wrote(Address(destination, physical=True))
    assert record.address == destination
    assert session.symbols.place(record.pc).source.startswith("rep movs")
    assert f"entry {len(loaded.image.pairs):,} of" in record.list_entry
    session.goto(record.position.n, record.position.k)
    assert session.machine.ram.read_int(destination, 1) == record.old


def test_every_byte_of_a_word_has_the_same_writer(session: Session) -> None:
    session.goto_transition("suspend")
    session.step(12)
    stack = Address(session.machine.cpu.rsp)
    first = session.who_wrote(stack)
    physical = session.physical(stack)
    for offset in range(1, session.scene.arch.word):
        record = session.who_wrote(Address(physical + offset, physical=True))
        assert (record.pc, record.position, record.address) == (first.pc, first.position, physical + offset)
        assert record.new == session.machine.ram.read_int(physical + offset, 1)
    session.add_watch(f"p:{physical + session.scene.arch.word - 1:#x}", 1, "watch")
    assert session.reverse_continue().position == first.position
    assert session.pc == first.pc


def test_who_changed_finds_the_instruction_that_set_a_register(session: Session) -> None:
    session.goto_transition("suspend")
    session.step(12)
    register = "$r12" if session.scene.arch.bits == 64 else "$edi"
    record = session.who_changed(register)
    assert record.new == session.evaluator.register(register)
    session.goto(record.position.n)
    assert session.evaluator.register(register) == record.old
    session.step()
    assert session.evaluator.register(register) == record.new


def test_catch_stops_at_a_mode_change_an_exception_and_a_port(session: Session) -> None:
    session.goto_instant(session.timeline.start)
    session.add_catch("port", "0x5e0")
    assert "port 0x5e0" in session.resume().why
    session.stops.stops.clear()
    session.goto_transition("suspend")
    session.add_catch("control", "cr3")
    assert session.resume().why.startswith("catchpoint")


def test_catch_entry_stops_where_the_walk_reads_it(session: Session) -> None:
    session.goto_transition("suspend")
    stop = session.add_catch("entry", "5")
    stopped = session.resume()
    assert [hit.number for hit in stopped.hits] == [stop.number]
    assert session.symbols.place(session.pc).symbol.startswith(("next_entry", "have_entry"))
    with pytest.raises(DebuggerError, match="no entry"):
        session.add_catch("entry", "100000")


def test_a_change_begins_a_branch_and_undo_comes_back(session: Session) -> None:
    session.goto_transition("suspend")
    before, end = state(session), session.timeline.end
    register = "rbx" if session.scene.arch.bits == 64 else "ebx"
    session.set_register(register, 0x1234)
    assert session.evaluator.register(register) == 0x1234
    session.step(3)
    outcome = session.resume()
    assert "status=1" in outcome.why  # A finds its callee-saved register changed
    while session.changes:
        session.undo()
    assert state(session) == before
    assert session.timeline.end == end
    assert "status=0" in session.resume().why


def test_memory_and_jump_page_can_be_changed_and_the_guest_notices(session: Session) -> None:
    session.goto_transition("suspend")
    session.poke_jump_page("magic", 0x4141414141414141)
    assert "status=2" in session.resume().why  # B refuses a jump page that is none
    while session.changes:
        session.undo()
    session.goto_transition("suspend")
    session.write_memory(Address(0x5000, physical=True), b"\x99")
    assert session.machine.ram.read_int(0x5000, 1) == 0x99


def test_what_cannot_be_done_says_so_and_changes_nothing(session: Session) -> None:
    session.goto_transition("suspend")
    here = state(session)
    for action in (
        lambda: session.set_register("rqx", 1),
        lambda: session.poke_jump_page("colour", 1),
        lambda: session.goto(10**12),
        lambda: session.goto_transition("lunch"),
        lambda: session.add_break("no_such_symbol"),
        lambda: session.write_memory(Address(0x7123456789), b"x"),
    ):
        with pytest.raises(DebuggerError):
            action()
        assert state(session) == here


def test_a_saved_session_opens_at_the_same_place_with_its_changes(
    session_of: Callable[[Arch], Session], tmp_path: Path
) -> None:
    session = session_of(Arch.X86_64)
    session.goto_transition("suspend")
    session.step(4)
    session.set_register("r13", 77)
    session.move_pages([(0x1000000, 0x900000)], Mode.SWAP)
    session.wait(6)
    session.ask_for_interrupt(0)
    session.step(6)
    path = tmp_path / "session.json"
    save_file.save(session, path)
    assert save_file.is_session(path)
    opened = save_file.load(path)
    assert state(opened) == state(session)
    assert [change.what for change in opened.changes] == ["register", "move", "line"]
    while session.changes:
        session.undo()
    path.write_text(path.read_text(encoding="utf-8").replace("register", "colour"), encoding="utf-8")
    with pytest.raises(DebuggerError, match="unknown change"):
        save_file.load(path)


def test_an_interrupt_that_a_device_asks_for_waits_until_it_may_be_taken(session: Session) -> None:
    session.goto_transition("suspend")  # a stub runs with interrupts off, and so does whoever comes behind it
    session.ask_for_interrupt(0)
    taken = session.machine.deliveries
    session.wait(2000)
    assert session.machine.deliveries == taken
    session.set_register("eflags", session.machine.cpu.rflags | 0x200)
    session.step()
    assert session.machine.deliveries == taken + 1
    with pytest.raises(DebuggerError, match="no device has line 2"):
        session.ask_for_interrupt(2)


def test_pages_are_moved_as_a_list_would(session: Session) -> None:
    session.goto_transition("suspend")
    ram = session.machine.ram
    one, two = ram.page(0x1000), ram.page(0x900)
    assert one != two
    session.move_pages([(0x1000000, 0x900000)], Mode.SWAP)
    assert (ram.page(0x1000), ram.page(0x900)) == (two, one)
    session.move_pages([(0x1000000, 0x900000)], Mode.COPY)
    assert (ram.page(0x1000), ram.page(0x900)) == (one, one)


def test_a_core_holds_ram_once_and_the_registers(session: Session, tmp_path: Path) -> None:
    session.goto_transition("suspend")
    path = tmp_path / "core"
    size = core_file.write_core(session.machine, path)
    assert path.stat().st_size == size
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert elf["e_type"] == "ET_CORE"
        loads = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
        walked = session.machine.cpu.walk(session.pc).physical
        covering = [s for s in loads if s["p_vaddr"] <= session.pc < s["p_vaddr"] + s["p_memsz"]]
        assert len(covering) == 1
        assert covering[0]["p_paddr"] + session.pc - covering[0]["p_vaddr"] == walked
        file.seek(covering[0]["p_offset"] + session.pc - covering[0]["p_vaddr"])
        assert file.read(8) == session.machine.cpu.peek(session.pc, 8)


@pytest.mark.oracle("gdb")
def test_gdb_opens_the_core_at_the_stub(session_of: Callable[[Arch], Session], tmp_path: Path) -> None:
    session = session_of(Arch.X86_64)
    session.goto_transition("suspend")
    path = tmp_path / "core"
    core_file.write_core(session.machine, path)
    command = ["gdb", "-batch", "-nx", "-c", str(path), "-ex", "info registers rip", "-ex", "x/1i $rip"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{session.pc:#x}" in out
    assert "push" in out


def test_a_magic_breakpoint_stops_without_being_asked(session: Session) -> None:
    session.goto_transition("suspend")
    pc = session.pc
    session.write_memory(Address(pc), b"\x66\x87\xdb")
    stopped = session.resume()
    assert stopped.why == "xchg %bx, %bx"
    assert session.pc == pc + 3
