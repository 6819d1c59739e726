"""The compressions that Linux packs a kernel with, each with a bound on what comes out.

Sources: the magic numbers of Linux lib/decompress.c; the LZ4 legacy frame of lz4's doc/lz4_Frame_format.md.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import lz4.block
import zstandard

from emu.errors import ImageError
from emu.kernelfile.xz_index import unpacked_size
from emu.units import MIB, show_size

MOST: Final = 128 * MIB
"""The largest kernel that is taken; a distribution's is half of it."""
_DICTIONARY: Final = 160 * MIB
"""What an xz or zstd stream may ask for to remember; kernels are packed with up to 128 MiB."""
_LZ4_BLOCK: Final = 8 * MIB
_SLICE: Final = 1024
"""Bytes of zstd fed at a time: a block of 4 bytes may hold 128 KiB, so at most 32 MiB come out of them."""

Unpack = Callable[[bytes, int], bytes]
"""Takes the compressed bytes and the most that may come out; gives at most one byte more than that."""


class _Incremental(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Format(NamedTuple):
    """One compression: its name, the bytes that it begins with, and how it is undone (None: not by us)."""

    name: str
    magic: bytes
    unpack: Unpack | None


def _all_of(stream: _Incremental, data: bytes, most: int) -> bytes:
    """Feed ``data`` and take the output; raises EOFError where the stream goes on after the end of ``data``."""
    out = bytearray(stream.decompress(data, most + 1))
    while not stream.eof and len(out) <= most:
        more = stream.decompress(b"", most + 1 - len(out))
        if not more:
            raise EOFError("the stream has no end")
        out += more
    return bytes(out)


def _xz(data: bytes, most: int) -> bytes:
    if unpacked_size(data) > most:
        raise _TooLargeError
    return _all_of(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DICTIONARY), data, most)


def _lzma(data: bytes, most: int) -> bytes:
    return _all_of(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_DICTIONARY), data, most)


def _bzip2(data: bytes, most: int) -> bytes:
    return _all_of(bz2.BZ2Decompressor(), data, most)


def _gzip(data: bytes, most: int) -> bytes:
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    out = stream.decompress(data, most + 1)
    if not stream.eof and len(out) <= most:
        raise EOFError("the stream has no end")
    return out


def _zstd(data: bytes, most: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_DICTIONARY)
    stream = decompressor.decompressobj()
    out = bytearray()
    for at in range(0, len(data), _SLICE):
        out += stream.decompress(data[at : at + _SLICE])
        if stream.eof or len(out) > most:
            break
    else:
        raise EOFError("the stream has no end")
    return bytes(out[: most + 1])


def _lz4_legacy(data: bytes, most: int) -> bytes:
    """Blocks of up to 8 MiB, each preceded by its compressed size; the kernel's build puts the whole's size last."""
    out = bytearray()
    at = 4
    while at + 4 < len(data) and len(out) <= most:
        size = int.from_bytes(data[at : at + 4], "little")
        at += 4
        if not size or at + size > len(data):
            raise EOFError(f"a block of {size} bytes goes beyond the end")
        out += lz4.block.decompress(data[at : at + size], uncompressed_size=_LZ4_BLOCK)
        at += size
    return bytes(out)


FORMATS: Final = (
    Format("gzip", b"\x1f\x8b", _gzip),
    Format("xz", b"\xfd7zXZ\0", _xz),
    Format("zstd", b"\x28\xb5\x2f\xfd", _zstd),
    Format("lz4", b"\x02\x21\x4c\x18", _lz4_legacy),
    Format("lzma", b"\x5d\x00\x00", _lzma),
    Format("bzip2", b"BZh", _bzip2),
    Format("lzo", b"\x89LZO\0\r\n\x1a\n", None),
)
_FAILURES: Final = (
    zlib.error, lzma.LZMAError, zstandard.ZstdError, lz4.block.LZ4BlockError, EOFError, OSError, ValueError,
)  # fmt: skip


class _TooLargeError(Exception):
    """Raised where a stream says so before any of it is unpacked."""


class Decompressed(NamedTuple):
    """What was in a payload, and the name of the compression that it was in."""

    format: str
    data: bytes


def format_of(data: bytes) -> Format | None:
    """The compression that ``data`` begins like."""
    return next((known for known in FORMATS if data.startswith(known.magic)), None)


def decompress(data: bytes, where: str, most: int = MOST) -> Decompressed:
    """Undo the compression of ``data``; raises ImageError for an unknown, a damaged and an all too large one."""
    known = format_of(data)
    names = ", ".join(one.name for one in FORMATS if one.unpack is not None)
    if known is None:
        raise ImageError(f"has a payload of an unknown kind, {data[:6].hex(' ')}", where=where, hint=f"known: {names}")
    if known.unpack is None:
        raise ImageError(f"is packed with {known.name}, which kjump cannot undo", where=where, hint=f"known: {names}")
    try:
        out = known.unpack(data, most)
    except _TooLargeError:
        out = None
    except _FAILURES as error:
        raise ImageError(f"is damaged or truncated: {known.name}: {error}", where=where) from error
    if out is None or len(out) > most:
        raise ImageError(f"unpacks to more than {show_size(most)}, which is no kernel", where=where)
    return Decompressed(known.name, out)
