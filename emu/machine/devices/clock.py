"""Virtual time: it passes because instructions retire, never because a host clock moves.

One tick is one retired instruction, or one iteration of a rep instruction.  64 ticks are one period of the
1.193182 MHz input of the 8254, so the virtual processor runs at 76.363648 MHz and every run of the same
code sees the same device events at the same positions.
"""

from __future__ import annotations

TICKS_PER_PIT_CLOCK = 64
"""Ticks in one period of the timer's input clock."""
PIT_HZ = 1_193_182
"""Input clock of the 8254 in a PC, in Hz."""
TICKS_PER_SECOND = TICKS_PER_PIT_CLOCK * PIT_HZ
"""Ticks in one virtual second: 76,363,648."""


class Clock:
    """The tick count since power-on.  The machine moves it; devices only read it."""

    __slots__ = ("now",)

    def __init__(self, now: int = 0) -> None:
        self.now = now
