"""The socket that gdb attaches to: loopback only, one gdb at a time, any number one after another.

There are no threads: the machine belongs to whoever calls :func:`serve`, and Ctrl-C there ends it.
"""

from __future__ import annotations

import ipaddress
import select
import socket
from collections import deque
from collections.abc import Callable

from emu.debugger.gdb.commands import Stub
from emu.debugger.gdb.packets import Mark, Packet, Reader, frame
from emu.debugger.session import Session
from emu.errors import DebuggerError

_PATIENCE = 10.0
"""Seconds that a gdb may leave our answers unread before it is taken for gone."""


def parse_endpoint(text: str) -> tuple[str, int]:
    """``[HOST:]PORT`` as ``--gdb`` takes it; raises DebuggerError for what is neither, or not on this machine."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or int(port) > 0xFFFF:
        raise DebuggerError(f"{text!r} is no [HOST:]PORT", where="--gdb", hint="as 1234, or localhost:1234")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    _family(host)
    return host, int(port)


def _family(host: str) -> tuple[socket.AddressFamily, str]:
    """Address family and numeric address of a loopback ``host``; raises DebuggerError for any other."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise DebuggerError(
            f"{host} is not a loopback address",
            where="--gdb",
            hint="whoever reaches the port owns the session: forward it by ssh -L to come from elsewhere",
        )
    return (socket.AF_INET if address.version == 4 else socket.AF_INET6), str(address)


class Connection:
    """One gdb: bytes in, bytes out.  ``lost`` once it has gone without a word."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._reader = Reader()
        self._waiting: deque[Packet | Mark] = deque()
        self._last = b""
        self.lost = False
        peer.settimeout(_PATIENCE)
        if peer.family in (socket.AF_INET, socket.AF_INET6):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve(self, stub: Stub) -> None:
        """Answer packets until gdb detaches, kills or is gone."""
        while not stub.leaving:
            while self._waiting and not stub.leaving:
                self._take(self._waiting.popleft(), stub)
            if self.lost:
                return
            if not stub.leaving:
                self._receive()

    def interrupted(self) -> bool:
        """True once gdb has sent Ctrl-C, or gone, while the machine ran."""
        if not self.lost and select.select([self._peer], [], [], 0)[0]:
            self._receive()
        if Mark.INTERRUPT in self._waiting:
            self._waiting.remove(Mark.INTERRUPT)
            return True
        return self.lost

    def _receive(self) -> None:
        select.select([self._peer], [], [])
        try:
            data = self._peer.recv(1 << 16)
        except OSError:
            data = b""
        self.lost = not data
        self._waiting.extend(self._reader.feed(data))

    def _take(self, item: Packet | Mark, stub: Stub) -> None:
        match item:
            case Packet(payload):
                if stub.acknowledging:
                    self._send(b"+")
                for answer in stub.handle(payload):
                    self._last = frame(answer)
                    self._send(self._last)
            case Mark.BROKEN if stub.acknowledging:
                self._send(b"-")
            case Mark.NAK if stub.acknowledging:
                self._send(self._last)
            case _:
                pass  # an acknowledgement, or Ctrl-C at a target that stands still already

    def _send(self, data: bytes) -> None:
        try:
            self._peer.sendall(data)
        except OSError:
            self.lost = True


def serve(
    session: Session,
    host: str,
    port: int,
    run_command: Callable[[str], str],
    *,
    once: bool = False,
    announce: Callable[[str], object] = print,
) -> None:
    """Let gdb attach at ``host``:``port`` (0: any free port), again and again, or ``once``, until KeyboardInterrupt.

    ``run_command`` carries out ``monitor`` commands.  Raises DebuggerError for a host that is not loopback and for a
    port that cannot be had.
    """
    family, address = _family(host)
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except (OSError, OverflowError) as error:
            raise DebuggerError(f"port {port} cannot be had: {error}", where="--gdb") from error
        listener.listen()
        shown = f"[{address}]" if family is socket.AF_INET6 else address
        announce(f"gdb attaches with: target remote {shown}:{listener.getsockname()[1]}")
        while True:
            select.select([listener], [], [])
            peer = listener.accept()[0]
            with peer:
                _attached(session, peer, run_command)
            announce("gdb has gone")
            if once:
                return


def _attached(session: Session, peer: socket.socket, run_command: Callable[[str], str]) -> None:
    connection = Connection(peer)
    stub = Stub(session, run_command, connection.interrupted)
    try:
        connection.serve(stub)
    finally:
        stub.forget()
