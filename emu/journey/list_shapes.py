"""Entry lists of every shape, over pages that are free to be named: pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from emu.kexec.entry_list import Pair
from emu.units import Phys

SHAPES = (
    "empty", "1", "2", "511", "512", "2000", "self", "self among others", "segments", "descending sources",
)  # fmt: skip
"""The names of the shapes; a number is one segment of so many pages, from shuffled sources."""
MOST_PAGES = 4001
"""Free pages that the largest of them takes."""

_Pages = Sequence[Phys]


def pairs_of(shape: str, free: _Pages) -> list[Pair]:
    """(destination, source) of each page of ``shape``, taken from ``free``, MOST_PAGES of them or more."""
    match shape:
        case "empty":
            return []
        case "self":
            return [(page, page) for page in free[40:43]]
        case "self among others":
            others = list(_segments(free[100:], (3, 2), _shuffled))
            return [*others[:2], (free[7], free[7]), *others[2:]]
        case "segments":
            return list(_segments(free, (1, 40, 2, 300, 17), _shuffled))
        case "descending sources":
            return list(_segments(free, (64,), lambda pages: pages[::-1]))
        case _:
            return list(_segments(free, (int(shape),), _shuffled))


def _segments(free: _Pages, sizes: Sequence[int], sources: Callable[[_Pages], _Pages]) -> Iterator[Pair]:
    """Destinations in runs of ``sizes`` with a gap between; each gets one of the pages that ``sources`` arranges."""
    total = sum(sizes) + len(sizes)
    arranged = iter(sources(free[total:]))
    at = 0
    for size in sizes:
        for destination in free[at : at + size]:
            yield destination, next(arranged)
        at += size + 1


def _shuffled(pages: _Pages) -> _Pages:
    return random.Random("lists").sample(list(pages), len(pages))  # noqa: S311 - no secret
