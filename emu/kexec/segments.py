"""Segments of kexec_load(2): what they are, which are refused, and the list that a kexec jump needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from errno import EADDRNOTAVAIL, EFAULT, EINVAL
from itertools import pairwise

from emu.errors import LoadError
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range
from emu.kexec.layout import SEGMENT_MAX
from emu.kexec.staged import ZERO_PAGE
from emu.units import PAGE_SIZE, show_phys, show_size


@dataclass(frozen=True, slots=True)
class Segment:
    """One struct kexec_segment: ``bufsz`` bytes of ``buf`` go to physical ``mem``, the rest of ``memsz`` is zero.

    ``buf`` None stands for a pointer that cannot be read; with ``bufsz`` 0 it is never looked at.
    """

    buf: bytes | None
    bufsz: int
    mem: int
    memsz: int

    @classmethod
    def of(cls, content: bytes, mem: int, memsz: int = 0) -> Segment:
        """``content`` at page-aligned physical ``mem``, in at least ``memsz`` bytes, rounded up to whole pages."""
        size = -(-max(len(content), memsz) // PAGE_SIZE) * PAGE_SIZE
        return cls(content, len(content), mem, size)

    @property
    def end(self) -> int:
        """The first physical address after the segment."""
        return self.mem + self.memsz

    @property
    def pages(self) -> int:
        """The number of pages that it takes."""
        return -(-self.memsz // PAGE_SIZE)

    def __str__(self) -> str:
        return f"segment {show_phys(self.mem)}..{show_phys(self.end)}"


def _refuse(segment: Segment, what: str, errno: int, hint: str = "") -> LoadError:
    return LoadError(f"{segment} {what}", errno=errno, hint=hint)


def content_of(segment: Segment) -> bytes:
    """The ``bufsz`` bytes that fill the segment; raises :class:`LoadError` (EFAULT) where they cannot be read."""
    if segment.bufsz == 0:
        return b""
    if segment.buf is None or len(segment.buf) < segment.bufsz:
        raise _refuse(segment, "has a buffer that cannot be read", EFAULT)
    return segment.buf[: segment.bufsz]


def page_of(segment: Segment, at: int) -> bytes:
    """The page at byte ``at`` of the segment, zero where ``bufsz`` ends; raises :class:`LoadError` (EFAULT)."""
    if at >= segment.bufsz:
        return ZERO_PAGE
    if segment.buf is None or len(segment.buf) < segment.bufsz:
        raise _refuse(segment, "has a buffer that cannot be read", EFAULT)
    return segment.buf[at : min(at + PAGE_SIZE, segment.bufsz)].ljust(PAGE_SIZE, b"\0")


def check_segments(segments: Sequence[Segment], arch: Arch, memory_map: MemoryMap) -> None:
    """The checks of sanity_check_segment_list, in its order, and a last one of ours: a segment must be RAM.

    Raises :class:`LoadError`: EADDRNOTAVAIL for an address that wraps, is not page aligned or too high, EINVAL for
    overlaps, ``bufsz`` above ``memsz`` and more than half of RAM, EADDRNOTAVAIL outside RAM.
    """
    _check_addresses(segments, arch)
    _check_overlaps(segments)
    for segment in segments:
        if segment.bufsz > segment.memsz:
            raise _refuse(segment, f"has {segment.bufsz} bytes for {segment.memsz}", EINVAL)
    _check_half_of_ram(segments, memory_map)
    for segment in segments:
        ram = sum(part.size for part in memory_map.ram_within(segment.mem, segment.end))
        if ram != segment.memsz:
            raise _refuse(segment, "is not all RAM", EADDRNOTAVAIL, "see the machine's memory map")


def _check_addresses(segments: Iterable[Segment], arch: Arch) -> None:
    wrap = 1 << arch.bits
    for segment in segments:
        if segment.end >= wrap:
            raise _refuse(segment, "wraps around the end of the address space", EADDRNOTAVAIL)
        if segment.mem % PAGE_SIZE or segment.end % PAGE_SIZE:
            raise _refuse(segment, "does not begin and end at a page", EADDRNOTAVAIL)
        if segment.end >= arch.destination_limit:
            raise _refuse(segment, f"ends above the limit {show_phys(arch.destination_limit)}", EADDRNOTAVAIL)


def _check_overlaps(segments: Iterable[Segment]) -> None:
    ordered = sorted((segment for segment in segments if segment.memsz), key=lambda segment: segment.mem)
    for left, right in pairwise(ordered):
        if right.mem < left.end:
            raise _refuse(right, f"overlaps {left}", EINVAL)


def _check_half_of_ram(segments: Iterable[Segment], memory_map: MemoryMap) -> None:
    half = memory_map.total_ram_pages // 2
    total = 0
    for segment in segments:
        total += segment.pages
        if max(segment.pages, total) > half:
            raise _refuse(
                segment,
                f"brings the image to {show_size(total * PAGE_SIZE)}, more than half of RAM",
                EINVAL,
                "give the machine more RAM or B a smaller target area",
            )


def check_inside(segments: Iterable[Segment], allowed: Iterable[Range], what: str) -> None:
    """Raise :class:`LoadError` (EADDRNOTAVAIL) for a segment that lies in none of ``allowed``, named ``what``."""
    ranges = tuple(allowed)
    for segment in segments:
        if segment.memsz and not any(r.start <= segment.mem and segment.end <= r.end for r in ranges):
            raise _refuse(segment, f"lies outside {what}", EADDRNOTAVAIL)


def usable_by_jump(memory_map: MemoryMap, target: Range) -> list[Range]:
    """The RAM that B may use: low region and target area, whole pages, holes left out, neighbours joined."""
    low = memory_map.low_region()
    parts = sorted([low, *memory_map.ram_within(target.start, target.end)])
    joined = parts[:1]
    for part in parts[1:]:
        if part.start <= joined[-1].end:
            joined[-1] = Range(joined[-1].start, max(joined[-1].end, part.end))
        else:
            joined.append(part)
    return joined


def kjump_segments(memory_map: MemoryMap, target: Range, image: Iterable[Segment]) -> tuple[Segment, ...]:
    """The segments under which every page that B may use is a destination, so that A gets it back.

    The pages that the ``image`` does not fill are added: before the first segment of a piece of RAM as one with bufsz
    0, after a segment by enlarging its ``memsz``.  Neighbours are then joined, smallest gap first, until there are at
    most 16.  Raises :class:`LoadError` as :func:`check_segments` does for overlaps, and EADDRNOTAVAIL for a segment
    outside low region and target area.
    """
    segments = sorted((segment for segment in image if segment.memsz), key=lambda segment: segment.mem)
    _check_overlaps(segments)
    usable = usable_by_jump(memory_map, target)
    check_inside(segments, usable, "the low region and the target area")
    pieces = [_fill(piece, [s for s in segments if piece.start <= s.mem < piece.end]) for piece in usable]
    while sum(map(len, pieces)) > SEGMENT_MAX and any(len(piece) > 1 for piece in pieces):
        piece = min((p for p in pieces if len(p) > 1), key=_smallest_gap)
        _join_closest(piece)
    return tuple(segment for piece in pieces for segment in piece)


def _fill(piece: Range, segments: list[Segment]) -> list[Segment]:
    """``segments`` of one piece of RAM, enlarged and preceded so that they cover it."""
    first = segments[0].mem if segments else piece.end
    filled = [Segment(None, 0, piece.start, first - piece.start)] if first > piece.start else []
    following = [segment.mem for segment in segments] + [int(piece.end)]
    filled.extend(replace(left, memsz=end - left.mem) for left, end in zip(segments, following[1:], strict=True))
    return filled


def _gap(left: Segment, right: Segment) -> int:
    return right.mem - left.mem - left.bufsz


def _smallest_gap(piece: Sequence[Segment]) -> int:
    return min(_gap(left, right) for left, right in pairwise(piece))


def _join_closest(piece: list[Segment]) -> None:
    at = min(range(len(piece) - 1), key=lambda index: _gap(piece[index], piece[index + 1]))
    left, right = piece[at : at + 2]
    padded = content_of(left).ljust(right.mem - left.mem, b"\0") if right.bufsz else content_of(left)
    content = padded + content_of(right)
    piece[at : at + 2] = [Segment(content, len(content), left.mem, left.memsz + right.memsz)]
