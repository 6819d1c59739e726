"""Looking at another instant of the recording and coming back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emu.debugger.recording import Mark
from emu.debugger.session import Session
from emu.kexec.image import KexecImage
from emu.machine.history import Instant


@contextmanager
def visiting(session: Session, at: Instant) -> Iterator[None]:
    """Be at ``at`` inside the block and back where the session stood behind it; nothing is put on the undo list."""
    here = session.timeline.now
    session.timeline.goto(at)
    try:
        yield
    finally:
        session.timeline.goto(here)


@contextmanager
def visiting_position(session: Session, n: int, k: int = 0) -> Iterator[None]:
    """The same for position ``n.k``; raises DebuggerError outside the recording."""
    here = session.timeline.now
    try:
        session.timeline.goto_position(n, k)
        yield
    finally:
        session.timeline.goto(here)


def last_begin(session: Session) -> Mark | None:
    """The begin of the transition that the session is in, or of the one that came last."""
    now = session.timeline.now
    begun = [mark for mark in session.marks() if mark.begins and mark.at.tick <= now.tick]
    return begun[-1] if begun else None


def image_now(session: Session) -> KexecImage | None:
    """The image that is loaded at this instant: None before the load has ended."""
    loaded = session.loaded
    now = session.timeline.now
    if session.recording.journey is None:
        return session.recording.image_at(now)
    ends = [mark for mark in session.marks() if mark.name == "load" and not mark.begins]
    if loaded is None or not ends:
        return None
    requested = ends[0].at.tick
    if now.tick < requested or (now.tick == requested and not _is_laid_down(session, loaded.image)):
        return None
    return loaded.image


def _is_laid_down(session: Session, image: KexecImage) -> bool:
    """Whether, at the very instant of the load, the harness has done it."""
    return any(session.machine.ram.read(int(image.control_page), 64))


def peers(session: Session, name: str) -> str:
    """``return B->A`` for a transition's name as :meth:`Session.transition` gives it; else the name alone."""
    return session.recording.peers(name)
