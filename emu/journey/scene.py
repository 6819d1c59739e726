"""What is to be run: a journey (a TOML file), an architecture, and what the command line changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emu.errors import BadCommandLine, JourneyError
from emu.journey.journey_file import (
    TRANSITIONS,
    JourneyFile,
    builtin_journeys,
    find_journey,
    kind_of,
    read_journey,
)
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range, default_map
from emu.kexec.layout import KERNEL_BASE, Transfer
from emu.kexec.memparse import memparse
from emu.kexec.target import parse_target, place_target
from emu.units import MIB, Phys, show_size

__all__ = [
    "HANDOFFS",
    "TRANSFERS",
    "TRANSITIONS",
    "JourneyFile",
    "Scene",
    "builtin_journeys",
    "default_target",
    "find_journey",
    "kind_of",
    "make_scene",
    "parse_arch",
    "parse_size",
    "read_journey",
]
TRANSFERS = ("reserved", "copy", "swap")
HANDOFFS = ("page", "cmdline", "stack")
_SMALLEST = 24 * MIB
A_SPACE = Range(Phys(KERNEL_BASE), Phys(KERNEL_BASE + 2 * MIB))
"""Where kernel A runs: a reserved target area lies elsewhere."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that decides a run; two runs of equal scenes are equal, tick by tick.

    ``stubs`` are files that replace the built-in ones (each finds its place by its symbols); ``defines`` are
    assembly-time symbols by kernel letter; ``hostile`` names one of kernels/hostile.inc.
    With Linux's own stub: ``preserve`` False is a plain kexec, ``own_gdt`` a B that comes back with its own GDT,
    ``pae_back`` one that sets CR4.PAE before.  ``image`` is the file that a saved image goes to; without one it is a
    file that goes away with the journey.
    """

    journey: JourneyFile
    arch: Arch = Arch.X86_64
    transfer: str = "swap"
    handoff: str = "page"
    ram: int = 64 * MIB
    seed: int = 1
    target: str = "16M@16M"
    stubs: tuple[Path, ...] = ()
    hostile: str = ""
    strict: bool = True
    plain_strings: bool = False
    checks: bool = True
    b_words: str = ""
    preserve: bool = True
    own_gdt: bool = False
    pae_back: bool = False
    defines: Mapping[str, int] = field(default_factory=dict)
    image: Path | None = None

    def command_line(self, letter: str) -> str:
        """The command line of kernel A or C; B's is made when it is loaded."""
        line = self.journey.command_lines.get(letter, "")
        return line.format(target=self.target, area=self.area_text, seed=self.seed, handoff="", image=self.image_name)

    @property
    def image_name(self) -> str:
        """What C is told that its image is called."""
        return self.image.name if self.image is not None else "image"

    def link_address(self, letter: str) -> int:
        """Where kernel ``letter`` is linked, physical."""
        if letter == "c":
            return self.journey.restore_base or int(self.target_range.start)
        return int(self.target_range.start) if letter == "b" and self.is_reserved else KERNEL_BASE

    @property
    def ram_text(self) -> str:
        """The size of RAM as ``--ram`` takes it."""
        return f"{self.ram // MIB}M"

    @property
    def transfer_kind(self) -> Transfer:
        """The transfer as the jump page's ``mode`` has it."""
        return Transfer[self.transfer.upper()]

    @property
    def is_reserved(self) -> bool:
        """Whether the target area is taken out of A's RAM."""
        return self.transfer == "reserved"

    @property
    def memory_map(self) -> MemoryMap:
        """The firmware's map of the machine."""
        if self.journey.e820:
            return MemoryMap.from_tables(self.journey.e820)
        return default_map(self.ram)

    @property
    def a_map(self) -> MemoryMap:
        """The map that kernel A is told: with the transfer ``reserved``, the target area is no RAM of its."""
        return self.memory_map.with_reserved(self.target_range) if self.is_reserved else self.memory_map

    @property
    def target_range(self) -> Range:
        """The physical target area that ``kexec_jump=`` gives on this machine."""
        memory_map = self.memory_map
        choice = parse_target(self.target).choose(memory_map.total_ram)
        if choice is None:
            raise JourneyError(f"kexec_jump={self.target} chooses no target area on this machine")
        return place_target(choice, memory_map, A_SPACE if self.is_reserved else None)

    @property
    def area_text(self) -> str:
        """The target area with its address, as B is told it, whoever chose."""
        area = self.target_range
        return f"{area.size:#x}@{area.start:#x}" if self.target.find("@") < 0 or ":" in self.target else self.target

    def title(self) -> str:
        """The head line of a report."""
        area = self.target_range
        return (
            f"{self.arch}, {self.transfer}, {self.handoff}    {show_size(self.ram)}, "
            f"target area {show_size(area.size)} at p:{area.start:#x}    seed {self.seed}"
        )


def default_target(journey: JourneyFile, transfer: str) -> str:
    """The journey's target area; its size alone where A runs there and may not, so that the loader chooses."""
    fixed = ":" not in journey.target and journey.target.partition("@")
    return fixed[0] if fixed and transfer == "reserved" else journey.target


def parse_arch(name: str) -> Arch:
    """An architecture by name; raises JourneyError that lists them."""
    try:
        return Arch(name)
    except ValueError:
        raise JourneyError(f"no architecture is called {name}", hint=f"one of {', '.join(Arch)}, or all") from None


def parse_size(text: str, what: str) -> int:
    """A size with K, M, G suffix in bytes; raises JourneyError naming ``what``."""
    try:
        size, end = memparse(text)
    except BadCommandLine as error:
        raise JourneyError(f"{text!r} is no size", where=what, hint="as 64M") from error
    if end != len(text) or size <= 0:
        raise JourneyError(f"{text!r} is no size", where=what, hint="as 64M")
    return size


def make_scene(
    journey: JourneyFile,
    *,
    arch: Arch = Arch.X86_64,
    transfer: str | None = None,
    handoff: str | None = None,
    ram: str | None = None,
    target: str | None = None,
    seed: int = 1,
    stubs: tuple[Path, ...] = (),
    hostile: str = "",
    strict: bool = True,
    plain_strings: bool = False,
    checks: bool = True,
    image: Path | None = None,
) -> Scene:
    """A scene from a journey and what a person changed; raises JourneyError for what cannot be run."""
    chosen_transfer, chosen_handoff = transfer or journey.transfer, handoff or journey.handoff
    if chosen_transfer not in TRANSFERS:
        raise JourneyError(f"transfer {chosen_transfer} is not one of {', '.join(TRANSFERS)}", where="--transfer")
    if chosen_handoff not in HANDOFFS:
        raise JourneyError(f"hand-off {chosen_handoff} is not one of {', '.join(HANDOFFS)}", where="--handoff")
    size = parse_size(ram or journey.ram, "--ram")
    if size < _SMALLEST or size % MIB:
        raise JourneyError(
            f"{show_size(size)} of RAM is too small or no whole number of MiB",
            where="--ram",
            hint=f"kernels are linked at p:{KERNEL_BASE:#x}: at least {show_size(_SMALLEST)}",
        )
    scene = Scene(
        journey=journey,
        arch=arch,
        transfer=chosen_transfer,
        handoff=chosen_handoff,
        ram=size,
        seed=seed,
        target=target or default_target(journey, chosen_transfer),
        stubs=stubs,
        hostile=hostile,
        strict=strict,
        plain_strings=plain_strings,
        checks=checks,
        image=image,
    )
    area = scene.target_range
    memory_map = scene.memory_map
    if area.end > memory_map.end_of_ram or not all(memory_map.is_ram(pfn) for pfn in area.pages()):
        raise JourneyError(
            f"the target area p:{area.start:#x} to p:{area.end:#x} is not all RAM",
            where="kexec_jump=",
            hint=f"RAM ends at p:{memory_map.end_of_ram:#x}",
        )
    return scene
