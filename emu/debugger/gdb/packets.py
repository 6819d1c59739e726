"""Packets of the remote serial protocol, as bytes: framing, checksums, escapes and runs.  No socket in here.

Source: the gdb manual, appendix "Remote Protocol", sections "Overview" and "Packets".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

PACKET_SIZE = 0x4000
"""The largest packet in bytes, frame included, that either side sends."""
INTERRUPT = 0x03
"""The byte by which gdb asks a running target to stop; it comes outside of any packet."""

_BEGIN, _END, _ESCAPE, _RUN = b"$#}*"
_SPECIAL = frozenset(b"$#}*")
_FLIP = 0x20
_SHORTEST_RUN, _LONGEST_RUN = 3, 97
_COUNT_BIAS = 29
_BETWEEN = re.compile(rb"[$+\-\x03]")


class Mark(Enum):
    """What comes on the wire besides packets."""

    ACK = "+"
    NAK = "-"
    INTERRUPT = "interrupt"
    BROKEN = "broken packet"


_MARKS = {ord("+"): Mark.ACK, ord("-"): Mark.NAK, INTERRUPT: Mark.INTERRUPT}


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet whose checksum held: its payload as sent, escapes resolved only by those who take binary data."""

    payload: bytes


def checksum(payload: bytes) -> int:
    """The sum of all bytes between ``$`` and ``#``, modulo 256."""
    return sum(payload) & 0xFF


def escape(data: bytes) -> bytes:
    """Binary data with every byte that means something to the protocol as ``}`` and the byte with bit 5 flipped."""
    return b"".join(bytes((_ESCAPE, byte ^ _FLIP)) if byte in _SPECIAL else bytes((byte,)) for byte in data)


def unescape(data: bytes) -> bytes:
    """The reverse of :func:`escape`; an escape with nothing behind it is dropped."""
    result, at = bytearray(), 0
    while (found := data.find(_ESCAPE, at)) >= 0:
        result += data[at:found]
        result += bytes(byte ^ _FLIP for byte in data[found + 1 : found + 2])
        at = found + 2
    return bytes(result + data[at:])


def compress(payload: bytes) -> bytes:
    """``payload`` with runs of one byte as the byte, ``*`` and a printable count; only stubs may send this."""
    result, at = bytearray(), 0
    while at < len(payload):
        byte, behind = payload[at], at + 1
        while behind < len(payload) and payload[behind] == byte and behind - at <= _LONGEST_RUN:
            behind += 1
        extra = behind - at - 1
        while chr(extra + _COUNT_BIAS) in "$#+-":
            extra -= 1  # a count may not look like a frame or an acknowledgement
        if extra < _SHORTEST_RUN:
            result.append(byte)
            at += 1
        else:
            result += bytes((byte, _RUN, extra + _COUNT_BIAS))
            at += 1 + extra
    return bytes(result)


def expand(payload: bytes) -> bytes:
    """The reverse of :func:`compress`; a ``*`` with nothing to repeat or no valid count stands for itself."""
    result, at = bytearray(), 0
    while at < len(payload):
        count = payload[at + 1] - _COUNT_BIAS if at + 1 < len(payload) else 0
        if payload[at] == _RUN and result and count > 0:
            result += result[-1:] * count
            at += 2
        else:
            result.append(payload[at])
            at += 1
    return bytes(result)


def frame(payload: bytes) -> bytes:
    """A payload (binary parts escaped already) as a packet on the wire."""
    body = compress(payload)
    return b"$%b#%02x" % (body, checksum(body))


class Reader:
    """Takes bytes as they come, in any pieces, and gives packets and marks; never more memory than two packets."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[Packet | Mark]:
        """Everything that ``data`` completes.  Noise between packets is dropped."""
        for start in range(0, len(data), PACKET_SIZE):
            self._held += data[start : start + PACKET_SIZE]
            while (item := self._next()) is not None:
                yield item

    def _next(self) -> Packet | Mark | None:
        held = self._held
        if self._skipping:
            end = held.find(_END)
            self._skipping = end < 0
            del held[: end if end >= 0 else len(held)]
        found = _BETWEEN.search(held)
        del held[: found.start() if found is not None else len(held)]
        if not held:
            return None
        if held[0] != _BEGIN:
            return _MARKS[held.pop(0)]
        return self._packet()

    def _packet(self) -> Packet | Mark | None:
        held = self._held
        end = held.find(_END)
        again = held.find(_BEGIN, 1, end if end >= 0 else len(held))
        if again > 0:  # a packet that was cut short: the next one begins here
            del held[:again]
            return Mark.BROKEN
        if end < 0 and len(held) > PACKET_SIZE:
            held.clear()
            self._skipping = True
            return Mark.BROKEN
        if end < 0 or len(held) < end + 3:
            return None
        payload, digits = bytes(held[1:end]), bytes(held[end + 1 : end + 3])
        del held[: end + 3]
        return Packet(payload) if digits.lower() == b"%02x" % checksum(payload) else Mark.BROKEN
