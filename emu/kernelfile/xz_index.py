"""What an xz stream says of itself at its end, read before anything is unpacked: how much comes out of how much.

Source: The .xz File Format 1.1.0, 2.1.2 (Stream Footer) and 4 (Index).
"""

from __future__ import annotations

import zlib
from typing import Final

HEADER_SIZE: Final = 12
_FOOTER_SIZE: Final = 12
_FOOTER_MAGIC: Final = b"YZ"
_SIZE_BEHIND: Final = 4
"""Linux's build puts the size of what comes out behind the stream, 4 bytes."""
_LONGEST_NUMBER: Final = 9


def unpacked_size(data: bytes) -> int:
    """The bytes that come out of the xz stream ``data``, by its index.

    Raises:
        ValueError: ``data`` does not end like an xz stream, or its end contradicts itself or the size behind it.
    """
    ends = (len(data) - _SIZE_BEHIND, len(data))
    end = next((at for at in ends if at > 0 and data.endswith(_FOOTER_MAGIC, 0, at)), 0)
    if end < HEADER_SIZE + _FOOTER_SIZE:
        raise ValueError("the stream has no end")
    footer = data[end - _FOOTER_SIZE : end]
    if zlib.crc32(footer[4:10]) != int.from_bytes(footer[:4], "little") or footer[8:10] != data[6:8]:
        raise ValueError("the footer is damaged")
    size = 4 * (int.from_bytes(footer[4:8], "little") + 1)
    start = end - _FOOTER_SIZE - size
    if start < HEADER_SIZE:
        raise ValueError("the index begins before the stream")
    packed, unpacked = _sums(data[start : end - _FOOTER_SIZE])
    if HEADER_SIZE + packed != start:
        raise ValueError(f"the index counts {packed} bytes of blocks, there are {start - HEADER_SIZE}")
    behind = data[end:]
    if behind and int.from_bytes(behind, "little") != unpacked & 0xFFFF_FFFF:
        raise ValueError(f"{unpacked} bytes come out by the index, another number is said behind the stream")
    return unpacked


def _sums(index: bytes) -> tuple[int, int]:
    """Bytes of all blocks with their padding, and bytes that come out of them."""
    if zlib.crc32(index[:-4]) != int.from_bytes(index[-4:], "little") or index[0]:
        raise ValueError("the index is damaged")
    numbers: list[int] = []
    at = 1
    while len(numbers) < 1 + 2 * (numbers[0] if numbers else 1):
        number, at = _number(index, at)
        numbers.append(number)
        if at > len(index) - 4:
            raise ValueError("the index counts more blocks than it lists")
    return sum(-(-size // 4) * 4 for size in numbers[1::2]), sum(numbers[2::2])


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A multibyte integer (1.2) and where the next begins."""
    value = 0
    for count in range(_LONGEST_NUMBER):
        byte = data[at + count]
        value |= (byte & 0x7F) << 7 * count
        if not byte & 0x80:
            return value, at + count + 1
    raise ValueError("the index holds a number without an end")
