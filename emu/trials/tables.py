"""The page tables of the trials: A's own, in which the control page is read-only and global, and the kexec tables."""

from __future__ import annotations

from emu.kexec.arch import Arch
from emu.kexec.page_tables import build, paging_state
from emu.machine.ram import Ram
from emu.trials.places import HIGH_SIZE, LOW_END, Places
from emu.units import MIB, PAGE_SIZE, Phys
from emu.x86.paging.modes import Entry

_DATA = int(Entry.P | Entry.W | Entry.A | Entry.D | Entry.G)
_CODE = int(Entry.P | Entry.A | Entry.G)


def build_tables(ram: Ram, arch: Arch, at: Places) -> None:
    """Write all tables into ``ram``."""
    control = (int(arch.direct(at.control)), at.control)
    if arch.bits == 64:
        identity = [(0, 2 * MIB), (at.base, at.base + HIGH_SIZE)]
        _build(ram, arch, at.kexec_tables, identity, [control])
        _build(ram, arch, at.peer_tables, identity, [])
    else:
        _build(ram, arch, at.kexec_tables, [], [control, (at.control, at.control)])
        _build(ram, arch, at.second_tables, [], [(at.second, at.second)])
    pages = [(int(arch.direct(page)), page) for page in range(at.base, at.base + HIGH_SIZE, PAGE_SIZE)]
    low = [(int(arch.direct(page)), page) for page in range(0, LOW_END, PAGE_SIZE)]
    _build(ram, arch, at.a_tables, [], [*low, *pages])
    executable = {at.code, at.control}
    for linear, page in (*low, *pages):
        flags = _CODE if page in executable else _DATA
        _set_leaf(ram, arch, at.a_tables, linear, page | flags | _no_execute(arch, flags))


def _no_execute(arch: Arch, flags: int) -> int:
    return 0 if flags == _CODE or arch is Arch.I386 else int(Entry.XD)


def _build(ram: Ram, arch: Arch, root: int, identity: list[tuple[int, int]], pages: list[tuple[int, int]]) -> None:
    tables = iter(range(root, root + 64 * PAGE_SIZE, PAGE_SIZE))
    build(arch, lambda: Phys(next(tables)), ram.write, identity=identity, pages=pages)


def _set_leaf(ram: Ram, arch: Arch, root: int, linear: int, entry: int) -> None:
    table = root
    for level in paging_state(arch, root).levels:
        at = table + level.index(linear) * level.entry_size
        if level.page_size == PAGE_SIZE:
            ram.write(at, entry.to_bytes(level.entry_size, "little"))
            return
        table = level.table(ram.read_int(at, level.entry_size)) & -PAGE_SIZE
