from collections.abc import Callable
from dataclasses import replace
from errno import EADDRNOTAVAIL, EBUSY, EFAULT, EINVAL, ENOMEM, EPERM

import pytest

from emu.errors import LoadError
from emu.kexec.allocator import Order, PageOwner, PagePool
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range, default_map
from emu.kexec.entry_list import Mode, apply, inverse, pairs_of, walk
from emu.kexec.image import KexecImage
from emu.kexec.jump_page import JumpPage
from emu.kexec.layout import LoadFlag, RelocateFlag, Transfer
from emu.kexec.load import KexecState, LoadRequest, load
from emu.kexec.page_tables import paging_state
from emu.kexec.segments import Segment, kjump_segments, page_of
from emu.units import MIB, PAGE_SIZE, Phys
from emu.x86.paging import translate

MAP = default_map(24 * MIB)
TARGET = Range(Phys(16 * MIB), Phys(18 * MIB))
CRASH = Range(Phys(12 * MIB), Phys(14 * MIB))
A_PAGES = range(16 * 256, 16 * 256 + 64)
"""A's own image: the first pages of the target area."""
ALL = list(Arch)


class Memory:
    """Physical memory in pages, and how often it was written."""

    def __init__(self) -> None:
        self.pages: dict[int, bytes] = {}
        self.writes = 0

    def read(self, address: int, size: int) -> bytes:
        at = address & 0xFFF
        return self.page(Phys(address - at))[at : at + size]

    def write(self, address: int, content: bytes) -> None:
        self.writes += 1
        at = address & 0xFFF
        page = self.page(Phys(address - at))
        self.pages[address - at] = page[:at] + content + page[at + len(content) :]

    def page(self, address: Phys) -> bytes:
        return self.pages.get(address, (address >> 12).to_bytes(8, "little") * 512)

    def entry_reader(self, word: int) -> Callable[[Phys], int]:
        return lambda at: int.from_bytes(self.read(at, word), "little")

    def read_entry(self, address: int, size: int) -> int:
        return int.from_bytes(self.read(address, size), "little")


def kernel(
    arch: Arch = Arch.X86_64, order: Order = Order.TOP, seed: int = 0, memory_map: MemoryMap = MAP
) -> KexecState:
    pool = PagePool.of_map(memory_map, busy=A_PAGES, order=order, seed=seed)
    return KexecState(arch, memory_map, pool, target=TARGET, crash_region=CRASH)


def at(mem: int, pages: int = 1, content: bytes = b"hello") -> Segment:
    return Segment(content, len(content), mem, pages * PAGE_SIZE)


def jump_request() -> LoadRequest:
    image = [at(0x3000, 1, b"purgatory"), at(16 * MIB, 20, bytes(range(256)) * 200)]
    return LoadRequest(0x3000, kjump_segments(MAP, TARGET, image), LoadFlag.KJUMP)


def loaded(request: LoadRequest, memory: Memory, state: KexecState) -> KexecImage:
    image = load(request, memory, state)
    assert image is not None
    return image


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("arch", ALL)
def test_sources_hold_the_segments_and_the_list_names_them(arch: Arch, order: Order) -> None:
    memory, state = Memory(), kernel(arch, order, 3)
    request = jump_request()
    image = loaded(request, memory, state)
    steps = list(walk(memory.entry_reader(image.word), image.head, image.word))
    assert pairs_of(steps) == image.pairs
    assert [destination for destination, _ in image.pairs] == [
        s.mem + offset for s in image.segments for offset in range(0, s.memsz, PAGE_SIZE)
    ]
    wanted = [page_of(s, offset) for s in image.segments for offset in range(0, s.memsz, PAGE_SIZE)]
    assert [memory.page(source) for source in image.source_pages] == wanted
    assert state.image is image


@pytest.mark.parametrize("order", list(Order))
def test_swapping_twice_brings_everything_back(order: Order) -> None:
    memory = Memory()
    image = loaded(jump_request(), memory, kernel(order=order, seed=5))
    before = dict(memory.pages)
    assert image.swap_page is not None
    for _ in range(2):
        steps = walk(memory.entry_reader(8), image.head, 8)
        assert apply(memory.page, memory.write, steps, Mode.SWAP, image.swap_page) == len(image.pairs)
    touched = set(memory.pages) - {image.swap_page}
    assert {page: memory.pages[page] for page in touched} == {
        page: before.get(page, (page >> 12).to_bytes(8, "little") * 512) for page in touched
    }


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("arch", ALL)
def test_no_page_of_the_image_is_in_a_destination_but_its_own(arch: Arch, order: Order) -> None:
    image = loaded(jump_request(), Memory(), kernel(arch, order, 9))
    destinations = {pfn for start, end in image.destinations for pfn in range(start >> 12, end >> 12)}
    source_of = {destination >> 12: source >> 12 for destination, source in image.pairs}
    for owner, pfns in image.pages_by_owner().items():
        for pfn in pfns:
            assert pfn not in A_PAGES
            assert pfn not in destinations or (owner is PageOwner.SOURCE and source_of[pfn] == pfn)
    assert sorted(source_of.values()) == image.pages_by_owner()[PageOwner.SOURCE]


def test_pages_refused_as_control_pages_become_their_own_sources() -> None:
    image = loaded(jump_request(), Memory(), kernel(order=Order.BOTTOM))
    low = {destination: source for destination, source in image.pairs if destination < 0x9F000}
    assert len(low) == 0x9F
    assert all(destination == source for destination, source in low.items())


def test_owners_name_every_page_that_left_the_pool() -> None:
    state = kernel()
    before = set(state.pool.snapshot())
    image = loaded(jump_request(), Memory(), state)
    assert before - set(state.pool.snapshot()) == image.pfns
    owners = image.pages_by_owner()
    assert set(owners) == set(PageOwner) - {PageOwner.BACKUP}
    assert owners[PageOwner.CONTROL] == [image.control_page >> 12]
    assert owners[PageOwner.SWAP] == [(image.swap_page or 0) >> 12]
    assert [page >> 12 for page in sorted(image.list_pages)] == owners[PageOwner.LIST]
    assert image.table_root >> 12 in owners[PageOwner.TABLE]


@pytest.mark.parametrize("arch", ALL)
def test_kjump_adds_a_cleared_jump_page_entry_page_and_second_copy(arch: Arch) -> None:
    memory = Memory()
    image = loaded(jump_request(), memory, kernel(arch))
    assert image.jump is not None
    for page in (image.jump.jump_page, image.jump.entry_page, image.jump.relocate_copy):
        assert memory.page(page) == bytes(PAGE_SIZE)
    state = paging_state(arch, image.jump.copy_table_root)
    assert translate(memory.read_entry, state, image.jump.relocate_copy) == image.jump.relocate_copy
    tables = paging_state(arch, image.table_root)
    assert translate(memory.read_entry, tables, image.control_va) == image.control_page
    assert (image.jump.copy_table_root == image.table_root) == (image.word == 8)
    assert image.preserves_context


@pytest.mark.parametrize("arch", ALL)
def test_a_copy_backs_up_every_page_before_it_loads_any_and_its_inverse_brings_all_back(arch: Arch) -> None:
    memory = Memory()
    image = loaded(replace(jump_request(), transfer=Transfer.COPY), memory, kernel(arch))
    usable = [page for segment in image.segments for page in range(segment.mem, segment.end, PAGE_SIZE)]
    backups = image.pairs[: len(usable)]
    loads = image.pairs[len(usable) :]
    assert [source for _, source in backups] == usable
    owners = image.pages_by_owner()
    assert sorted(page >> 12 for page, _ in backups) == owners[PageOwner.BACKUP]
    assert sorted(page >> 12 for _, page in loads) == owners[PageOwner.SOURCE]
    with_content = {s.mem + at for s in image.segments for at in range(0, s.bufsz, PAGE_SIZE)}
    assert {page for page, _ in loads} == with_content
    steps = walk(memory.entry_reader(image.word), image.inverse_head, image.word)
    assert pairs_of(steps) == image.inverse_pairs == inverse(backups)
    assert image.way_back == (image.inverse_head, image.inverse_pairs)
    assert image.relocate_flags == RelocateFlag.PRESERVE_CONTEXT | RelocateFlag.COPY
    assert not set(usable) & {page for page, _ in backups}


def test_reserved_is_loaded_in_place_and_lists_the_low_region_alone() -> None:
    memory = Memory()
    image = loaded(replace(jump_request(), transfer=Transfer.RESERVED), memory, kernel())
    assert {page for page, _ in image.pairs} == set(range(0, 0x9F000, PAGE_SIZE))
    for segment in (one for one in image.segments if one.mem >= TARGET.start):
        assert memory.page(Phys(segment.mem)) == page_of(segment, 0)


def test_a_hand_off_without_a_page_or_without_entry_code_takes_none() -> None:
    request = replace(jump_request(), jump_page=False)
    image = loaded(request, Memory(), kernel())
    assert image.jump is not None
    assert (image.jump.jump_page, image.jump.safe_list) == (0, 0)
    assert image.jump.entry_page
    bare = loaded(replace(request, entry_code=False), Memory(), kernel(Arch.I386))
    assert bare.jump is not None
    assert (bare.jump.entry_page, bare.jump.relocate_copy) == (0, 0)
    assert not {PageOwner.JUMP_PAGE, PageOwner.ENTRY_CODE, PageOwner.RELOCATE_COPY} & set(bare.owners)


def test_the_first_jump_page_can_be_verified() -> None:
    image = loaded(jump_request(), Memory(), kernel(Arch.I386_PAE))
    assert image.jump is not None
    page = image.first_jump_page(image.jump.entry_page + 0x10, image.jump.entry_page + 0x30)
    page.verify(MAP.is_ram)
    assert JumpPage.unpack(page.pack()) == page
    assert (page.sequence, page.mode, page.resume_slot) == (1, Transfer.SWAP | 4, 0)
    assert (page.low_start, page.low_size, page.target_size) == (0, 0x9F000, 2 * MIB)
    plain = loaded(LoadRequest(0, (at(0x3000),)), Memory(), kernel())
    with pytest.raises(ValueError, match="no jump page"):
        plain.first_jump_page(0, 0)


def test_page_lists_of_i386() -> None:
    image = loaded(jump_request(), Memory(), kernel(Arch.I386))
    assert image.jump is not None
    assert image.page_list() == (image.control_page, image.control_page + 0xC0000000, image.table_root, image.swap_page)
    copy = image.jump.relocate_copy
    assert image.page_list(second_copy=True) == (copy, copy, image.jump.copy_table_root, image.swap_page)


def test_a_plain_load_has_no_jump_pages() -> None:
    image = loaded(LoadRequest(0x3000, (at(0x3000),)), Memory(), kernel())
    assert image.jump is None
    assert not image.preserves_context
    assert image.relocate_flags == RelocateFlag(0)
    back = loaded(LoadRequest(0x3000, (at(0x3000),), LoadFlag.PRESERVE_CONTEXT), Memory(), kernel())
    assert back.relocate_flags == RelocateFlag.PRESERVE_CONTEXT


def test_the_null_image_of_the_jump_back_helper() -> None:
    memory = Memory()
    null = LoadRequest(0x5000, (Segment(None, 0, 0, 0),), LoadFlag.PRESERVE_CONTEXT)
    image = loaded(null, memory, kernel())
    assert image.pairs == ()
    assert memory.read(image.head & ~0xFFF, 16) == bytes.fromhex("0100000000000000 0400000000000000")


def test_source_pages_are_cleared_before_content_is_copied() -> None:
    memory = Memory()
    image = loaded(LoadRequest(0, (at(0x3000, 2, b"abc"),)), memory, kernel())
    assert memory.page(image.source_pages[0]) == b"abc".ljust(PAGE_SIZE, b"\0")
    assert memory.page(image.source_pages[1]) == bytes(PAGE_SIZE)


def test_a_second_load_frees_the_pages_of_the_first() -> None:
    memory, state = Memory(), kernel()
    free = len(state.pool)
    first = loaded(jump_request(), memory, state)
    second = loaded(jump_request(), memory, state)
    assert len(state.pool) == free - len(second.pfns)
    assert not first.pfns & second.pfns
    assert load(LoadRequest(0, ()), memory, state) is None
    assert state.image is None
    assert len(state.pool) == free


def test_a_crash_image_is_loaded_in_place_without_a_swap_page() -> None:
    memory, state = Memory(), kernel()
    free = state.pool.snapshot()
    segments = (at(12 * MIB, 2, b"crash"), at(13 * MIB, 1))
    image = loaded(LoadRequest(12 * MIB, segments, LoadFlag.ON_CRASH), memory, state)
    assert (image.head, image.swap_page, image.pairs) == (4, None, ())
    assert image.control_page == 12 * MIB + 2 * PAGE_SIZE
    assert memory.page(Phys(12 * MIB)) == b"crash".ljust(PAGE_SIZE, b"\0")
    assert state.crash_image is image
    assert state.pool.snapshot() == free
    assert all(CRASH.start <= pfn << 12 < CRASH.end for pfn in image.pfns)
    assert load(LoadRequest(0, (), LoadFlag.ON_CRASH), memory, state) is None
    assert state.crash_image is None


GOOD = (at(0x3000),)
FULL_CRASH = LoadRequest(12 * MIB, (at(12 * MIB, 512),), LoadFlag.ON_CRASH)

REFUSALS = [
    (LoadRequest(0, GOOD, 4), EINVAL, "unknown flags 0x4"),
    (LoadRequest(0, GOOD, 0x8102), EINVAL, "unknown flags 0x8000"),
    (LoadRequest(0, GOOD, LoadFlag.KJUMP | LoadFlag.ON_CRASH), EINVAL, "no swap page"),
    (LoadRequest(0, GOOD, LoadFlag.PRESERVE_CONTEXT | LoadFlag.ON_CRASH), EINVAL, "no swap page"),
    (LoadRequest(0, tuple(at(0x3000 + n * PAGE_SIZE) for n in range(17))), EINVAL, "17 segments"),
    (LoadRequest(0, GOOD, 3 << 16), EINVAL, "machine 3"),
    (LoadRequest(0, None), EFAULT, "array"),
    (LoadRequest(0, GOOD, LoadFlag.ON_CRASH), EADDRNOTAVAIL, "entry"),
    (LoadRequest(14 * MIB, GOOD, LoadFlag.ON_CRASH), EADDRNOTAVAIL, "entry"),
    (LoadRequest(0, (at(0x3800),)), EADDRNOTAVAIL, "page"),
    (LoadRequest(0, (*GOOD, *GOOD)), EINVAL, "overlaps"),
    (LoadRequest(12 * MIB, GOOD, LoadFlag.ON_CRASH), EADDRNOTAVAIL, "outside the crash region"),
    (LoadRequest(0, (at(15 * MIB),), LoadFlag.KJUMP), EADDRNOTAVAIL, "outside the low region"),
    (FULL_CRASH, ENOMEM, "no hole"),
    (LoadRequest(0, (at(0x3000), Segment(None, 5, 0x4000, 0x1000))), EFAULT, "cannot be read"),
    (LoadRequest(12 * MIB, (Segment(None, 5, 12 * MIB, 0x1000),), LoadFlag.ON_CRASH), EFAULT, "cannot be read"),
]


@pytest.mark.parametrize(("request_", "errno", "words"), REFUSALS)
def test_a_refused_load_gives_its_errno_and_changes_nothing(request_: LoadRequest, errno: int, words: str) -> None:
    memory, state = Memory(), kernel()
    image = loaded(jump_request(), memory, state)
    writes, free = memory.writes, state.pool.snapshot()
    with pytest.raises(LoadError, match=words) as caught:
        load(request_, memory, state)
    assert caught.value.errno == errno
    assert (memory.writes, state.pool.snapshot(), state.image, state.crash_image) == (writes, free, image, None)


def refusal(request: LoadRequest, state: KexecState) -> int:
    memory, free = Memory(), state.pool.snapshot()
    with pytest.raises(LoadError) as caught:
        load(request, memory, state)
    assert memory.writes == 0
    assert state.pool.snapshot() == free
    return caught.value.errno


def test_checks_come_in_the_order_of_the_newest_kernel() -> None:
    everything = LoadRequest(0, None, 4 | 3 << 16)
    assert refusal(everything, replace(kernel(), may_load=False, locked=True)) == EPERM
    assert refusal(LoadRequest(0, None, 3 << 16), replace(kernel(), locked=True)) == EINVAL
    assert refusal(LoadRequest(0, None), replace(kernel(), locked=True)) == EFAULT
    assert refusal(LoadRequest(0, ()), replace(kernel(), locked=True)) == EBUSY
    assert refusal(LoadRequest(0, (at(0x3800),), LoadFlag.ON_CRASH), kernel()) == EADDRNOTAVAIL


def test_the_native_machine_in_the_high_half_is_accepted() -> None:
    assert loaded(LoadRequest(0, GOOD, 62 << 16), Memory(), kernel()).arch is Arch.X86_64
    assert loaded(LoadRequest(0, GOOD, 3 << 16), Memory(), kernel(Arch.I386_PAE)).arch is Arch.I386_PAE


def test_kjump_needs_a_target_area() -> None:
    assert refusal(jump_request(), replace(kernel(), target=None)) == EINVAL


@pytest.mark.parametrize("free", [0, 1, 2, 5, 9, 12, 13, 100, 650])
def test_running_out_of_pages_at_any_point_is_enomem_and_changes_nothing(free: int) -> None:
    state = replace(kernel(), pool=PagePool(range(5000, 5000 + free)))
    assert refusal(jump_request(), state) == ENOMEM
    assert state.image is None
