"""Peers that leave a mess: A is restored all the same, or a finding names what was left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu.errors import JourneyError
from emu.journey.journey import Journey
from emu.journey.programs import hostile_names
from emu.journey.scene import Scene
from emu.kexec.arch import Arch
from emu.machine import events as ev

LONG_ONLY = frozenset({"pcide", "compat"})
"""What only long mode has."""

FOUND = {
    "tf": ("exception", "jump_entry.S:", "TF=1 in the flags that the peer left"),
    "compat": ("re-entry", "CS is a compatibility-mode segment", ""),
    "bus_master": ("busy device", "the bus master writes into p:0x", "which kernel B gave it and did not take back"),
}
"""The variants that A cannot or need not put up with: the kind of the finding, what it says, what it rests on."""

ALL = tuple(name for name in hostile_names() if name != "none")
CASES = [
    pytest.param(arch, name, id=f"{arch}-{name}")
    for arch, names in (
        (Arch.X86_64, ALL),
        (Arch.I386, tuple(name for name in ALL if name not in LONG_ONLY)),
        (Arch.I386_PAE, ("nxe", "pge", "smep")),  # one source for both: what paging makes different
        (Arch.X86_64_LA57, ("pcide", "pge", "compat")),
    )
    for name in names
]


@pytest.mark.parametrize(("arch", "name"), CASES)
def test_a_hostile_peer_is_survived_or_named(arch: Arch, name: str, scene_of: Callable[..., Scene]) -> None:
    journey = Journey(scene_of(arch, hostile=name))
    result = journey.run()
    assert f"B| hostile: {name}" in result.console
    if name not in FOUND:
        assert result.findings == []
        assert result.ok
        assert result.console[-1] == "A| all intact"
    else:
        kind, says, because = FOUND[name]
        assert not result.ok
        assert len(result.findings) == 1
        finding = result.findings[0]
        assert (finding.kind, finding.transition) == (kind, "return")
        assert says in finding.actual
        assert because in "\n".join(finding.because)


@pytest.mark.parametrize("arch", [Arch.I386, Arch.X86_64])
def test_the_nmi_really_comes_while_the_peer_waits(arch: Arch, scene_of: Callable[..., Scene]) -> None:
    journey = Journey(scene_of(arch, hostile="nmi"))
    result = journey.run()
    taken = [event for event in journey.machine.events if isinstance(event, ev.Interrupt) and event.nmi]
    assert len(taken) == 1
    back = result.transitions[2].start
    assert back is not None
    assert taken[0].position < back
    assert not journey.machine.cpu.nmi_blocked


def test_what_a_peer_left_is_known_although_it_was_survived(scene_of: Callable[..., Scene]) -> None:
    journey = Journey(scene_of(Arch.X86_64, hostile="pcide"))
    assert journey.run().ok
    assert "CR4.PCIDE=1 left by the peer" in journey.peer_notes


def test_an_unknown_hostile_peer_is_refused_with_the_known_ones(scene_of: Callable[..., Scene]) -> None:
    with pytest.raises(JourneyError, match=r"no hostile B is called rude .*df, tf"):
        Journey(scene_of(hostile="rude"))
