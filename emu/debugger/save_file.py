"""A session in a file: the scene, the changes made by hand, and the place.  Small, since a run repeats itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emu.debugger.address import Address
from emu.debugger.session import Session
from emu.errors import DebuggerError, KjumpError
from emu.journey.scene_data import scene_from, scene_json
from emu.kexec.entry_list import Mode
from emu.machine.history import Instant

MAGIC = "kjump session 1"


def save(session: Session, path: Path) -> None:
    """Write the session; raises DebuggerError."""
    scene = session.scene
    document = {
        "kjump": MAGIC,
        "scene": scene_json(scene),
        "changes": [{"at": list(one.at), "do": one.what, "args": list(one.arguments)} for one in session.changes],
        "at": list(session.timeline.now),
        "stops": [stop.describe() for stop in session.stops.stops.values()],
    }
    try:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DebuggerError(f"cannot be written: {error.strerror}", where=str(path)) from error


def is_session(path: Path) -> bool:
    """Tell whether the file looks like a saved session."""
    try:
        return MAGIC in path.read_bytes()[:200].decode("utf-8", "replace")
    except OSError:
        return False


def load(path: Path, progress: Callable[[str], None] | None = None) -> Session:
    """Open a saved session: record its scene, make its changes again, and go to its place."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["kjump"] != MAGIC:
            raise DebuggerError("is no session that this kjump can open", where=str(path))
        scene = scene_from(document["scene"])
        changes = [(Instant(*one["at"]), str(one["do"]), list(one["args"])) for one in document["changes"]]
        at = Instant(*document["at"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DebuggerError(f"is no saved session: {error}", where=str(path)) from error
    session = Session(scene, progress)
    for place, what, arguments in changes:
        _be_at(session, place)
        redo(session, what, arguments)
    _be_at(session, at)
    return session


def _be_at(session: Session, at: Instant) -> None:
    """Go to ``at``; in a branch, run on to it."""
    if at > session.timeline.end:
        session.timeline.forward(ticks=at.tick - session.timeline.now.tick)
    session.timeline.goto(min(at, session.timeline.end))


def redo(session: Session, what: str, arguments: list[Any]) -> None:
    """Make a recorded change again; raises DebuggerError for an unknown one."""
    match what, arguments:
        case "register", [str(name), int(value)]:
            session.set_register(name, value)
        case "memory", [int(address), bool(physical), str(data)]:
            session.write_memory(Address(address, physical), bytes.fromhex(data))
        case "irq", [int(vector)]:
            session.inject_interrupt(vector)
        case "nmi", []:
            session.inject_nmi()
        case "line", [int(line)]:
            session.ask_for_interrupt(line)
        case "move", [str(mode), *pages]:
            session.move_pages(list(zip(pages[::2], pages[1::2], strict=True)), Mode(mode))
        case "fault", [int(vector), int(code)]:
            session.inject_fault(vector, code)
        case "jumpbuf", [str(field), int(value)]:
            session.poke_jump_page(field, value)
        case _:
            raise DebuggerError(f"unknown change {what} {arguments}")


__all__ = ["KjumpError", "is_session", "load", "redo", "save", "scene_from", "scene_json"]
