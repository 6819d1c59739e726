"""What A's kernel and userspace do for ``kexec_load(KJUMP)``: images into segments, stubs into control pages, A told.

The pure part is :func:`emu.kexec.load.load`; here its result is laid down in the machine's RAM, the way
machine_kexec_prepare does it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from emu.assembler import Image
from emu.errors import BadCommandLine, ImageError, JourneyError
from emu.hibernate.safe_list import pack_core_header, pack_safe_list, safe_ranges
from emu.journey import linux_call, programs, stubs
from emu.journey.bringup import command_line_bytes
from emu.journey.linux_call import LinuxCall
from emu.journey.scene import Scene
from emu.kexec.allocator import Order, PageOwner, PagePool
from emu.kexec.e820 import E820Type, MemoryMap, Range, boot_params
from emu.kexec.image import KexecImage
from emu.kexec.jump_page import JumpPage, offset_of
from emu.kexec.layout import BACK_ENTRY_ROOM, COMMAND_LINE_SIZE, KexecParams, LoadFlag
from emu.kexec.load import ARCH_SHIFT, KexecState, LoadRequest, load
from emu.kexec.page_tables import set_rox
from emu.kexec.places import low_places
from emu.kexec.segments import Segment, kjump_segments
from emu.machine.machine import Machine
from emu.machine.owners import Owner
from emu.units import PAGE_SHIFT, PAGE_SIZE, Phys, page_up

_OWNER_OF = {
    PageOwner.CONTROL: Owner.CONTROL,
    PageOwner.SWAP: Owner.SWAP,
    PageOwner.LIST: Owner.LIST,
    PageOwner.SOURCE: Owner.SOURCE,
    PageOwner.BACKUP: Owner.BACKUP,
    PageOwner.SAFE_LIST: Owner.LIST,
    PageOwner.TABLE: Owner.PAGE_TABLE,
    PageOwner.JUMP_PAGE: Owner.JUMP_PAGE,
    PageOwner.ENTRY_CODE: Owner.CONTROL,
    PageOwner.RELOCATE_COPY: Owner.CONTROL,
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load as it lies in RAM.  ``stub`` is linked at the control page, ``second`` at its copy, both physical.

    ``b_command_line`` is what the loader wrote, before purgatory appends to it; ``tells_back_entry`` whether it will.
    ``safe`` is the memory that B's userspace is told it may save.
    """

    image: KexecImage
    stub: Image
    second: Image | None
    jump_entry: Image | None
    purgatory: Image
    b_command_line: str
    b_map: MemoryMap
    safe: tuple[Range, ...] = ()
    tells_back_entry: bool = False
    linux: LinuxCall | None = None

    @property
    def jump_page(self) -> int:
        """The physical address of the jump page; 0 where the hand-off has none."""
        return int(self.image.jump.jump_page) if self.image.jump is not None else 0

    @property
    def first_page(self) -> JumpPage | None:
        """The jump page as the loader leaves it; None where the hand-off has none."""
        if self.jump_entry is None or not self.jump_page:
            return None
        symbols = self.jump_entry.symbols
        return self.image.first_jump_page(symbols["after_resume"], symbols["after_image_save"], len(self.safe))

    def control_pages(self, scene: Scene) -> dict[str, int]:
        """How many pages the load took, by what for: the three groups of the kjump flag, then the rest."""
        area, counts = scene.target_range, {"target area": 0, "low region": 0}
        inverse = self.image.inverse_pairs  # of a copy: a backup for each of these, and the sources of what follows
        for destination, _ in (*inverse, *self.image.pairs[len(inverse) :]):
            counts["target area" if area.start <= destination < area.end else "low region"] += 1
        names = {
            PageOwner.ENTRY_CODE: "entry code",
            PageOwner.RELOCATE_COPY: "entry code",
            PageOwner.LIST: "lists",
            PageOwner.TABLE: "page tables",
            PageOwner.CONTROL: "stub",
            PageOwner.SWAP: "swap page",
            PageOwner.JUMP_PAGE: "jump page",
            PageOwner.SAFE_LIST: "safe list",
        }
        for owner, name in names.items():
            if pfns := self.image.owners.get(owner, ()):
                counts[name] = counts.get(name, 0) + len(pfns)
        return counts

    @property
    def slot(self) -> int:
        """The physical address of the qword where B leaves its re-entry address; 0 where A's call returns it."""
        if self.jump_page:
            return self.jump_page + offset_of("resume_slot")
        return self.jump_entry.symbols.get("je_slot", 0) if self.jump_entry is not None else 0

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


class Loader:
    """Carries out LOAD for one machine and scene."""

    def __init__(self, machine: Machine, scene: Scene, kernel_a: Image) -> None:
        self._machine = machine
        self._scene = scene
        self._a = kernel_a
        self._b = programs.kernel(scene, "b")
        self._files = programs.stub_files(scene)
        self._places = low_places(scene.memory_map)
        self._linux = programs.linux_stub(scene)
        if self._linux is not None:
            linux_call.check(self._linux, scene)
        reserved = {0, *self._image_pfns(kernel_a)}
        self._pool = PagePool.of_map(scene.a_map, busy=self._kept_from_pool(reserved), order=Order.TOP)
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
        purgatory = programs.load(self._files.purgatory, self._places.purgatory, scene.arch)
        # A purgatory of somebody's that cannot verify and tell is run as it is.
        has_protocol = stubs.has_protocol(purgatory)
        code = stubs.purgatory_bytes(
            purgatory,
            scene.arch,
            entry=stubs.linked_entry(self._b, scene.arch),
            boot_params=self._places.boot_params,
        )
        wants_header = scene.handoff != "page" and has_protocol
        request = LoadRequest(
            purgatory.symbols["purgatory_start"],
            self._segments(code, b_map, header=wants_header),
            int(LoadFlag.KJUMP | scene.arch.machine << ARCH_SHIFT),
            text=linux_call.text_of(self._linux) if self._linux is not None else None,
            caller_pages=linux_call.CALLER_PAGES if self._linux is not None else 0,
            transfer=scene.transfer_kind,
            jump_page=scene.handoff == "page",
            entry_code=scene.handoff != "stack",
        )
        image = load(request, ram, self._state)
        if image is None:
            raise AssertionError("a load with segments gives an image")
        loaded = self._place_stubs(image, purgatory, b_map)
        loaded = self._userspace(loaded, header=wants_header)
        if has_protocol:
            end = self._places.command_line + len(loaded.b_command_line) if loaded.tells_back_entry else 0
            self._seal_purgatory(loaded, code, end)
        self._tell_a(loaded)
        self._assign_owners(image)
        return loaded

    # ---- segments ----------------------------------------------------------------------------------------------

    def _segments(self, purgatory: bytes, b_map: MemoryMap, *, header: bool) -> tuple[Segment, ...]:
        """What B is made of; the command line and the core header are written when the load is known."""
        places = self._places
        parts = [
            Segment.of(self._b_code(), self._b.org, page_up(len(self._b.code))),
            Segment.of(boot_params(b_map, places.command_line), places.boot_params, PAGE_SIZE),
            Segment.of(b"\0", places.command_line, PAGE_SIZE),
            Segment.of(purgatory, places.purgatory, PAGE_SIZE),
        ]
        if header:
            parts.append(Segment.of(b"\0", places.core_header, PAGE_SIZE))
        return kjump_segments(self._scene.memory_map, self._scene.target_range, parts)

    def _b_code(self) -> bytes:
        """B's image, told A's GDTR where it is to come back with it: 10 bytes, as lgdt takes them."""
        gdtr = self._machine.cpu.gdtr
        if "peer_gdt" not in self._b.symbols:
            return self._b.code
        return stubs.patched(self._b, {"peer_gdt": gdtr.limit | gdtr.base << 16}, 10)

    def _source_of(self, image: KexecImage, page: int) -> int:
        """Where the content of B's ``page`` waits for the jump: in a source page, or in place."""
        return next((source for destination, source in image.pairs if destination == page), page)

    def _write_for_b(self, image: KexecImage, address: int, data: bytes) -> None:
        """Write where ``address`` will be when B runs; ``data`` does not cross a page."""
        at = self._source_of(image, address & -PAGE_SIZE) + (address & (PAGE_SIZE - 1))
        self._machine.ram.write(at, data)

    # ---- what userspace adds -----------------------------------------------------------------------------------

    def _userspace(self, loaded: Loaded, *, header: bool) -> Loaded:
        """The list of memory that is safe to save, B's command line, the first jump page."""
        scene, ram, image = self._scene, self._machine.ram, loaded.image
        swap = image.swap_page
        nosave = [] if swap is None else [Range(swap, Phys(swap + PAGE_SIZE))]
        safe = safe_ranges(scene.a_map, scene.target_range, nosave=nosave)
        if header:
            content = pack_core_header(scene.arch, safe)
            if len(content) > PAGE_SIZE:
                raise JourneyError(f"{len(safe)} ranges of memory to save do not fit a core header of one page")
            self._write_for_b(image, self._places.core_header, content)
        entry = loaded.jump_entry
        if image.jump is not None and loaded.jump_page and entry is not None:
            listed = pack_safe_list(safe)
            if len(listed) > PAGE_SIZE:
                raise JourneyError(f"{len(safe)} ranges of memory to save do not fit a list of one page")
            ram.write(image.jump.safe_list, listed)
            first = replace(loaded, safe=safe).first_page
            if first is not None:
                ram.write(loaded.jump_page, first.pack())
        line = self._b_command_line(loaded, header=header)
        tells = scene.handoff == "stack" and header
        room = COMMAND_LINE_SIZE - (BACK_ENTRY_ROOM if tells else 0)
        if len(line) >= room:
            raise BadCommandLine(
                f"B's line of {len(line)} bytes leaves purgatory no {BACK_ENTRY_ROOM} bytes of room"
                if tells
                else f"B's line of {len(line)} bytes and a NUL do not fit {COMMAND_LINE_SIZE}",
                option="length",
                column=room,
            )
        self._write_for_b(image, self._places.command_line, command_line_bytes(line))
        return replace(loaded, b_command_line=line, safe=safe, tells_back_entry=tells)

    def _b_command_line(self, loaded: Loaded, *, header: bool) -> str:
        scene, entry = self._scene, loaded.jump_entry
        template = scene.journey.command_lines.get("b", "")
        words = []
        if scene.handoff == "page":
            words.append(f"jump_buf_pfn={loaded.jump_page >> PAGE_SHIFT:#x}")
        elif scene.handoff == "cmdline" and entry is not None:
            words.append(f"kexec_jump_resume={entry.symbols['after_resume']:#x}")
            words.append(f"kexec_jump_saved={entry.symbols['after_image_save']:#x}")
            words.append(f"kexec_jump_slot={loaded.slot:#x}")
        if header:
            words.append(f"elfcorehdr={self._places.core_header >> 10}K")
        line = template.format(handoff=" ".join(words), area=scene.area_text, target=scene.target, seed=scene.seed)
        return f"{line.strip()} {scene.b_words}".strip()

    def _seal_purgatory(self, loaded: Loaded, code: bytes, cmdline_end: int) -> None:
        """Tell purgatory what all the rest of B is like, now that all of it is written."""
        image, ram, total = loaded.image, self._machine.ram, 0
        sources = dict(image.pairs)
        regions = []
        for start, end in self._content(image):
            regions.append((start, end - start))
            for page in range(start, end, PAGE_SIZE):
                total = stubs.add_to_sum(ram.read(sources.get(Phys(page), Phys(page)), PAGE_SIZE), total)
        filled = stubs.purgatory_sums(
            loaded.purgatory, image.arch, code, regions=regions, expected=total, cmdline_end=cmdline_end
        )
        self._write_for_b(image, self._places.purgatory, filled)

    def _content(self, image: KexecImage) -> list[tuple[int, int]]:
        """The (start, end) of B's pages that have content, less purgatory's own."""
        own = self._places.purgatory
        parts = []
        for segment in image.segments:
            start, end = segment.mem, segment.mem + page_up(segment.bufsz)
            cuts = [(start, end)] if not start <= own < end else [(start, own), (own + PAGE_SIZE, end)]
            parts += [(first, behind) for first, behind in cuts if first < behind]
        return parts

    # ---- stubs -------------------------------------------------------------------------------------------------

    def _place_stubs(self, image: KexecImage, purgatory: Image, b_map: MemoryMap) -> Loaded:
        scene, machine = self._scene, self._machine
        stub = programs.load(self._files.relocate, int(image.control_page), scene.arch)
        if len(stub.code) > PAGE_SIZE:
            raise ImageError(f"is {len(stub.code)} bytes; a control page has {PAGE_SIZE}", where=stub.name)
        if self._linux is not None:
            linux = linux_call.prepare(machine, scene, image, self._linux)
            return Loaded(image, stub, None, None, purgatory, "", b_map, linux=linux)
        machine.ram.write(stub.org, stubs.relocate_bytes(stub, image, second=False))
        if image.jump is None or not image.jump.entry_page:
            return Loaded(image, stub, None, None, purgatory, "", b_map)
        if "restore_after_save" not in stub.symbols:
            raise ImageError(
                "has no restore_after_save, so nothing can enter A by the jump page",
                where=stub.name,
                hint="run it with --handoff stack",
            )
        second = programs.load(self._files.relocate, int(image.jump.relocate_copy), scene.arch)
        entry = programs.load(self._files.jump_entry, int(image.jump.entry_page), scene.arch)
        machine.ram.write(second.org, stubs.relocate_bytes(second, image, second=True))
        machine.ram.write(entry.org, stubs.entry_bytes(entry, stub, second, image))
        return Loaded(image, stub, second, entry, purgatory, "", b_map)

    def _tell_a(self, loaded: Loaded) -> None:
        """Fill kexec_params and busy_map in A's data, and make the control page read-only and executable in A's map."""
        machine, image, arch = self._machine, loaded.image, self._scene.arch
        params = self._a.symbols["kexec_params"]
        page, slot = loaded.jump_page, loaded.slot
        array = self._a.symbols["kexec_params"] + KexecParams.ARRAY
        fields = {
            KexecParams.STATUS: 0,
            KexecParams.ENTRY_VA: loaded.entry_va,
            KexecParams.HEAD: image.head,
            KexecParams.PA_CONTROL: int(image.control_page),
            KexecParams.START: int(image.entry),
            KexecParams.FLAGS: int(image.relocate_flags) if self._scene.preserve else 0,
            KexecParams.PAGE_LIST: arch.text_base + array if arch.bits == 32 else 0,
            KexecParams.HAS_PAE: int(arch.is_pae),
            KexecParams.JUMP_PAGE: page,
            KexecParams.JUMP_PAGE_VA: int(arch.direct(page)) if page else 0,
            KexecParams.PAGES: len(image.pairs),
            KexecParams.SLOT_VA: int(arch.direct(slot)) if slot else 0,
        }
        if self._scene.is_reserved:
            area = self._scene.target_range
            fields |= {KexecParams.RESERVED_START: int(area.start), KexecParams.RESERVED_SIZE: area.size}
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
        for pfn in set(self._scene.a_map.ram_pages()) - set(image.pfns):
            bitmap[pfn >> 3] &= ~(1 << (pfn & 7)) & 0xFF
        return bytes(bitmap)

    def _assign_owners(self, image: KexecImage) -> None:
        for owner, pfns in image.owners.items():
            self._machine.owners.assign(pfns, _OWNER_OF[owner])


def refused(machine: Machine, kernel_a: Image, errno: int) -> None:
    """Tell A that its load failed with ``errno``."""
    status = (-errno) & ((1 << 64) - 1)
    machine.ram.write(kernel_a.symbols["kexec_params"] + KexecParams.STATUS, status.to_bytes(8, "little"))
