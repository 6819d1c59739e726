from hypothesis import given, settings
from hypothesis import strategies as st

from emu.kexec.entry_list import Entry, ListBuilder, Mode, StepKind, apply, inverse, kind_of, pairs_of, walk
from emu.kexec.layout import Ind
from emu.units import PAGE_SIZE, Phys, phys_of

LIST = 0x4000
"""First page frame for entries; destinations and sources lie below it."""


class Memory:
    """Pages by address; a page never written holds its own frame number."""

    def __init__(self) -> None:
        self.pages: dict[int, bytes] = {}
        self.taken: list[Phys] = []

    def alloc(self) -> Phys:
        self.taken.append(phys_of(LIST + len(self.taken)))
        return self.taken[-1]

    def read_page(self, page: Phys) -> bytes:
        return self.pages.get(page, (page >> 12).to_bytes(8, "little") * 512)

    def write_page(self, page: Phys, content: bytes) -> None:
        self.pages[page] = content

    def write(self, address: Phys, content: bytes) -> None:
        at = address & 0xFFF
        page = self.read_page(Phys(address - at))
        self.pages[address - at] = page[:at] + content + page[at + len(content) :]

    def read_word(self, address: Phys, word: int) -> int:
        at = address & 0xFFF
        return int.from_bytes(self.read_page(Phys(address - at))[at : at + word], "little")


def build(memory: Memory, pairs: list[tuple[Phys, Phys]], word: int) -> int:
    builder = ListBuilder(memory.alloc, word, memory.write)
    builder.add_pairs(pairs)
    return builder.terminate()


words = st.sampled_from([4, 8])


@st.composite
def disjoint_pairs(draw: st.DrawFn, most: int = 40) -> list[tuple[Phys, Phys]]:
    """Pairs as the allocator makes them: no page twice, but a page may be its own source."""
    frames = draw(st.lists(st.integers(1, LIST - 1), unique=True, max_size=most))
    own = frames[: len(frames) // 4]
    rest = frames[len(own) :]
    both = list(zip(rest[::2], rest[1::2], strict=False)) + [(frame, frame) for frame in own]
    return [(phys_of(destination), phys_of(source)) for destination, source in draw(st.permutations(both))]


@given(st.lists(st.tuples(st.integers(0, 1 << 19), st.integers(0, 1 << 19)), max_size=1500), words)
@settings(max_examples=40, deadline=None)
def test_what_is_built_is_what_is_walked(frames: list[tuple[int, int]], word: int) -> None:
    memory = Memory()
    pairs = [(phys_of(destination), phys_of(source)) for destination, source in frames]
    head = build(memory, pairs, word)
    steps = list(walk(lambda at: memory.read_word(at, word), head, word))
    assert pairs_of(steps) == tuple(pairs)
    assert steps[-1].kind is StepKind.DONE
    links = [step.source for step in steps if step.kind is StepKind.INDIRECTION]
    assert links == memory.taken
    entries = sum(step.kind is not StepKind.INDIRECTION for step in steps)
    usable = PAGE_SIZE // word - 1
    assert len(links) == -(-max(entries - 1, 0) // usable)


@given(disjoint_pairs(), words)
@settings(max_examples=60, deadline=None)
def test_a_swap_done_twice_changes_nothing_but_the_swap_page(pairs: list[tuple[Phys, Phys]], word: int) -> None:
    memory = Memory()
    head = build(memory, pairs, word)
    swap_page = phys_of(LIST - 1 + 0x1000)
    pages = {page for pair in pairs for page in pair} | set(memory.taken)
    before = {page: memory.read_page(page) for page in pages}
    for _ in range(2):
        steps = walk(lambda at: memory.read_word(at, word), head, word)
        assert apply(memory.read_page, memory.write_page, steps, Mode.SWAP, swap_page) == len(pairs)
    assert {page: memory.read_page(page) for page in pages} == before


@given(disjoint_pairs(), words)
@settings(max_examples=60, deadline=None)
def test_a_swap_exchanges_every_pair(pairs: list[tuple[Phys, Phys]], word: int) -> None:
    memory = Memory()
    head = build(memory, pairs, word)
    before = {page: memory.read_page(page) for pair in pairs for page in pair}
    swap_page = phys_of(LIST - 1 + 0x1000)
    apply(
        memory.read_page,
        memory.write_page,
        walk(lambda at: memory.read_word(at, word), head, word),
        Mode.SWAP,
        swap_page,
    )
    for destination, source in pairs:
        assert memory.read_page(destination) == before[source]
        assert memory.read_page(source) == before[destination]
    if pairs:
        assert memory.read_page(swap_page) == before[pairs[-1][1]]


@given(disjoint_pairs(), words)
@settings(max_examples=60, deadline=None)
def test_a_copy_and_its_inverse_bring_the_sources_back(pairs: list[tuple[Phys, Phys]], word: int) -> None:
    memory = Memory()
    before = {source: memory.read_page(source) for _, source in pairs}
    for forward in (pairs, list(inverse(pairs))):
        head = build(memory, forward, word)
        apply(memory.read_page, memory.write_page, walk(lambda at: memory.read_word(at, word), head, word), Mode.COPY)
        for _, source in pairs:
            if forward is pairs:
                memory.write_page(source, b"lost" * 1024)
    wanted = {source: content for source, content in before.items() if (source, source) not in pairs}
    assert {source: memory.read_page(source) for source in wanted} == wanted


@given(st.integers(0, (1 << 64) - 1))
def test_the_meaning_of_an_entry_is_its_lowest_flag(entry: int) -> None:
    lowest = entry & 15 & -(entry & 15)
    meaning = {1: StepKind.DESTINATION, 2: StepKind.INDIRECTION, 4: StepKind.DONE, 8: StepKind.SOURCE}
    assert kind_of(entry) is meaning.get(lowest, StepKind.IGNORED)


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=30), words, st.integers(0, (1 << 64) - 1))
@settings(max_examples=100, deadline=None)
def test_any_garbage_ends_within_the_limit(garbage: list[int], word: int, head: int) -> None:
    def read_word(at: Phys) -> int:
        return garbage[at // word % len(garbage)] if garbage else 0

    steps = list(walk(read_word, head, word, limit=200))
    assert len(steps) <= 201
    assert steps[-1].kind in {StepKind.DONE, StepKind.NO_LIST, StepKind.LIMIT}
    assert all(step.destination & 0xFFF == 0 for step in steps)


@given(st.lists(st.tuples(st.sampled_from(list(Ind)), st.integers(0, 1 << 19)), max_size=30), words)
@settings(max_examples=60, deadline=None)
def test_single_entries_stand_in_memory_one_after_the_other(raw: list[tuple[Ind, int]], word: int) -> None:
    memory = Memory()
    builder = ListBuilder(memory.alloc, word, memory.write)
    for kind, frame in raw:
        at = builder.add(Entry(kind, phys_of(frame)))
        assert memory.read_word(at, word) == phys_of(frame) | kind
    builder.terminate()
    assert [memory.read_word(Phys(phys_of(LIST) + n * word), word) for n in range(len(raw))] == [
        phys_of(frame) | kind for kind, frame in raw
    ]
