"""A journey as a TOML file describes it: which kernels, which machine, which transitions."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emu import resources
from emu.errors import JourneyError
from emu.journey.faults import Fault, read_fault
from emu.units import PAGE_SIZE

TRANSITIONS = ("load", "suspend", "save", "return", "boot", "restore", "resume", "rejump")
_AFTER = {
    "": ("load",),
    "load": ("suspend",),
    "suspend": ("save", "return"),
    "save": ("return",),
    "return": ("boot", "rejump"),
    "boot": ("restore",),
    "restore": ("resume",),
    "resume": ("load",),
    "rejump": ("save", "return"),
}
"""What may come after what; a journey may end anywhere."""
_TOP = {"name", "summary", "transitions", "transfer", "handoff", "machine", "kernels", "command_line", "faults"}
_MACHINE = {"ram", "target", "e820", "restore_base"}
_LETTERS = ("a", "b", "c")
_HEADER = re.compile(r"\s*\[+\s*([\w.\-]+)\s*\]")
_KEY = re.compile(r"\s*[\"']?([\w\-]+)[\"']?\s*=")


@dataclass(frozen=True, slots=True)
class JourneyFile:
    """A journey as its TOML file describes it; command lines are templates.

    ``transitions`` have names of their own: the second ``return`` is ``return 2``.  ``restore_base`` is the link
    address of kernel C, 0 for that of the target area.
    """

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
    restore_base: int = 0
    faults: tuple[Fault, ...] = ()

    @property
    def kinds(self) -> frozenset[str]:
        """The transitions, whatever round of each."""
        return frozenset(kind_of(name) for name in self.transitions)


def kind_of(name: str) -> str:
    """The transition that ``name`` is a round of."""
    return name.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class _Source:
    """The text of a journey file, which errors quote the line of."""

    path: Path
    text: str

    def line_of(self, key: str) -> int | None:
        """The line of ``key`` (``table.name`` or ``name``) or of its nearest table; None where it is not found.

        The tables of an array are counted from 1: ``faults.2.what``.
        """
        table, found = "", None
        counts: dict[str, int] = {}
        for number, line in enumerate(self.text.splitlines(), 1):
            header = _HEADER.match(line)
            if header is not None:
                table = header.group(1)
                if table == key:
                    return number
                if line.lstrip().startswith("[["):
                    counts[table] = counts.get(table, 0) + 1
                    table = f"{table}.{counts[table]}"
                here = table
            else:
                name = _KEY.match(line)
                if name is None:
                    continue
                here = f"{table}.{name.group(1)}" if table else name.group(1)
            if here == key:
                return number
            if key.startswith(f"{here}."):
                found = number
        return found

    def error(self, key: str, what: str, hint: str = "") -> JourneyError:
        """``what`` is wrong with ``key``; an empty key: with the file."""
        line = self.line_of(key) if key else None
        return JourneyError(what, where=f"{self.path.name}:{line}" if line else self.path.name, hint=hint)

    def table(self, data: Mapping[str, object], key: str, known: set[str]) -> Mapping[str, object]:
        """The table ``key`` (``outer.inner`` is found in ``data`` by its last part), whose keys are all ``known``."""
        table = data.get(key.rpartition(".")[2], {})
        if not isinstance(table, dict):
            raise self.error(key, f"{key} is not a table")
        for name in table:
            if name not in known:
                raise self.error(f"{key}.{name}", f"unknown key {key}.{name}", f"known: {', '.join(sorted(known))}")
        return table

    def string(self, data: Mapping[str, object], key: str, default: str | None = None) -> str:
        """The string ``key``, by its last part in ``data``."""
        name = key.rpartition(".")[2]
        value = data.get(name, default)
        if not isinstance(value, str):
            raise self.error(key, f"{key} must be a string" if name in data else f"{key} is missing")
        return value


def read_journey(path: Path) -> JourneyFile:
    """Read and check a journey file; raises JourneyError naming the file, the line and the key."""
    source = _Source(path, "")
    try:
        source = _Source(path, path.read_text(encoding="utf-8"))
        data = tomllib.loads(source.text)
    except (OSError, UnicodeDecodeError) as error:
        raise source.error("", f"cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise source.error("", f"is not TOML: {error}") from error
    for key in data:
        if key not in _TOP:
            raise source.error(key, f"unknown key {key}", f"known: {', '.join(sorted(_TOP))}")
    transitions = _transitions(source, data.get("transitions", ["load", "suspend", "return"]))
    machine = source.table(data, "machine", _MACHINE)
    e820 = machine.get("e820", [])
    if not isinstance(e820, list) or not all(isinstance(entry, dict) for entry in e820):
        raise source.error("machine.e820", "machine.e820 must be a list of tables")
    letters = source.table(data, "kernels", set(_LETTERS))
    kernels: dict[str, Mapping[str, str]] = {}
    for letter in _LETTERS:
        by_width = source.table(letters, f"kernels.{letter}", {"32", "64"})
        kernels[letter] = {width: source.string(by_width, f"kernels.{letter}.{width}") for width in by_width}
    lines = source.table(data, "command_line", set(_LETTERS))
    for letter in lines:
        _template(source, letter, source.string(lines, f"command_line.{letter}"))
    return JourneyFile(
        path=path,
        name=source.string(data, "name", path.stem),
        summary=source.string(data, "summary", ""),
        transitions=transitions,
        transfer=source.string(data, "transfer", "swap"),
        handoff=source.string(data, "handoff", "page"),
        ram=source.string(machine, "machine.ram", "64M"),
        target=source.string(machine, "machine.target", "16M@16M"),
        e820=tuple(e820),
        kernels=kernels,
        command_lines={key: source.string(lines, f"command_line.{key}") for key in lines},
        restore_base=_restore_base(source, machine),
        faults=_faults(source, data.get("faults", []), transitions),
    )


def _faults(source: _Source, given: object, names: tuple[str, ...]) -> tuple[Fault, ...]:
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise source.error("faults", "faults must be tables, each under [[faults]]")
    faults = []
    for number, table in enumerate(given, 1):
        fault, key, what, hint = read_fault(number, table, names)
        if fault is None:
            raise source.error(key, what, hint)
        faults.append(fault)
    return tuple(faults)


def _transitions(source: _Source, given: object) -> tuple[str, ...]:
    """Each transition under a name of its own; raises JourneyError for an order that makes no sense."""
    if not isinstance(given, list) or not given:
        raise source.error("transitions", "transitions must be a list of names", f"of {', '.join(TRANSITIONS)}")
    names: list[str] = []
    seen: dict[str, int] = {}
    before = ""
    for one in given:
        if one not in _AFTER[before]:
            after = f"after {before}" if before else "first"
            raise source.error(
                "transitions",
                f"{one!r} cannot come {after}",
                f"what can: {', '.join(_AFTER[before]) or 'nothing, a journey ends with it'}",
            )
        before = str(one)
        seen[before] = seen.get(before, 0) + 1
        names.append(before if seen[before] == 1 else f"{before} {seen[before]}")
    return tuple(names)


def _template(source: _Source, letter: str, line: str) -> None:
    """Raises JourneyError for a command line that names something unknown in braces."""
    known = {"handoff": "", "target": "", "area": "", "seed": 0, "image": ""}
    try:
        line.format(**known)
    except (KeyError, IndexError, ValueError) as error:
        raise source.error(
            f"command_line.{letter}", f"the template does not work: {error}", f"known in braces: {', '.join(known)}"
        ) from error


def _restore_base(source: _Source, machine: Mapping[str, object]) -> int:
    value = machine.get("restore_base", 0)
    if not isinstance(value, int) or isinstance(value, bool) or value % PAGE_SIZE or not 0 <= value < 1 << 32:
        raise source.error("machine.restore_base", "machine.restore_base must be the address of a page under 4 GiB")
    return value


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
