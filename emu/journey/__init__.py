"""Kernels in the machine: scenes, transitions and what is checked at each."""

from emu.journey.findings import Finding
from emu.journey.journey import Journey
from emu.journey.result import RunResult, Transition
from emu.journey.scene import Scene, builtin_journeys, find_journey, make_scene

__all__ = [
    "Finding",
    "Journey",
    "RunResult",
    "Scene",
    "Transition",
    "builtin_journeys",
    "find_journey",
    "make_scene",
]
