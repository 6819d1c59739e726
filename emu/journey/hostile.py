"""What a hostile B needs from outside: an NMI that comes while it waits for one."""

from __future__ import annotations

from emu.machine import events as ev
from emu.machine.machine import Machine

NMI = "nmi"
_STEP = 20_000
_SETTLE = 2_000
"""Ticks that B has, once it has said that it waits, to put its handler in place; it then waits far longer."""
_ANNOUNCED = f"hostile: {NMI}"


def run_peer(machine: Machine, hostile: str, limit: int) -> ev.Outcome:
    """Run B on to its jump back, ``limit`` ticks at most; the B called nmi gets one NMI, once it has said its name."""
    if hostile != NMI:
        return machine.run(limit)
    for _ in range(limit // _STEP):
        outcome = machine.run(_STEP)
        if not isinstance(outcome, ev.StepLimit):
            return outcome
        if any(isinstance(event, ev.ConsoleLine) and event.text.endswith(_ANNOUNCED) for event in machine.events):
            break
    outcome = machine.run(_SETTLE)
    if not isinstance(outcome, ev.StepLimit):
        return outcome
    machine.inject_nmi()
    return machine.run(limit)
