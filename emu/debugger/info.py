"""The rest of ``info``: memory map, owners, devices, events, transitions, what was said, where we are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from emu.debugger.entry_walk import place_in_list
from emu.debugger.lines import WIDTH, plain, table, wrap, wrap_all
from emu.debugger.places import owner_of, page_of, place, short
from emu.debugger.session import Session
from emu.debugger.stops import describe_event
from emu.debugger.visiting import peers
from emu.errors import DebuggerError
from emu.kexec.layout import BOOT_PARAMS_ADDRESS, COMMAND_LINE_SIZE, BootParams
from emu.machine import events as ev
from emu.machine.owners import Owner
from emu.units import PAGE_SHIFT, PAGE_SIZE, show_phys, show_size

MOST_RANGES = 80


def where(session: Session, width: int = WIDTH) -> list[str]:
    """``where``: file:line, symbol, transition, position, physical page, and the entry of the list while pages move."""
    here = place(session, session.pc)
    mode = session.machine.cpu.mode()
    lines = [
        str(here),
        f"{peers(session, session.transition())}, N {session.position}, tick {session.timeline.now.tick:,}, {mode}",
        f"pc {session.pc:#x}, {page_of(session, session.pc)}",
    ]
    return wrap_all([*lines, *(f"list {line}" for line in place_in_list(session))], width)


# ---- memory map and owners -------------------------------------------------------------------------------------


def e820(session: Session, width: int = WIDTH) -> list[str]:
    """``info e820``: the firmware's map, and the one that B is given; addresses are physical."""
    parts = [("firmware's map", session.machine.memory_map)]
    if session.loaded is not None:
        parts.append(("given to B", session.loaded.b_map))
    lines = []
    for title, memory_map in parts:
        lines.append(f"{title}:")
        rows = [
            (f"  {show_phys(one.start)}", show_phys(one.end - 1), one.type.name.lower(), show_size(one.end - one.start))
            for one in memory_map.ranges
        ]
        lines += table(rows, width)
    if session.recording.journey is None:
        return lines
    target = session.scene.target_range
    lines.append(f"target area {show_phys(target.start)}..{show_phys(target.end - 1)}, {show_size(target.size)}")
    return lines


def owners(session: Session, only: str = "", width: int = WIDTH) -> list[str]:
    """``info owners [OWNER]``: page counts by owner, then the runs of pages, those of OWNER alone if it is given.

    Raises DebuggerError for a name that is no owner.
    """
    known = {str(one) for one in Owner}
    if only and only not in known:
        raise DebuggerError(f"no owner is called {only!r}", hint=f"one of {', '.join(sorted(known))}")
    ranges = list(session.machine.owners.ranges())
    counts: Counter[str] = Counter()
    for first, behind, who in ranges:
        counts[str(who)] += behind - first
    lines = wrap("pages: " + ", ".join(f"{name} {count:,}" for name, count in counts.most_common()), width, 7)
    rows = [
        (show_phys(first << PAGE_SHIFT), show_phys((behind << PAGE_SHIFT) - 1), f"{behind - first:,}", str(who))
        for first, behind, who in ranges
        if not only or str(who) == only
    ]
    lines += table(rows[:MOST_RANGES], width, right=frozenset({2}))
    if len(rows) > MOST_RANGES:
        lines.append(f"... {len(rows) - MOST_RANGES:,} more ranges; info owners OWNER shows those of one")
    return lines


def devices(session: Session, width: int = WIDTH) -> list[str]:
    """``info devices``: the state of every device on the port bus."""
    lines = []
    for name, rows in session.machine.board.bus.describe():
        lines.append(name)
        lines += table([(f"  {label}", plain(value)) for label, value in rows], width)
    return lines


# ---- what happened ---------------------------------------------------------------------------------------------


def past_events(session: Session) -> list[ev.Event]:
    """The events of the recording up to this instant, in order."""
    tick = session.timeline.now.tick
    return [event for event in session.recording.history.events if event.tick <= tick]


def events(session: Session, count: int = 20, kind: str = "", width: int = WIDTH) -> list[str]:
    """``info events [COUNT]``: the last events before now, with position and place; ``kind`` is a word to look for.

    Port accesses are left out unless ``kind`` asks for them.
    """
    rows = []
    for event in past_events(session):
        if isinstance(event, ev.PortAccess) and not kind:
            continue
        text = plain(describe_event(event))
        if not kind or kind.lower() in text.lower() or kind.lower() in type(event).__name__.lower():
            rows.append((event, text))
    if not rows:
        return ["nothing has happened yet" if not kind else f"no event before here says {kind}"]
    shown = rows[-max(count, 1) :]
    lines = [f"... {len(rows) - len(shown):,} earlier"] if len(shown) < len(rows) else []
    cells = [(f"N {event.position}", short(place(session, event.pc)), text) for event, text in shown]
    return lines + table(cells, width, right=frozenset({0}))


def transitions(session: Session, width: int = WIDTH) -> list[str]:
    """``info transitions``: where each begins and ends; ``>`` is the one that the session is in."""
    now, rows = session.transition(), []
    for mark in session.marks():
        what = "begins" if mark.begins else "ends"
        current = mark.begins and now in (mark.name, f"after {mark.name}")
        who = peers(session, mark.name).removeprefix(mark.name).strip()
        rows.append((f"{'>' if current else ' '} {mark.name}", what, f"N {mark.n:,}", f"tick {mark.at.tick:,}", who))
    rows.append(("  end", "", f"N {session.recording.history.checkpoints[-1].instructions:,}", "", ""))
    return table(rows, width)


def display(texts: Iterable[tuple[int, str]]) -> list[str]:
    """``info display``: numbered expressions that are shown at every stop."""
    return [f"{number:<4} {text}" for number, text in texts] or ["nothing is displayed at stops"]


def console(session: Session, count: int = 0, width: int = WIDTH) -> list[str]:
    """``console``: what was said up to now (the last ``count`` lines if given) and the line being written."""
    said = [
        plain(event.text)
        for event in past_events(session)
        if isinstance(event, ev.ConsoleLine) and event.device != "post"
    ]
    unfinished = plain(session.machine.board.serial.console.unfinished)
    lines = [*said, *([f"{unfinished} (unfinished)"] if unfinished else [])]
    lines = lines[-count:] if count > 0 else lines
    return wrap_all(lines, width) or ["nothing was said yet"]


def cmdline(session: Session, width: int = WIDTH) -> list[str]:
    """``cmdline``: A's and B's command lines as given, and the one that the zero page leads to at this moment."""
    lines = [f"A  {session.scene.command_line('a')}"] if session.recording.journey is not None else []
    if session.loaded is not None:
        lines.append(f"B  {session.loaded.b_command_line}")
    ram = session.machine.ram
    pointer = ram.read_int(BOOT_PARAMS_ADDRESS + BootParams.CMD_LINE_PTR, 4)
    magic = ram.read(BOOT_PARAMS_ADDRESS + BootParams.HEADER_MAGIC, 4)
    if magic != b"HdrS" or not ram.is_ram(pointer):
        whose = owner_of(session, BOOT_PARAMS_ADDRESS)
        lines.append(f"now: no zero page at {show_phys(BOOT_PARAMS_ADDRESS)}, a page of {whose}")
    else:
        raw = ram.read(pointer, min(COMMAND_LINE_SIZE, PAGE_SIZE)).split(b"\0", 1)[0]
        lines.append(f"now at {show_phys(pointer)}: {plain(raw.decode('latin-1'))}")
    return wrap_all(lines, width)
