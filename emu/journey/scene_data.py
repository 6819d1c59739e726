"""A scene as plain data, for files and for other processes: small, since a run repeats itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emu.journey.scene import Scene, find_journey, make_scene, parse_arch


def scene_json(scene: Scene) -> dict[str, Any]:
    """What :func:`scene_from` needs."""
    journey = scene.journey.path if scene.journey.path.is_absolute() else scene.journey.path.resolve()
    return {
        "journey": scene.journey.name if journey.parent.name == "kernels" else str(journey),
        "arch": str(scene.arch),
        "transfer": scene.transfer,
        "handoff": scene.handoff,
        "ram": scene.ram_text,
        "target": scene.target,
        "seed": scene.seed,
        "stubs": [str(path) for path in scene.stubs],
        "hostile": scene.hostile,
    }


def scene_from(data: Mapping[str, Any], *, strict: bool = True) -> Scene:
    """A scene from its JSON; raises KjumpError."""
    return make_scene(
        find_journey(data["journey"]),
        arch=parse_arch(data["arch"]),
        transfer=data["transfer"],
        handoff=data["handoff"],
        ram=data["ram"],
        target=data["target"],
        seed=int(data["seed"]),
        stubs=tuple(Path(name) for name in data["stubs"]),
        hostile=data["hostile"],
        strict=strict,
    )
