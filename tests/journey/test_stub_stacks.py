"""Wherever an exception or NMI strikes between A and B, what the processor pushes lands on a stack, or nowhere.

A stub that makes a stack pointer in two steps has a place where it points to the end of somebody else's page.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emu.fuzz.trip import Trip
from emu.fuzz.window import RETURN, SUSPEND, open_window
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch
from emu.machine.machine import Machine
from emu.machine.owners import Owner
from emu.units import PAGE_SHIFT

_FRAME = {32: (12, 1), 64: (40, 16)}
"""Bytes that an NMI pushes, and to what the stack pointer is aligned down before."""
_MOST = 5_000
_SCENES = [
    (arch, transfer, handoff)
    for arch in Arch
    for transfer, handoff in (("swap", "page"), ("copy", "stack"), ("reserved", "cmdline"))
]


@pytest.mark.parametrize("name", [SUSPEND, RETURN])
@pytest.mark.parametrize(("arch", "transfer", "handoff"), _SCENES)
def test_the_stack_pointer_is_on_a_stack_at_every_instruction(
    arch: Arch, transfer: str, handoff: str, name: str
) -> None:
    target = "2M" if transfer == "reserved" else "2M@16M"
    scene = make_scene(find_journey("jump"), arch=arch, transfer=transfer, handoff=handoff, ram="24M", target=target)
    trip = Trip(open_window(scene, name))
    machine = trip.stage.machine
    trip.stage.reset()
    behind = trip.after if name == RETURN else trip.window.loaded.start
    stacks = [set(_pushed(machine, arch))]
    places = []
    for _ in range(_MOST):
        places.append(trip.stage.place(machine.cpu.pc))
        machine.run(instructions=1)
        stacks.append(set(_pushed(machine, arch)))
        if machine.cpu.pc == behind:
            break
    assert machine.cpu.pc == behind
    own = {pfn for owner in (Owner.CONTROL, Owner.SWAP) for pfn in machine.owners.pfns(owner)}
    allowed = own | stacks[0] | stacks[-1]
    wrong = [place for place, pages in zip(places, stacks[1:], strict=True) if not pages <= allowed]
    assert not wrong, "behind these"
    assert any(pages & own for pages in stacks)
    machine.close()


def _pushed(machine: Machine, arch: Arch) -> Iterator[int]:
    """Page frames that hold what an NMI would push now, as far as they are mapped."""
    size, align = _FRAME[arch.bits]
    top = machine.cpu.rsp & -align
    for at in range(top - size, top, arch.word):
        physical = machine.cpu.walk(at & (1 << arch.bits) - 1).physical
        if physical is not None:
            yield physical >> PAGE_SHIFT
