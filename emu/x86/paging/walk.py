"""Walking the tables for one access, with a reason for each outcome, SDM 3A 4.3 to 4.7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from emu.units import show_phys, show_size
from emu.x86.bits import PHYS_MASK, U32, U64, Cr0, Cr4, Efer
from emu.x86.exceptions import PageFaultBit, Vector
from emu.x86.paging.modes import (
    Entry,
    Level,
    PagingMode,
    PagingState,
    ReadEntry,
    decode_entry,
    is_canonical,
)


@dataclass(frozen=True, slots=True)
class Access:
    """One access: a read unless ``write`` or ``execute``; ``user``: made at CPL 3 and not implicit, SDM 3A 4.6.1.

    ``implicit`` marks a supervisor access that an instruction does not name (descriptor tables, TSS, frames pushed by
    event delivery): EFLAGS.AC does not lift SMAP for it.
    """

    write: bool = False
    execute: bool = False
    user: bool = False
    implicit: bool = False

    def __str__(self) -> str:
        """The access in words: ``supervisor write``."""
        verb = "execute" if self.execute else "write" if self.write else "read"
        return f"{'user' if self.user else 'supervisor'} {verb}"


@dataclass(frozen=True, slots=True)
class Rights:
    """What the entries on the way to a page allow together, and whether its translation is global."""

    writable: bool = True
    user: bool = True
    executable: bool = True
    is_global: bool = False

    def through(self, entry: int, level: Level, *, pge: bool) -> Rights:
        """These rights after one more ``entry`` of ``level``; ``pge`` is CR4.PGE, without which nothing is global."""
        if not level.has_rights:
            return self
        return Rights(
            writable=self.writable and bool(entry & Entry.W),
            user=self.user and bool(entry & Entry.U),
            executable=self.executable and not (level.entry_size == 8 and entry & Entry.XD),
            is_global=pge and level.is_leaf(entry) and bool(entry & Entry.G),
        )

    def __str__(self) -> str:
        """``rwxug`` with a dash for each right that is missing, ``g`` for global."""
        flags = ((self.writable, "w"), (self.executable, "x"), (self.user, "u"), (self.is_global, "g"))
        return "r" + "".join(letter if on else "-" for on, letter in flags)


@dataclass(frozen=True, slots=True)
class PageFault:
    """The access would raise #PF with this error code."""

    error_code: int
    reason: str
    vector: Vector = Vector.PF


@dataclass(frozen=True, slots=True)
class NotCanonical:
    """The address is not canonical: #GP(0), or #SS(0) for a stack access, and no table is read."""

    reason: str
    error_code: int = 0
    vector: Vector = Vector.GP


@dataclass(frozen=True, slots=True)
class Step:
    """One entry that the walk used: its format, index and physical address, and its value.

    A ``latched`` entry is a PDPTE that the processor holds since CR3 was loaded: memory may differ by now.
    """

    format: Level
    index: int
    address: int
    value: int
    latched: bool = False

    @property
    def level(self) -> str:
        """The SDM's name for entries of this level: ``PDE``."""
        return self.format.name

    @property
    def flags(self) -> str:
        """The entry's flags by their letters, as ``P W U``."""
        return decode_entry(self.value, self.format)

    @property
    def sentence(self) -> str:
        """What the entry does to the walk."""
        which = f"entry {self.index} ({self.level})"
        if not self.value & Entry.P:
            return f"{which} is not present"
        reserved = self.format.reserved_bits(self.value)
        if reserved:
            return f"{which} has reserved bits {reserved:#x} set"
        if self.format.is_leaf(self.value):
            return f"{which} maps the {show_size(self.format.page_size)} at {show_phys(self.format.page(self.value))}"
        return f"{which} refers to the table at {show_phys(self.format.table(self.value))}"


@dataclass(frozen=True, slots=True)
class Walk:
    """A finished walk; ``physical`` is None when there is a fault.

    ``rights`` and ``page_size`` are known if a page is mapped at all, even where this access to it faults.
    """

    linear: int
    access: Access
    state: PagingState
    steps: tuple[Step, ...]
    physical: int | None
    page_size: int | None
    rights: Rights | None
    fault: PageFault | NotCanonical | None


class Reached(NamedTuple):
    """Where a linear address leads: ``physical``, in a page of ``page_size`` bytes (0 when paging is off).

    ``entries`` are (address, value) of those on the way, latched ones at the address -1.  Of their bits ``common`` has
    those that are set in all of them and ``some`` those that are set in any, PDPTEs without rights left out.
    """

    physical: int
    entries: list[tuple[int, int]]
    page_size: int
    common: int
    some: int

    @property
    def writable(self) -> bool:
        """R/W is 1 in all entries."""
        return bool(self.common & _W)


NOT_CANONICAL: Final = -1
READ: Final = Access()
_P, _W, _U = int(Entry.P), int(Entry.W), int(Entry.U)
_XD = int(Entry.XD)
_SMAP, _SMEP, _WP = int(Cr4.SMAP), int(Cr4.SMEP), int(Cr0.WP)
_RESERVED = PageFaultBit.P | PageFaultBit.RSVD
_TABLE = PHYS_MASK & ~0xFFF


def walk(read_entry: ReadEntry, state: PagingState, linear: int, access: Access = READ) -> Walk:
    """Translate ``linear`` for ``access``; tables are read by physical address through ``read_entry``.

    Accessed and dirty bits are not set.  Outside IA-32e mode bits above 31 of ``linear`` are dropped.
    """
    mode, table = state.mode, state.root
    linear &= U64 if mode.is_long else U32
    if mode is PagingMode.NONE:
        return Walk(linear, access, state, (), linear, None, Rights(), None)
    if not is_canonical(linear, mode):
        width = 57 if mode is PagingMode.FIVE_LEVEL else 48
        odd = NotCanonical(f"{linear:#x} is not canonical: bits 63 to {width - 1} differ")
        return Walk(linear, access, state, (), None, None, None, odd)
    steps: list[Step] = []
    rights = Rights()
    pge = bool(state.cr4 & Cr4.PGE)
    for level in state.levels:
        step = _step(read_entry, state, level, table, linear)
        steps.append(step)
        entry = step.value
        bits = _faulting_bits(level, entry)
        if bits is not None:
            fault = PageFault(_error_code(state, access, bits), f"{access} of {linear:#x}: {step.sentence}")
            return Walk(linear, access, state, tuple(steps), None, None, None, fault)
        rights = rights.through(entry, level, pge=pge)
        if level.is_leaf(entry):
            denied = judge(state, rights, access)
            physical = level.page(entry) | (linear & (level.page_size - 1))
            return Walk(
                linear, access, state, tuple(steps), None if denied else physical, level.page_size, rights, denied
            )
        table = level.table(entry)
    msg = "the last level always maps a page"
    raise AssertionError(msg)


def reach(read_entry: ReadEntry, state: PagingState, linear: int, access: Access = READ) -> Reached | int:
    """What :func:`walk` finds, with nothing said about how: for those who ask often.

    Where the access faults, the error code of its page fault, or NOT_CANONICAL.
    """
    return admit(state, access, descend(read_entry, state, linear))


def admit(state: PagingState, access: Access, found: Reached | int) -> Reached | int:
    """What :func:`reach` answers, of what :func:`descend` found."""
    if isinstance(found, int):
        return found if found == NOT_CANONICAL else _error_code(state, access, found)
    if found.page_size and _denies(state, access, found.common, found.some):
        return _error_code(state, access, PageFaultBit.P)
    return found


def descend(read_entry: ReadEntry, state: PagingState, linear: int) -> Reached | int:
    """Where ``linear`` leads whatever the rights; else P and RSVD as in the error code, or NOT_CANONICAL."""
    mode, table = state.mode, state.root
    if mode is PagingMode.NONE:
        return Reached(linear & U32, [], 0, -1, 0)
    if not mode.is_long:
        linear &= U32
    elif not is_canonical(linear, mode):
        return NOT_CANONICAL
    entries: list[tuple[int, int]] = []
    common, some = -1, 0
    for level in state.levels:
        shift = level.shift
        index = linear >> shift & level.index_mask
        if state.pdptes is not None and not level.has_rights:
            at, entry = -1, state.pdptes[index]
        else:
            at = table + index * level.entry_size
            entry = read_entry(at, level.entry_size)
        if not entry & _P:
            return 0
        leaf_if = level.leaf_if
        leaf = leaf_if is not None and entry & leaf_if == leaf_if
        if entry & (level.leaf_reserved if leaf else level.reserved):
            return _RESERVED
        entries.append((at, entry))
        if level.has_rights:
            common, some = common & entry, some | entry
        if leaf:
            return Reached(level.page(entry) | linear & (1 << shift) - 1, entries, 1 << shift, common, some)
        table = entry & _TABLE
    msg = "the last level always maps a page"
    raise AssertionError(msg)


def _denies(state: PagingState, access: Access, common: int, some: int) -> bool:
    """:func:`judge` by the bits of all entries and of any, as in :class:`Reached`."""
    user, writable = common & _U, common & _W
    if access.user:
        return bool(not user or (access.write and not writable) or (access.execute and some & _XD))
    if access.execute:
        return bool(some & _XD or (user and state.cr4 & _SMEP))
    if user and state.cr4 & _SMAP and (access.implicit or not state.ac):
        return True
    return bool(access.write and not writable and state.cr0 & _WP)


def judge(state: PagingState, rights: Rights, access: Access) -> PageFault | None:
    """Whether paging lets ``access`` reach a present page that has these ``rights``, SDM 3A 4.6.1."""
    reason = _user_denial(rights, access) if access.user else _supervisor_denial(state, rights, access)
    if reason is None and access.execute and not rights.executable:
        reason = "XD is set in an entry on the way"
    if reason is None:
        return None
    return PageFault(_error_code(state, access, PageFaultBit.P), f"{access}: {reason}")


def explain(done: Walk) -> list[str]:
    """The walk in sentences, one a level, then what each kind of access would do."""
    mode = done.state.mode
    if mode is PagingMode.NONE:
        return [f"paging is off: linear {done.linear:#x} is {show_phys(done.linear)}"]
    if isinstance(done.fault, NotCanonical):
        return [f"{done.fault.reason}: #GP(0), or #SS(0) through the stack"]
    lines = [f"{mode.value} paging, CR3 {done.state.cr3:#x}: tables begin at {show_phys(done.state.root)}"]
    for step in done.steps:
        held = " (latched when CR3 was loaded)" if step.latched else ""
        lines.append(
            f"{step.level:<5} {show_phys(step.address)} = {step.value:#018x} {step.flags}: {step.sentence}{held}"
        )
    if done.rights is None or done.page_size is None:
        lines.append("every access faults here")
        return lines
    lines.append(f"{show_size(done.page_size)} page, together {done.rights}")
    for user in (False, True):
        for write, execute in ((False, False), (True, False), (False, True)):
            access = Access(write=write, execute=execute, user=user)
            denied = judge(done.state, done.rights, access)
            lines.append(f"#PF({denied.error_code:#x}) {denied.reason}" if denied else f"{access}: allowed")
    return lines


def _step(read_entry: ReadEntry, state: PagingState, level: Level, table: int, linear: int) -> Step:
    index = linear >> level.shift & level.index_mask
    address = table + index * level.entry_size
    if state.pdptes is not None and not level.has_rights:
        return Step(level, index, address, state.pdptes[index], latched=True)
    return Step(level, index, address, read_entry(address, level.entry_size))


def _faulting_bits(level: Level, entry: int) -> int | None:
    """The P and RSVD bits of the error code that this entry alone causes, or None for a usable entry."""
    if not entry & Entry.P:
        return 0
    return PageFaultBit.P | PageFaultBit.RSVD if level.reserved_bits(entry) else None


def _user_denial(rights: Rights, access: Access) -> str | None:
    if not rights.user:
        return "U/S is 0 in an entry on the way"
    if access.write and not rights.writable:
        return "R/W is 0 in an entry on the way"
    return None


def _supervisor_denial(state: PagingState, rights: Rights, access: Access) -> str | None:
    if access.execute:
        return "CR4.SMEP=1 and this is a user page" if rights.user and state.cr4 & Cr4.SMEP else None
    if rights.user and state.cr4 & Cr4.SMAP and (access.implicit or not state.ac):
        return "CR4.SMAP=1 and this is a user page" + (", implicit access" if access.implicit else ", EFLAGS.AC=0")
    if access.write and not rights.writable and state.cr0 & Cr0.WP:
        return "R/W is 0 in an entry on the way and CR0.WP=1"
    return None


def _error_code(state: PagingState, access: Access, bits: int) -> int:
    """SDM 3A 4.7: the fetch bit is only reported where fetches can be denied at all."""
    tells_fetch = state.cr4 & Cr4.SMEP or (state.cr4 & Cr4.PAE and state.efer & Efer.NXE)
    return (
        bits
        | (PageFaultBit.W if access.write else 0)
        | (PageFaultBit.U if access.user else 0)
        | (PageFaultBit.I if access.execute and tells_fetch else 0)
    )
