"""Memory at large: whose it is, what changed between two positions, where a value occurs."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from emu.debugger.address import Address
from emu.debugger.kimage import entries_naming
from emu.debugger.lines import WIDTH, wrap_all
from emu.debugger.places import labelled, owner_of, physical_symbol
from emu.debugger.session import Session
from emu.debugger.translations import p2v
from emu.debugger.visiting import visiting_position
from emu.errors import DebuggerError
from emu.machine.ram import Ram
from emu.units import GIB, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, show_phys, show_size

MOST_RANGES = 60
MOST_HITS = 100
_FEW_BYTES = 64
"""Changed bytes of a page up to which each run of them is shown, old and new."""


def owner(session: Session, address: Address, width: int = WIDTH) -> list[str]:
    """``owner``: the page's owner, what the entry list does with it, its symbol, where it is mapped.

    Raises DebuggerError for a linear address that is not mapped.
    """
    physical = session.physical(address)
    page = physical & ~PAGE_MASK
    whose = owner_of(session, page)
    lines = [f"{show_phys(physical)}: page {show_phys(page)} (pfn {page >> PAGE_SHIFT:#x}), owner {whose}"]
    name = physical_symbol(session, physical)
    lines += [f"  symbol {name}"] if name else []
    lines += [f"  {line}" for line in entries_naming(session, page)]
    mapped = p2v(session, physical)[:8]
    lines += [f"  seen at {line}" if line.startswith("0x") else f"  {line}" for line in mapped]
    return wrap_all(lines, width)


# ---- what changed ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Page:
    """A page that differs: its frame, owner, how many bytes, and their runs (offset, end) where those are few."""

    pfn: int
    owner: str
    count: int
    runs: tuple[tuple[int, int], ...]


def diff(session: Session, n: int, m: int, width: int = WIDTH) -> list[str]:
    """``diff N M``: memory at position ``n`` against position ``m``, by owner and symbol.  Raises DebuggerError.

    Owners are those at ``m``.
    """
    ram = session.machine.ram
    with visiting_position(session, n):
        before = _copy(ram)
    with visiting_position(session, m):
        pages = list(_changed_pages(session, before))
        after = {page.pfn: ram.page(page.pfn) for page in pages}
        lines = [f"N {n:,} to N {m:,}: {len(pages):,} pages differ, {sum(page.count for page in pages):,} bytes"]
        by_owner: Counter[str] = Counter()
        for page in pages:
            by_owner[page.owner] += 1
        lines += [f"  {name:<12} {count:,} pages" for name, count in by_owner.most_common()]
        rows = [row for run in _page_runs(pages) for row in _run_lines(session, run, before, after)]
    lines += rows[:MOST_RANGES]
    lines += [f"... {len(rows) - MOST_RANGES:,} more ranges"] if len(rows) > MOST_RANGES else []
    return wrap_all(lines, width)


def _copy(ram: Ram) -> dict[int, bytes]:
    return {bank.start: bytes(bank.view) for bank in ram.banks}


def _page_before(before: dict[int, bytes], ram: Ram, pfn: int) -> bytes:
    bank = ram.bank_at(pfn << PAGE_SHIFT)
    if bank is None:
        return b""
    offset = (pfn << PAGE_SHIFT) - bank.start
    return before[bank.start][offset : offset + PAGE_SIZE]


def _changed_pages(session: Session, before: dict[int, bytes]) -> Iterator[_Page]:
    for bank in session.machine.ram.banks:
        old, new = before[bank.start], bytes(bank.view)
        if old == new:
            continue
        for offset in range(0, bank.size, PAGE_SIZE):
            first, second = old[offset : offset + PAGE_SIZE], new[offset : offset + PAGE_SIZE]
            if first != second:
                count = sum(map(int.__ne__, first, second))
                address = bank.start + offset
                runs = _byte_runs(first, second) if count <= _FEW_BYTES else ()
                yield _Page(address >> PAGE_SHIFT, owner_of(session, address), count, runs)


def _byte_runs(first: bytes, second: bytes) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    for at, (one, other) in enumerate(zip(first, second, strict=True)):
        if one != other:
            if runs and runs[-1][1] == at:
                runs[-1] = (runs[-1][0], at + 1)
            else:
                runs.append((at, at + 1))
    return tuple(runs)


def _page_runs(pages: list[_Page]) -> list[list[_Page]]:
    """Neighbouring pages of the same owner together, where so much changed that bytes are not worth listing."""
    runs: list[list[_Page]] = []
    for page in pages:
        last = runs[-1][-1] if runs else None
        joins = last is not None and (last.pfn + 1, last.owner) == (page.pfn, page.owner) and not last.runs
        if joins and not page.runs:
            runs[-1].append(page)
        else:
            runs.append([page])
    return runs


def _run_lines(session: Session, run: list[_Page], before: dict[int, bytes], after: dict[int, bytes]) -> Iterator[str]:
    ram, page = session.machine.ram, run[0]
    start = page.pfn << PAGE_SHIFT
    if page.runs:
        old, new = _page_before(before, ram, page.pfn), after[page.pfn]
        for first, end in page.runs:
            name = physical_symbol(session, start + first)
            shown = f"{_bytes(old[first:end])} -> {_bytes(new[first:end])}"
            yield f"{show_phys(start + first)}  {page.owner}  {shown}{f'  {name}' if name else ''}"
        return
    count = sum(one.count for one in run)
    last = (run[-1].pfn << PAGE_SHIFT) + PAGE_SIZE - 1
    yield (
        f"{show_phys(start)}..{show_phys(last)}  {page.owner}  {len(run):,} page{'s' * (len(run) > 1)}, {count:,} bytes"
    )


def _bytes(raw: bytes) -> str:
    return raw.hex(" ") if len(raw) <= 8 else f"{raw[:8].hex(' ')} .. ({len(raw)} bytes)"


# ---- search ----------------------------------------------------------------------------------------------------


def pattern(text: str, size: int = 0) -> bytes:
    """What to search for: ``"text"``, hex bytes (``de ad be ef``), or an integer of ``size`` (1, 2, 4, 8) bytes.

    An integer is little endian; one with no size takes as few of 1, 2, 4, 8 bytes as hold it.  Raises DebuggerError.
    """
    text = text.strip()
    if text[:1] in "\"'" and text:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError) as error:
            raise DebuggerError(f"{text} is no string", hint='as "A| " or "tab\\t"') from error
        raw = str(value).encode("latin-1", "replace")
    elif text.lower().startswith(("0x", "-")) or text.isdigit():
        raw = _integer(text, size)
    else:
        try:
            raw = bytes.fromhex(text)
        except ValueError as error:
            raise DebuggerError(f"{text} is no pattern", hint='de ad (bytes), 0xdead or "text"') from error
    if not raw:
        raise DebuggerError("an empty pattern is everywhere")
    return raw


def _integer(text: str, size: int) -> bytes:
    try:
        value = int(text, 0)
    except ValueError as error:
        raise DebuggerError(f"{text} is no integer") from error
    sizes = [size] if size else [1, 2, 4, 8]
    for one in sizes:
        if -(1 << 8 * one - 1) <= value < 1 << 8 * one:
            return (value & (1 << 8 * one) - 1).to_bytes(one, "little")
    raise DebuggerError(f"{text} does not fit {sizes[-1]} bytes")


def search(
    session: Session, wanted: bytes, start: Address | None = None, size: int = 0, *, width: int = WIDTH
) -> list[str]:
    """``search``: where ``wanted`` occurs in ``size`` bytes from ``start``; all of RAM (physical) by default.

    Linear pages that are not mapped are left out.  Raises DebuggerError for a range over 1 GiB.
    """
    if size > GIB or size < 0:
        raise DebuggerError(f"{show_size(size)} are too much to search", hint="at most 1 GiB")
    chunks = _all_ram(session) if start is None else _mapped(session, start, size or PAGE_SIZE)
    lines: list[str] = []
    for base, data in chunks:
        at = data.find(wanted)
        while at >= 0:
            if len(lines) == MOST_HITS:
                return wrap_all([*lines, f"... only the first {MOST_HITS} are shown"], width)
            found = Address(base.value + at, base.physical)
            of = f"  {owner_of(session, found.value)}" if found.physical else ""
            lines.append(f"{labelled(session, found)}{of}")
            at = data.find(wanted, at + 1)
    return wrap_all(lines, width) or ["not found"]


def _all_ram(session: Session) -> Iterator[tuple[Address, bytes]]:
    for bank in session.machine.ram.banks:
        yield Address(bank.start, physical=True), bytes(bank.view)


def _mapped(session: Session, start: Address, size: int) -> Iterator[tuple[Address, bytes]]:
    """The parts of a range that can be read, each as long as it goes without a gap."""
    if start.physical:
        for bank in session.machine.ram.banks:
            first, end = max(bank.start, start.value), min(bank.end, start.value + size)
            if first < end:
                yield Address(first, physical=True), session.machine.ram.read(first, end - first)
        return
    parts: list[bytes] = []
    begin = at = start.value
    while at < start.value + size:
        step = min(PAGE_SIZE - (at & PAGE_MASK), start.value + size - at)
        raw = session.read(Address(at), step)
        if raw:
            if not parts:
                begin = at
            parts.append(raw)
        elif parts:
            yield Address(begin), b"".join(parts)
            parts = []
        at += step
    if parts:
        yield Address(begin), b"".join(parts)
