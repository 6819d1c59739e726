"""Old memory: what may be read, and that nothing else is asked for."""

import pytest

from emu.errors import ImageFileError
from emu.hibernate.memory import OldMemory, joined, without
from emu.kexec.e820 import Range
from emu.units import Phys


def span(start: int, end: int) -> Range:
    return Range(Phys(start), Phys(end))


class Asked:
    """Memory whose bytes are their address's low byte; remembers what it was asked for."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []

    def read(self, address: int, size: int) -> bytes:
        self.reads.append((address, size))
        return bytes((address + index) & 0xFF for index in range(size))


ALLOWED = [span(0x3000, 0x5000), span(0x5000, 0x6000), span(0x8000, 0x9000)]


def test_what_is_allowed_is_read_over_the_seam_of_neighbours_too() -> None:
    asked = Asked()
    memory = OldMemory(asked.read, ALLOWED)
    assert memory.read(0x4FFE, 4) == b"\xfe\xff\x00\x01"
    assert memory.read(0x3000, 0x3000) == asked.read(0x3000, 0x3000)
    assert memory.read(0x8FFF, 1) == b"\xff"


@pytest.mark.parametrize(
    ("address", "size"),
    [(0x2FFF, 1), (0x2FFF, 2), (0x6000, 1), (0x5FFF, 2), (0x5000, 0x4000), (0, 0x10000), (0x9000, 1), (0x3000, -1)],
)
def test_everything_else_is_refused_and_not_even_asked_for(address: int, size: int) -> None:
    asked = Asked()
    with pytest.raises(ImageFileError, match=f"p:{address:#x} are not all memory that this kernel may read"):
        OldMemory(asked.read, ALLOWED).read(address, size)
    assert asked.reads == []


def test_a_short_read_is_an_error() -> None:
    with pytest.raises(ImageFileError, match="3 of 4 bytes"):
        OldMemory(lambda _address, _size: b"abc", ALLOWED).read(0x3000, 4)


def test_joined_ranges_have_no_seams() -> None:
    assert joined(reversed(ALLOWED)) == (span(0x3000, 0x6000), span(0x8000, 0x9000))
    with pytest.raises(ImageFileError, match="overlap"):
        joined([span(0, 0x2000), span(0x1000, 0x3000)])


def test_without_takes_bytes_out_of_the_middle_the_ends_and_the_whole() -> None:
    whole = [span(0x1000, 0x5000), span(0x8000, 0x9000)]
    assert without(whole, [span(0x2000, 0x3000)]) == (
        span(0x1000, 0x2000),
        span(0x3000, 0x5000),
        span(0x8000, 0x9000),
    )
    assert without(whole, [span(0, 0x2000), span(0x4000, 0x10000)]) == (span(0x2000, 0x4000),)
    assert without(whole, [span(0, 0x10000)]) == ()
    assert without(whole, [span(0x2000, 0x4000), span(0x3000, 0x4800)]) == (
        span(0x1000, 0x2000),
        span(0x4800, 0x5000),
        span(0x8000, 0x9000),
    )
