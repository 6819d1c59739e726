"""The stack on which a peer starts when the stub is Linux's own, by the convention of its form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.journey.linux_call import LinuxCall
from emu.units import PAGE_MASK, PAGE_SIZE, show_phys

if TYPE_CHECKING:
    from emu.journey.journey import Journey


def entry_stack(journey: Journey, linux: LinuxCall, sp: int) -> list[str]:
    """What is wrong with the stack that the peer starts on, by the convention of the stub's form."""
    machine, loaded = journey.machine, journey.require_loaded()
    word, image = journey.scene.arch.word, loaded.image
    if not journey.scene.preserve:
        return []  # another stack, with a check of its own
    top = int(image.swap_page or 0) + PAGE_SIZE
    words = 2 if linux.stub.slot else 1
    if sp != top - words * word:
        return [f"stack pointer {sp:#x}, not {words} words below the top of the swap page {show_phys(top - PAGE_SIZE)}"]
    wrong = []
    back = machine.ram.read_int(sp, word)
    if back & ~PAGE_MASK != int(image.control_page):
        wrong.append(f"return address {back:#x} is not in the control page {show_phys(image.control_page)}")
    if linux.stub.slot and machine.ram.read_int(sp + word, word) != loaded.start:
        wrong.append(f"the word above the return address is not the entry {loaded.start:#x}")
    return wrong
