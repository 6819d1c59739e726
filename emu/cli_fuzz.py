"""A fuzzer's case in the debugger: where the two rooms meet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from emu.errors import FuzzError
from emu.fuzz.batch import world_of
from emu.fuzz.case_file import CaseFile
from emu.fuzz.target import Script
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
    print(f"{file.case}\nat {script.position}: {len(script.writes)} stores, {len(script.registers)} registers set")
    session, stopped = open_case(file, script)
    return debug_main(session, DebugOptions(stopped=stopped))


def open_case(file: CaseFile, script: Script) -> tuple[Session, Stopped]:
    """A session of the case's scene with its input put in, and why it stands where it does."""
    from emu.debugger.address import Address  # noqa: PLC0415
    from emu.debugger.session import Session  # noqa: PLC0415

    session = Session(scene_from(file.plan.scene))
    stopped = session.goto(script.position.n, script.position.k)
    for address, data in script.writes:
        stopped = session.write_memory(Address(address, physical=True), data)
    for name, value in script.registers:
        stopped = session.set_register(name, value)
    if not script.bad:
        return session, stopped
    watches = [
        session.add_watch(f"p:{start:#x}", behind - start, "watch") for start, behind in script.bad[:_MOST_WATCHED]
    ]
    found = session.resume()
    for watch in watches:
        session.stops.remove(watch.number)
    if found.hits:
        return session, found
    begin = session.goto(script.position.n, script.position.k)
    return session, replace(begin, why="the case begins here; with all pages on the list it makes no bad store")
