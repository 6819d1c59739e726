"""The jump page: what A, B and C tell each other through the page that ``jump_buf_pfn=`` names."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final, NamedTuple, Self

from emu.errors import JumpPageError
from emu.kexec.entry_list import StepKind, kind_of
from emu.kexec.layout import JUMP_PAGE_MAGIC, JUMP_PAGE_VERSION, MODE_LA57, MODE_PAE, ElfMachine, Transfer
from emu.units import PAGE_SHIFT, PAGE_SIZE, show_phys, show_size


class Field(NamedTuple):
    """One field: ``offset`` and ``size`` in bytes from the start of the page."""

    name: str
    offset: int
    size: int
    meaning: str


FIELDS: Final[tuple[Field, ...]] = (
    Field("magic", 0x00, 8, "KJUMPPG1"),
    Field("version", 0x08, 4, "layout version"),
    Field("checksum", 0x0C, 4, "makes the sum of the page's 1024 dwords zero"),
    Field("sequence", 0x10, 8, "one more at each transition, by the kernel that arrives"),
    Field("arch", 0x18, 4, "ELF machine number"),
    Field("mode", 0x1C, 4, "transfer, PAE, LA57"),
    Field("after_resume", 0x20, 8, "where A is entered after C has restored it"),
    Field("after_image_save", 0x28, 8, "where A is entered when B has saved the image"),
    Field("resume_slot", 0x30, 8, "where B is entered again, 0 when there is none"),
    Field("image_id", 0x38, 8, "written by the save, 0 before"),
    Field("control_page", 0x40, 8, "control page with the saved context"),
    Field("swap_page", 0x48, 8, "bounce page and the callee's first stack"),
    Field("list_head", 0x50, 8, "entry list head with its flag bits"),
    Field("inverse_head", 0x58, 8, "head of the list that undoes it"),
    Field("target_start", 0x60, 8, "first byte of the target area"),
    Field("target_size", 0x68, 8, "bytes of the target area"),
    Field("low_start", 0x70, 8, "first byte of the low region"),
    Field("low_size", 0x78, 8, "bytes of the low region, whole pages"),
    Field("entry_page", 0x80, 8, "entry code page"),
    Field("safe_list", 0x88, 8, "list of memory that is safe to save"),
    Field("safe_count", 0x90, 8, "ranges on that list"),
)
SPARE: Final = FIELDS[-1].offset + FIELDS[-1].size
_BY_NAME: Final = {field.name: field for field in FIELDS}
_DWORDS: Final = struct.Struct(f"<{PAGE_SIZE // 4}I")
_PAGES: Final = ("control_page", "swap_page", "entry_page", "target_start", "target_size", "low_start", "low_size")
_ADDRESSES: Final = (
    "after_resume",
    "after_image_save",
    "resume_slot",
    "control_page",
    "swap_page",
    "entry_page",
    "safe_list",
)
_SIZES: Final = frozenset({"target_size", "low_size"})
_NUMBERS: Final = frozenset({"version", "sequence", "safe_count"})


def offset_of(name: str) -> int:
    """The offset of a field in the page."""
    return _BY_NAME[name].offset


def dword_sum(page: bytes | bytearray) -> int:
    """The sum of the page's dwords modulo 2**32: 0 for a page with a right checksum."""
    dwords: tuple[int, ...] = _DWORDS.unpack(page)
    return sum(dwords) & 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class JumpPage:
    """The fields of a jump page, in the order of the layout; addresses are physical, sizes in bytes.

    Magic and checksum are no fields here: :meth:`pack` makes them.
    """

    sequence: int = 1
    arch: int = ElfMachine.X86_64
    mode: int = Transfer.SWAP
    after_resume: int = 0
    after_image_save: int = 0
    resume_slot: int = 0
    image_id: int = 0
    control_page: int = 0
    swap_page: int = 0
    list_head: int = 0
    inverse_head: int = 0
    target_start: int = 0
    target_size: int = 0
    low_start: int = 0
    low_size: int = 0
    entry_page: int = 0
    safe_list: int = 0
    safe_count: int = 0
    version: int = JUMP_PAGE_VERSION

    def pack(self) -> bytes:
        """The 4096 bytes, checksum included; raises :class:`JumpPageError` for a value that does not fit."""
        page = bytearray(PAGE_SIZE)
        page[: len(JUMP_PAGE_MAGIC)] = JUMP_PAGE_MAGIC
        for name, value in self.values().items():
            where = _BY_NAME[name]
            if not 0 <= value < 1 << (8 * where.size):
                raise JumpPageError(f"{value:#x} does not fit {where.size} bytes", field=name)
            page[where.offset : where.offset + where.size] = value.to_bytes(where.size, "little")
        where = _BY_NAME["checksum"]
        checksum = -dword_sum(page) & 0xFFFF_FFFF
        page[where.offset : where.offset + where.size] = checksum.to_bytes(where.size, "little")
        return bytes(page)

    def values(self) -> dict[str, int]:
        """The fields by name."""
        return {field.name: int(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def unpack(cls, page: bytes) -> Self:
        """The fields of ``page``; raises :class:`JumpPageError` for a bad length, magic, version, checksum or spare
        byte.
        """
        if len(page) != PAGE_SIZE:
            raise JumpPageError(f"{len(page)} bytes, not {PAGE_SIZE}", field="length")
        if page[:8] != JUMP_PAGE_MAGIC:
            raise JumpPageError(f"is {page[:8]!r}, not {JUMP_PAGE_MAGIC!r}", field="magic")
        read = read_fields(page)
        if read["version"] != JUMP_PAGE_VERSION:
            raise JumpPageError(f"is {read['version']}, this kjump knows {JUMP_PAGE_VERSION}", field="version")
        total = dword_sum(page)
        if total:
            raise JumpPageError(f"the page's dwords sum to {total:#x}, not 0", field="checksum")
        first = next((at for at in range(SPARE, PAGE_SIZE) if page[at]), None)
        if first is not None:
            raise JumpPageError(f"byte {first:#x} is {page[first]:#x}, not 0", field="spare")
        return cls(**{field.name: read[field.name] for field in fields(cls)})

    def verify(self, is_ram: Callable[[int], bool] | None = None) -> None:
        """Check that the fields make sense together; ``is_ram`` tells whether a page frame is RAM.

        Raises :class:`JumpPageError` naming the first field that does not.
        """
        if self.arch not in {ElfMachine.I386, ElfMachine.X86_64}:
            raise JumpPageError(f"{self.arch} is no machine of ours", field="arch")
        self._verify_mode()
        if self.sequence == 0:
            raise JumpPageError("a sequence begins at 1", field="sequence")
        values = self.values()
        for name in _PAGES:
            if values[name] % PAGE_SIZE:
                raise JumpPageError(f"{values[name]:#x} is not page aligned", field=name)
        for name in ("control_page", "entry_page", "target_size", "low_size", "after_resume", "after_image_save"):
            if values[name] == 0:
                raise JumpPageError("is 0", field=name)
        for name in ("after_resume", "after_image_save"):
            if values[name] & -PAGE_SIZE != self.entry_page:
                raise JumpPageError(f"{values[name]:#x} is not in the entry code page", field=name)
        for name in ("list_head", "inverse_head"):
            if values[name] and kind_of(values[name]) not in {StepKind.INDIRECTION, StepKind.DONE}:
                raise JumpPageError(f"{values[name]:#x} is no head of an entry list", field=name)
        if (self.safe_list == 0) != (self.safe_count == 0):
            raise JumpPageError(f"{self.safe_count} ranges at {show_phys(self.safe_list)}", field="safe_count")
        for name in _ADDRESSES:
            if is_ram is not None and values[name] and not is_ram(values[name] >> PAGE_SHIFT):
                raise JumpPageError(f"{show_phys(values[name])} is not in RAM", field=name)

    def _verify_mode(self) -> None:
        if self.mode & 3 == 0 or self.mode >> 4:
            raise JumpPageError(f"{self.mode:#x} names no transfer or has unknown bits", field="mode")
        wrong = MODE_PAE if self.arch == ElfMachine.X86_64 else MODE_LA57
        if self.mode & wrong:
            raise JumpPageError(f"{self.mode:#x} does not go with machine {self.arch}", field="mode")
        if self.mode & 3 == Transfer.SWAP and self.inverse_head != self.list_head:
            raise JumpPageError("a swap list is its own inverse", field="inverse_head")


def read_fields(page: bytes) -> dict[str, int]:
    """Every field of a page as it stands there, right or wrong, by name."""
    return {f.name: int.from_bytes(page[f.offset : f.offset + f.size], "little") for f in FIELDS}


def _show(name: str, value: int) -> str:
    if name == "magic":
        return repr(value.to_bytes(8, "little").decode("latin-1"))
    if name == "mode":
        return _show_mode(value)
    if name == "arch":
        return next((f"{value} ({machine.name.lower()})" for machine in ElfMachine if machine == value), str(value))
    if name in _SIZES:
        return show_size(value)
    if name in _NUMBERS:
        return str(value)
    if name in {"checksum", "image_id"}:
        return f"{value:#x}"
    return show_phys(value)


def _show_mode(mode: int) -> str:
    transfer = next((kind.name.lower() for kind in Transfer if kind == mode & 3), "no transfer")
    flags = [name for bit, name in ((MODE_PAE, "PAE"), (MODE_LA57, "LA57")) if mode & bit]
    return ", ".join([transfer, *flags])


def describe(page: bytes) -> list[tuple[str, str, str]]:
    """(field, value, meaning) for a table that people read; takes any 4096 bytes, right or wrong."""
    read = read_fields(page)
    return [(field.name, _show(field.name, read[field.name]), field.meaning) for field in FIELDS]


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that differs between two pages; ``spare`` stands for the bytes after the last field."""

    field: str
    before: str
    after: str


def diff(before: bytes, after: bytes) -> list[FieldChange]:
    """The fields in which two jump pages differ, in order of the layout, and the first spare byte that does."""
    old, new = read_fields(before), read_fields(after)
    changes = [
        FieldChange(name, _show(name, old[name]), _show(name, new[name])) for name in old if old[name] != new[name]
    ]
    spare = next((at for at in range(SPARE, PAGE_SIZE) if before[at] != after[at]), None)
    if spare is not None:
        changes.append(FieldChange("spare", f"+{spare:#x}: {before[spare]:#x}", f"+{spare:#x}: {after[spare]:#x}"))
    return changes
