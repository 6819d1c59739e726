"""An image as people and programs read about it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from emu.filekind import FileKind
from emu.hibernate.elf_core import ELF_MAGIC
from emu.hibernate.layout import ZSTD_MAGIC
from emu.hibernate.marks import Mark
from emu.hibernate.reader import SavedImage, open_image
from emu.units import MIB, show_phys

_ET_CORE: Final = b"\x04\x00"
_TYPE_AT: Final = 16
_MOST_RANGES: Final = 12
_MARKS: Final = {
    Mark.FRESH: "fresh: A may be resumed from it, once",
    Mark.USED: "used: A was resumed from it",
    Mark.INVALID: "invalidated: A went on after it was saved",
    Mark.TORN: "damaged: A cannot be resumed from it",
}


def image_info(image: SavedImage) -> dict[str, object]:
    """The image as plain data; addresses are physical, sizes in bytes."""
    record = image.record
    return {
        "file": str(image.path),
        "version": image.commit.version,
        "image_id": record.image_id,
        "mark": str(image.mark),
        "arch": str(record.arch),
        "handoff": record.handoff,
        "kernel_build": record.kernel_build,
        "entry": record.entry,
        "jump_page": record.jump_page,
        "e820_digest": record.e820_digest.hex(),
        "compressed": image.commit.compressed,
        "file_size": image.commit.file_size,
        "memory_size": image.memory_size,
        "blocks": image.commit.blocks,
        "ranges": [{"start": one.start, "size": one.size} for one in image.ranges],
        "registers": dict(record.registers),
    }


def image_lines(image: SavedImage) -> list[str]:
    """The image in some twenty lines."""
    record, commit = image.record, image.commit
    form = "zstd frames around an ELF core" if commit.compressed else "ELF core"
    rows = [
        ("image", f"{record.image_id:#x}  version {commit.version}, {form}"),
        ("mark", _MARKS[image.mark]),
        ("kernel", f"{record.kernel_build or 'unnamed'}, {record.arch}"),
        ("entry", f"{show_phys(record.entry)}, hand-off {record.handoff}"),
        ("jump page", show_phys(record.jump_page) if record.jump_page else "none"),
        ("e820", f"SHA-256 {record.e820_digest.hex()[:32]}..."),
        ("memory", f"{image.memory_size:,} bytes in {len(image.ranges)} ranges, {commit.blocks - 1:,} blocks"),
        ("file", f"{commit.file_size:,} bytes, {commit.file_size / MIB:.1f} MiB"),
    ]
    lines = [f"{name:<11}{value}" for name, value in rows]
    shown = image.ranges[:_MOST_RANGES]
    lines += [f"{'range' if one is shown[0] else '':<11}{one}" for one in shown]
    if len(image.ranges) > len(shown):
        lines.append(f"{'':<11}and {len(image.ranges) - len(shown):,} more (--json lists them)")
    if commit.compressed:
        lines.append(f"{'open':<11}zstd -dc {image.path.name} > core && gdb -c core")
    else:
        lines.append(f"{'open':<11}gdb -c {image.path.name}")
    return lines


def _is_image(start: bytes) -> bool:
    return start.startswith(ZSTD_MAGIC) or (start.startswith(ELF_MAGIC) and start[_TYPE_AT : _TYPE_AT + 2] == _ET_CORE)


def _describe(path: Path) -> tuple[dict[str, object], list[str]]:
    image = open_image(path, any_mark=True)
    return image_info(image), image_lines(image)


IMAGE_KIND: Final = FileKind("a saved image", _is_image, _describe)
