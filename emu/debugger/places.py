"""Which program an address belongs to at this moment, and its instructions with symbols and source lines."""

from __future__ import annotations

import re
from pathlib import Path

from emu.assembler import Image, Instruction, decode_one
from emu.debugger.address import Address
from emu.debugger.lines import WIDTH, shorten
from emu.debugger.session import Session
from emu.errors import DebuggerError
from emu.journey.symbols import Place, tidy
from emu.units import PAGE_MASK, PAGE_SIZE, show_phys

LONGEST = 15
"""Bytes of the longest instruction (SDM 2A 2.3.11)."""
MOST_LINES = 4096
_BRANCH = re.compile(r"^(?:j\w+|call\w*|loop\w*)\s+(0x[0-9a-f]+|\d+)$")
_RIP = re.compile(r"(-?)(0x[0-9a-f]+|\d+)?\(%rip\)")


# ---- which program ---------------------------------------------------------------------------------------------


def image_at(session: Session, linear: int) -> tuple[Image, int] | None:
    """The program at linear ``linear`` now, and the link address of that byte in it.

    A and B are linked at the same physical address: memory tells which of them is there.
    """
    found = session.symbols.image_at(linear)
    kernels = [image for image in session.kernels if image.org <= linear < image.end]
    if found is None or found[1] != linear or found[0] not in kernels or len(kernels) == 1:
        return found
    page = linear & ~PAGE_MASK
    best = max(kernels, key=lambda image: (_likeness(session, image, page), _likeness(session, image, image.org)))
    return best, linear


def _likeness(session: Session, image: Image, address: int) -> int:
    """How many bytes of the page at link and physical ``address`` are what ``image`` was loaded with."""
    start = max(address - image.org, 0)
    wanted = image.code[start : start + PAGE_SIZE]
    return sum(map(int.__eq__, wanted, session.machine.ram.read(image.org + start, len(wanted))))


def place(session: Session, linear: int) -> Place:
    """The best description of linear ``linear``, by the program that is there now."""
    found = image_at(session, linear)
    if found is None:
        return Place(linear, f"{linear:#x}")
    image, linked = found
    line = image.line_at(linked)
    if line is None:
        return Place(linear, image.symbol_at(linked))
    return Place(linear, image.symbol_at(linked), line.file, line.line, tidy(image.source_text(line)))


def short(where: Place) -> str:
    """``file:line`` with no folder, for columns; the symbol where no line is known."""
    return f"{Path(where.file).name}:{where.line}" if where.file else where.symbol


def symbol(session: Session, linear: int) -> str:
    """``symbol+offset`` of linear ``linear``, empty where none is known."""
    name = place(session, linear).symbol
    return "" if name.startswith("0x") else name


def physical_symbol(session: Session, physical: int) -> str:
    """The symbol of the program that is linked (and lies) at physical ``physical``, empty where none is known."""
    return symbol(session, physical)


def labelled(session: Session, address: Address) -> str:
    """An address as ``x`` shows it: ``0x17ff231 <swap_pages+0x2e>``."""
    name = physical_symbol(session, address.value) if address.physical else symbol(session, address.value)
    return f"{address} <{name}>" if name else str(address)


def owner_of(session: Session, physical: int) -> str:
    """Whom the page at ``physical`` belongs to now, in a word."""
    if session.machine.ram.bank_at(physical) is None:
        return "hole"
    return str(session.machine.owners.at(physical))


def page_of(session: Session, linear: int) -> str:
    """The physical page behind linear ``linear`` and its owner: ``page p:0x703000 control``."""
    physical = session.machine.cpu.walk(linear).physical
    if physical is None:
        return "not mapped"
    return f"page {show_phys(physical & ~PAGE_MASK)} {owner_of(session, physical)}"


# ---- instructions ----------------------------------------------------------------------------------------------


def instruction(session: Session, address: Address, bits: int | None = None) -> Instruction | None:
    """The instruction at ``address`` in code of ``bits`` (what CS says by default); None where nothing is mapped."""
    code = session.read(address, LONGEST)
    return decode_one(code, address.value, bits or session.machine.cpu.bits) if code else None


def with_symbols(session: Session, insn: Instruction) -> str:
    """An instruction's text, a branch target or %rip-relative address followed by its symbol."""
    branch = _BRANCH.match(insn.text)
    target: int | None = None
    if branch is not None:
        target = int(branch.group(1), 0)
    else:
        relative = _RIP.search(insn.text)
        if relative is not None:
            offset = int(relative.group(2) or "0", 0)
            target = insn.address + insn.size + (-offset if relative.group(1) else offset)
    name = symbol(session, target) if target is not None else ""
    return f"{insn.text} <{name}>" if name else insn.text


def next_instruction(session: Session, address: Address, bits: int | None = None) -> Address:
    """The address behind the instruction at ``address``."""
    insn = instruction(session, address, bits)
    return Address(address.value + (insn.size if insn else 1), address.physical)


def instructions(
    session: Session, address: Address, count: int = 10, *, end: int | None = None, bits: int | None = None
) -> list[Instruction]:
    """``count`` instructions from ``address``, or all that begin below ``end``; fewer where memory ends."""
    found: list[Instruction] = []
    at = address
    while len(found) < MOST_LINES and (at.value < end if end is not None else len(found) < count):
        insn = instruction(session, at, bits)
        if insn is None:
            break
        found.append(insn)
        at = Address(at.value + insn.size, at.physical)
    return found


def disassemble(
    session: Session,
    address: Address,
    count: int = 10,
    end: int | None = None,
    *,
    bits: int | None = None,
    width: int = WIDTH,
) -> list[str]:
    """Lines of ``disas``: ``=>`` at the next instruction, address, symbol, text, and the source line where it fits.

    Raises DebuggerError where ``address`` is not mapped.
    """
    found = instructions(session, address, count, end=end, bits=bits)
    if not found and (end is None or address.value < end):
        raise DebuggerError(f"{address} is not mapped here", hint="walk shows why")
    lines = []
    for insn in found:
        at = Address(insn.address, address.physical)
        here = place(session, insn.address)
        mark = "=>" if insn.address == session.pc and not address.physical else "  "
        text = f"{mark} {labelled(session, at)}:  {with_symbols(session, insn)}"
        source = f"  # {short(here)}" if here.file else ""
        lines.append(text + source if len(text + source) <= width else shorten(text, width))
    wanted = end is None and len(found) < count
    if wanted and found:
        behind = Address(found[-1].address + found[-1].size, address.physical)
        lines.append(f"   {behind}:  not mapped here")
    return lines


def routine(session: Session, linear: int) -> tuple[int, int]:
    """The linear range (start, end) between the symbols around ``linear``; raises DebuggerError outside programs."""
    found = image_at(session, linear)
    if found is None:
        raise DebuggerError(f"no program is known at {linear:#x}", hint="disas ADDRESS COUNT")
    image, linked = found
    places = sorted(set(image.symbols.values()))
    start = max((at for at in places if at <= linked), default=image.org)
    end = min((at for at in places if at > linked), default=image.end)
    return linear - (linked - start), linear + (end - linked)


# ---- source ----------------------------------------------------------------------------------------------------


def is_as_assembled(session: Session, linear: int) -> bool:
    """Whether memory holds, at the source line of ``linear``, what the program was assembled to."""
    found = image_at(session, linear)
    if found is None:
        return False
    image, linked = found
    line = image.line_at(linked)
    if line is None:
        return False
    start = line.address - image.org
    return session.read(Address(linear - (linked - line.address)), line.size) == image.code[start : start + line.size]


def source_around(session: Session, linear: int, before: int = 2, after: int = 3) -> list[tuple[int, int, str, bool]]:
    """(line number, linear address, source text, is it at ``linear``?) of the lines around, in order of address.

    Empty where no source is known, or where memory no longer holds what it was assembled to.
    """
    found = image_at(session, linear)
    if found is None or not is_as_assembled(session, linear):
        return []
    image, linked = found
    line = image.line_at(linked)
    if line is None:
        return []
    at = image.lines.index(line)
    rows = []
    for one in image.lines[max(at - before, 0) : at + after + 1]:
        text = image.source_text(one).expandtabs(8).rstrip()
        rows.append((one.line, linear + one.address - linked, text, one is line or one == line))
    return rows
