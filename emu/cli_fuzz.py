"""A fuzzer's case in the debugger: where the two rooms meet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from emu.errors import FuzzError
from emu.fuzz.batch import world_of
from emu.fuzz.case_file import CaseFile
from emu.fuzz.target import NMI, TIMER, Script, Signal
from emu.journey.scene_data import scene_from

if TYPE_CHECKING:
    from emu.debugger.moves import Stopped
    from emu.debugger.session import Session

_MOST_WATCHED = 64


def debug_case(file: CaseFile) -> int:
    """Open the debugger in the case, stopped at its first bad store, or where it begins if it makes none."""
    from emu.debugger.main import DebugOptions, debug_main  # noqa: PLC0415 - cmd2 costs half a second

    script: Script | None = world_of(file.plan).script(file.case)
    if script is None:
        raise FuzzError("runs no machine, so there is nothing to step through", where=file.case.target)
    print(file.case, _said(script), sep="\n")
    session, stopped = open_case(file, script)
    return debug_main(session, DebugOptions(stopped=stopped))


def _said(script: Script) -> str:
    """What is done to the journey."""
    signal = script.signal
    comes = f", an {signal.kind} {signal.ticks:,} ticks later" if signal is not None else ""
    done = f"{len(script.moved)} pages moved beforehand, {len(script.writes)} stores, {len(script.registers)} registers"
    return f"at {script.position}: {done}{comes}"


def _put(session: Session, script: Script) -> Stopped:
    """Do to the session what the script says; it is then where the case begins, or where its interrupt comes."""
    from emu.debugger.address import Address  # noqa: PLC0415

    stopped = session.goto(script.position.n, script.position.k)
    if script.moved:
        stopped = session.move_pages(script.moved, script.mode)
    for address, data in script.writes:
        stopped = session.write_memory(Address(address, physical=True), data)
    for name, value in script.registers:
        stopped = session.set_register(name, value)
    return stopped


def _signal(session: Session, signal: Signal) -> Stopped:
    """Let the interrupt come when it comes, and be there."""
    if signal.ticks:
        session.wait(signal.ticks)
    return session.inject_nmi() if signal.kind == NMI else session.ask_for_interrupt(TIMER)


def open_case(file: CaseFile, script: Script) -> tuple[Session, Stopped]:
    """A session of the case's scene with its input put in, and why it stands where it does.

    That is a history like any other: whoever goes back and forward again finds everything as it was.
    """
    from emu.debugger.session import Session  # noqa: PLC0415

    session = Session(scene_from(file.plan.scene))
    stopped = begin = _put(session, script)
    if script.signal is not None:
        stopped = _signal(session, script.signal)
    if not script.bad:
        return session, stopped
    session.goto_instant(begin.at)
    watches = [
        session.add_watch(f"p:{start:#x}", behind - start, "watch") for start, behind in script.bad[:_MOST_WATCHED]
    ]
    found = session.resume()
    for watch in watches:
        session.stops.remove(watch.number)
    if found.hits:
        return session, found
    return session, replace(session.goto_instant(stopped.at), why=f"{stopped.why}; no bad store was met")
