"""Any bit of A that changes while B runs is found by A itself, with its address; Python's checks are off."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

import pytest

from emu.journey.checkpoint import Checkpoint
from emu.journey.journey import Journey
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch
from emu.units import PAGE_SHIFT, PAGE_SIZE

FLIPS = 50  # of sealed pages, on each of four architectures
OWN_FLIPS = 6  # of A's text and tables, the same
DAMAGED = re.compile(r"A\| damaged p:(0x[0-9a-f]+)$")


@dataclass(frozen=True)
class Paused:
    """A run at the moment when B has been told to save, and the page frames that A has sealed and keeps copies of."""

    journey: Journey
    point: Checkpoint
    sealed: list[int]
    own: list[int]


@pytest.fixture(scope="module", params=list(Arch))
def paused(request: pytest.FixtureRequest) -> Paused:
    journey = Journey(make_scene(find_journey("jump"), arch=request.param, ram="24M", target="2M@16M", checks=False))
    assert journey.run("suspend").findings == []
    point = journey.checkpoint()
    symbols = journey.kernel_a.symbols
    own = range(symbols["image_start"] >> PAGE_SHIFT, (symbols["image_end"] + PAGE_SIZE - 1) >> PAGE_SHIFT)
    busy = _as_a_sees_it(journey, symbols["busy_map"], 0x8000)
    ram = journey.scene.memory_map.ram_pages()
    sealed = [pfn for pfn in ram if not busy[pfn >> 3] >> (pfn & 7) & 1 and pfn not in own]
    text = range(symbols["image_start"] >> PAGE_SHIFT, symbols["data"] >> PAGE_SHIFT)
    return Paused(journey, point, sealed, list(text))


def _at(journey: Journey, address: int) -> int:
    """Where the byte that A has at ``address`` (physical) lies while B runs: in its source page, if B has its page."""
    page = address & -PAGE_SIZE
    for destination, source in journey.require_loaded().image.pairs:
        if destination == page:
            return source + address - page
    return address


def _as_a_sees_it(journey: Journey, address: int, size: int) -> bytes:
    parts = []
    for at in range(address, address + size, PAGE_SIZE - address % PAGE_SIZE if address % PAGE_SIZE else PAGE_SIZE):
        parts.append(journey.machine.ram.read(_at(journey, at), min(PAGE_SIZE, address + size - at)))
    return b"".join(parts)


def _flip_and_return(paused: Paused, address: int, bit: int) -> tuple[bool, int | None, list[int]]:
    """Flip a bit of A's byte at ``address`` while B runs, and let B go back: ok, exit status, damaged addresses."""
    journey = paused.journey
    journey.back_to(paused.point)
    ram, at = journey.machine.ram, _at(journey, address)
    ram.write(at, bytes([ram.read(at, 1)[0] ^ 1 << bit]))
    result = journey.run()
    damaged = [int(match.group(1), 16) for match in map(DAMAGED.match, result.console) if match]
    return result.ok, result.exit_status, damaged


def test_without_a_flip_all_is_intact(paused: Paused) -> None:
    paused.journey.back_to(paused.point)
    result = paused.journey.run()
    assert result.ok
    assert result.console[-1] == "A| all intact"


def test_a_flipped_bit_of_a_sealed_page_is_found_with_its_address(paused: Paused) -> None:
    choose = random.Random(f"flips {paused.journey.scene.arch}")
    missed = []
    for _ in range(FLIPS):
        address = choose.choice(paused.sealed) * PAGE_SIZE + choose.randrange(PAGE_SIZE)
        ok, status, damaged = _flip_and_return(paused, address, choose.randrange(8))
        if (ok, status, damaged) != (False, 1, [address]):
            missed.append((hex(address), ok, status, damaged))
    assert missed == []


def test_a_flipped_bit_of_a_moved_page_is_found_too(paused: Paused) -> None:
    moved = {destination >> PAGE_SHIFT for destination, _ in paused.journey.require_loaded().image.pairs}
    pages = [pfn for pfn in paused.sealed if pfn in moved]
    assert len(pages) > 100
    address = pages[len(pages) // 2] * PAGE_SIZE + 0x7A5
    assert _flip_and_return(paused, address, 3) == (False, 1, [address])


def test_a_flipped_bit_of_a_s_own_text_or_tables_never_goes_by(paused: Paused) -> None:
    """A names the address, unless it stumbled over the bit before it could look."""
    choose = random.Random(f"own flips {paused.journey.scene.arch}")
    journey = paused.journey
    named = 0
    for _ in range(OWN_FLIPS):
        address = choose.choice(paused.own) * PAGE_SIZE + choose.randrange(PAGE_SIZE)
        ok, status, damaged = _flip_and_return(paused, address, choose.randrange(8))
        assert not ok
        assert damaged == [address] or status != 1
        named += damaged == [address]
        assert [finding.kind for finding in journey.result.findings] == ["guest failed"]
    assert named >= OWN_FLIPS // 2
