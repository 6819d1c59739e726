"""Any bit of A that changes while B runs is found by A itself, with its address; Python's checks are off."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from emu.journey.checkpoint import Checkpoint
from emu.journey.journey import Journey
from emu.journey.result import RunResult
from emu.journey.scene import Scene
from emu.kexec.arch import Arch
from emu.units import PAGE_SHIFT, PAGE_SIZE

GROUPS = (2, 16, 16, 16)  # bits flipped at a time, on each of four architectures; A names 16 pages at most
OWN_FLIPS = 2  # of A's text and tables, the same
SEALED = re.compile(r"A\| sealed (\d+) pages, kept (\d+) pages")
DAMAGED = re.compile(r"A\| damaged p:(0x[0-9a-f]+)$")


@dataclass(frozen=True)
class Paused:
    """A run at the moment when B has been told to save, and the page frames that A has sealed and keeps copies of."""

    journey: Journey
    point: Checkpoint
    sealed: Sequence[int]
    own: Sequence[int]


@pytest.fixture(scope="module", params=list(Arch))
def paused(request: pytest.FixtureRequest, scene_of: Callable[..., Scene]) -> Paused:
    journey = Journey(scene_of(request.param, checks=False))
    result = journey.run("suspend")
    assert result.findings == []
    said = next(match for match in map(SEALED.match, result.console) if match)
    symbols = journey.kernel_a.symbols
    first = symbols["image_start"] >> PAGE_SHIFT
    behind = (symbols["image_end"] + PAGE_SIZE - 1) >> PAGE_SHIFT
    busy = _as_a_sees_it(journey, symbols["busy_map"], 0x8000)
    ram = journey.scene.memory_map.ram_pages()
    sealed = [pfn for pfn in ram if not busy[pfn >> 3] >> (pfn & 7) & 1 and not first <= pfn < behind]
    assert 500 < len(sealed) <= int(said.group(1))  # the i386 one also seals what it does not use of its tables
    return Paused(journey, journey.checkpoint(), sealed, list(range(first, first + int(said.group(2)))))


def _at(journey: Journey, address: int) -> int:
    """Where the byte that A has at ``address`` (physical) lies while B runs: in its source page, if B has its page."""
    page = address & -PAGE_SIZE
    pairs = journey.require_loaded().image.pairs
    return next((source for destination, source in pairs if destination == page), page) + address - page


def _as_a_sees_it(journey: Journey, address: int, size: int) -> bytes:
    parts = []
    while size:
        here = min(size, PAGE_SIZE - address % PAGE_SIZE)
        parts.append(journey.machine.ram.read(_at(journey, address), here))
        address, size = address + here, size - here
    return b"".join(parts)


def _flip_and_return(paused: Paused, flips: Sequence[tuple[int, int]]) -> tuple[RunResult, list[int]]:
    """Flip (A's address, bit) while B runs, and let B go back: the result, and the addresses that A calls damaged."""
    journey = paused.journey
    journey.back_to(paused.point)
    ram = journey.machine.ram
    for address, bit in flips:
        at = _at(journey, address)
        ram.write(at, bytes([ram.read(at, 1)[0] ^ 1 << bit]))
    result = journey.run()
    return result, [int(match.group(1), 16) for match in map(DAMAGED.match, result.console) if match]


def _somewhere(choose: random.Random, pages: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Bits to flip, each in another page, ascending: A verifies memory upwards."""
    chosen = sorted(choose.sample(pages, count))
    return [(pfn * PAGE_SIZE + choose.randrange(PAGE_SIZE), choose.randrange(8)) for pfn in chosen]


@pytest.mark.parametrize(("number", "count"), list(enumerate(GROUPS)))
def test_flipped_bits_of_sealed_pages_are_found_with_their_addresses(paused: Paused, number: int, count: int) -> None:
    choose = random.Random(f"flips {paused.journey.scene.arch} {number}")  # noqa: S311 - no secret
    flips = _somewhere(choose, paused.sealed, count)
    result, damaged = _flip_and_return(paused, flips)
    assert damaged == [address for address, _ in flips]
    assert not result.ok
    assert result.exit_status == 1
    assert [finding.kind for finding in result.findings] == ["guest failed"]


def test_a_flipped_bit_of_a_moved_page_is_found_too(paused: Paused) -> None:
    moved = {destination >> PAGE_SHIFT for destination, _ in paused.journey.require_loaded().image.pairs}
    pages = [pfn for pfn in paused.sealed if pfn in moved]
    assert len(pages) > 100
    address = pages[len(pages) // 2] * PAGE_SIZE + 0x7A5
    result, damaged = _flip_and_return(paused, [(address, 3)])
    assert (result.ok, result.exit_status, damaged) == (False, 1, [address])


def test_a_flipped_bit_of_a_s_own_text_or_tables_never_goes_by(paused: Paused) -> None:
    """A names the address, unless it stumbled over the bit before it could look."""
    choose = random.Random(f"own flips {paused.journey.scene.arch}")  # noqa: S311 - no secret
    for _ in range(OWN_FLIPS):
        flips = _somewhere(choose, paused.own, 1)
        result, damaged = _flip_and_return(paused, flips)
        assert not result.ok
        assert damaged == [flips[0][0]] or result.exit_status != 1
        assert [finding.kind for finding in result.findings] == ["guest failed"]
