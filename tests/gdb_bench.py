"""A small recorded jump for the tests of the gdb server, and a client that speaks the protocol without gdb."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Self

from emu.debugger.gdb.packets import Mark, Packet, Reader, expand, frame
from emu.debugger.gdb.server import serve
from emu.debugger.session import Session
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch

GDB_FEATURES = "multiprocess+;swbreak+;hwbreak+;qRelocInsn+;fork-events+;vContSupported+;xmlRegisters=i386"


@cache
def recording(arch: Arch = Arch.X86_64) -> Session:
    """A session on the smallest jump; its own machine goes wherever the test before left it."""
    return Session(make_scene(find_journey("jump"), arch=arch, ram="24M", target="256K@16M"))


def stub_position(session: Session) -> int:
    """N of the first instruction of relocate_new_kernel on the way from A to B."""
    return next(mark.n for mark in session.marks() if mark.name == "suspend" and mark.begins)


def at_the_stub(arch: Arch = Arch.X86_64) -> Session:
    """The shared session, with no stops, at the first instruction of relocate_new_kernel."""
    session = recording(arch)
    while session.changes:
        session.undo()
    session.stops.stops.clear()
    session.goto(stub_position(session))
    return session


@contextmanager
def served(session: Session, *, once: bool = True) -> Iterator[int]:
    """A server in a thread of its own; gives its port, and waits for its end."""
    announced: list[str] = []
    ready = threading.Event()

    def announce(text: str) -> None:
        announced.append(text)
        ready.set()

    def echo(text: str) -> str:
        return f"you said {text}\n"

    thread = threading.Thread(
        target=serve, args=(session, "localhost", 0, echo), kwargs={"once": once, "announce": announce}, daemon=True
    )
    thread.start()
    assert ready.wait(10)
    port = int(announced[0].rpartition(":")[2])
    yield port
    if once:
        thread.join(30)
        assert not thread.is_alive()
        return
    with Client(port) as last:  # it waits for nobody now, and leaves the session alone
        assert last.ask(b"D") == b"OK"
        assert last.item() is None


class Client:
    """A gdb that says exactly what it is told to."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.reader = Reader()
        self._items: list[Packet | Mark] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def item(self) -> Packet | Mark | None:
        """The next thing that the server says; None when it has hung up."""
        while not self._items:
            data = self.socket.recv(1 << 16)
            if not data:
                return None
            self._items += self.reader.feed(data)
        return self._items.pop(0)

    def answer(self) -> bytes:
        """The next payload; acknowledgements are passed over."""
        while True:
            match self.item():
                case Packet(payload):
                    return expand(payload)
                case None:
                    raise EOFError

    def ask(self, payload: bytes) -> bytes:
        """Send a packet; give the answer."""
        self.socket.sendall(frame(payload))
        return self.answer()
