"""Bugs of the loader, made again: functions that take the place of others for the length of one test."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from emu.assembler import Image
from emu.errors import KjumpError, LoadError
from emu.journey.loader import Loaded, Loader
from emu.kexec import page_tables, segments
from emu.kexec.allocator import Order, PageAllocator, PageOwner, PagePool
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range
from emu.kexec.image import KexecImage
from emu.kexec.layout import LoadFlag
from emu.kexec.load import KexecState, LoadRequest
from emu.kexec.page_tables import AllocPage, Write
from emu.kexec.segments import Segment
from emu.units import MIB, PAGE_SIZE, Pfn, Phys, page_down, page_up, pfn_of

SEAMS: dict[str, list[tuple[str, Callable[..., Any]]]] = {}
"""By name: what is replaced (``module:name`` or ``module:class.name``), and by what."""


def _seam(name: str, target: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        SEAMS.setdefault(name, []).append((target, function))
        return function

    return register


@contextmanager
def bug(name: str) -> Iterator[None]:
    """The bug ``name`` is there until the end of the block; no name, no bug."""
    if name and name not in SEAMS:
        raise KjumpError(f"no seam is called {name}", hint=f"one of {', '.join(sorted(SEAMS))}")
    with ExitStack() as stack:
        for target, function in SEAMS.get(name, ()):
            module, _, path = target.partition(":")
            *owners, attribute = path.split(".")
            owner: Any = importlib.import_module(module)
            for one in owners:
                owner = getattr(owner, one)
            stack.callback(setattr, owner, attribute, owner.__dict__[attribute])
            setattr(owner, attribute, function)
        yield


# ---- checks of kexec_load that were not there --------------------------------------------------------------------


@_seam("wrap accepted", "emu.kexec.segments:_check_addresses")
def _no_wrap_check(listed: Iterable[Segment], arch: Arch) -> None:
    for segment in listed:
        end = segment.end & (1 << arch.bits) - 1
        if segment.mem % PAGE_SIZE or end % PAGE_SIZE or end >= arch.destination_limit:
            raise LoadError("bad address", errno=99)


@_seam("any size accepted", "emu.kexec.segments:_check_half_of_ram")
def _no_size_check(_listed: Iterable[Segment], _memory_map: MemoryMap) -> None:
    return


@_seam("crash image with a way back", "emu.kexec.load:_check_call")
def _flags_one_by_one(request: LoadRequest, _kernel: KexecState) -> LoadFlag:
    low = LoadFlag(request.flags & 0xFFFF)
    return LoadFlag.ON_CRASH if low & LoadFlag.ON_CRASH else low


@_seam("end is exclusive here and inclusive there", "emu.kexec.allocator:PageAllocator.is_destination")
def _off_by_one(self: PageAllocator, pfn: int) -> bool:
    address = pfn * PAGE_SIZE
    return any(start <= address <= end for start, end in self._ranges)


@_seam("cursor behind the hole", "emu.kexec.crash:_holes")
def _wasteful_holes(region: Range, listed: tuple[Segment, ...]) -> Iterator[Phys]:
    for at in range(page_up(region.start), region.end - PAGE_SIZE + 1, PAGE_SIZE):
        if not any(segment.mem <= at <= segment.end for segment in listed):
            yield Phys(at)


_page_of = segments.page_of


@_seam("buffer read although bufsz is 0", "emu.kexec.loading:page_of")
def _always_reads(segment: Segment, at: int) -> bytes:
    if segment.buf is None:
        raise LoadError("a buffer that cannot be read", errno=14)
    return _page_of(segment, at)


@_seam("source pages not cleared", "emu.kexec.loading:page_of")
def _not_cleared(segment: Segment, at: int) -> bytes:
    return b"" if at >= segment.bufsz else (segment.buf or b"")[at : min(at + PAGE_SIZE, segment.bufsz)]


@_seam("bytes not copied as the answer", "emu.kexec.loading:page_of")
def _positive_count(segment: Segment, at: int) -> bytes:
    try:
        return _page_of(segment, at)
    except LoadError as error:
        raise LoadError(error.what, errno=-segment.bufsz) from error


@_seam("failed load frees twice", "emu.kexec.allocator:PagePool.restore")
def _double_free(self: PagePool, snapshot: Sequence[Pfn]) -> None:
    self._stack = [*list(reversed(snapshot)), *snapshot[:1]]


@_seam("first 640 KiB hard coded", "emu.kexec.e820:MemoryMap.low_region")
def _first_640k(_self: MemoryMap) -> Range:
    return Range(Phys(0), Phys(0xA0000))


@_seam("holes smaller than a page", "emu.kexec.segments:usable_by_jump")
def _rounded_holes(memory_map: MemoryMap, target: Range) -> list[Range]:
    low = memory_map.low_region()
    parts = [part for part in memory_map.ram_ranges if part.start < target.end and part.end > target.start]
    return [low, *(Range(Phys(page_up(part.start)), Phys(page_down(part.end))) for part in parts)]


# ---- allocation --------------------------------------------------------------------------------------------------

_control_page, _source_page = PageAllocator.control_page, PageAllocator.source_page


@_seam("control pages anywhere", "emu.kexec.allocator:PageAllocator.control_page")
def _swap_in_destination(self: PageAllocator, owner: PageOwner = PageOwner.CONTROL) -> Phys:
    if owner is PageOwner.SWAP:
        self.owned[pfn_of(0x5000)] = owner
        return Phys(0x5000)
    return _control_page(self, owner)


@_seam("sources anywhere", "emu.kexec.allocator:PageAllocator.source_page")
def _neighbours_destination(self: PageAllocator, destination: Phys) -> Phys:
    if destination == 0x5000:
        self.owned[pfn_of(0x6000)] = PageOwner.SOURCE
        return Phys(0x6000)
    return _source_page(self, destination)


_kjump_segments = segments.kjump_segments


@_seam("overlaps accepted", "emu.journey.loader:kjump_segments")
def _one_twice(memory_map: MemoryMap, target: Range, image: Iterable[Segment]) -> tuple[Segment, ...]:
    return (*_kjump_segments(memory_map, target, image), Segment(None, 0, target.end - PAGE_SIZE, PAGE_SIZE))


@_seam("overlaps accepted", "emu.kexec.segments:_check_overlaps")
def _no_overlap_check(_listed: Iterable[Segment]) -> None:
    return


# ---- page tables -------------------------------------------------------------------------------------------------

_transition_tables = page_tables.build_transition_tables
_of_map = PagePool.of_map


@_seam("8 KiB top-level table", "emu.kexec.loading:build_transition_tables")
def _shadow_half(arch: Arch, alloc: AllocPage, write: Write, **details: Any) -> Phys:
    root = _transition_tables(arch, alloc, write, **details)
    write(Phys(root + PAGE_SIZE), (root | 0x63).to_bytes(8, "little"))
    return root


@_seam("8 KiB top-level table", "emu.kexec.allocator:PagePool.of_map")
def _alone(memory_map: MemoryMap, busy: Iterable[int] = (), order: Order = Order.TOP) -> PagePool:
    """The sixth page to be taken, the top-level table, is followed by one that is not free."""
    free = list(_of_map(memory_map, busy, order).snapshot())
    return PagePool([*free[:5], free[-1], *free[5:-2]])


_tell_a = Loader._tell_a


@_seam("current tables overwritten", "emu.journey.loader:Loader._tell_a")
def _overwrites_current(self: Loader, loaded: Loaded) -> None:
    _tell_a(self, loaded)
    machine = self._machine
    machine.ram.write(page_down(machine.cpu.cr3), (loaded.image.table_root | 0x63).to_bytes(8, "little"))
    machine.flush_translations()


@_seam("identity map too short", "emu.kexec.loading:build_transition_tables")
def _short_map(arch: Arch, alloc: AllocPage, write: Write, **details: Any) -> Phys:
    page = details["control_page"]
    kept = [(0, 18 * MIB), (page, page + PAGE_SIZE)]
    return page_tables.build(arch, alloc, write, identity=kept, pages=((arch.direct(page), page),))


# ---- the copy in the control page ----------------------------------------------------------------------------------


@_seam("wrong bytes copied", "emu.journey.stubs:relocate_bytes")
def _other_section(stub: Image, _image: KexecImage, *, second: bool) -> bytes:
    del second
    return stub.code[0x40:] + bytes(0x40)


@_seam("entry taken to be the page", "emu.journey.programs:relocate_entry")
def _start_of_page(stub: Image) -> int:
    return stub.org
