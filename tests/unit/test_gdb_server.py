"""The socket of the gdb server: loopback only, one gdb after another, and nothing that arrives there ends it."""

from __future__ import annotations

import random
import socket

import pytest

from emu.debugger.gdb.packets import Mark, Packet, frame
from emu.debugger.gdb.registers import BYTES
from emu.debugger.gdb.server import parse_endpoint, serve
from emu.errors import DebuggerError
from tests.gdb_bench import Client, at_the_stub, served


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("1234", ("127.0.0.1", 1234)),
        (":1234", ("127.0.0.1", 1234)),
        ("localhost:1", ("localhost", 1)),
        ("127.0.0.2:65535", ("127.0.0.2", 65535)),
        ("[::1]:7", ("::1", 7)),
    ],
)
def test_an_endpoint_is_a_port_with_or_without_a_host(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize("text", ["", "x", "65536", "-1", "localhost:", "127.0.0.1:12a", "\N{SUPERSCRIPT TWO}"])
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(DebuggerError, match=r"no \[HOST:\]PORT"):
        parse_endpoint(text)


FOREIGN = ("0.0.0.0", "::", "192.168.1.1", "example.org", "10.0.0.1", "127.0.0.1.evil.org", "*")  # noqa: S104 - refused


@pytest.mark.parametrize("host", FOREIGN)
def test_nothing_but_loopback_is_bound(host: str) -> None:
    with pytest.raises(DebuggerError, match="not a loopback address"):
        serve(at_the_stub(), host, 0, str, once=True)
    with pytest.raises(DebuggerError, match="not a loopback address"):
        parse_endpoint(f"{host}:1234")


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(DebuggerError, match="cannot be had"):
            serve(at_the_stub(), "localhost", taken.getsockname()[1], str, once=True)


def test_packets_are_acknowledged_until_gdb_wants_no_more_of_it() -> None:
    with served(at_the_stub()) as port, Client(port) as client:
        client.socket.sendall(frame(b"qC"))
        assert [client.item(), client.item()] == [Mark.ACK, Packet(b"QC1")]
        client.socket.sendall(b"-")
        assert client.item() == Packet(b"QC1")
        client.socket.sendall(b"$qC#00")
        assert client.item() == Mark.NAK
        assert client.ask(b"QStartNoAckMode") == b"OK"
        client.socket.sendall(frame(b"qC"))
        assert client.item() == Packet(b"QC1")
        client.socket.sendall(b"$qC#00" + frame(b"qAttached"))
        assert client.item() == Packet(b"1")
        assert client.ask(b"D") == b"OK"
        assert client.item() is None


def test_gdb_after_gdb_attaches_and_finds_the_session_where_it_was_left() -> None:
    session = at_the_stub()
    with served(session, once=False) as port:
        for goodbye in (b"D", b"vKill;1", b"k", b""):
            before = session.position.n
            with Client(port) as client:
                client.ask(b"Z0,1234,1")
                client.ask(b"s")
                if goodbye in (b"D", b"vKill;1"):
                    assert client.ask(goodbye) == b"OK"
                elif goodbye:
                    client.socket.sendall(frame(goodbye))
            with Client(port) as client:
                assert client.ask(b"qAttached") == b"1"
                assert not session.stops.stops
                assert session.position.n == before + 1


def test_monitor_goes_to_the_function_that_was_handed_in() -> None:
    with served(at_the_stub()) as port, Client(port) as client:
        said = client.ask(b"qRcmd," + b"hello".hex().encode())
        assert bytes.fromhex(said[1:].decode()) == b"you said hello\n"
        assert client.answer() == b"OK"


def test_ctrl_c_ends_a_continue_and_the_run_goes_on_afterwards() -> None:
    session = at_the_stub()
    session.goto(0)
    with served(session) as port, Client(port) as client:
        client.ask(b"QStartNoAckMode")
        client.socket.sendall(frame(b"vCont;c:1") + b"\x03")
        assert client.answer().startswith(b"T02")
        interrupted = session.timeline.now
        client.socket.sendall(b"\x03")
        assert client.ask(b"s").startswith(b"T05")
        assert session.timeline.now > interrupted  # perhaps by a timer's delivery, which is a step of no instruction


def test_a_gdb_that_goes_during_a_continue_ends_it() -> None:
    session = at_the_stub()
    session.goto(0)
    with served(session) as port, Client(port) as client:
        client.socket.sendall(frame(b"c"))
    assert session.timeline.now <= session.timeline.end
    assert session.machine.loop.pause_at is None


def test_hostile_bytes_never_end_the_server() -> None:
    session = at_the_stub()
    noise = random.Random(3)  # noqa: S311 - noise, no secret
    with served(session, once=False) as port:
        for _ in range(60):
            with Client(port) as client:
                pieces = [
                    noise.randbytes(noise.randrange(400)),
                    frame(noise.randbytes(noise.randrange(40)).replace(b"#", b"").replace(b"c", b"")),
                    b"$" + b"a" * noise.randrange(40_000),
                    b"$m0,%x" % noise.getrandbits(80),
                ]
                client.socket.sendall(b"".join(noise.sample(pieces, noise.randrange(1, 5))))
        with Client(port) as client:
            assert len(client.ask(b"g")) == 2 * BYTES
