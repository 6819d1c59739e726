"""What is to be run: a journey (a TOML file), an architecture, and what the command line changes of it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emu import resources
from emu.errors import BadCommandLine, JourneyError
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap, Range, default_map
from emu.kexec.layout import KERNEL_BASE
from emu.kexec.memparse import memparse
from emu.kexec.target import parse_target, place_target
from emu.units import MIB, show_size

TRANSITIONS = ("load", "suspend", "return")
TRANSFERS = ("swap",)
HANDOFFS = ("page", "stack")
_TOP = {"name", "summary", "transitions", "transfer", "handoff", "machine", "kernels", "command_line"}
_MACHINE = {"ram", "target", "e820"}
_SMALLEST = 24 * MIB


@dataclass(frozen=True, slots=True)
class JourneyFile:
    """A journey as its TOML file describes it; command lines are templates."""

    path: Path
    name: str
    summary: str
    transitions: tuple[str, ...]
    transfer: str
    handoff: str
    ram: str
    target: str
    e820: tuple[Mapping[str, object], ...]
    kernels: Mapping[str, Mapping[str, str]]
    command_lines: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that decides a run; two runs of equal scenes are equal, tick by tick.

    ``stubs`` are files that replace the built-in ones (each finds its place by its symbols); ``defines`` are
    assembly-time symbols by kernel letter; ``hostile`` names one of kernels/hostile.inc.
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
    defines: Mapping[str, int] = field(default_factory=dict)

    @property
    def ram_text(self) -> str:
        """The size of RAM as ``--ram`` takes it."""
        return f"{self.ram // MIB}M"

    @property
    def memory_map(self) -> MemoryMap:
        """The firmware's map of the machine."""
        if self.journey.e820:
            return MemoryMap.from_tables(self.journey.e820)
        return default_map(self.ram)

    @property
    def target_range(self) -> Range:
        """The physical target area that ``kexec_jump=`` gives on this machine."""
        memory_map = self.memory_map
        choice = parse_target(self.target).choose(memory_map.total_ram)
        if choice is None:
            raise JourneyError(f"kexec_jump={self.target} chooses no target area on this machine")
        return place_target(choice, memory_map)

    def title(self) -> str:
        """The head line of a report."""
        area = self.target_range
        return (
            f"{self.arch}, {self.transfer}, {self.handoff}    {show_size(self.ram)}, "
            f"target area {show_size(area.size)} at p:{area.start:#x}    seed {self.seed}"
        )


def _fail(path: Path, what: str, hint: str = "") -> JourneyError:
    return JourneyError(what, where=path.name, hint=hint)


def _table(path: Path, data: Mapping[str, object], key: str, known: set[str] | None) -> Mapping[str, object]:
    table = data.get(key, {})
    if not isinstance(table, dict):
        raise _fail(path, f"{key} is not a table")
    for name in table:
        if known is not None and name not in known:
            raise _fail(path, f"unknown key {key}.{name}", f"known: {', '.join(sorted(known))}")
    return table


def _text(path: Path, data: Mapping[str, object], key: str, default: str | None = None) -> str:
    value = data.get(key, default)
    if not isinstance(value, str):
        raise _fail(path, f"{key} must be a string" if key in data else f"{key} is missing")
    return value


def read_journey(path: Path) -> JourneyFile:
    """Read and check a journey file; raises JourneyError naming the file and the key."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise _fail(path, f"cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise _fail(path, f"is not TOML: {error}") from error
    for key in data:
        if key not in _TOP:
            raise _fail(path, f"unknown key {key}", f"known: {', '.join(sorted(_TOP))}")
    transitions = data.get("transitions", list(TRANSITIONS))
    if not isinstance(transitions, list) or tuple(transitions) != TRANSITIONS[: len(transitions)] or not transitions:
        raise _fail(path, f"transitions must be a beginning of {list(TRANSITIONS)}")
    machine = _table(path, data, "machine", _MACHINE)
    e820 = machine.get("e820", [])
    if not isinstance(e820, list) or not all(isinstance(entry, dict) for entry in e820):
        raise _fail(path, "machine.e820 must be a list of tables")
    kernels: dict[str, Mapping[str, str]] = {}
    for letter in ("a", "b"):
        by_width = _table(path, _table(path, data, "kernels", {"a", "b"}), letter, {"32", "64"})
        kernels[letter] = {width: _text(path, by_width, width) for width in by_width}
    lines = _table(path, data, "command_line", {"a", "b"})
    return JourneyFile(
        path=path,
        name=_text(path, data, "name", path.stem),
        summary=_text(path, data, "summary", ""),
        transitions=tuple(transitions),
        transfer=_text(path, data, "transfer", "swap"),
        handoff=_text(path, data, "handoff", "page"),
        ram=_text(path, machine, "ram", "64M"),
        target=_text(path, machine, "target", "16M@16M"),
        e820=tuple(e820),
        kernels=kernels,
        command_lines={key: _text(path, lines, key) for key in lines},
    )


def builtin_journeys() -> dict[str, JourneyFile]:
    """The journeys that come with kjump, by name."""
    found = [read_journey(path) for path in sorted(resources.kernels_dir().glob("*.toml"))]
    return {journey.name: journey for journey in found}


def find_journey(name: str) -> JourneyFile:
    """A built-in journey by name, or a journey file by path; raises JourneyError."""
    known = builtin_journeys()
    if name in known:
        return known[name]
    path = Path(name)
    if path.suffix == ".toml" or path.exists():
        if not path.is_file():
            raise JourneyError("no such journey file", where=name)
        return read_journey(path)
    raise JourneyError(f"no journey is called {name}", hint=f"built in: {', '.join(sorted(known))}; or a .toml file")


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
        target=target or journey.target,
        stubs=stubs,
        hostile=hostile,
        strict=strict,
        plain_strings=plain_strings,
        checks=checks,
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
