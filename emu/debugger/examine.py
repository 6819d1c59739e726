"""gdb's ``x``: memory in the formats x d u o t a c s i f and the units b h w g, linear or physical."""

from __future__ import annotations

import struct

from emu.debugger.address import Address
from emu.debugger.lines import WIDTH
from emu.debugger.places import disassemble, labelled, next_instruction, symbol
from emu.debugger.session import Session
from emu.errors import DebuggerError

UNITS = {"b": 1, "h": 2, "w": 4, "g": 8}
FORMATS = "xduotacsif"
MOST_BYTES = 1 << 16
_ACROSS = {1: 8, 2: 8, 4: 4, 8: 2}
_LONGEST_STRING = 200
_ESCAPES = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 27: "\\033", 92: "\\\\"}


def unit_size(form: str, unit: str, word: int = 4) -> int:
    """Bytes of one item; ``word`` is that of the present mode, which ``a`` uses.  Raises DebuggerError."""
    if form not in FORMATS or len(form) != 1:
        raise DebuggerError(f"no format is called {form!r}", hint=f"one of {' '.join(FORMATS)}")
    if unit and unit not in UNITS:
        raise DebuggerError(f"no unit is called {unit!r}", hint="b h w g: 1, 2, 4, 8 bytes")
    if form == "a":
        return max(word, 4)
    if form == "c":
        return UNITS[unit or "b"]
    if form == "f":
        if unit == "b":
            raise DebuggerError("there is no floating point number of one byte", hint="h w g")
        return UNITS[unit or "g"]
    return UNITS[unit or "w"]


def show_item(raw: bytes, form: str, *, quote: str = "'") -> str:
    """One item in a format of numbers (x d u o t c f), little endian, as gdb writes it."""
    value = int.from_bytes(raw, "little")
    signed = int.from_bytes(raw, "little", signed=True)
    match form:
        case "x":
            return f"0x{value:0{2 * len(raw)}x}"
        case "d":
            return str(signed)
        case "u":
            return str(value)
        case "o":
            return f"0{value:o}" if value else "0"
        case "t":
            return f"{value:0{8 * len(raw)}b}"
        case "c":
            return f"{signed} {quote}{_letter(value & 0xFF, quote)}{quote}"
        case "f":
            code, digits = {2: ("<e", 5), 4: ("<f", 9), 8: ("<d", 17)}[len(raw)]
            return f"{struct.unpack(code, raw)[0]:.{digits}g}"
        case _:
            raise DebuggerError(f"{form!r} is no format of a number")


def _letter(byte: int, quote: str) -> str:
    if byte in _ESCAPES:
        return _ESCAPES[byte]
    if chr(byte) == quote:
        return f"\\{quote}"
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"


def examine(
    session: Session, address: Address, count: int = 1, form: str = "x", unit: str = "", *, width: int = WIDTH
) -> list[str]:
    """Lines of ``x/<count><form><unit> address``; a negative count shows what lies before.  Raises DebuggerError."""
    size = unit_size(form, unit, session.machine.cpu.bits // 8)
    if abs(count) * size > MOST_BYTES:
        raise DebuggerError(f"{abs(count):,} items are more than {MOST_BYTES:,} bytes")
    if form in "si" and count < 0:
        raise DebuggerError(f"x/{form} does not go backwards")
    if form == "i":
        return disassemble(session, address, count, width=width)
    if form == "s":
        return _strings(session, address, count, width)
    if count < 0:
        address, count = Address(max(address.value + count * size, 0), address.physical), -count
    raw = session.read(address, count * size) or b""
    if len(raw) < size and count:
        raise DebuggerError(f"{address} is not mapped here", hint="walk shows why")
    items = [raw[at : at + size] for at in range(0, len(raw) - size + 1, size)]
    lines = _rows(session, address, items, form, width)
    if len(items) < count:
        lines.append(f"{Address(address.value + len(items) * size, address.physical)}:  not mapped here")
    return lines


def _rows(session: Session, address: Address, items: list[bytes], form: str, width: int) -> list[str]:
    size = len(items[0]) if items else 1
    across = _ACROSS[size] if form != "t" else max(4 // size, 1)
    lines: list[str] = []
    for start in range(0, len(items), across):
        row = items[start : start + across]
        shown = [_pointer(session, item) if form == "a" else show_item(item, form) for item in row]
        text = f"{labelled(session, Address(address.value + start * size, address.physical))}:"
        lines += _packed(text, shown, width)
    return lines


def _packed(head: str, shown: list[str], width: int) -> list[str]:
    lines, text = [], head
    for item in shown:
        if len(text) + 2 + len(item) > width and text != head and text.strip():
            lines.append(text)
            text = " " * 4
        text += f"  {item}"
    return [*lines, text]


def _pointer(session: Session, raw: bytes) -> str:
    value = int.from_bytes(raw, "little")
    name = symbol(session, value)
    return f"{value:#x} <{name}>" if name else f"{value:#x}"


def _string(session: Session, address: Address) -> tuple[str, int]:
    """The text at ``address`` in quotes, and the bytes that it takes with its NUL; raises DebuggerError."""
    raw = session.read(address, _LONGEST_STRING)
    if not raw:
        raise DebuggerError(f"{address} is not mapped here", hint="walk shows why")
    end = raw.find(0)
    text = "".join(_letter(byte, '"') for byte in (raw if end < 0 else raw[:end]))
    return (f'"{text}"', end + 1) if end >= 0 else (f'"{text}"...', len(raw))


def _broken(text: str, width: int) -> list[str]:
    """A long string over several lines, broken anywhere."""
    return [text[:width], *(f"    {text[at : at + width - 4]}" for at in range(width, len(text), width - 4))]


def _strings(session: Session, address: Address, count: int, width: int) -> list[str]:
    lines: list[str] = []
    for _ in range(count):
        text, size = _string(session, address)
        lines += _broken(f"{labelled(session, address)}:  {text}", width)
        address = Address(address.value + size, address.physical)
    return lines


def following(session: Session, address: Address, count: int = 1, form: str = "x", unit: str = "") -> Address:
    """Where ``x`` without an address goes on after :func:`examine` with these arguments."""
    size = unit_size(form, unit, session.machine.cpu.bits // 8)
    if count < 0:
        return Address(max(address.value + count * size, 0), address.physical)
    for _ in range(count if form in "si" else 0):
        if form == "i":
            address = next_instruction(session, address)
        else:
            address = Address(address.value + _string(session, address)[1], address.physical)
    return address if form in "si" else Address(address.value + count * size, address.physical)
