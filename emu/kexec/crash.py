"""Crash images: loaded in place into the crash region, with control pages from its holes and no swap page."""

from __future__ import annotations

from collections.abc import Iterator
from errno import ENOMEM
from types import MappingProxyType

from emu.errors import LoadError
from emu.kexec.allocator import PageOwner
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range
from emu.kexec.image import KexecImage
from emu.kexec.layout import Ind, LoadFlag
from emu.kexec.page_tables import build_transition_tables
from emu.kexec.segments import Segment, page_of
from emu.kexec.staged import Staged
from emu.units import PAGE_SIZE, Pfn, Phys, page_up, pfn_of


def _holes(region: Range, segments: tuple[Segment, ...]) -> Iterator[Phys]:
    """The pages of the crash region that no segment covers, ascending."""
    for at in range(page_up(region.start), region.end - PAGE_SIZE + 1, PAGE_SIZE):
        if not any(segment.mem < at + PAGE_SIZE and at < segment.end for segment in segments):
            yield Phys(at)


def load_crash(
    *,
    arch: Arch,
    memory_map: MemoryMap,
    staged: Staged,
    segments: tuple[Segment, ...],
    entry: int,
    region: Range,
) -> KexecImage:
    """The crash image of ``segments``, staged.  Raises :class:`LoadError`: ENOMEM (no hole is left), EFAULT."""
    holes = _holes(region, segments)
    owned: dict[PageOwner, tuple[Pfn, ...]] = {}

    def take(owner: PageOwner) -> Phys:
        page = next(holes, None)
        if page is None:
            raise LoadError(f"the crash region {region} has no hole left for a control page", errno=ENOMEM)
        owned[owner] = (*owned.get(owner, ()), pfn_of(page))
        return page

    control = take(PageOwner.CONTROL)
    root = build_transition_tables(
        arch,
        lambda: take(PageOwner.TABLE),
        staged.write,
        memory_map=memory_map,
        control_page=control,
        also=[(segment.mem, segment.end) for segment in segments],
    )
    for segment in segments:
        for at in range(0, segment.memsz, PAGE_SIZE):
            staged.write_page(Phys(segment.mem + at), page_of(segment, at))
    return KexecImage(
        arch=arch,
        entry=Phys(entry),
        flags=LoadFlag.ON_CRASH,
        segments=segments,
        head=int(Ind.DONE),
        pairs=(),
        control_page=control,
        swap_page=None,
        table_root=root,
        list_pages=(),
        owners=MappingProxyType(owned),
    )
