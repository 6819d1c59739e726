import pytest

from emu.errors import LoadError
from emu.kexec.arch import Arch
from emu.kexec.e820 import default_map
from emu.kexec.page_tables import (
    TableTree,
    build,
    build_flat_copy_tables,
    build_transition_tables,
    paging_state,
    set_rox,
)
from emu.units import MIB, PAGE_SIZE, Linear, Phys
from emu.x86.paging import Access, translate, walk

CONTROL = Phys(0x3FF0000)
ALL = list(Arch)
LONG = [Arch.X86_64, Arch.X86_64_LA57]


class Memory:
    """Physical pages that tables are built in, from 48 MiB upwards."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}
        self.taken: list[Phys] = []

    def alloc(self) -> Phys:
        self.taken.append(Phys(48 * MIB + len(self.taken) * PAGE_SIZE))
        return self.taken[-1]

    def write(self, address: int, content: bytes) -> None:
        page = self.pages.setdefault(address & ~0xFFF, bytearray(PAGE_SIZE))
        page[address & 0xFFF : (address & 0xFFF) + len(content)] = content

    def read(self, address: int, size: int) -> int:
        page = self.pages.get(address & ~0xFFF, bytearray(PAGE_SIZE))
        return int.from_bytes(page[address & 0xFFF : (address & 0xFFF) + size], "little")


def transition(arch: Arch) -> tuple[Memory, Phys]:
    memory = Memory()
    root = build_transition_tables(
        arch,
        memory.alloc,
        memory.write,
        memory_map=default_map(64 * MIB),
        control_page=CONTROL,
        also=[(1 << 32, 1 << 32 | 1)],
    )
    return memory, root


@pytest.mark.parametrize("arch", ALL)
def test_the_control_page_is_writable_and_executable_at_both_addresses(arch: Arch) -> None:
    memory, root = transition(arch)
    state = paging_state(arch, root)
    for linear in (arch.direct(CONTROL), CONTROL):
        for access in (Access(), Access(write=True), Access(execute=True)):
            assert walk(memory.read, state, linear, access).physical == CONTROL
    assert walk(memory.read, state, arch.direct(CONTROL)).page_size == PAGE_SIZE


@pytest.mark.parametrize("arch", [Arch.I386, Arch.I386_PAE])
def test_i386_maps_nothing_else(arch: Arch) -> None:
    memory, root = transition(arch)
    state = paging_state(arch, root)
    pages = {place + step * PAGE_SIZE for place in (CONTROL, arch.direct(CONTROL)) for step in range(-3, 4)}
    pages |= {0, 16 * MIB, int(arch.direct(0))}
    mapped = {linear for linear in pages if translate(memory.read, state, linear) is not None}
    assert mapped == {CONTROL, arch.direct(CONTROL)}


@pytest.mark.parametrize("arch", LONG)
def test_x86_64_maps_all_of_ram_and_what_it_is_given_to_itself(arch: Arch) -> None:
    memory, root = transition(arch)
    state = paging_state(arch, root)
    for linear in (0, 0x9F000, 16 * MIB, 64 * MIB - 1, 1 << 32):
        assert translate(memory.read, state, linear) == linear
    assert translate(memory.read, state, 64 * MIB) is None
    assert translate(memory.read, state, arch.direct(CONTROL) + PAGE_SIZE) is None
    assert walk(memory.read, state, 16 * MIB).page_size == 2 * MIB


@pytest.mark.parametrize(
    ("arch", "tables"), [(Arch.I386, 3), (Arch.I386_PAE, 5), (Arch.X86_64, 7), (Arch.X86_64_LA57, 9)]
)
def test_the_number_of_tables(arch: Arch, tables: int) -> None:
    memory, root = transition(arch)
    assert root == memory.taken[0]
    assert len(memory.taken) == tables
    assert sorted(memory.pages) == memory.taken


@pytest.mark.parametrize("arch", ALL)
def test_running_on_the_tables_changes_no_bit_of_them(arch: Arch) -> None:
    memory, root = transition(arch)
    done = walk(memory.read, paging_state(arch, root), arch.direct(CONTROL), Access(write=True))
    for step in done.steps:
        if step.level != "PDPTE" or arch is not Arch.I386_PAE:
            assert step.value & 0x20
    assert done.steps[-1].value & 0x40


@pytest.mark.parametrize("arch", [Arch.I386, Arch.I386_PAE])
def test_the_second_copy_of_the_stub_is_mapped_flat_only(arch: Arch) -> None:
    memory = Memory()
    state = paging_state(arch, build_flat_copy_tables(arch, memory.alloc, memory.write, CONTROL))
    assert translate(memory.read, state, CONTROL) == CONTROL
    assert translate(memory.read, state, arch.direct(CONTROL)) is None


def test_a_mapping_is_not_silently_replaced() -> None:
    tree = TableTree(Arch.X86_64, Memory().alloc)
    tree.map_page(0x1000, 0x5000)
    tree.map_page(0x1000, 0x5000)
    with pytest.raises(LoadError, match="is mapped to p:0x5000"):
        tree.map_page(0x1000, 0x6000)
    tree.map_page(2 * MIB, 2 * MIB, 2 * MIB)
    tree.map_page(2 * MIB + 0x1000, 2 * MIB + 0x1000)
    with pytest.raises(LoadError, match="large page to elsewhere"):
        tree.map_page(2 * MIB + 0x1000, 0x6000)
    assert len(tree.tables) == 4


def test_identity_of_part_of_a_large_page_maps_all_of_it() -> None:
    memory = Memory()
    root = build(Arch.X86_64, memory.alloc, memory.write, identity=[(3 * MIB, 3 * MIB + PAGE_SIZE)])
    state = paging_state(Arch.X86_64, root)
    assert translate(memory.read, state, 2 * MIB) == 2 * MIB
    assert translate(memory.read, state, 0) is None


@pytest.mark.parametrize("arch", ALL)
def test_rox_makes_one_page_read_only_and_executable_and_leaves_its_neighbour(arch: Arch) -> None:
    memory = Memory()
    linear = arch.direct(CONTROL)
    root = build(arch, memory.alloc, memory.write, pages=[(linear, CONTROL), (linear + PAGE_SIZE, CONTROL + PAGE_SIZE)])
    state = paging_state(arch, root)
    entry = walk(memory.read, state, linear).steps[-1]
    wide = arch is not Arch.I386
    memory.write(entry.address, (entry.value | (1 << 63 if wide else 0) | 0x100).to_bytes(8 if wide else 4, "little"))
    assert walk(memory.read, state, linear, Access(write=True)).fault is None
    assert set_rox(memory.read, memory.write, root, arch, linear) == entry.address
    assert walk(memory.read, state, linear, Access(execute=True)).physical == CONTROL
    assert walk(memory.read, state, linear, Access(write=True)).fault is not None
    assert walk(memory.read, state, linear + PAGE_SIZE, Access(write=True)).fault is None
    assert memory.read(entry.address, 8 if wide else 4) & 0x100


def test_rox_refuses_what_it_cannot_do() -> None:
    memory = Memory()
    root = build(Arch.X86_64, memory.alloc, memory.write, identity=[(0, MIB)], pages=[(8 * MIB, CONTROL)])
    with pytest.raises(LoadError, match="large page"):
        set_rox(memory.read, memory.write, root, Arch.X86_64, Linear(0x5000))
    with pytest.raises(LoadError, match="not mapped: PDE"):
        set_rox(memory.read, memory.write, root, Arch.X86_64, Linear(16 * MIB))
    table = walk(memory.read, paging_state(Arch.X86_64, root), 8 * MIB).steps[2]
    memory.write(table.address, (table.value | 1 << 63).to_bytes(8, "little"))
    with pytest.raises(LoadError, match="forbids execution"):
        set_rox(memory.read, memory.write, root, Arch.X86_64, Linear(8 * MIB))
