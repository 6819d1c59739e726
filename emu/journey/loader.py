"""What A's kernel and userspace do for ``kexec_load(KJUMP)``: images into segments, stubs into control pages, A told.

The pure part is :func:`emu.kexec.load.load`; here its result is laid down in the machine's RAM, the way
machine_kexec_prepare does it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from emu.assembler import Image
from emu.errors import ImageError
from emu.journey import linux_call, programs
from emu.journey.bringup import command_line_bytes
from emu.journey.linux_call import LinuxCall
from emu.journey.scene import Scene
from emu.kexec.allocator import Order, PageOwner, PagePool
from emu.kexec.arch import Arch
from emu.kexec.e820 import E820Type, MemoryMap, Range, boot_params
from emu.kexec.image import KexecImage
from emu.kexec.layout import (
    BOOT_PARAMS_ADDRESS,
    COMMAND_LINE_ADDRESS,
    COOKIE_MAGIC,
    COOKIE_SIZE,
    ENTRY64_OFFSET,
    KERNEL_BASE,
    ControlData,
    CookieKind,
    KexecParams,
    LoadFlag,
    RelocateFlag,
)
from emu.kexec.load import ARCH_SHIFT, KexecState, LoadRequest, load
from emu.kexec.page_tables import set_rox
from emu.kexec.segments import Segment, kjump_segments
from emu.machine.machine import Machine
from emu.machine.owners import Owner
from emu.units import PAGE_SHIFT, PAGE_SIZE

PURGATORY_ADDRESS = 0x92000
_OWNER_OF = {
    PageOwner.CONTROL: Owner.CONTROL,
    PageOwner.SWAP: Owner.SWAP,
    PageOwner.LIST: Owner.LIST,
    PageOwner.SOURCE: Owner.SOURCE,
    PageOwner.TABLE: Owner.PAGE_TABLE,
    PageOwner.JUMP_PAGE: Owner.JUMP_PAGE,
    PageOwner.ENTRY_CODE: Owner.CONTROL,
    PageOwner.RELOCATE_COPY: Owner.CONTROL,
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load as it lies in RAM.  ``stub`` is linked at the control page, ``second`` at its copy, both physical."""

    image: KexecImage
    stub: Image
    second: Image | None
    jump_entry: Image | None
    purgatory: Image
    b_command_line: str
    b_map: MemoryMap
    linux: LinuxCall | None = None

    @property
    def entry_va(self) -> int:
        """The linear address that A calls."""
        if self.linux is not None:
            caller = self.linux.caller
            return int(self.image.arch.direct(caller.org)) + caller.symbols["linux_caller"] - caller.org
        return int(self.image.control_va) + programs.relocate_entry(self.stub) - self.stub.org

    @property
    def restores_gdt(self) -> bool:
        """Whether A finds its GDT when its call returns: from our stub, or from the caller of Linux's."""
        return self.linux is not None or "restore_after_save" in self.stub.symbols

    @property
    def start(self) -> int:
        """Physical address at which the peer starts."""
        return int(self.image.entry)


def b_memory_map(scene: Scene) -> MemoryMap:
    """The firmware map that B is given: the low region and the target area are RAM, the rest of RAM is reserved."""
    memory_map, target = scene.memory_map, scene.target_range
    low = memory_map.low_region()
    ranges: list[Range] = []
    for part in memory_map.ranges:
        if part.type is not E820Type.RAM:
            ranges.append(part)
            continue
        cursor = part.start
        for keep in (low, target):
            start, end = max(part.start, keep.start), min(part.end, keep.end)
            if start < end:
                if cursor < start:
                    ranges.append(Range(cursor, start, E820Type.RESERVED))
                ranges.append(Range(start, end, E820Type.RAM))
                cursor = end
        if cursor < part.end:
            ranges.append(Range(cursor, part.end, E820Type.RESERVED))
    return MemoryMap.of(ranges)


def _patched(image: Image, words: dict[str, int], size: int, offset: int = 0) -> bytes:
    """The code of ``image`` with a little-endian word of ``size`` bytes at each named symbol."""
    code = bytearray(image.code)
    for name, value in words.items():
        if name not in image.symbols:
            raise ImageError(f"has no symbol {name}, which the loader fills", where=image.name)
        at = image.symbols[name] - image.org + offset
        code[at : at + size] = value.to_bytes(size, "little")
    return bytes(code)


def _stub_bytes(stub: Image, image: KexecImage, *, second: bool) -> bytes:
    """The stub as it lies in its control page: the words that the loader fills are filled."""
    if image.arch.bits == 32:
        return stub.code  # i386 gets everything as arguments
    page = stub.org
    return _patched(
        stub,
        {
            "kexec_va_control_page": page if second else int(image.control_va),
            "kexec_pa_table_page": int(image.table_root),
            "kexec_pa_swap_page": int(image.swap_page or 0),
        },
        8,
    )


def _entry_bytes(entry: Image, stub: Image, second: Image, image: KexecImage, scene: Scene) -> bytes:
    words = {
        "je_head": image.head,
        "je_relocate": programs.relocate_entry(second),
        "je_start_saved": stub.symbols["restore_after_save"],
        "je_start_resumed": stub.symbols["restore_after_resume"],
    }
    if image.arch.bits == 64:
        words |= {"je_pa_control": second.org, "je_flags": RelocateFlag.SWAP}
        return _patched(entry, words, 8)
    words["je_has_pae"] = int(scene.arch.is_pae)
    code = bytearray(_patched(entry, words, 4))
    at = entry.symbols["je_page_list"] - entry.org
    code[at : at + 16] = struct.pack("<4I", *image.page_list(second_copy=True))
    return bytes(code)


class Loader:
    """Carries out LOAD for one machine and scene."""

    def __init__(self, machine: Machine, scene: Scene, kernel_a: Image) -> None:
        self._machine = machine
        self._scene = scene
        self._a = kernel_a
        self._b = programs.kernel(scene, "b")
        self._files = programs.stub_files(scene)
        self._linux = programs.linux_stub(scene)
        if self._linux is not None:
            linux_call.check(self._linux, scene)
        reserved = {0, *self._image_pfns(kernel_a)}
        self._pool = PagePool.of_map(scene.memory_map, busy=self._kept_from_pool(reserved), order=Order.TOP)
        self._state = KexecState(scene.arch, scene.memory_map, self._pool, target=scene.target_range)

    def _image_pfns(self, image: Image) -> range:
        end = image.symbols.get("image_end", image.end)
        return range(image.org >> PAGE_SHIFT, (end + PAGE_SIZE - 1) >> PAGE_SHIFT)

    def _kept_from_pool(self, reserved: set[int]) -> set[int]:
        """What is not free memory of A: its image, and every page that B will use (A uses those itself)."""
        target, low = self._scene.target_range, self._scene.memory_map.low_region()
        return reserved | set(target.pages()) | set(low.pages())

    def load(self) -> Loaded:
        """Load B; raises LoadError with nothing changed when the kernel refuses."""
        scene, ram = self._scene, self._machine.ram
        b_map = b_memory_map(scene)
        purgatory = programs.load(self._files.purgatory, PURGATORY_ADDRESS, scene.arch)
        segments = self._segments(purgatory, b_map, b"\0")
        flags = LoadFlag.KJUMP | scene.arch.machine << ARCH_SHIFT
        request = LoadRequest(
            purgatory.symbols["purgatory_start"],
            segments,
            int(flags),
            text=linux_call.text_of(self._linux) if self._linux is not None else None,
            caller_pages=linux_call.CALLER_PAGES if self._linux is not None else 0,
        )
        image = load(request, ram, self._state)
        if image is None:
            raise AssertionError("a load with segments gives an image")
        line = self._b_command_line(image)
        # The jump page's address is known only after the load: userspace writes the line into its segment's source.
        self._write_destination(image, COMMAND_LINE_ADDRESS, command_line_bytes(line))
        loaded = self._place_stubs(image, purgatory, line, b_map)
        self._tell_a(loaded)
        self._assign_owners(image)
        return loaded

    def _segments(self, purgatory: Image, b_map: MemoryMap, line: bytes) -> tuple[Segment, ...]:
        word = 8 if self._scene.arch.bits == 64 else 4
        entry = KERNEL_BASE + (ENTRY64_OFFSET if word == 8 else 0)
        code = _patched(purgatory, {"kernel_entry": entry, "boot_params": BOOT_PARAMS_ADDRESS}, word)
        parts = [
            Segment.of(self._b_code(), self._b.org, _page_up(len(self._b.code))),
            Segment.of(boot_params(b_map, COMMAND_LINE_ADDRESS), BOOT_PARAMS_ADDRESS, PAGE_SIZE),
            Segment.of(line, COMMAND_LINE_ADDRESS, PAGE_SIZE),
            Segment.of(code, PURGATORY_ADDRESS, PAGE_SIZE),
        ]
        return kjump_segments(self._scene.memory_map, self._scene.target_range, parts)

    def _b_code(self) -> bytes:
        """B's image, told A's GDTR where it is to come back with it: 10 bytes, as lgdt takes them."""
        gdtr = self._machine.cpu.gdtr
        if "peer_gdt" not in self._b.symbols:
            return self._b.code
        return _patched(self._b, {"peer_gdt": gdtr.limit | gdtr.base << 16}, 10)

    def _b_command_line(self, image: KexecImage) -> str:
        scene = self._scene
        template = scene.journey.command_lines.get("b", "")
        if scene.handoff == "stack":
            template = " ".join(word for word in template.split() if not word.startswith("jump_buf_pfn="))
        page = int(image.jump.jump_page) if image.jump is not None else 0
        line = template.format(jump_pfn=page >> PAGE_SHIFT, target=scene.target, seed=scene.seed)
        return f"{line} {scene.b_words}".strip()

    def _write_destination(self, image: KexecImage, address: int, data: bytes) -> None:
        """Write where ``address`` will be after the pages have moved: into the source of its page."""
        source = next(source for destination, source in image.pairs if destination == address & -PAGE_SIZE)
        self._machine.ram.write(source + (address & (PAGE_SIZE - 1)), data)

    def _place_stubs(self, image: KexecImage, purgatory: Image, line: str, b_map: MemoryMap) -> Loaded:
        scene, machine = self._scene, self._machine
        stub = programs.load(self._files.relocate, int(image.control_page), scene.arch)
        if len(stub.code) > PAGE_SIZE:
            raise ImageError(f"is {len(stub.code)} bytes; a control page has {PAGE_SIZE}", where=stub.name)
        if self._linux is not None:
            linux = linux_call.prepare(machine, scene, image, self._linux)
            return Loaded(image, stub, None, None, purgatory, line, b_map, linux)
        machine.ram.write(stub.org, _stub_bytes(stub, image, second=False))
        second: Image | None = None
        entry: Image | None = None
        if image.jump is not None and "restore_after_save" in stub.symbols:
            second = programs.load(self._files.relocate, int(image.jump.relocate_copy), scene.arch)
            entry = programs.load(self._files.jump_entry, int(image.jump.entry_page), scene.arch)
            machine.ram.write(second.org, _stub_bytes(second, image, second=True))
            machine.ram.write(entry.org, _entry_bytes(entry, stub, second, image, scene))
            page = image.first_jump_page(entry.symbols["after_resume"], entry.symbols["after_image_save"])
            machine.ram.write(int(image.jump.jump_page), page.pack())
        elif scene.handoff == "page":
            raise ImageError(
                "has no restore_after_save, so nothing can enter A by the jump page",
                where=stub.name,
                hint="run it with --handoff stack",
            )
        return Loaded(image, stub, second, entry, purgatory, line, b_map)

    def _tell_a(self, loaded: Loaded) -> None:
        """Fill kexec_params and busy_map in A's data, and make the control page read-only and executable in A's map."""
        machine, image, arch = self._machine, loaded.image, self._scene.arch
        params = self._a.symbols["kexec_params"]
        page = int(image.jump.jump_page) if image.jump is not None and loaded.jump_entry is not None else 0
        array = self._a.symbols["kexec_params"] + KexecParams.ARRAY
        fields = {
            KexecParams.STATUS: 0,
            KexecParams.ENTRY_VA: loaded.entry_va,
            KexecParams.HEAD: image.head,
            KexecParams.PA_CONTROL: int(image.control_page),
            KexecParams.START: int(image.entry),
            KexecParams.FLAGS: _flags(image) if self._scene.preserve else 0,
            KexecParams.PAGE_LIST: arch.text_base + array if arch.bits == 32 else 0,
            KexecParams.HAS_PAE: int(arch.is_pae),
            KexecParams.JUMP_PAGE: page,
            KexecParams.JUMP_PAGE_VA: int(arch.direct(page)) if page else 0,
            KexecParams.PAGES: len(image.pairs),
        }
        for offset, value in fields.items():
            machine.ram.write(params + offset, (value & (1 << 64) - 1).to_bytes(8, "little"))
        if arch.bits == 32:
            machine.ram.write(array, struct.pack("<4I", *image.page_list()))
        machine.ram.write(self._a.symbols["busy_map"], self._busy_map(image))
        if loaded.linux is None:
            set_rox(machine.ram.read_int, machine.ram.write, machine.cpu.cr3, arch, image.control_va)
        machine.flush_translations()

    def _busy_map(self, image: KexecImage) -> bytes:
        """One bit a page frame: allocated by the loader, or not RAM."""
        bitmap = bytearray(b"\xff" * 0x8000)
        for pfn in set(self._scene.memory_map.ram_pages()) - set(image.pfns):
            bitmap[pfn >> 3] &= ~(1 << (pfn & 7)) & 0xFF
        return bytes(bitmap)

    def _assign_owners(self, image: KexecImage) -> None:
        for owner, pfns in image.owners.items():
            self._machine.owners.assign(pfns, _OWNER_OF[owner])


def _flags(image: KexecImage) -> int:
    return 1 if image.arch.bits == 32 else int(image.relocate_flags)


def refused(machine: Machine, kernel_a: Image, errno: int) -> None:
    """Tell A that its load failed with ``errno``."""
    status = (-errno) & ((1 << 64) - 1)
    machine.ram.write(kernel_a.symbols["kexec_params"] + KexecParams.STATUS, status.to_bytes(8, "little"))


def cookie(kind: CookieKind) -> bytes:
    """The eight bytes before an entry of ``kind``."""
    return struct.pack("<II", COOKIE_MAGIC, kind)[:COOKIE_SIZE]


def volatile_of_stub(stub: Image, arch: Arch) -> list[tuple[int, int]]:
    """The byte ranges (physical start, end) of a control page that the stub may write: saved context and stack."""
    page = stub.org & -PAGE_SIZE
    data = page + ControlData.ESP if arch.bits == 32 else stub.symbols.get("saved_context", stub.end) & ~7
    return [(data, page + PAGE_SIZE)]


def _page_up(size: int) -> int:
    return (size + PAGE_SIZE - 1) & -PAGE_SIZE
