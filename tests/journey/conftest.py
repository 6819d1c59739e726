"""Small machines, so that a journey takes about a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from emu import resources
from emu.journey.scene import Scene, find_journey, make_scene
from emu.kexec.arch import Arch

RAM, TARGET = "24M", "2M@16M"


def small_scene(arch: Arch = Arch.X86_64, **changes: object) -> Scene:
    wanted: dict[str, object] = {"ram": RAM, "target": TARGET} | changes
    return make_scene(find_journey("jump"), arch=arch, **wanted)  # type: ignore[arg-type]


def changed_copy(folder: Path, arch: Arch, name: str, changes: Sequence[tuple[str, str]]) -> Path:
    source = resources.asm_dir() / ("i386" if arch.bits == 32 else "x86_64") / name
    text = source.read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
        text = text.replace(old, new)
    path = folder / f"my_{name}"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def scene_of() -> Callable[..., Scene]:
    """A scene of the journey jump on a small machine."""
    return small_scene


@pytest.fixture
def changed_stub(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a built-in stub with texts replaced, each of which must occur exactly once."""

    def change(arch: Arch, name: str, *changes: tuple[str, str]) -> Path:
        return changed_copy(tmp_path, arch, name, changes)

    return change
