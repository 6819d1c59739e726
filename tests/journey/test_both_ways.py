"""String instructions done by the host and by the engine: the same journey, event by event."""

from __future__ import annotations

from dataclasses import replace

from emu.journey.journey import Journey
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch


def test_a_journey_leaves_the_same_trace_with_plain_strings() -> None:
    scene = make_scene(find_journey("jump"), arch=Arch.X86_64, ram="18M", target="1M@16M")
    host, plain = Journey(scene), Journey(replace(scene, plain_strings=True))
    results = [host.run("suspend"), plain.run("suspend")]
    assert [result.ok for result in results] == [True, True]
    assert host.machine.events == plain.machine.events
    assert host.machine.count.state == plain.machine.count.state
    assert host.machine.cpu.registers() == plain.machine.cpu.registers()
    mine, other = (b"".join(bytes(bank.view) for bank in one.machine.ram.banks) for one in (host, plain))
    assert mine == other
    for journey in (host, plain):
        journey.machine.close()
