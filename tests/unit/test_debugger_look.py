"""What each view says, at places of a real jump where it is known what must be there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from emu import resources
from emu.debugger import look
from emu.debugger.address import Address
from emu.debugger.entry_walk import position
from emu.debugger.lines import in_columns, table, wrap
from emu.debugger.session import Session
from emu.errors import DebuggerError
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch
from emu.units import PAGE_SIZE

WIDTH = 80


def at_swap(session: Session, sources: int = 0) -> None:
    """At the first instruction of swap_pages in the suspend, then on to the first repeated move of a page."""
    loaded = session.journey.require_loaded()
    session.goto_transition("suspend")
    assert session.run_to(loaded.stub.symbols["swap_pages"]).why == "reached"
    for _ in range(200 * (sources + 1)):
        place = position(session)
        if place is not None and place.moved >= sources and place.stage:
            return
        session.step()
    raise AssertionError("the stub moved no page")


def mark_n(session: Session, name: str, *, begins: bool) -> int:
    return next(mark.n for mark in session.marks() if mark.name == name and mark.begins is begins)


def text_of(lines: list[str]) -> str:
    assert all(line.isascii() and line.isprintable() and len(line) <= WIDTH for line in lines), lines
    return "\n".join(lines)


# ---- translations ----------------------------------------------------------------------------------------------


def test_walk_of_a_s_text_names_every_level(recorded: Session) -> None:
    recorded.goto_transition("suspend")
    scene, kernel = recorded.scene, recorded.journey.kernel_a
    linear = Address(scene.arch.text_base + kernel.symbols["suspend_begin"])
    shown = text_of(look.walk(recorded, linear))
    levels = ["PML4E", "PDPTE", "PDE"] if scene.arch is Arch.X86_64 else ["PDPTE", "PDE", "PTE"]
    assert all(f"{level} " in shown for level in levels)
    assert "supervisor execute: allowed" in shown
    assert "user read: U/S is 0" in shown
    assert "suspend_begin" in shown


def test_walk_says_why_a_store_would_fault(recorded: Session) -> None:
    recorded.goto_transition("suspend")
    image = recorded.journey.require_loaded().image
    shown = text_of(look.walk(recorded, Address(int(image.control_va))))
    assert "supervisor write: R/W is 0 in an entry on the way and CR0.WP=1" in " ".join(shown.split())


def test_v2p_and_p2v_agree(recorded: Session) -> None:
    recorded.goto_transition("suspend")
    image = recorded.journey.require_loaded().image
    assert f"is p:{image.control_page:#x}, a page of control" in look.v2p(recorded, Address(int(image.control_va)))[0]
    assert any(line.startswith(f"{image.control_va:#x}") for line in look.p2v(recorded, int(image.control_page)))


def test_maps_shows_the_control_page_read_only_and_executable(recorded: Session) -> None:
    recorded.goto_transition("suspend")
    image = recorded.journey.require_loaded().image
    rows = [line for line in look.maps(recorded) if f"{image.control_va:x}-" in line]
    assert len(rows) == 1
    assert " r-x-" in rows[0]


# ---- registers -------------------------------------------------------------------------------------------------


def test_creg_names_every_bit(recorded: Session) -> None:
    recorded.goto_transition("suspend")
    shown = text_of(look.creg(recorded))
    cr0 = next(line for line in shown.splitlines() if line.startswith("CR0"))
    assert {"PG", "PE", "WP", "cd", "nw"} <= set(cr0.split())
    assert "PAE" in shown
    assert "NXE" in shown
    assert ("PDPTEs latched" in shown) == (recorded.scene.arch is Arch.I386_PAE)


def test_regs_marks_what_the_last_move_changed(recorded: Session) -> None:
    recorded.goto_transition("suspend")
    recorded.step()  # pushes: the stack pointer moves, nothing else does
    shown = text_of(look.regs(recorded))
    stars = [line for line in shown.replace("   ", "\n").splitlines() if line.rstrip().endswith("*")]
    assert [star.split()[0] for star in stars] == ["rsp" if recorded.machine.cpu.bits == 64 else "esp"]


def test_sreg_and_tables_show_a_s_own(recorded: Session) -> None:
    recorded.goto(mark_n(recorded, "load", begins=False))
    assert "code" in text_of(look.sreg(recorded))
    assert "a page of A), limit" in look.gdt(recorded)[0]
    assert " busy DPL0" in text_of(look.gdt(recorded))
    assert "#PF" in text_of(look.idt(recorded))
    assert "interrupt gate" in text_of(look.idt(recorded))
    assert "tss 0x" in text_of(look.tss(recorded))
    assert text_of(look.ldt(recorded))
    assert text_of(look.msrs(recorded)).startswith("efer")
    assert text_of(look.fpu(recorded))


def test_tables_that_are_out_of_reach_say_so(session_of: Callable[[Arch], Session]) -> None:
    session = session_of(Arch.X86_64)
    session.goto_transition("suspend")
    while "cr3" not in look.events(session, 1)[-1]:
        session.step()
    session.step()
    assert "only 0 of its" in text_of(look.gdt(session))


# ---- the jump --------------------------------------------------------------------------------------------------


def test_nothing_is_loaded_at_power_on(recorded: Session) -> None:
    recorded.goto(0)
    for view in (look.kimage, look.jumpbuf):
        with pytest.raises(DebuggerError, match="nothing is loaded"):
            view(recorded)


def test_kimage_numbers_the_entries_and_marks_the_present_one(recorded: Session) -> None:
    at_swap(recorded, sources=1)
    lines = look.kimage(recorded)
    shown = text_of(lines)
    loaded = recorded.journey.require_loaded()
    assert f"{len(loaded.image.pairs):,} pages" in shown
    (current,) = [line for line in lines if line.startswith(">")]
    destination, source = loaded.image.pairs[1]
    assert f"SRC  p:{source:#x} <-> p:{destination:#x}" in current
    assert int(current.split()[1].replace(",", "")) == 4  # head, cursor, first page, this one


def test_kimage_ranges_cover_every_page(recorded: Session) -> None:
    recorded.goto_transition("suspend")
    lines = [line for line in look.kimage(recorded, ranges=True) if "<->" in line]
    pages = sum(int(line.rsplit(", ", 1)[1].split()[0].replace(",", "")) if "pages" in line else 1 for line in lines)
    assert pages == len(recorded.journey.require_loaded().image.pairs)


def test_kimage_from_an_entry_on(recorded: Session) -> None:
    recorded.goto_transition("suspend")
    numbers = [line.split()[0] for line in look.kimage(recorded, 5, 3) if "SRC" in line]
    assert numbers == ["5", "6", "7"]
    with pytest.raises(DebuggerError, match="has no entry"):
        look.kimage(recorded, 0)
    assert "page table" in text_of(look.kimage(recorded, paging=True))


def test_jumpbuf_tells_of_the_slot_after_suspend(recorded: Session) -> None:
    recorded.goto(mark_n(recorded, "suspend", begins=False))
    here = recorded.timeline.now
    shown = text_of(look.jumpbuf(recorded))
    slot = recorded.journey.kernel_b.symbols["resume_entry"]
    assert recorded.timeline.now == here
    assert f"resume_slot       p:{slot:#x}" in shown
    changes = shown.split("changed since suspend began")[1]
    assert f"p:0x0 -> p:{slot:#x}" in changes
    assert "sequence" in changes
    assert "control_page" not in changes


def test_owner_tells_what_the_list_does_with_a_page(recorded: Session) -> None:
    recorded.goto_transition("suspend")
    destination, source = recorded.journey.require_loaded().image.pairs[0]
    shown = text_of(look.owner(recorded, Address(int(source), physical=True)))
    assert "owner source" in shown
    assert f"source of list entry 3: SRC  p:{source:#x} <-> p:{destination:#x}" in shown


def test_who_wrote_names_the_move_and_its_entry(recorded: Session) -> None:
    recorded.goto_transition("return")
    here = recorded.timeline.now
    target = recorded.scene.target_range.start
    shown = text_of(look.who_wrote(recorded, recorded.who_wrote(Address(target + 0x400, physical=True))))
    assert recorded.timeline.now == here
    assert "rep movs" in shown
    assert "relocate_new_kernel.S:" in shown
    assert f"<-> p:{target:#x}" in shown
    assert "iteration" in shown
    assert "suspend A->B" in shown


def test_who_wrote_names_b(recorded: Session) -> None:
    recorded.goto_transition("return")
    jump = recorded.journey.require_loaded().image.jump
    assert jump is not None
    shown = text_of(look.who_wrote(recorded, recorded.who_wrote(Address(jump.jump_page + 0x30, physical=True))))
    assert "kernel B" in shown
    assert ".S:" in shown


# ---- memory ----------------------------------------------------------------------------------------------------


def test_diff_names_owner_symbol_and_bytes(recorded: Session) -> None:
    begin = mark_n(recorded, "suspend", begins=True)
    recorded.goto(begin)
    here = recorded.timeline.now
    shown = text_of(look.diff(recorded, begin, begin + 6))
    assert recorded.timeline.now == here
    assert "1 pages differ" in shown
    assert " -> " in shown
    assert " A  " in shown


def test_diff_over_the_jump_joins_pages(recorded: Session) -> None:
    begin, end = mark_n(recorded, "suspend", begins=True), mark_n(recorded, "return", begins=True)
    shown = text_of(look.diff(recorded, begin, end))
    assert "jump page" in shown
    assert " pages, " in shown


def test_diff_of_nothing(recorded: Session) -> None:
    recorded.goto(10)
    assert look.diff(recorded, 10, 10) == ["N 10 to N 10: 0 pages differ, 0 bytes"]


def test_search_finds_the_jump_page(recorded: Session) -> None:
    recorded.goto_transition("suspend")
    jump = recorded.journey.require_loaded().image.jump
    assert jump is not None
    found = look.search(recorded, look.pattern('"KJUMPPG1"'))
    assert any(line.startswith(f"p:{jump.jump_page:#x}") and line.endswith("jump page") for line in found)
    linear = Address(int(recorded.scene.arch.direct(jump.jump_page)))
    assert look.search(recorded, b"KJUMPPG1", linear, PAGE_SIZE)[0].startswith(str(linear))
    assert look.search(recorded, b"no such thing in here") == ["not found"]


@pytest.mark.parametrize(
    ("text", "size", "raw"),
    [
        ('"A| "', 0, b"A| "),
        ("de ad", 0, b"\xde\xad"),
        ("0x1234", 0, b"\x34\x12"),
        ("0x1234", 8, b"\x34\x12" + bytes(6)),
        ("-1", 0, b"\xff"),
        ("65536", 0, b"\0\0\1\0"),
    ],
)
def test_patterns(text: str, size: int, raw: bytes) -> None:
    assert look.pattern(text, size) == raw


@pytest.mark.parametrize("text", ['"open', "", '""', "xyz", "0x", "0x1" + "0" * 20, "--1"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(DebuggerError):
        look.pattern(text)


# ---- the run ---------------------------------------------------------------------------------------------------


def test_where_and_transitions(recorded: Session) -> None:
    at_swap(recorded)
    shown = text_of(look.where(recorded))
    assert "relocate_new_kernel.S:" in shown
    assert "suspend A->B, N " in shown
    assert "list entry 3/" in shown
    rows = look.transitions(recorded)
    assert [row.split()[1] for row in rows if row.startswith(">")] == ["suspend"]


def test_a_and_b_are_told_apart_at_the_same_address(recorded: Session) -> None:
    recorded.goto(0)
    assert look.where(recorded)[0].startswith("kernels/a")
    recorded.goto(mark_n(recorded, "suspend", begins=False))
    stop = recorded.add_break(f"{recorded.journey.kernel_b.symbols['work']:#x}")
    recorded.goto_transition("suspend")
    recorded.resume()
    recorded.stops.remove(stop.number)
    assert look.where(recorded)[0].startswith("kernels/b")


def test_console_and_events_stop_at_now(recorded: Session) -> None:
    recorded.goto(0)
    assert look.console(recorded) == ["nothing was said yet"]
    recorded.goto_transition("suspend")
    assert look.console(recorded)[0].startswith("A| ")
    assert not any(line.startswith("B| ") for line in look.console(recorded))
    assert "transition suspend begins" in text_of(look.events(recorded, 3))
    assert "out port 0x3f8" in text_of(look.events(recorded, 30, "port"))
    assert look.console(recorded, 1) == look.console(recorded)[-1:]


def test_command_lines(recorded: Session) -> None:
    recorded.goto(0)
    shown = text_of(look.cmdline(recorded))
    assert "A  kexec_jump=2M@16M seed=1 quiet" in shown
    assert "jump_buf_pfn=0x" in shown
    assert "now at p:0x91000: kexec_jump=2M@16M" in shown
    recorded.goto_transition("suspend")
    assert "no zero page" in text_of(look.cmdline(recorded))


def test_map_owners_devices(recorded: Session) -> None:
    recorded.goto_transition("suspend")
    assert "given to B:" in text_of(look.e820(recorded))
    assert "jump page 1" in text_of(look.owners(recorded))
    assert len(look.owners(recorded, "swap")) < len(look.owners(recorded))
    with pytest.raises(DebuggerError, match="no owner"):
        look.owners(recorded, "nobody")
    assert {"pic", "pit", "serial", "cmos"} <= set(look.devices(recorded))


def test_backtrace_by_scan_says_heuristic(recorded: Session) -> None:
    at_swap(recorded)
    lines = look.bt(recorded)
    assert "swap" in text_of(lines) or "indirection" in text_of(lines)
    assert any(line.startswith("#1") for line in lines)
    assert "heuristic" in lines[-1]


def test_backtrace_by_frame_pointers(session_of: Callable[[Arch], Session]) -> None:
    session = session_of(Arch.X86_64)
    session.goto_transition("suspend")
    returns = session.journey.kernel_a.symbols["after_jump"] + session.scene.arch.text_base
    stack = session.machine.cpu.rsp
    frame = stack - 64
    physical = session.physical(Address(frame))
    session.machine.ram.write(physical, (0).to_bytes(8, "little") + returns.to_bytes(8, "little"))
    rsp, rbp = session.machine.cpu.rsp, session.machine.engine.gpr(5)
    session.machine.cpu.rsp = frame - 8
    session.machine.engine.set_gpr(5, frame)
    lines = look.bt(session)
    session.machine.cpu.rsp = rsp
    session.machine.engine.set_gpr(5, rbp)
    assert lines[-1] == "(frame pointers)"
    assert f"#1  {returns:#x} kernels/state64.inc:" in text_of(lines)


def test_disassembly_of_a_routine(recorded: Session) -> None:
    at_swap(recorded)
    start, end = look.routine(recorded, recorded.pc)
    lines = look.disassemble(recorded, Address(start), end=end)
    assert start <= recorded.pc < end
    assert [line.startswith("=> ") for line in lines].count(True) == 1
    assert "rep movs" in text_of(lines)
    with pytest.raises(DebuggerError, match="no program"):
        look.routine(recorded, 0x500000)


# ---- the end ---------------------------------------------------------------------------------------------------


def test_post_mortem_of_a_good_end(recorded: Session) -> None:
    recorded.goto_transition("suspend")
    here = recorded.timeline.now
    shown = look.post_mortem(recorded)
    assert shown[0] == "no triple fault: the guest ended with exit status 0"
    assert len([line for line in shown if " N " in line]) == 16
    assert recorded.timeline.now == here


def test_post_mortem_of_a_triple_fault(tmp_path: Path) -> None:
    source = (resources.asm_dir() / "x86_64" / "relocate_new_kernel.S").read_text(encoding="utf-8")
    line = "    movq    %rbx, saved_cr3(%rip)\n"
    assert source.count(line) == 1
    stub = tmp_path / "ud2.S"
    stub.write_text(source.replace(line, "    ud2\n" + line), encoding="utf-8")
    session = Session(make_scene(find_journey("jump"), ram="24M", target="2M@16M", stubs=(stub,)))
    lines = look.post_mortem(session)
    shown = "\n".join(lines)
    assert lines[0].startswith("triple fault at")
    assert "ud2.S:" in shown
    assert [line.split()[1] for line in lines if line[:2] in ("1.", "2.", "3.")] == ["#UD", "#PF(0x0)", "#DF(0x0)"]
    assert "IDT gate 0x6" in shown
    assert "4. the processor shuts down" in shown
    (last,) = [line for line in lines if line.startswith("=>")]
    assert "ud2" in last
    assert session.resume().ended


def test_a_forbidden_store_is_met_again_and_its_culprit_found(tmp_path: Path) -> None:
    source = (resources.asm_dir() / "x86_64" / "relocate_new_kernel.S").read_text(encoding="utf-8")
    line = "    movq    kexec_pa_swap_page(%rip), %rsi      # swap page -> destination\n"
    assert source.count(line) == 1
    stub = tmp_path / "stray.S"
    stub.write_text(source.replace(line, "    movq    %rax, 0x300000\n" + line), encoding="utf-8")
    session = Session(make_scene(find_journey("jump"), ram="24M", target="2M@16M", stubs=(stub,)))
    session.add_catch("owner")
    session.goto_transition("suspend")
    stopped = session.resume()
    assert "owner violation: A stores 8 bytes at p:0x300000, a page of A" in stopped.why
    shown = "\n".join(look.who_wrote(session, session.who_wrote(Address(0x300000, physical=True))))
    assert "relocate_new_kernel, in suspend A->B" in shown
    assert "stray.S:" in shown
    assert "entry 3/" in shown
    assert f"goto {session.position.n - 1}" in shown


def test_going_back_and_forth_over_debug_registers(session_of: Callable[[Arch], Session]) -> None:
    session = session_of(Arch.I386_PAE)
    seen = set()
    for _ in range(3):
        for name in ("suspend", "return", "load"):
            session.goto_transition(name)
            seen.add((name, session.position, session.machine.engine.dr(7), session.machine.cpu.mode()))
    assert len(seen) == 3


# ---- odd arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, 0xFFFF_FFFF, 1 << 47, (1 << 64) - 1, 1 << 200])
def test_odd_addresses_are_answered_or_refused(recorded: Session, value: int) -> None:
    recorded.goto_transition("suspend")
    views: list[Callable[[Address], list[str]]] = [
        lambda at: look.walk(recorded, at),
        lambda at: look.v2p(recorded, at),
        lambda at: look.p2v(recorded, at.value),
        lambda at: look.owner(recorded, at),
        lambda at: look.disassemble(recorded, at, 3),
        lambda at: look.search(recorded, b"x", at, 64),
        lambda at: look.kimage(recorded, at.value, at.value),
        lambda at: look.events(recorded, at.value),
        lambda at: look.console(recorded, at.value),
    ]
    for view in views:
        for physical in (False, True):
            lines = ["refused"]
            with suppress(DebuggerError):
                lines = view(Address(value, physical))
            assert all(line.isascii() for line in lines)


# ---- layout ----------------------------------------------------------------------------------------------------


def test_lines_keep_to_their_width() -> None:
    assert wrap("one two three four five six", 20, 2) == ["one two three four", "  five six"]
    assert in_columns(["a", "bb", "ccc"], 12) == ["a    bb", "ccc"]
    assert table([("a", "long text that must be wrapped"), ("bb", "x")], 24) == [
        "a   long text that must",
        "    be wrapped",
        "bb  x",
    ]
