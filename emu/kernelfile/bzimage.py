"""A bzImage: the setup header, and where the compressed kernel lies.

Source: the Linux x86 boot protocol (Documentation/arch/x86/boot.rst).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from emu.errors import ImageError

SECTOR: Final = 512
MAGIC: Final = b"HdrS"
_MAGIC_AT: Final = 0x202
_HEADER_END: Final = 0x268
_BOOT_FLAG: Final = 0xAA55
PAYLOAD_SINCE: Final = 0x0208
"""The protocol version from which on the header says where the payload is."""
_LOADED_HIGH: Final = 1


@dataclass(frozen=True, slots=True)
class SetupHeader:
    """The fields of the setup header that say what a kernel is; addresses are physical, sizes in bytes.

    ``payload_offset`` counts from the protected-mode part, which begins at file offset ``protected_mode``.
    """

    version: int
    setup_sects: int
    loadflags: int
    xloadflags: int
    relocatable: bool
    kernel_alignment: int
    payload_offset: int
    payload_length: int
    pref_address: int
    init_size: int
    kernel_version: str

    @property
    def protected_mode(self) -> int:
        """The file offset of the protected-mode kernel."""
        return (self.setup_sects + 1) * SECTOR

    @property
    def protocol(self) -> str:
        """The boot protocol's version for people: ``2.15``."""
        return f"{self.version >> 8}.{self.version & 0xFF:02d}"


def is_bzimage(data: bytes) -> bool:
    """Whether ``data`` begins like a kernel for the x86 boot protocol."""
    return data[_MAGIC_AT : _MAGIC_AT + len(MAGIC)] == MAGIC


def read_setup(data: bytes, where: str) -> SetupHeader:
    """The setup header of the file ``data``; raises ImageError, naming ``where``, for one that cannot be used."""
    if not is_bzimage(data):
        raise ImageError("is no bzImage: no HdrS at 0x202", where=where)
    if len(data) < _HEADER_END:
        raise ImageError(f"is truncated: {len(data)} bytes end inside the setup header", where=where)

    def field(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    if field(0x1FE, 2) != _BOOT_FLAG:
        raise ImageError(f"has the boot flag {field(0x1FE, 2):#06x}, not {_BOOT_FLAG:#06x}", where=where)
    header = SetupHeader(
        version=field(0x206, 2),
        setup_sects=field(0x1F1, 1) or 4,
        loadflags=field(0x211, 1),
        xloadflags=field(0x236, 2),
        relocatable=bool(field(0x234, 1)),
        kernel_alignment=field(0x230, 4),
        payload_offset=field(0x248, 4),
        payload_length=field(0x24C, 4),
        pref_address=field(0x258, 8),
        init_size=field(0x260, 4),
        kernel_version=_version_text(data, field(0x20E, 2)),
    )
    if header.version < PAYLOAD_SINCE:
        raise ImageError(
            f"speaks boot protocol {header.protocol}, which does not say where the kernel is", where=where,
            hint="2.08 or later is wanted: Linux 2.6.26",
        )  # fmt: skip
    if not header.loadflags & _LOADED_HIGH:
        raise ImageError("is a zImage, which loads low; a bzImage is wanted", where=where)
    return header


def _version_text(data: bytes, pointer: int) -> str:
    """The version string, which ``pointer`` + 0x200 leads to; empty where there is none."""
    start = pointer + SECTOR
    end = data.find(b"\0", start, start + SECTOR)
    return data[start:end].decode("ascii", "replace") if pointer and end > start else ""


def payload(data: bytes, header: SetupHeader, where: str) -> bytes:
    """The compressed kernel; raises ImageError where the header leads outside the file."""
    start = header.protected_mode + header.payload_offset
    end = start + header.payload_length
    if not header.payload_length or end > len(data):
        raise ImageError(
            f"is truncated: its payload is at {start:#x}..{end:#x}, the file has {len(data):#x} bytes", where=where
        )
    return data[start:end]
