from errno import ENOMEM

from hypothesis import given, settings
from hypothesis import strategies as st

from emu.errors import LoadError
from emu.kexec.allocator import PageAllocator, PageOwner, PagePool
from emu.units import PAGE_SIZE, Phys, pfn_of, phys_of

FRAMES = 120


class Case:
    """A load in small: destinations, a pool in some order, and the content of pages followed through every move."""

    def __init__(self, segments: list[tuple[int, int]], free: list[int], limit: int) -> None:
        self.wanted = [pfn for first, last in segments for pfn in range(first, last)]
        self.pool = PagePool(free)
        self.source_of: dict[int, int] = {}
        self.content: dict[int, int] = {}
        self.pages = PageAllocator(
            self.pool,
            [(first * PAGE_SIZE, last * PAGE_SIZE) for first, last in segments],
            control_limit=limit * PAGE_SIZE,
            source_limit=limit * PAGE_SIZE,
            on_move=self.move,
        )

    def move(self, old: Phys, new: Phys) -> None:
        destination = next(d for d, s in self.source_of.items() if s == pfn_of(old))
        assert destination == pfn_of(new), "a page may only take over as its own source"
        self.source_of[destination] = pfn_of(new)
        self.content[pfn_of(new)] = self.content.pop(pfn_of(old))

    def run(self, control: int) -> None:
        for number in range(control):
            self.pages.control_page(PageOwner.SWAP if number == 1 else PageOwner.CONTROL)
        self.pages.release_rejects()
        for number, pfn in enumerate(self.wanted):
            source = self.pages.source_page(phys_of(pfn))
            assert pfn_of(source) not in self.source_of.values()
            self.source_of[pfn] = pfn_of(source)
            self.content[pfn_of(source)] = pfn
            if number % 5 == 0:
                del self.source_of[pfn]
                listing = self.pages.list_page()
                self.source_of[pfn] = pfn_of(source)
                assert listing != source
            self.pages.listed(phys_of(pfn), source)
        self.pages.finish()


@st.composite
def segment_lists(draw: st.DrawFn) -> list[tuple[int, int]]:
    cuts = sorted(draw(st.lists(st.integers(0, FRAMES), unique=True, max_size=12)))
    both = list(zip(cuts[::2], cuts[1::2], strict=False))
    return draw(st.permutations(both))


pools = st.lists(st.integers(0, FRAMES + 20), unique=True, max_size=FRAMES + 20)
wide_pools = st.permutations(range(3 * FRAMES))


def check(case: Case, free: list[int], limit: int) -> None:
    destinations = set(case.wanted)
    assert set(case.source_of) == destinations
    for destination, source in case.source_of.items():
        assert source == destination or source not in destinations
        assert case.content[source] == destination
        assert source < limit
    owners = case.pages.pages_by_owner()
    assert sorted(case.source_of.values()) == owners.get(PageOwner.SOURCE, [])
    for owner in set(owners) - {PageOwner.SOURCE}:
        assert not destinations & set(owners[owner])
    taken = sorted(case.pages.owned)
    assert sorted([*case.pool.snapshot(), *taken]) == sorted(free)


@given(segment_lists(), wide_pools, st.integers(0, 6))
@settings(max_examples=150, deadline=None)
def test_a_source_is_its_own_destination_or_in_none(
    segments: list[tuple[int, int]], free: list[int], control: int
) -> None:
    case = Case(segments, free, 3 * FRAMES)
    case.run(control)
    check(case, free, 3 * FRAMES)


@given(segment_lists(), pools, st.integers(0, 6), st.integers(1, FRAMES + 20))
@settings(max_examples=200, deadline=None)
def test_a_small_pool_holds_or_ends_in_enomem(
    segments: list[tuple[int, int]], free: list[int], control: int, limit: int
) -> None:
    case = Case(segments, free, limit)
    refused: LoadError | None = None
    try:
        case.run(control)
    except LoadError as error:
        refused = error
    if refused is None:
        check(case, free, limit)
    else:
        assert (refused.errno, len(case.pool)) == (ENOMEM, 0)


@given(segment_lists(), wide_pools)
@settings(max_examples=50, deadline=None)
def test_the_same_pool_gives_the_same_pages(segments: list[tuple[int, int]], free: list[int]) -> None:
    first, second = Case(segments, free, 3 * FRAMES), Case(segments, free, 3 * FRAMES)
    first.run(3)
    second.run(3)
    assert first.source_of == second.source_of
    assert first.pool.snapshot() == second.pool.snapshot()
