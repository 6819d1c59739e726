"""What each packet of gdb's does to a session, and the answer.  No socket in here.

Source: the gdb manual, appendix "Remote Protocol", sections "Packets", "Stop Reply Packets", "General Query Packets".
Errors are E01 (cannot be done), E14 (no memory at this linear address) and E22 (makes no sense); an empty answer says
that a packet is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from emu.debugger.address import Address
from emu.debugger.gdb.motion import Motion
from emu.debugger.gdb.packets import PACKET_SIZE, escape, unescape
from emu.debugger.gdb.points import KINDS, MOST_WATCHED, Point
from emu.debugger.gdb.registers import BYTES, REGISTERS, decode_all, encode, encode_all, values_of, writable
from emu.debugger.gdb.target_xml import linear_ranges, memory_map_xml, target_xml
from emu.debugger.session import Session
from emu.errors import KjumpError
from emu.x86.bits import Efer

OK: Final = b"OK"
UNKNOWN: Final = b""
CANNOT: Final = b"E01"
NO_MEMORY: Final = b"E14"
SENSELESS: Final = b"E22"

MOST_READ: Final = PACKET_SIZE // 2 - 8
"""The most bytes of memory that one answer holds."""
_OUTPUT_CHUNK: Final = PACKET_SIZE // 2 - 8
_FEATURES: Final = (
    f"PacketSize={PACKET_SIZE:x};qXfer:features:read+;qXfer:memory-map:read+;QStartNoAckMode+;"
    "ReverseStep+;ReverseContinue+;vContSupported+;swbreak+;hwbreak+"
)
_HEX: Final = "([0-9a-fA-F]{1,16})"
_RANGE: Final = re.compile(f"{_HEX},{_HEX}$".encode())
_STORE: Final = re.compile(f"{_HEX},{_HEX}:".encode())
_POINT: Final = re.compile(f"([0-4]),{_HEX},{_HEX}".encode())
_ONE_REGISTER: Final = re.compile(b"([0-9a-fA-F]{1,8})(?:=((?:[0-9a-fA-F]{2})*))?$")
_TRANSFER: Final = re.compile(f"(features|memory-map):read:([^:]*):{_HEX},{_HEX}$".encode())
_ACTION: Final = re.compile(rb"([cs]|[CS](?=[0-9a-fA-F]{2}))(?:(?<=[CS])..)?(?::[-p.0-9a-fA-F]+)?$")


class Stub:
    """gdb's side of one session.  :meth:`handle` takes a payload and gives the payloads to send back, in order.

    ``run_command`` carries out a command of ``monitor`` and gives its output; ``interrupted`` is asked now and then
    during a long move whether gdb wants it to end.
    """

    def __init__(
        self, session: Session, run_command: Callable[[str], str], interrupted: Callable[[], bool] = lambda: False
    ) -> None:
        self._session = session
        self._run_command = run_command
        self._motion = Motion(session, interrupted)
        self._points = self._motion.points
        self.acknowledging = True
        self.physical = False
        self.leaving = False
        self._plain: dict[int, Callable[[bytes], bytes]] = {
            ord("?"): lambda _: self._motion.stop_reply(),
            ord("!"): lambda _: UNKNOWN,
            ord("g"): lambda _: encode_all(values_of(session.machine)).hex().encode(),
            ord("G"): self._set_all,
            ord("p"): self._one_register,
            ord("P"): self._set_one,
            ord("m"): self._read,
            ord("M"): self._store,
            ord("X"): lambda rest: self._store(rest, binary=True),
            ord("Z"): self._insert,
            ord("z"): self._remove,
            ord("H"): lambda rest: OK if rest[:1] in (b"g", b"c") else SENSELESS,
            ord("T"): lambda rest: OK if rest == b"1" else CANNOT,
            ord("D"): lambda _: self._leave(),
            ord("Q"): self._set,
            ord("q"): self._query,
        }

    def handle(self, payload: bytes) -> list[bytes]:
        """The answer to one packet: nothing, one payload, or console output (``O``) and then a payload."""
        if payload == b"k":
            self._leave()
            return []
        try:
            return self._long(payload) or [self._short(payload)]
        except KjumpError:
            return [CANNOT]

    def _short(self, payload: bytes) -> bytes:
        handler = self._plain.get(payload[0]) if payload else None
        if handler is not None:
            return handler(payload[1:])
        if payload == b"vCont?":
            return b"vCont;c;C;s;S"
        if payload.startswith(b"vKill"):
            return self._leave()
        return UNKNOWN

    def _leave(self) -> bytes:
        """The end of gdb's visit: its points go with it, and the session stays where it is."""
        self.leaving = True
        self.forget()
        return OK

    def forget(self) -> None:
        """Take away whatever gdb has set; also for a gdb that is gone without a word."""
        self._points.clear()
        self.physical = False

    # ---- moving, and monitor: what may take long or print ----------------------------------------------------------

    def _long(self, payload: bytes) -> list[bytes]:
        if payload.startswith(b"qRcmd,"):
            return self._monitor(payload[6:])
        if payload in (b"bs", b"bc"):
            return self._motion.move(payload[1:].decode(), backwards=True)
        actions = payload.removeprefix(b"vCont;").split(b";", 1) if payload.startswith(b"vCont;") else [payload]
        action = _ACTION.match(actions[0])
        if action is None:
            return self._from_address(payload)
        return self._motion.move(action.group(1).decode().lower())

    def _from_address(self, payload: bytes) -> list[bytes]:
        """``c ADDR`` and ``s ADDR``: go on elsewhere, which is a change of RIP first."""
        matched = re.match(rb"([cs])([0-9a-fA-F]{1,16})$", payload)
        if matched is None:
            return []
        rip = next(register for register in REGISTERS if register.name == "rip")
        self._session.set_register(*writable(rip, int(matched.group(2), 16), self._session.machine))
        return self._motion.move(matched.group(1).decode())

    def _monitor(self, digits: bytes) -> list[bytes]:
        text = _from_hex(digits)
        if text is None:
            return [SENSELESS]
        before = self._session.timeline.now
        try:
            output = self._run_command(text.decode(errors="replace"))
        except KjumpError as error:
            output = f"{error}\n"
        if self._session.timeline.now != before:
            output += "(the machine is elsewhere now: `maintenance flush register-cache` tells gdb)\n"
        return [*console(output), OK]

    # ---- registers -------------------------------------------------------------------------------------------------

    def _one_register(self, rest: bytes) -> bytes:
        matched = _ONE_REGISTER.match(rest)
        if matched is None or matched.group(2) is not None:
            return SENSELESS
        number = int(matched.group(1), 16)
        if number >= len(REGISTERS):
            return CANNOT
        return encode(REGISTERS[number], values_of(self._session.machine)).hex().encode()

    def _set_one(self, rest: bytes) -> bytes:
        matched = _ONE_REGISTER.match(rest)
        if matched is None or matched.group(2) is None:
            return SENSELESS
        number, data = int(matched.group(1), 16), bytes.fromhex(matched.group(2).decode())
        if number >= len(REGISTERS) or len(data) != REGISTERS[number].size:
            return CANNOT
        value = int.from_bytes(data, "little")
        self._session.set_register(*writable(REGISTERS[number], value, self._session.machine))
        return OK

    def _set_all(self, rest: bytes) -> bytes:
        """Only what differs is set: each change is a branch of history."""
        data = _from_hex(rest)
        if data is None or len(data) > BYTES:
            return SENSELESS
        machine = self._session.machine
        values = values_of(machine)
        changed = [
            (register, value)
            for register, value in decode_all(data)
            if value.to_bytes(register.size, "little") != encode(register, values)
        ]
        for register, value in changed:
            self._session.set_register(*writable(register, value, machine))
        return OK

    # ---- memory ----------------------------------------------------------------------------------------------------

    def _exists(self, address: int, size: int) -> bool:
        """Is the range one that this mode can name at all?  Outside of long mode linear addresses have 32 bits."""
        wide = self.physical or self._session.machine.cpu.efer & Efer.LMA
        return address + size <= 1 << (64 if wide else 32)

    def _read(self, rest: bytes) -> bytes:
        matched = _RANGE.match(rest)
        if matched is None:
            return SENSELESS
        address, size = int(matched.group(1), 16), min(int(matched.group(2), 16), MOST_READ)
        if not size:
            return UNKNOWN
        if not self._exists(address, size):
            return NO_MEMORY
        data = self._session.read(Address(address, physical=self.physical), size)
        return data.hex().encode() if data else NO_MEMORY

    def _store(self, rest: bytes, *, binary: bool = False) -> bytes:
        matched = _STORE.match(rest)
        if matched is None:
            return SENSELESS
        address, size = int(matched.group(1), 16), int(matched.group(2), 16)
        data = unescape(rest[matched.end() :]) if binary else _from_hex(rest[matched.end() :])
        if data is None or len(data) != size:
            return SENSELESS
        if not data:
            return OK
        if (
            not self._exists(address, size)
            or self._session.read(Address(address, physical=self.physical), size) is None
        ):
            return NO_MEMORY
        self._session.write_memory(Address(address, physical=self.physical), data)
        return OK

    # ---- breakpoints -----------------------------------------------------------------------------------------------

    def _insert(self, rest: bytes) -> bytes:
        point = _point(rest)
        if point is None:
            return UNKNOWN if rest[:1] not in b"01234" else SENSELESS
        try:
            self._points.insert(point)
        except KjumpError:
            return NO_MEMORY
        return OK

    def _remove(self, rest: bytes) -> bytes:
        point = _point(rest)
        if point is None:
            return SENSELESS
        self._points.remove(point)
        return OK

    # ---- queries ---------------------------------------------------------------------------------------------------

    def _query(self, rest: bytes) -> bytes:
        name = re.split(rb"[:,]", rest, maxsplit=1)[0]
        if name == b"Supported":
            offered = rest[len(b"Supported:") :].decode(errors="replace").split(";")
            self._points.reported = frozenset(word.removesuffix("+") for word in offered if word.endswith("+"))
            return _FEATURES.encode()
        if name == b"Xfer":
            return self._transfer(rest[len(b"Xfer:") :])
        answers: dict[bytes, Callable[[], bytes]] = {
            b"C": lambda: b"QC1",
            b"fThreadInfo": lambda: b"m1",
            b"sThreadInfo": lambda: b"l",
            b"Attached": lambda: b"1",
            b"ThreadExtraInfo": lambda: self._where().encode().hex().encode(),
            b"qemu.PhyMemMode": lambda: b"1" if self.physical else b"0",
        }
        return answers[name]() if name in answers else UNKNOWN

    def _where(self) -> str:
        session = self._session
        return f"{session.machine.cpu.mode()}, N {session.position}, {session.transition()}"

    def _set(self, rest: bytes) -> bytes:
        if rest == b"StartNoAckMode":
            self.acknowledging = False
            return OK
        name, _, value = rest.partition(b":")
        if name != b"qemu.PhyMemMode":
            return UNKNOWN
        if value not in (b"0", b"1"):
            return SENSELESS
        self.physical = value == b"1"
        return OK

    def _transfer(self, rest: bytes) -> bytes:
        matched = _TRANSFER.match(rest)
        if matched is None:
            return UNKNOWN
        if matched.group(1) == b"features":
            if matched.group(2) != b"target.xml":
                return b"E00"
            document = target_xml()
        else:
            arch = self._session.recording.arch
            end = self._session.machine.memory_map.end_of_ram
            document = memory_map_xml(linear_ranges(arch.bits, arch.levels, end))
        start, size = int(matched.group(3), 16), min(int(matched.group(4), 16), MOST_READ)
        data = document.encode()
        if start > len(data):
            return CANNOT
        return (b"l" if start + size >= len(data) else b"m") + escape(data[start : start + size])


def console(text: str) -> list[bytes]:
    """Text for gdb to print, as ``O`` packets."""
    data = text.encode(errors="replace")
    return [b"O" + data[at : at + _OUTPUT_CHUNK].hex().encode() for at in range(0, len(data), _OUTPUT_CHUNK)]


def _from_hex(digits: bytes) -> bytes | None:
    if re.fullmatch(rb"(?:[0-9a-fA-F]{2})*", digits) is None:
        return None
    return bytes.fromhex(digits.decode())


def _point(rest: bytes) -> Point | None:
    """The point that a ``Z`` or ``z`` packet names; None for one that is none, or watches too much."""
    matched = _POINT.match(rest)
    if matched is None:
        return None
    point = Point(int(matched.group(1)), int(matched.group(2), 16), int(matched.group(3), 16))
    if KINDS[point.type] != "break" and (not 0 < point.size <= MOST_WATCHED or point.address + point.size > 1 << 64):
        return None
    return point
