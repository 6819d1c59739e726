"""Directives that emit data, move the location, define symbols, or say nothing to a flat image."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from emu.assembler.expression import Expression
from emu.assembler.layout import MAX_SIZE, Advance, Align, Layout, Patch
from emu.assembler.source import Statement, split_outside, strip_piece
from emu.assembler.symbols import SymbolTable

NOP = b"\x90"
_STRING = re.compile(r'\s*"((?:\\.|[^"\\])*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]+)|(.))", re.DOTALL)
_NAMED_ESCAPES = {"n": 10, "t": 9, "r": 13, "b": 8, "f": 12, "\\": 92, '"': 34}


class Target(Protocol):
    """What a directive may do to the assembly."""

    layout: Layout
    symbols: SymbolTable
    warnings: list[str]
    ended: bool
    discarded: str

    def expression(self, text: str, statement: Statement, offset: int) -> Expression:
        """See :class:`emu.assembler.assembly.Assembly`."""

    def known(self, expression: Expression, statement: Statement) -> int | None:
        """See :class:`emu.assembler.assembly.Assembly`."""

    def constant(self, text: str, statement: Statement, offset: int) -> int:
        """See :class:`emu.assembler.assembly.Assembly`."""

    def emit(self, data: bytes, statement: Statement, patches: list[Patch] | tuple[Patch, ...] = ()) -> None:
        """See :class:`emu.assembler.assembly.Assembly`."""

    def set_bits(self, bits: int) -> None:
        """See :class:`emu.assembler.assembly.Assembly`."""

    def mark_line(self, chunk: int, statement: Statement) -> None:
        """See :class:`emu.assembler.assembly.Assembly`."""


Directive = Callable[[Target, Statement, str, int], None]


def _pieces(operands: str, offset: int) -> list[tuple[int, str]]:
    if not operands:
        return []
    return [strip_piece(offset + start, piece) for start, piece in split_outside(operands, ",", brackets=True)]


def _strings(statement: Statement, operands: str, offset: int) -> list[bytes]:
    values: list[bytes] = []
    for start, piece in split_outside(operands, ","):
        whole, at = b"", 0
        while at < len(piece.rstrip()):
            found = _STRING.match(piece, at)
            if found is None:
                raise statement.error("a string in double quotes is expected", offset=offset + start + at)
            whole += _unescape(found.group(1), statement)
            at = found.end()
        if not piece.strip():
            raise statement.error("a string in double quotes is expected", offset=offset + start)
        values.append(whole)
    return values


def _unescape(text: str, statement: Statement) -> bytes:
    out, at = bytearray(), 0
    for found in _ESCAPE.finditer(text):
        out += text[at : found.start()].encode()
        octal, hexadecimal, letter = found.groups()
        if letter is not None and letter not in _NAMED_ESCAPES:
            raise statement.error(f"unknown escape \\{letter} in a string")
        if letter is not None:
            out.append(_NAMED_ESCAPES[letter])
        else:
            out.append((int(octal, 8) if octal is not None else int(hexadecimal, 16)) & 0xFF)
        at = found.end()
    return bytes(out + text[at:].encode())


def _text(target: Target, statement: Statement, operands: str, offset: int, *, end: bytes) -> None:
    target.emit(b"".join(value + end for value in _strings(statement, operands, offset)), statement)


def _integers(target: Target, statement: Statement, operands: str, offset: int, *, size: int) -> None:
    patches: list[Patch] = []
    for start, piece in _pieces(operands, offset):
        value = target.expression(piece, statement, start)
        known = target.known(value, statement)
        if known is not None and size < 8 and not -(1 << (8 * size - 1)) <= known < 1 << (8 * size):
            raise statement.error(f"{known:#x} does not fit {size} byte{'s' * (size > 1)}", offset=start)
        patches.append(Patch(len(patches) * size, size, value, statement))
    target.emit(bytes(len(patches) * size), statement, patches)


def _floats(target: Target, statement: Statement, operands: str, offset: int, *, form: str) -> None:
    data = b""
    for start, piece in _pieces(operands, offset):
        try:
            data += struct.pack(form, float(piece))
        except (ValueError, OverflowError):
            raise statement.error(f"{piece!r} is not a number of this format", offset=start) from None
    target.emit(data, statement)


def _count(target: Target, statement: Statement, size: Expression, fill: bytes) -> None:
    known = target.known(size, statement)
    if known is None:
        chunk = target.layout.add(Advance(None, size, fill, statement))
        target.mark_line(chunk, statement)
        return
    if known < 0 or known * len(fill) > MAX_SIZE:
        raise statement.error(f"a size of {known} is outside 0 to {MAX_SIZE:#x}")
    target.emit(fill * known, statement)


def _space(target: Target, statement: Statement, operands: str, offset: int) -> None:
    pieces = _pieces(operands, offset)
    if not 1 <= len(pieces) <= 2:
        raise statement.error("a size, and at most a fill byte, is expected", offset=offset)
    fill = target.constant(pieces[1][1], statement, pieces[1][0]) if len(pieces) == 2 else 0
    _count(target, statement, target.expression(pieces[0][1], statement, pieces[0][0]), bytes((fill & 0xFF,)))


def _fill(target: Target, statement: Statement, operands: str, offset: int) -> None:
    pieces = _pieces(operands, offset)
    if not 1 <= len(pieces) <= 3:
        raise statement.error(".fill takes a count, a size and a value", offset=offset)
    size = target.constant(pieces[1][1], statement, pieces[1][0]) if len(pieces) > 1 else 1
    value = target.constant(pieces[2][1], statement, pieces[2][0]) if len(pieces) > 2 else 0
    if not 0 <= size <= 8:
        raise statement.error(f"a .fill size of {size} is outside 0 to 8", offset=pieces[1][0])
    fill = (value & 0xFFFFFFFF).to_bytes(8, "little")[:size]
    _count(target, statement, target.expression(pieces[0][1], statement, pieces[0][0]), fill)


def _align(target: Target, statement: Statement, operands: str, offset: int, *, power: bool) -> None:
    pieces = _pieces(operands, offset)
    if not 1 <= len(pieces) <= 3:
        raise statement.error("an alignment, and at most a fill and a limit, is expected", offset=offset)
    numbers = [target.constant(piece, statement, start) if piece else None for start, piece in pieces]
    boundary = numbers[0] or 0
    if power:
        boundary = 1 << boundary if 0 <= boundary <= 26 else 0
    elif boundary == 0:
        boundary = 1
    if boundary <= 0 or boundary & (boundary - 1) or boundary > MAX_SIZE:
        raise statement.error(f"an alignment of {pieces[0][1]} is not a power of two that fits", offset=offset)
    given = numbers[1] if len(numbers) > 1 else None
    most = numbers[2] if len(numbers) > 2 else None
    target.layout.add(Align(boundary, NOP if given is None else bytes((given & 0xFF,)), most or 0))


def _org(target: Target, statement: Statement, operands: str, offset: int) -> None:
    pieces = _pieces(operands, offset)
    if not 1 <= len(pieces) <= 2:
        raise statement.error(".org takes a place and at most a fill byte", offset=offset)
    fill = target.constant(pieces[1][1], statement, pieces[1][0]) if len(pieces) == 2 else 0
    wanted = target.expression(pieces[0][1], statement, pieces[0][0])
    known = target.known(wanted, statement)
    chunk = target.layout.add(Advance(wanted, None, bytes((fill & 0xFF,)), statement, known))
    target.mark_line(chunk, statement)


def _set(target: Target, statement: Statement, operands: str, offset: int, *, once: bool) -> None:
    pieces = _pieces(operands, offset)
    if len(pieces) != 2 or not re.fullmatch(r"[A-Za-z_$.][\w$.]*", pieces[0][1]) or pieces[0][1] == ".":
        raise statement.error("a symbol and a value are expected", offset=offset)
    target.symbols.define(pieces[0][1], target.expression(pieces[1][1], statement, pieces[1][0]), statement, once=once)


def _global(target: Target, statement: Statement, operands: str, offset: int) -> None:
    for start, name in _pieces(operands, offset):
        if not re.fullmatch(r"[A-Za-z_$.][\w$.]*", name):
            raise statement.error("a symbol name is expected", offset=start)
        target.symbols.globals.add(name)


def _code(target: Target, statement: Statement, operands: str, offset: int, *, bits: int) -> None:
    if operands:
        raise statement.error(f".code{bits} takes no operand", offset=offset)
    target.set_bits(bits)


def _ignore(_target: Target, _statement: Statement, _operands: str, _offset: int) -> None:
    """Say nothing: what the directive describes has no place in a flat image."""


def _refuse(_target: Target, statement: Statement, _operands: str, _offset: int, *, why: str) -> None:
    raise statement.error(f"directive {statement.text.split()[0]} is refused: {why}")


def _section(target: Target, statement: Statement, operands: str, offset: int) -> None:
    name = operands.split(",", 1)[0].strip().strip('"')
    if name == ".note.GNU-stack":
        target.discarded = name
    elif name == ".text":
        target.discarded = ""
    else:
        raise statement.error(
            f"section {name or '?'}: the image is one flat section",
            offset=offset,
            hint="put data behind the code in .text, or compile the file and pass the .o",
        )


def _to_text(target: Target, statement: Statement, operands: str, offset: int) -> None:
    if operands not in ("", "0"):
        raise statement.error("subsections are not supported", offset=offset)
    target.discarded = ""


def _error(_target: Target, statement: Statement, operands: str, offset: int) -> None:
    values = _strings(statement, operands, offset) if operands else [b".error directive"]
    raise statement.error(values[0].decode())


def _warning(target: Target, statement: Statement, operands: str, offset: int) -> None:
    values = _strings(statement, operands, offset) if operands else [b".warning directive"]
    target.warnings.append(f"{statement.at.file}:{statement.at.line}: {values[0].decode()}")


def _end(target: Target, _statement: Statement, _operands: str, _offset: int) -> None:
    target.ended = True


_FLAT = partial(_refuse, why="the image is one flat section; put data behind the code in .text")
_NO_SYNTAX = partial(_refuse, why="sources are AT&T syntax")
_HOST = partial(_refuse, why="it would read a file of this machine")
_UNKNOWN = partial(_refuse, why="it has no meaning here that GNU as and this assembler share")

DIRECTIVES: Mapping[str, Directive] = {
    **dict.fromkeys((".byte", ".1byte"), partial(_integers, size=1)),
    **dict.fromkeys((".word", ".short", ".value", ".hword", ".2byte"), partial(_integers, size=2)),
    **dict.fromkeys((".long", ".int", ".4byte"), partial(_integers, size=4)),
    **dict.fromkeys((".quad", ".8byte"), partial(_integers, size=8)),
    **dict.fromkeys((".float", ".single"), partial(_floats, form="<f")),
    ".double": partial(_floats, form="<d"),
    ".ascii": partial(_text, end=b""),
    **dict.fromkeys((".asciz", ".string"), partial(_text, end=b"\0")),
    **dict.fromkeys((".skip", ".space", ".zero"), _space),
    ".fill": _fill,
    **dict.fromkeys((".align", ".balign"), partial(_align, power=False)),
    ".p2align": partial(_align, power=True),
    ".org": _org,
    **dict.fromkeys((".set", ".equ"), partial(_set, once=False)),
    **dict.fromkeys((".equiv", ".eqv"), partial(_set, once=True)),
    **dict.fromkeys((".global", ".globl"), _global),
    **{f".code{bits}": partial(_code, bits=bits) for bits in (16, 32, 64)},
    **dict.fromkeys((".type", ".size", ".local", ".hidden", ".internal", ".protected", ".weak", ".extern"), _ignore),
    **dict.fromkeys((".file", ".loc", ".ident", ".att_syntax", ".print", ".cfi_", ".arch"), _ignore),
    ".text": _to_text,
    ".section": _section,
    **dict.fromkeys((".data", ".bss", ".rodata", ".pushsection", ".popsection", ".previous", ".subsection"), _FLAT),
    **dict.fromkeys((".comm", ".lcomm"), _FLAT),
    **dict.fromkeys((".intel_syntax", ".altmacro", ".code16gcc"), _NO_SYNTAX),
    ".incbin": _HOST,
    **dict.fromkeys((".octa", ".sleb128", ".uleb128", ".struct", ".offset", ".reloc", ".nops"), _UNKNOWN),
    **dict.fromkeys((".error", ".err", ".abort"), _error),
    ".warning": _warning,
    ".end": _end,
}
