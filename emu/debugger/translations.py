"""Linear to physical and back: walks with reasons, searches, and everything that is mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from emu.debugger.address import Address
from emu.debugger.lines import WIDTH, wrap_all
from emu.debugger.places import owner_of, physical_symbol, symbol
from emu.debugger.session import Session
from emu.errors import DebuggerError
from emu.units import GIB, KIB, MIB, PAGE_MASK, PAGE_SHIFT, show_phys, show_size
from emu.x86.paging import Mapping, PagingMode, explain, mappings, merge


def walk(session: Session, address: Address, width: int = WIDTH) -> list[str]:
    """``walk``: each level of the tables, then what each kind of access would do.  Raises DebuggerError for p: ones."""
    if address.physical:
        raise DebuggerError(f"{address} is physical: nothing to walk", hint="p2v lists what maps it")
    done = session.machine.cpu.walk(address.value)
    lines = wrap_all(explain(done), width, 6)
    if done.physical is not None:
        lines.append(f"{address} is {_described(session, done.physical)}")
    return lines


def _described(session: Session, physical: int) -> str:
    name = physical_symbol(session, physical)
    return f"{show_phys(physical)}, a page of {owner_of(session, physical)}{f', {name}' if name else ''}"


def v2p(session: Session, address: Address) -> list[str]:
    """``v2p``: the physical address behind a linear one; raises DebuggerError where nothing is mapped."""
    if address.physical:
        raise DebuggerError(f"{address} is physical already", hint="p2v lists what maps it")
    return [f"{address} is {_described(session, session.physical(address))}"]


def paged_reader(session: Session) -> Callable[[int, int], int]:
    """A reader of table entries that fetches each page of memory once."""
    pages: dict[int, bytes] = {}
    ram = session.machine.ram

    def read(address: int, size: int) -> int:
        page = pages.get(address >> PAGE_SHIFT)
        if page is None:
            page = pages[address >> PAGE_SHIFT] = ram.page(address >> PAGE_SHIFT)
        offset = address & PAGE_MASK
        return int.from_bytes(page[offset : offset + size], "little")

    return read


def merged(session: Session) -> Iterator[Mapping]:
    """Everything mapped now, neighbours joined; nothing where paging is off."""
    return merge(mappings(paged_reader(session), session.machine.cpu.paging()))


def p2v(session: Session, physical: int, width: int = WIDTH) -> list[str]:
    """``p2v``: every linear address at which physical ``physical`` is seen now."""
    if session.machine.cpu.paging().mode is PagingMode.NONE:
        return [f"paging is off: {show_phys(physical)} is linear {physical:#x}"]
    lines = []
    for one in merged(session):
        if one.physical <= physical < one.physical + one.size:
            linear = one.linear + physical - one.physical
            name = symbol(session, linear)
            lines.append(f"{linear:#x}  {one.rights}{f'  {name}' if name else ''}")
    return wrap_all(lines, width) or [f"nothing maps {show_phys(physical)} now"]


def maps(session: Session, width: int = WIDTH) -> list[str]:
    """``maps``: runs of linear addresses with the same rights (r w x u g) and consecutive physical pages."""
    state = session.machine.cpu.paging()
    if state.mode is PagingMode.NONE:
        return ["paging is off: every linear address is its physical one"]
    lines = [f"{state.mode.value} paging, tables at {show_phys(state.root)}; rights: read write execute user global"]
    digits = 16 if state.mode.is_long else 8
    for one in merged(session):
        end = one.linear + one.size - 1
        lines.append(
            f"{one.linear:0{digits}x}-{end:0{digits}x}  {one.rights}  {_size(one.size):>10}  {show_phys(one.physical)}"
        )
    return wrap_all(lines, width)


def _size(size: int) -> str:
    unit = next((unit for unit in (GIB, MIB, KIB) if size >= unit and size % unit == 0), 1)
    return show_size(size) if unit != KIB or size < 64 * MIB else f"{size / MIB:.1f} MiB"
