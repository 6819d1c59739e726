from collections.abc import Callable

import pytest

from emu.errors import LoadError
from emu.kexec.entry_list import (
    Entry,
    ListBuilder,
    Mode,
    StepKind,
    WalkStep,
    apply,
    inverse,
    kind_of,
    pairs_of,
    walk,
)
from emu.kexec.layout import Ind
from emu.units import PAGE_SIZE, Phys

LIST = 0x100000


class Memory:
    """Bytes of a few pages, and pages handed out from LIST upwards."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}
        self.taken = 0

    def alloc(self) -> Phys:
        self.taken += 1
        return Phys(LIST + (self.taken - 1) * PAGE_SIZE)

    def write(self, address: int, content: bytes) -> None:
        page = self.pages.setdefault(address & ~0xFFF, bytearray(PAGE_SIZE))
        page[address & 0xFFF : (address & 0xFFF) + len(content)] = content

    def page(self, address: int) -> bytes:
        return bytes(self.pages.get(address, bytes(PAGE_SIZE)))

    def reader(self, word: int) -> Callable[[Phys], int]:
        return lambda at: int.from_bytes(self.page(at & ~0xFFF)[at & 0xFFF : (at & 0xFFF) + word], "little")


def fill(memory: Memory, page: int, value: int) -> None:
    memory.write(page, bytes([value]) * PAGE_SIZE)


def built(pairs: list[tuple[int, int]], word: int) -> tuple[Memory, ListBuilder, int]:
    memory = Memory()
    builder = ListBuilder(memory.alloc, word, memory.write)
    builder.add_pairs((Phys(destination), Phys(source)) for destination, source in pairs)
    return memory, builder, builder.terminate()


def steps_of(memory: Memory, head: int, word: int) -> list[WalkStep]:
    return list(walk(memory.reader(word), head, word))


@pytest.mark.parametrize("word", [4, 8])
def test_an_empty_list_is_done_at_once_and_takes_no_page(word: int) -> None:
    memory, builder, head = built([], word)
    assert head == 4
    assert builder.pages == []
    assert [step.kind for step in steps_of(memory, head, word)] == [StepKind.DONE]


@pytest.mark.parametrize("word", [4, 8])
def test_the_entries_of_two_pages_in_a_row(word: int) -> None:
    memory, _, head = built([(0x5000, 0x9000), (0x6000, 0x3000)], word)
    assert head == LIST | 2
    raw = memory.page(LIST)
    words = [int.from_bytes(raw[at : at + word], "little") for at in range(0, 5 * word, word)]
    assert words == [0x5000 | 1, 0x9000 | 8, 0x3000 | 8, 4, 0]
    assert pairs_of(steps_of(memory, head, word)) == ((0x5000, 0x9000), (0x6000, 0x3000))


@pytest.mark.parametrize(("word", "usable"), [(4, 1023), (8, 511)])
def test_a_page_of_entries_keeps_its_last_slot_for_the_link(word: int, usable: int) -> None:
    sources = [(0x1000000 + n * PAGE_SIZE, 0x4000000 + n * PAGE_SIZE) for n in range(usable - 1)]
    _, builder, _ = built(sources, word)
    assert len(builder.pages) == 1
    one_more = [*sources, (0x1000000 + (usable - 1) * PAGE_SIZE, 0x8000000)]
    memory, builder, head = built(one_more, word)
    assert builder.pages == [LIST, LIST + PAGE_SIZE]
    assert memory.reader(word)(Phys(LIST + PAGE_SIZE - word)) == (LIST + PAGE_SIZE) | 2
    assert pairs_of(steps_of(memory, head, word)) == tuple(one_more)


def test_done_may_stand_in_the_last_slot() -> None:
    sources = [(0x1000000 + n * PAGE_SIZE, 0x4000000 + n * PAGE_SIZE) for n in range(510)]
    memory, _, head = built(sources, 8)
    assert memory.reader(8)(Phys(LIST + PAGE_SIZE - 8)) == 4
    assert len(pairs_of(steps_of(memory, head, 8))) == 510


def test_the_null_image_is_a_destination_and_done() -> None:
    memory = Memory()
    builder = ListBuilder(memory.alloc, 8, memory.write)
    builder.add(Entry(Ind.DESTINATION, Phys(0)))
    head = builder.terminate()
    assert memory.page(LIST)[:16] == bytes.fromhex("0100000000000000 0400000000000000")
    assert pairs_of(steps_of(memory, head, 8)) == ()


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (0x1000, StepKind.IGNORED),
        (0x1010, StepKind.IGNORED),
        (0x100F, StepKind.DESTINATION),
        (0x100E, StepKind.INDIRECTION),
        (0x100C, StepKind.DONE),
        (0x1FF8, StepKind.SOURCE),
    ],
)
def test_the_first_flag_that_is_set_wins(entry: int, kind: StepKind) -> None:
    assert kind_of(entry) is kind


def words_at(memory: Memory, address: int, words: list[int], word: int = 8) -> None:
    for number, value in enumerate(words):
        memory.write(address + number * word, value.to_bytes(word, "little"))


def test_other_entries_are_skipped_and_a_source_before_any_destination_goes_to_0() -> None:
    memory = Memory()
    words_at(memory, LIST, [0x7000, 0x9000 | 8, 0, 0xA000 | 8, 4])
    steps = steps_of(memory, LIST | 2, 8)
    assert [step.kind for step in steps] == [
        StepKind.INDIRECTION,
        StepKind.IGNORED,
        StepKind.SOURCE,
        StepKind.IGNORED,
        StepKind.SOURCE,
        StepKind.DONE,
    ]
    assert pairs_of(steps) == ((0, 0x9000), (0x1000, 0xA000))
    assert [step.at for step in steps[:3]] == [None, LIST, LIST + 8]


def test_the_cursor_wraps_with_the_word() -> None:
    memory = Memory()
    words_at(memory, LIST, [0xFFFFF000 | 1, 0x9000 | 8, 0xA000 | 8, 4], 4)
    assert pairs_of(steps_of(memory, LIST | 2, 4)) == ((0xFFFFF000, 0x9000), (0, 0xA000))


@pytest.mark.parametrize("head", [0x5000, 0x5001, 0x5008, 0])
def test_a_head_that_leads_nowhere_ends_the_walk(head: int) -> None:
    assert steps_of(Memory(), head, 8)[-1].kind is StepKind.NO_LIST


def test_an_endless_list_ends_at_the_limit() -> None:
    memory = Memory()
    words_at(memory, LIST, [LIST | 2])
    steps = list(walk(memory.reader(8), LIST | 2, 8, limit=100))
    assert len(steps) == 101
    assert steps[-1].kind is StepKind.LIMIT


def test_a_copy_leaves_the_source() -> None:
    memory, _, head = built([(0x5000, 0x9000)], 8)
    fill(memory, 0x5000, 5)
    fill(memory, 0x9000, 9)
    assert apply(memory.page, memory.write, walk(memory.reader(8), head, 8), Mode.COPY) == 1
    assert (memory.page(0x5000)[0], memory.page(0x9000)[0]) == (9, 9)


def test_a_swap_exchanges_and_leaves_the_last_source_in_the_swap_page() -> None:
    memory, _, head = built([(0x5000, 0x9000), (0x6000, 0x6000), (0x7000, 0xB000)], 8)
    for page, value in ((0x5000, 5), (0x6000, 6), (0x7000, 7), (0x9000, 9), (0xB000, 11)):
        fill(memory, page, value)
    steps = steps_of(memory, head, 8)
    assert apply(memory.page, memory.write, steps, Mode.SWAP, Phys(0x2000)) == 3
    assert {page >> 12: memory.page(page)[0] for page in (0x5000, 0x6000, 0x7000, 0x9000, 0xB000, 0x2000)} == {
        5: 9,
        6: 6,
        7: 11,
        9: 5,
        11: 7,
        2: 11,
    }


def test_a_list_that_is_overwritten_while_it_is_applied_is_followed_as_it_then_stands() -> None:
    memory = Memory()
    words_at(memory, LIST, [LIST | 1, 0x9000 | 8, 0xA000 | 8, 4])
    words_at(memory, 0x9000, [0, 0, 4])
    assert apply(memory.page, memory.write, walk(memory.reader(8), LIST | 2, 8), Mode.COPY) == 1


def test_a_swap_without_a_swap_page_is_refused() -> None:
    with pytest.raises(LoadError, match="swap page"):
        apply(Memory().page, Memory().write, [], Mode.SWAP)


def test_the_inverse_turns_pairs_around() -> None:
    pairs = ((Phys(0x5000), Phys(0x9000)), (Phys(0x6000), Phys(0x6000)))
    assert inverse(pairs) == ((0x9000, 0x5000), (0x6000, 0x6000))
    assert inverse(()) == ()


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([(0x5000, 0x9000), (0x5000, 0xA000)], "destination twice"),
        ([(0x5000, 0x9000), (0x9000, 0xA000)], "source and destination"),
        ([(0x5000, 0x9000), (0x6000, 0x9000)], "source twice"),
    ],
)
def test_what_a_copy_loses_no_list_brings_back(pairs: list[tuple[int, int]], words: str) -> None:
    with pytest.raises(LoadError, match=words):
        inverse([(Phys(destination), Phys(source)) for destination, source in pairs])
