"""What an image says of itself: the kernel that it is of, the machine that it needs, and where to enter it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self

from emu.errors import ImageFileError
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap
from emu.kexec.layout import ElfMachine
from emu.units import show_phys

IMAGE_VERSION: Final = 1
_FIELDS: Final = struct.Struct("<II QQQ 32s 16s 16s 64s")
_REGISTER: Final = struct.Struct("<16s16s")
_HEAD: Final = 0
_NAME, _BUILD = 16, 64


def e820_digest(memory_map: MemoryMap) -> bytes:
    """SHA-256 of the firmware's e820 table, entry by entry as it lies in the zero page.

    Linux keeps such a digest (MD5) in its restore_data_record (arch/x86/power/hibernate.c).
    """
    return hashlib.sha256(memory_map.encode()).digest()


def _text(value: str, size: int, what: str) -> bytes:
    data = value.encode("ascii", "replace")
    if len(data) > size or b"\0" in data or data.decode("ascii") != value:
        raise ImageFileError(f"{what} {value!r} is not plain text of {size} characters at most", where="image record")
    return data


def _from_text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("ascii", "replace")


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """The record; addresses are physical.

    ``entry`` is where C enters A: *after_resume* (hand-offs page and cmdline) or the back entry (stack).
    ``jump_page`` is 0 where the hand-off has none.  ``registers`` are A's as far as they are known, by the names of
    the machine (``rip``, ``cr3``, ``fs.base``); gdb shows the general ones.
    """

    image_id: int
    arch: Arch
    e820_digest: bytes
    entry: int
    handoff: str
    kernel_build: str = ""
    jump_page: int = 0
    registers: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        for name in ("image_id", "entry", "jump_page"):
            value = getattr(self, name)
            if not 0 <= value < 1 << 64:
                raise ImageFileError(f"{name} {value:#x} does not fit 8 bytes", where="image record")
        if self.image_id == 0:
            raise ImageFileError("an image id is not 0", where="image record")
        if len(self.e820_digest) != hashlib.sha256().digest_size:
            raise ImageFileError(f"an e820 digest of {len(self.e820_digest)} bytes", where="image record")
        _text(self.handoff, _NAME, "hand-off")
        _text(self.kernel_build, _BUILD, "kernel build")

    @property
    def machine(self) -> ElfMachine:
        """The ELF machine number."""
        return self.arch.machine

    def pack(self) -> bytes:
        """The fixed part: 160 bytes, little endian, the image version first."""
        return _FIELDS.pack(
            IMAGE_VERSION,
            self.arch.machine,
            self.image_id,
            self.entry,
            self.jump_page,
            self.e820_digest,
            _text(self.arch, _NAME, "architecture"),
            _text(self.handoff, _NAME, "hand-off"),
            _text(self.kernel_build, _BUILD, "kernel build"),
        )

    def pack_registers(self) -> bytes:
        """16 bytes of name and 16 of value for each register, little endian; raises ImageFileError for a wider one."""
        parts = []
        for name, value in self.registers.items():
            if not 0 <= value < 1 << 128:
                raise ImageFileError(f"register {name} {value:#x} does not fit 16 bytes", where="image record")
            parts.append(_REGISTER.pack(_text(name, _NAME, "register"), value.to_bytes(16, "little")))
        return b"".join(parts)

    @classmethod
    def unpack(cls, fixed: bytes, registers: bytes = b"") -> Self:
        """The record of an image; raises ImageFileError for a version that is not ours, or what is no record."""
        if len(fixed) != _FIELDS.size or len(registers) % _REGISTER.size:
            raise ImageFileError("the record has a wrong length", block=_HEAD)
        version, machine, image_id, entry, jump_page, digest, arch, handoff, build = _FIELDS.unpack(fixed)
        check_version(version)
        name = _from_text(arch)
        if name not in set(Arch) or Arch(name).machine != machine:
            raise ImageFileError(f"the record names architecture {name!r}, machine {machine}", block=_HEAD)
        values = {_from_text(key): int.from_bytes(value, "little") for key, value in _REGISTER.iter_unpack(registers)}
        return cls(
            image_id=image_id,
            arch=Arch(name),
            e820_digest=digest,
            entry=entry,
            handoff=_from_text(handoff),
            kernel_build=_from_text(build),
            jump_page=jump_page,
            registers=MappingProxyType(values),
        )

    def require(self, arch: Arch, memory_map: MemoryMap) -> None:
        """Check that a restore kernel of ``arch`` on this machine can take the image; raises ImageFileError."""
        where = "image record"
        if arch.bits != self.arch.bits:
            raise ImageFileError(
                f"the image is of a {self.arch.bits}-bit kernel, this one has {arch.bits} bits",
                where=where, block=_HEAD, hint=f"restore it with a kernel for {self.arch}",
            )  # fmt: skip
        if arch is not self.arch:
            raise ImageFileError(
                f"the image is of {self.arch}, this kernel is {arch}",
                where=where, block=_HEAD, hint="both need the same paging: their entry code shares one mode",
            )  # fmt: skip
        digest = e820_digest(memory_map)
        if digest != self.e820_digest:
            raise ImageFileError(
                f"the image was made under another e820 map: digest {self.e820_digest.hex()[:16]}, here "
                f"{digest.hex()[:16]}",
                where=where, block=_HEAD, hint="boot the machine with the memory that it had when it was saved",
            )  # fmt: skip
        if not memory_map.is_ram(self.entry >> 12):
            raise ImageFileError(f"the entry {show_phys(self.entry)} is not in RAM", where=where, block=_HEAD)


def check_version(version: int) -> None:
    """Raises ImageFileError for an image version that this kjump cannot read."""
    if version != IMAGE_VERSION:
        raise ImageFileError(
            f"the image has version {version}, this kjump reads {IMAGE_VERSION}",
            where="image record", block=_HEAD, hint="restore it with the kjump that wrote it",
        )  # fmt: skip
