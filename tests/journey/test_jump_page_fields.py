"""A jump page with any one field wrong: B refuses before it touches memory; what it relies on it checks itself too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from emu.journey.checkpoint import Checkpoint
from emu.journey.journey import Journey
from emu.journey.memory import RamImage
from emu.journey.result import RunResult
from emu.journey.scene import Scene
from emu.kexec.arch import Arch
from emu.kexec.jump_page import FIELDS, SPARE, Field, dword_sum
from emu.units import PAGE_SIZE

CASES = [*FIELDS, Field("spare", SPARE, 8, ""), Field("last", PAGE_SIZE - 8, 8, "")]
BAD = re.compile(r"B\| jump page bad: (\w+)$")


@dataclass(frozen=True)
class Loaded:
    """A run after the load, to which each case goes back."""

    journey: Journey
    point: Checkpoint
    page: int

    def run_with(self, change: Callable[[bytearray], None]) -> tuple[RunResult, set[int]]:
        """The result with the page changed, and the page frames that changed after the stub had moved memory."""
        journey = self.journey
        journey.back_to(self.point)
        ram = journey.machine.ram
        content = bytearray(ram.read(self.page, PAGE_SIZE))
        change(content)
        ram.write(self.page, bytes(content))
        moved: list[RamImage] = []

        def look(moment: str, at: Journey) -> None:
            if moment == "suspend moved":
                moved.append(RamImage(at.machine.ram))

        journey.observe = look
        result = journey.run()
        journey.observe = None
        touched = {one.pfn for one in moved[0].differences(ram, [])} if moved else set()
        return result, touched


@pytest.fixture(scope="module", params=list(Arch), ids=str)
def loaded(request: pytest.FixtureRequest, scene_of: Callable[..., Scene]) -> Iterator[Loaded]:
    journey = Journey(scene_of(request.param))
    result = journey.run("load")
    assert result.findings == []
    jump = journey.require_loaded().image.jump
    assert jump is not None
    yield Loaded(journey, journey.checkpoint(), int(jump.jump_page))
    journey.machine.close()


def flip(field: Field, bit: int) -> Callable[[bytearray], None]:
    def change(page: bytearray) -> None:
        page[field.offset + (bit >> 3)] ^= 1 << (bit & 7)

    return change


def b_said(result: RunResult) -> list[str]:
    return [match.group(1) for match in map(BAD.match, result.console) if match]


def own_pages(loaded: Loaded) -> set[int]:
    """What B may have written before it looked at the jump page: its image, purgatory's page, its first stack."""
    kernel = loaded.journey.kernel_b
    end = (kernel.symbols["image_end"] + PAGE_SIZE - 1) // PAGE_SIZE
    loaded_b = loaded.journey.require_loaded()
    others = (loaded_b.purgatory.org, int(loaded_b.image.swap_page or 0))
    return set(range(kernel.org // PAGE_SIZE, end)) | {address // PAGE_SIZE for address in others}


@pytest.mark.slow
def test_any_field_wrong_is_refused_by_b_before_it_touches_memory(loaded: Loaded) -> None:
    allowed = own_pages(loaded)
    for number, field in enumerate(CASES):
        bit = 11 * number % (8 * field.size)
        result, touched = loaded.run_with(flip(field, bit))
        case = f"{field.name}, bit {bit}"
        assert len(b_said(result)) == 1, f"{case}: {result.console}"
        assert not result.ok
        assert not any("filled" in line for line in result.console), case
        assert touched <= allowed, f"{case}: {sorted(touched - allowed)[:4]}"


@pytest.mark.slow
def test_what_b_relies_on_is_refused_under_a_right_checksum_too(loaded: Loaded) -> None:
    wanted = {"magic", "version", "arch", "after_image_save", "entry_page"}
    relied_on = [field for field in CASES if field.name in wanted]
    for field, high in product(relied_on, (False, True)):
        bit = 8 * field.size - 5 if high else 1

        def change(page: bytearray, field: Field = field, bit: int = bit) -> None:
            flip(field, bit)(page)
            fitting = int.from_bytes(page[0xC:0x10], "little") - dword_sum(page)
            page[0xC:0x10] = (fitting & 0xFFFF_FFFF).to_bytes(4, "little")

        result, touched = loaded.run_with(change)
        assert len(b_said(result)) == 1, f"{field.name}, bit {bit}: {result.console}"
        assert touched <= own_pages(loaded), f"{field.name}, bit {bit}"
