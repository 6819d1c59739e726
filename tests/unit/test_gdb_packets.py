"""Framing of the remote serial protocol: what is framed comes back, in pieces, with noise, and nothing else does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emu.debugger.gdb.packets import (
    PACKET_SIZE,
    Mark,
    Packet,
    Reader,
    checksum,
    compress,
    escape,
    expand,
    frame,
    unescape,
)

PAYLOADS = st.binary(max_size=400).map(escape)


def read(*pieces: bytes) -> list[Packet | Mark]:
    reader = Reader()
    return [item for piece in pieces for item in reader.feed(piece)]


def test_a_frame_is_as_the_manual_shows_it() -> None:
    assert frame(b"OK") == b"$OK#9a"
    assert checksum(b"OK") == 0x9A
    assert frame(b"") == b"$#00"


def test_a_run_is_a_byte_a_star_and_a_count() -> None:
    assert compress(b"0000") == b"0* "
    assert expand(b"0* ") == b"0000"


def test_a_count_never_looks_like_a_frame_or_an_acknowledgement() -> None:
    for length in range(200):
        packed = compress(b"x" * length)
        assert not set(packed) & set(b"$#+-"), length
        assert expand(packed) == b"x" * length


@given(PAYLOADS)
def test_runs_expand_to_what_was_compressed(payload: bytes) -> None:
    assert expand(compress(payload)) == payload


@given(st.binary(max_size=400))
def test_binary_data_survives_its_escapes(data: bytes) -> None:
    assert unescape(escape(data)) == data
    assert not set(escape(data)) & set(b"$#*")


def test_an_escape_at_the_very_end_is_dropped() -> None:
    assert unescape(b"ab}") == b"ab"


@given(PAYLOADS, st.integers(1, 9))
def test_a_frame_in_pieces_is_one_packet(payload: bytes, size: int) -> None:
    wire = frame(payload)
    items = read(*(wire[at : at + size] for at in range(0, len(wire), size)))
    assert [expand(item.payload) for item in items if isinstance(item, Packet)] == [payload]
    assert len(items) == 1


def test_a_wrong_checksum_is_a_broken_packet() -> None:
    assert read(b"$OK#9b") == [Mark.BROKEN]
    assert read(b"$OK#zz$OK#9a") == [Mark.BROKEN, Packet(b"OK")]
    assert read(b"$OK#9A") == [Packet(b"OK")]


def test_acknowledgements_and_interrupts_come_between_packets_only() -> None:
    assert read(b"+-\x03$g#67") == [Mark.ACK, Mark.NAK, Mark.INTERRUPT, Packet(b"g")]
    inside = b"X0,3:+-\x03"
    assert read(frame(inside)) == [Packet(inside)]


def test_noise_is_dropped() -> None:
    assert read(b"hello\r\n\x00\xff#}*$g#67 bye") == [Packet(b"g")]


def test_a_packet_that_was_cut_short_does_not_swallow_the_next() -> None:
    assert read(b"$m1000,4$g#67") == [Mark.BROKEN, Packet(b"g")]


def test_an_endless_packet_costs_no_more_memory_than_two() -> None:
    reader = Reader()
    items = [item for _ in range(100) for item in reader.feed(b"$" + b"a" * PACKET_SIZE)]
    items += reader.feed(b"#00$g#67")
    assert items[-1] == Packet(b"g")
    assert len(reader._held) <= 2 * PACKET_SIZE
    assert set(items[:-1]) == {Mark.BROKEN}


@given(st.lists(st.binary(max_size=300), max_size=12))
def test_no_bytes_at_all_upset_the_reader(pieces: list[bytes]) -> None:
    reader = Reader()
    for piece in pieces:
        for item in reader.feed(piece):
            assert isinstance(item, Packet | Mark)
    assert list(reader.feed(b"#00#00"))[:1] in ([], [Mark.BROKEN], [Packet(b"")])
    assert list(reader.feed(frame(b"g")))[-1:] == [Packet(b"g")]
