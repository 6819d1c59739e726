"""Paging against a second model written straight from the SDM's tables, over random tables in all five modes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from emu.x86.bits import Cr0, Cr4, Efer
from emu.x86.paging import (
    NOT_CANONICAL,
    Access,
    Mapping,
    NotCanonical,
    PageFault,
    PagingMode,
    PagingState,
    Reached,
    Rights,
    explain,
    is_canonical,
    mappings,
    merge,
    reach,
    translate,
    walk,
)

TABLES = tuple(range(0x10000, 0x18000, 0x1000))
PAGED = tuple(mode for mode in PagingMode if mode is not PagingMode.NONE)
MODE_BITS = {
    PagingMode.NONE: (0, 0, 0),
    PagingMode.TWO_LEVEL: (Cr0.PG, 0, 0),
    PagingMode.PAE: (Cr0.PG, Cr4.PAE, 0),
    PagingMode.FOUR_LEVEL: (Cr0.PG, Cr4.PAE, Efer.LME | Efer.LMA),
    PagingMode.FIVE_LEVEL: (Cr0.PG, Cr4.PAE | Cr4.LA57, Efer.LME | Efer.LMA),
}
EXTRA_CR4 = (Cr4.PSE, Cr4.PGE, Cr4.SMEP, Cr4.SMAP)


@st.composite
def states(draw: st.DrawFn, modes: tuple[PagingMode, ...] = tuple(PagingMode)) -> PagingState:
    """A legal set of control registers in one of ``modes``, its tables rooted in TABLES."""
    cr0, cr4, efer = MODE_BITS[draw(st.sampled_from(modes))]
    wp = draw(st.sampled_from([0, int(Cr0.WP)]))
    nxe = draw(st.sampled_from([0, int(Efer.NXE)]))
    extra = sum(bit for bit in EXTRA_CR4 if draw(st.booleans()))
    root = draw(st.sampled_from(TABLES)) | draw(st.sampled_from([0, 0x18]))
    return PagingState(Cr0.PE | cr0 | wp, root, cr4 | extra, efer | nxe, draw(st.booleans()))


@dataclass
class RandomTables:
    """Memory whose every entry is made up when it is first read: mostly present, referring to TABLES."""

    seed: int
    entries: dict[tuple[int, int], int] = field(default_factory=dict)

    def read(self, address: int, size: int) -> int:
        return self.entries.setdefault((address, size), self._make(Random(self.seed << 44 | address << 4 | size), size))  # noqa: S311

    @staticmethod
    def _make(dice: Random, size: int) -> int:
        entry = dice.choice([0x7, 0x7, 0x7, 0x5, 0x3, 0x1]) | dice.getrandbits(2) << 5 | dice.getrandbits(1) << 8
        large = dice.random() < 0.2
        aligned = large and dice.random() < 0.8
        entry |= dice.getrandbits(size * 8 - 30 if size == 4 else 10) << 30 if aligned else dice.choice(TABLES)
        entry |= 0x80 * large
        if size == 8 and dice.random() < 0.2:
            entry |= 1 << 63
        if entry & 0x80 and dice.random() < 0.2:
            entry |= 1 << 21
        if dice.random() < 0.3:
            entry |= 1 << dice.randrange(size * 8)
        return entry & ~1 if dice.random() < 0.05 else entry


def tables_for(seed: int, state: PagingState) -> RandomTables:
    """Random tables whose PDPTEs under PAE are mostly legal, which purely random ones hardly ever are."""
    memory = RandomTables(seed)
    dice = Random(seed)  # noqa: S311
    if state.mode is PagingMode.PAE:
        for index in range(4):
            if dice.random() < 0.85:
                memory.entries[state.root + 8 * index, 8] = dice.choice(TABLES) | dice.choice([0x1, 0x19, 0xE01])
    return memory


Outcome = tuple[str, int, int]


def slow_model(memory: RandomTables, state: PagingState, linear: int, access: Access) -> Outcome:
    """("ok", physical, page size), ("pf", error code, 0) or ("gp", 0, 0): SDM 3A 4.3 to 4.7 mode by mode."""
    if not state.cr0 >> 31:
        return ("ok", linear & 0xFFFFFFFF, 0)
    long, pae, five = bool(state.efer & 0x400), bool(state.cr4 & 0x20), bool(state.cr4 & 0x1000)
    nxe, wp = bool(state.efer & 0x800), bool(state.cr0 & 0x10000)
    smep, smap = bool(state.cr4 >> 20 & 1), bool(state.cr4 >> 21 & 1)
    if long:
        sign = f"{linear:064b}"[: 64 - (57 if five else 48) + 1]
        if sign.strip("0") and sign.strip("1"):
            return ("gp", 0, 0)
        plan = [("PML5E", 48)] * five + [("PML4E", 39), ("PDPTE", 30), ("PDE", 21), ("PTE", 12)]
    elif pae:
        plan = [("PDPTE", 30), ("PDE", 21), ("PTE", 12)]
    else:
        plan = [("PDE", 22), ("PTE", 12)]
    if not long:
        linear &= 0xFFFFFFFF
    code = 2 * access.write + 4 * access.user
    if access.execute and (smep or (pae and nxe)):
        code += 16
    size = 8 if pae else 4
    table = state.cr3 & (0xFFFFFFE0 if pae and not long else ~0xFFF)
    writable = user = True
    denied_fetch = False
    for name, shift in plan:
        count = 4 if name == "PDPTE" and not long else 512 if pae else 1024
        entry = memory.read(table + (linear >> shift) % count * size, size)
        bit = [entry >> number & 1 for number in range(64)]
        if not bit[0]:
            return ("pf", code, 0)
        legacy_pdpte = name == "PDPTE" and not long
        large = bool(bit[7]) and (name == "PDE" or (name == "PDPTE" and long)) and (pae or bool(state.cr4 & 0x10))
        if any(bit[number] for number in _forbidden(state, name, shift, large=large)):
            return ("pf", code | 9, 0)
        if not legacy_pdpte:
            writable, user, denied_fetch = (
                writable and bool(bit[1]),
                user and bool(bit[2]),
                denied_fetch or bool(bit[63]),
            )
        if large or name == "PTE":
            page = entry & 0xFFFFFFFFFF & ~((1 << shift) - 1)
            if large and not pae:
                page = (entry >> 22 << 22) | sum(bit[13 + number] << 32 + number for number in range(8))
            allowed = _allowed(
                access, (writable, user, denied_fetch), (wp, smep, smap and (access.implicit or not state.ac))
            )
            return ("ok", page + linear % (1 << shift), 1 << shift) if allowed else ("pf", code | 1, 0)
        table = entry & 0xFFFFFFF000
    raise AssertionError("no page at the last level")


def _forbidden(state: PagingState, name: str, shift: int, *, large: bool) -> set[int]:
    long, pae = bool(state.efer & 0x400), bool(state.cr4 & 0x20)
    legacy_pdpte = name == "PDPTE" and not long
    forbidden: set[int] = set()
    if pae:
        forbidden |= set(range(40, 52))
        if not long:
            forbidden |= set(range(52, 63))
        if not state.efer & 0x800 or legacy_pdpte:
            forbidden.add(63)
    if legacy_pdpte:
        forbidden |= {1, 2, 5, 6, 7, 8}
    if name in {"PML5E", "PML4E"}:
        forbidden.add(7)
    if large:
        forbidden |= set(range(13, shift)) if pae else {21}
    return forbidden


def _allowed(access: Access, page: tuple[bool, bool, bool], cpu: tuple[bool, bool, bool]) -> bool:
    writable, user, denied_fetch = page
    wp, smep, smap = cpu
    if access.user and not user:
        return False
    if access.execute:
        return not denied_fetch and not (smep and user and not access.user)
    if user and not access.user and smap:
        return False
    return not access.write or writable or (not access.user and not wp)


ACCESSES = st.sampled_from(
    [
        Access(write=w, execute=x, user=u, implicit=i)
        for u, i in ((False, False), (False, True), (True, False))
        for w, x in ((False, False), (True, False), (False, True))
    ]
)
LINEARS = st.one_of(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**47 - 1),
    st.integers(2**64 - 2**47, 2**64 - 1),
    st.integers(2**64 - 2**56, 2**64 - 1),
    st.integers(0, 2**56 - 1),
)


def outcome_of(memory: RandomTables, state: PagingState, linear: int, access: Access) -> Outcome:
    """The module's walk in the slow model's words."""
    done = walk(memory.read, state, linear, access)
    if isinstance(done.fault, NotCanonical):
        return ("gp", 0, 0)
    if isinstance(done.fault, PageFault):
        return ("pf", done.fault.error_code, 0)
    assert done.physical is not None
    return ("ok", done.physical, done.page_size or 0)


@given(seed=st.integers(0, 2**32), state=states(), linears=st.lists(LINEARS, min_size=12, max_size=12), access=ACCESSES)
def test_walk_agrees_with_the_slow_model(seed: int, state: PagingState, linears: list[int], access: Access) -> None:
    memory = tables_for(seed, state)
    for linear in linears:
        assert outcome_of(memory, state, linear, access) == slow_model(memory, state, linear, access)


def test_the_random_tables_meet_every_outcome_in_every_mode() -> None:
    dice = Random(1)  # noqa: S311
    met: dict[PagingMode, set[tuple[str, int]]] = {}
    for mode in PAGED:
        cr0, cr4, efer = MODE_BITS[mode]
        state = PagingState(cr0 | Cr0.PE | Cr0.WP, TABLES[0], cr4 | Cr4.PSE, efer | Efer.NXE)
        width = {PagingMode.FOUR_LEVEL: 47, PagingMode.FIVE_LEVEL: 56}.get(mode, 32)
        met[mode] = set()
        for seed in range(30):
            memory = tables_for(seed, state)
            for _ in range(60):
                kind, value, size = slow_model(memory, state, dice.getrandbits(width), Access(write=True, user=True))
                met[mode].add((kind, size if kind == "ok" else value))
    faults = {("pf", 6), ("pf", 7), ("pf", 15)}
    assert met[PagingMode.TWO_LEVEL] == faults | {("ok", 1 << 12), ("ok", 1 << 22)}
    assert met[PagingMode.PAE] == faults | {("ok", 1 << 12), ("ok", 1 << 21)}
    assert met[PagingMode.FOUR_LEVEL] == faults | {("ok", 1 << 12), ("ok", 1 << 21), ("ok", 1 << 30)}
    assert met[PagingMode.FIVE_LEVEL] == faults | {("ok", 1 << 12), ("ok", 1 << 21), ("ok", 1 << 30)}


@given(seed=st.integers(0, 2**32), state=states(), linears=st.lists(LINEARS, min_size=12, max_size=12), access=ACCESSES)
def test_reach_finds_what_walk_finds(seed: int, state: PagingState, linears: list[int], access: Access) -> None:
    memory = tables_for(seed, state)
    for linear in linears:
        done, found = walk(memory.read, state, linear, access), reach(memory.read, state, linear, access)
        if isinstance(done.fault, NotCanonical):
            assert found == NOT_CANONICAL
        elif isinstance(done.fault, PageFault):
            assert found == done.fault.error_code
        else:
            assert done.rights is not None
            entries = [(step.address, step.value) for step in done.steps]
            assert isinstance(found, Reached)
            assert found[:3] == (done.physical, entries, done.page_size or 0)
            assert found.writable is done.rights.writable


@given(seed=st.integers(0, 2**32), state=states(), linear=LINEARS)
def test_translate_agrees_with_walk(seed: int, state: PagingState, linear: int) -> None:
    memory = tables_for(seed, state)
    done = walk(memory.read, state, linear, Access(user=False))
    quick = translate(memory.read, state, linear)
    mapped = done.rights is not None
    assert (quick is not None) is mapped
    if done.physical is not None:
        assert quick == done.physical


@given(seed=st.integers(0, 2**32), state=states(PAGED), linear=LINEARS, access=ACCESSES)
def test_a_walk_explains_itself(seed: int, state: PagingState, linear: int, access: Access) -> None:
    done = walk(tables_for(seed, state).read, state, linear, access)
    lines = explain(done)
    if isinstance(done.fault, NotCanonical):
        assert len(lines) == 1
    else:
        assert len(lines) == 1 + len(done.steps) + (1 if done.rights is None else 7)
    assert done.fault is None or done.fault.reason
    assert (done.physical is None) is (done.fault is not None)


@dataclass
class Builder:
    """Tables built page by page, as a kernel does it, with one free list."""

    state: PagingState
    memory: dict[int, int] = field(default_factory=dict)
    free: Iterator[int] = field(default_factory=lambda: iter(range(0x100000, 0x4000000, 0x1000)))

    def read(self, address: int, size: int) -> int:
        return self.memory.get(address, 0) & ((1 << 8 * size) - 1)

    def map(self, linear: int, physical: int, shift: int) -> None:
        mode = self.state.mode
        legacy = mode is PagingMode.TWO_LEVEL
        size, index_bits = (4, 10) if legacy else (8, 9)
        shifts = {
            PagingMode.TWO_LEVEL: (22, 12),
            PagingMode.PAE: (30, 21, 12),
            PagingMode.FOUR_LEVEL: (39, 30, 21, 12),
            PagingMode.FIVE_LEVEL: (48, 39, 30, 21, 12),
        }[mode]
        table = self.state.cr3 & ~0xFFF
        for level in shifts:
            index = linear >> level & ((1 << index_bits) - 1)
            if mode is PagingMode.PAE and level == 30:
                index &= 3
            slot = table + index * size
            if level == shift:
                high = physical >> 32
                low = physical & 0xFFFFFFFF if legacy else physical
                self.memory[slot] = low | (high << 13 if legacy else 0) | (0x87 if level > 12 else 0x7)
                return
            if slot not in self.memory:
                self.memory[slot] = next(self.free) | (1 if mode is PagingMode.PAE and level == 30 else 7)
            table = self.memory[slot] & ~0xFFF


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Builder, dict[int, tuple[int, int]]]:
    """A builder with some pages mapped, and {linear: (physical, size)} of what was mapped, never overlapping."""
    mode = draw(st.sampled_from(PAGED))
    cr0, cr4, efer = MODE_BITS[mode]
    builder = Builder(PagingState(Cr0.PE | cr0, 0x80000, cr4 | Cr4.PSE, efer))
    large = {PagingMode.TWO_LEVEL: (22,), PagingMode.PAE: (21,)}.get(mode, (21, 30))
    width = {PagingMode.FOUR_LEVEL: 48, PagingMode.FIVE_LEVEL: 57}.get(mode, 32)
    physical_width = {12: 32 if mode is PagingMode.TWO_LEVEL else 40, 21: 40, 22: 40, 30: 40}
    wanted: dict[int, tuple[int, int]] = {}
    for number in draw(st.sets(st.integers(0, (1 << width - 30) - 1), min_size=1, max_size=2)):
        gigabyte = number << 30
        if width > 32 and gigabyte >> (width - 1):
            gigabyte |= (1 << 64) - (1 << width)
        shift = draw(st.sampled_from((12, *large)))
        for index in draw(st.sets(st.integers(0, (1 << 30 - shift) - 1), min_size=1, max_size=3)):
            physical = draw(st.integers(0, (1 << physical_width[shift] - shift) - 1)) << shift
            wanted[gigabyte | index << shift] = (physical, 1 << shift)
            builder.map(gigabyte | index << shift, physical, shift)
    return builder, wanted


@given(layout=layouts(), offset=st.integers(0, 2**30 - 1))
def test_what_is_mapped_is_found(layout: tuple[Builder, dict[int, tuple[int, int]]], offset: int) -> None:
    builder, wanted = layout
    for linear, (physical, size) in wanted.items():
        within = offset % size
        assert is_canonical(linear, builder.state.mode)
        assert translate(builder.read, builder.state, linear + within) == physical + within
        assert walk(builder.read, builder.state, linear + within).physical == physical + within


@given(layout=layouts())
def test_mappings_lists_exactly_what_is_mapped(layout: tuple[Builder, dict[int, tuple[int, int]]]) -> None:
    builder, wanted = layout
    found = list(mappings(builder.read, builder.state))
    assert {each.linear: (each.physical, each.size) for each in found} == wanted
    assert len(found) == len(wanted)
    joined = list(merge(found))
    assert sum(each.size for each in joined) == sum(size for _, size in wanted.values())


@given(seed=st.integers(0, 2**32), state=states(PAGED), limit=st.integers(1, 4))
def test_mappings_of_garbage_end(seed: int, state: PagingState, limit: int) -> None:
    memory = tables_for(seed, state)
    for each in islice(mappings(memory.read, state, max_tables=limit), 100):
        rights = walk(memory.read, state, each.linear, Access()).rights
        assert rights == each.rights
        assert translate(memory.read, state, each.linear) == each.physical
    assert len(memory.entries) <= (limit + 2) * 1024


@st.composite
def runs(draw: st.DrawFn) -> Builder:
    """Tables with runs of neighbours, up to the last physical pages, and single entries of them changed since."""
    mode = draw(st.sampled_from(PAGED))
    cr0, cr4, efer = MODE_BITS[mode]
    builder = Builder(
        PagingState(Cr0.PE | cr0, 0x80000, cr4 | Cr4.PSE | draw(st.sampled_from([0, int(Cr4.PGE)])), efer)
    )
    large = {PagingMode.TWO_LEVEL: 22, PagingMode.PAE: 21}.get(mode, draw(st.sampled_from((21, 30))))
    for place in range(draw(st.integers(1, 2))):
        shift = draw(st.sampled_from((12, large)))
        whole = 1024 if mode is PagingMode.TWO_LEVEL else 512
        first = draw(st.sampled_from((0, 1, 500)))
        count = draw(st.sampled_from((1, 2, 12, whole - first)))
        top = 1 << (32 if mode is PagingMode.TWO_LEVEL and shift == 12 else 40)
        begin = draw(st.sampled_from((0, 0x40000000, top - (6 << shift))))
        for index in range(first, first + count):
            page = begin + (index - first << shift)
            builder.map((place << 30) + (index << shift) & 0x7FFFFFFF, page % (2 * top), shift)
    slots = sorted(builder.memory)
    for slot in draw(st.lists(st.sampled_from(slots), max_size=6)):
        builder.memory[slot] ^= 1 << draw(st.sampled_from((0, 1, 2, 5, 6, 7, 8, 9, 12, 21)))
    return builder


@given(runs())
def test_mappings_of_whole_tables_are_those_of_their_entries_joined(builder: Builder) -> None:
    size = 4 if builder.state.mode is PagingMode.TWO_LEVEL else 8

    def table(address: int) -> bytes:
        return b"".join(builder.read(address + at, size).to_bytes(size, "little") for at in range(0, 0x1000, size))

    joined = list(mappings(builder.read, builder.state, read_table=table))
    assert list(merge(joined)) == list(merge(mappings(builder.read, builder.state)))


def test_merge_joins_only_true_neighbours() -> None:
    plain, read_only = Rights(), Rights(writable=False)
    pages = [
        Mapping(0x1000, 0x5000, 0x1000, plain),
        Mapping(0x2000, 0x6000, 0x1000, plain),
        Mapping(0x3000, 0x7000, 0x1000, read_only),
        Mapping(0x4000, 0x9000, 0x1000, read_only),
        Mapping(0x6000, 0xA000, 0x1000, read_only),
    ]
    assert list(merge(pages)) == [Mapping(0x1000, 0x5000, 0x2000, plain), *pages[2:]]
    assert list(merge([])) == []
