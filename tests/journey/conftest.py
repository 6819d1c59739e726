"""Small machines, so that a journey takes about a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from emu import resources
from emu.journey.scene import Scene, find_journey, make_scene
from emu.kexec.arch import Arch

RAM, TARGET = "24M", "2M@16M"
# Low memory, target area, room for its sources: A has a sixth of the pages to seal and to verify.
SPARSE = (
    {"start": 0, "end": 0x9FC00, "type": "ram"},
    {"start": 16 << 20, "end": 22 << 20, "type": "ram"},
)


def small_scene(arch: Arch = Arch.X86_64, **changes: object) -> Scene:
    journey = find_journey("jump")
    if not {"ram", "target"} & set(changes):
        journey = replace(journey, e820=SPARSE)
    wanted: dict[str, object] = {"ram": RAM, "target": TARGET} | changes
    return make_scene(journey, arch=arch, **wanted)  # type: ignore[arg-type]


def changed_copy(folder: Path, arch: Arch, name: str, changes: Sequence[tuple[str, str]]) -> Path:
    source = resources.asm_dir() / ("i386" if arch.bits == 32 else "x86_64") / name
    text = source.read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
        text = text.replace(old, new)
    path = folder / f"my_{name}"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def scene_of() -> Callable[..., Scene]:
    """A scene of the journey jump: with a hole below 16 MiB, unless RAM or target area are chosen."""
    return small_scene


@pytest.fixture
def changed_stub(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a built-in stub with texts replaced, each of which must occur exactly once."""

    def change(arch: Arch, name: str, *changes: tuple[str, str]) -> Path:
        return changed_copy(tmp_path, arch, name, changes)

    return change
