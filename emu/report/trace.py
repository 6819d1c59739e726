"""The trace file: every event of a run, one JSON object a line.  Equal runs give equal files, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from typing import TextIO

from emu.journey.result import RunResult
from emu.machine.events import Event


def event_line(event: Event) -> str:
    """One event as a line of JSON: its type, position, tick, pc and its own fields."""
    data: dict[str, object] = {"type": type(event).__name__, "n": event.position.n}
    if event.position.k:
        data["k"] = event.position.k
    data |= {"tick": event.tick, "pc": f"{event.pc:#x}"}
    for field in fields(event):
        if field.name not in ("position", "tick", "pc"):
            data[field.name] = getattr(event, field.name)
    return json.dumps(data, separators=(",", ":"))


def write_trace(file: TextIO, result: RunResult, events: Iterable[Event]) -> None:
    """A first line that names the scene, then the events."""
    scene = result.scene
    head = {
        "kjump": 1,
        "journey": scene.journey.name,
        "arch": str(scene.arch),
        "transfer": scene.transfer,
        "handoff": scene.handoff,
        "seed": scene.seed,
        "ram": scene.ram,
    }
    file.write(json.dumps(head, separators=(",", ":")) + "\n")
    file.writelines(event_line(event) + "\n" for event in events)
