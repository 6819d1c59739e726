"""All targets by name."""

from __future__ import annotations

from emu.errors import FuzzError
from emu.fuzz.target import Target
from emu.fuzz.targets import cmdline, entry, image, irq, jumpbuf, lists, regs, segments

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        entry.TARGET,
        lists.TARGET,
        jumpbuf.TARGET,
        cmdline.TARGET,
        segments.TARGET,
        regs.TARGET,
        irq.TARGET,
        image.TARGET,
    )
}


def find_target(name: str) -> Target:
    """A target by name; raises FuzzError that lists them."""
    if name not in TARGETS:
        raise FuzzError(f"no target is called {name}", hint=f"one of {', '.join(TARGETS)}")
    return TARGETS[name]
