"""B's userspace writes the image: the transition save.

What may be saved, and where A is to be entered from the image, B's userspace learns from B's own memory: its command
line as the guest parsed it, the jump page that that names, or the ELF core header.  Nothing comes from the loader.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from emu.errors import ImageFileError, JumpPageError
from emu.hibernate.marks import Mark, invalidate
from emu.hibernate.memory import OldMemory
from emu.hibernate.reader import SavedImage, open_image
from emu.hibernate.record import ImageRecord, e820_digest
from emu.hibernate.safe_list import PAIR_SIZE, parse_core_header, parse_safe_list
from emu.hibernate.writer import write_image
from emu.journey import image_checks, page_checks
from emu.journey.faults import map_for_c
from emu.journey.memory import RamImage
from emu.journey.outcome import Outcome, finding_here
from emu.kexec.cmdline import NOT_GIVEN, GuestResults
from emu.kexec.e820 import E820Type, MemoryMap, Range
from emu.kexec.jump_page import JumpPage
from emu.kexec.layout import E820_ENTRY_SIZE, BootParams, HostRequest, Parsed
from emu.units import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from emu.journey.journey import Journey


class ImagePlace:
    """The file of a journey's image: the one that a person named, or one that goes away with the journey."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.written = False

    @property
    def path(self) -> Path:
        """Where the image is, or will be."""
        if self._path is None:
            folder = tempfile.mkdtemp(prefix="kjump-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._path = Path(folder) / "image"
        return self._path

    def invalidate(self) -> None:
        """A goes on from where the image has it: the image, if one was written, must not be resumed from."""
        if self.written:
            invalidate(self.path)


@dataclass(frozen=True, slots=True)
class Told:
    """What B's userspace finds in B: where A is entered from the image, what is safe to save, and the image's id."""

    entry: int
    handoff: str
    ranges: tuple[Range, ...]
    image_id: int
    jump_page: int


class PeerView:
    """B's memory as B's userspace sees it: its own RAM, and old memory where its e820 map says that it is not B's."""

    def __init__(self, journey: Journey) -> None:
        read, kernel = journey.machine.ram.read, journey.kernel_b
        at = kernel.symbols["boot_params"]
        count = read(at + BootParams.E820_ENTRIES, 1)[0]
        self.map = MemoryMap.decode(read(at + BootParams.E820_TABLE, count * E820_ENTRY_SIZE))
        own = [Range(one.start, one.end) for one in self.map.ranges if one.type is E820Type.RAM]
        old = [Range(one.start, one.end) for one in self.map.ranges if one.type is E820Type.RESERVED]
        self.own = OldMemory(read, own)
        self.old = OldMemory(read, old)
        self.parsed = GuestResults.unpack(self.own.read(kernel.symbols["parsed"], Parsed.BYTES))


def told(view: PeerView, seed: int) -> Told:
    """What B was told; raises ImageFileError or JumpPageError for what cannot be used."""
    parsed = view.parsed
    if parsed.jump_buf_pfn != NOT_GIVEN:
        at = parsed.jump_buf_pfn << PAGE_SHIFT
        page = JumpPage.unpack(view.old.read(at, PAGE_SIZE))
        page.verify()
        listed = view.old.read(page.safe_list, page.safe_count * PAIR_SIZE)
        return Told(page.after_resume, "page", parse_safe_list(listed), page.image_id, at)
    if not parsed.elfcorehdr:
        raise ImageFileError("neither jump_buf_pfn= nor elfcorehdr= is on B's command line", where="save")
    ranges = parse_core_header(view.own.read(parsed.elfcorehdr, PAGE_SIZE))
    # Without a page that says it, an image's name is whatever userspace gives it, as long as no two are alike.
    number = int.from_bytes(hashlib.sha256(f"{seed} {ranges} {parsed}".encode()).digest()[:8], "little") | 1
    if parsed.saved:
        return Told(parsed.resume, "cmdline", ranges, number, 0)
    return Told(parsed.back_entry, "stack", ranges, number, 0)


def save(journey: Journey) -> None:
    """B asks its userspace to write the image."""
    progress = journey.progress
    journey.begin("B", "-")
    journey.until_request(HostRequest.SAVE)
    if progress.page is not None:
        number = page_checks.image_id(journey)
        progress.page = replace(progress.page, sequence=progress.page.sequence + 1, image_id=number)
        progress.page_saved = progress.page
    journey.check(page_checks.jump_page(journey))
    progress.at_save = RamImage(journey.machine.ram)
    progress.owners = journey.machine.owners.snapshot()
    try:
        progress.saved = _write(journey)
    except (ImageFileError, JumpPageError) as error:
        journey.check(Outcome("image", (finding_here(journey, "save failed", "the image is written", str(error)),)))
    journey.end()


def _write(journey: Journey) -> SavedImage:
    view = PeerView(journey)
    found = told(view, journey.scene.seed + journey.progress.visits)
    journey.check(image_checks.safe_memory(journey, found.ranges))
    record = ImageRecord(
        image_id=found.image_id,
        arch=journey.scene.arch,
        e820_digest=e820_digest(journey.scene.memory_map),
        entry=found.entry,
        handoff=found.handoff,
        kernel_build=journey.kernel_a.sha256[:32],
        jump_page=found.jump_page,
        registers=_numbers(journey.progress.called),
    )
    saved = write_image(journey.image.path, view.old, found.ranges, record)
    journey.image.written = True
    saved.verify()
    now = journey.transition
    now.saved_bytes = saved.memory_size
    now.image_bytes = saved.commit.file_size
    journey.check(Outcome("image"))
    return saved


def _numbers(registers: dict[str, int] | None) -> dict[str, int]:
    return {name: value for name, value in (registers or {}).items() if 0 <= value < 1 << 128 and len(name) <= 16}


def reopened(journey: Journey) -> SavedImage:
    """The image as C finds it; raises ImageFileError unless it is whole, fresh and for this machine."""
    image = open_image(journey.image.path)
    image.record.require(journey.scene.arch, map_for_c(journey))
    image.verify()
    return image


def mark_of(path: Path) -> Mark:
    """What the mark of an image says."""
    return open_image(path, any_mark=True).mark
