"""What ``kjump asm`` shows: a summary, a listing, the symbols."""

from __future__ import annotations

from collections.abc import Iterator

from emu.assembler.image import Image, Line
from emu.units import show_size

BYTES_A_ROW = 8
_LONGEST_DATA = 64
"""Bytes of one source line that are shown; a .fill of a page is told, not shown."""


def _rows(address: int, data: bytes, text: str, digits: int) -> Iterator[str]:
    shown = data[:_LONGEST_DATA]
    if len(data) > _LONGEST_DATA and not any(data):
        shown = data[:BYTES_A_ROW]
    width = 3 * BYTES_A_ROW - 1
    for start in range(0, len(shown), BYTES_A_ROW):
        row = shown[start : start + BYTES_A_ROW].hex(" ")
        source = text if start == 0 else ""
        yield f"{address + start:0{digits}x}  {row:<{width}}  {source}".rstrip()
    if len(shown) < len(data):
        yield f"{'':{digits}}  ... {len(data) - len(shown)} more bytes"


def _head(image: Image, line: Line) -> str:
    source = image.source_text(line).strip()
    return f"{line.line:5}  {source}"


def listing(image: Image) -> str:
    """Address, bytes and source line of the whole image, symbols on lines of their own, padding named as such."""
    digits = max(len(f"{image.end:x}"), 4)
    names: dict[int, list[str]] = {}
    for name, address in image.symbols.items():
        names.setdefault(address, []).append(name)
    out: list[str] = []
    at = image.org
    file = ""
    for line in image.lines:
        if line.address < at:
            continue
        if line.address > at:
            out += _labels(names, at, line.address, digits)
            out.append(f"{at:0{digits}x}  ({line.address - at} bytes of padding)")
        if line.file != file:
            file = line.file
            out.append(f"# {file}")
        out += _labels(names, line.address, line.address + line.size, digits)
        data = image.code[line.address - image.org : line.address - image.org + line.size]
        out += _rows(line.address, data, _head(image, line), digits)
        at = line.address + line.size
    if at < image.end:
        out.append(f"{at:0{digits}x}  ({image.end - at} bytes without a source line)")
    out += _labels(names, image.end, image.end + 1, digits)
    return "\n".join(out)


def _labels(names: dict[int, list[str]], start: int, end: int, digits: int) -> list[str]:
    """The symbols from ``start`` up to ``end``, each once."""
    found: list[str] = []
    for address in sorted(place for place in names if start <= place < end):
        found += [f"{address:0{digits}x}  <{name}>:" for name in names.pop(address)]
    return found


def symbol_table(image: Image) -> str:
    """Every symbol with its address, in address order, then the constants."""
    digits = max(len(f"{image.end:x}"), 4)
    places = sorted(image.symbols.items(), key=lambda item: (item[1], item[0]))
    rows = [f"{address:0{digits}x}  {name}" for name, address in places]
    rows += [f"{'=':>{digits}}  {name} = {value:#x}" for name, value in sorted(image.constants.items())]
    return "\n".join(rows)


def asm_report(image: Image, *, listing: bool = False, symbols: bool = False) -> str:
    """The text of ``kjump asm``: what was assembled, and on request the listing and the symbols."""
    size = len(image.code)
    bytes_and_size = show_size(size) if size % 1024 else f"{size} bytes, {show_size(size)}"
    modes = f"{image.bits}-bit" + "".join(f", {bits}-bit from {address:#x}" for address, bits in image.modes)
    summary = f"{image.name}: {bytes_and_size} at {image.org:#x}, {modes}, {len(image.symbols)} symbols"
    parts = [f"{summary}\nsha256 {image.sha256}"]
    parts += [f"warning: {warning}" for warning in image.warnings]
    if listing:
        parts.append(_listing(image))
    if symbols:
        parts.append(symbol_table(image))
    return "\n\n".join(parts)


_listing = listing
