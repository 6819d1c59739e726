"""What a machine made of an image: how it ended, all of its memory, what it printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from emu.oracle.image import DONE, Placed, collector

TIME_LIMIT = 180.0
"""Seconds of the host's after which a run is taken to hang."""


class Ended(Enum):
    """How a run ended; UNABLE says something of the machine, not of the code."""

    DONE = "reached its end"
    RESET = "triple fault"
    HUNG = "did not end"
    FAILED = "the machine gave up"
    UNABLE = "the machine cannot do it"


@dataclass(frozen=True, slots=True)
class Run:
    """``read`` gives bytes at a physical address of the finished machine; ``why`` explains what is not DONE."""

    machine: str
    ended: Ended
    read: Callable[[int, int], bytes]
    console: str
    seconds: float
    why: str = ""


def registers(run: Run, placed: Placed) -> Mapping[str, int] | None:
    """The processor state that the collector of a case wrote down; None where it was never reached."""
    case = placed.case
    program = collector(case.arch, case.end)
    raw = run.read(placed.find(case.end_phys), len(program.code))
    word = case.arch.word

    def field(name: str, size: int, offset: int = 0) -> int:
        at = program.symbols[f"result_{name}"] - program.org + offset
        return int.from_bytes(raw[at : at + size], "little")

    if field("done", 4) != DONE:
        return None
    state: dict[str, int] = {}
    for symbol in program.symbols:
        name = symbol.removeprefix("result_")
        if not symbol.startswith("result_") or name in ("begin", "end", "done", "fpu"):
            continue
        if name in ("gdtr", "idtr"):
            state[f"{name}.limit"], state[f"{name}.base"] = field(name, 2), field(name, word, 2)
        else:
            state[name] = field(name, 2 if name in _SELECTORS else word)
    at = program.symbols["result_fpu"] - program.org
    return state | _fpu(raw[at : at + 512], 16 if word == 8 else 8)


_SELECTORS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")


def _fpu(image: bytes, xmm: int) -> dict[str, int]:
    """FXSAVE's area (SDM 1 10.5.1), without the pointers to the last x87 instruction."""
    state = {
        "fcw": int.from_bytes(image[0:2], "little"),
        "fsw": int.from_bytes(image[2:4], "little"),
        "ftw": image[4],
        "mxcsr": int.from_bytes(image[24:28], "little"),
    }
    state |= {f"st({i})": int.from_bytes(image[32 + 16 * i : 42 + 16 * i], "little") for i in range(8)}
    return state | {f"xmm{i}": int.from_bytes(image[160 + 16 * i : 176 + 16 * i], "little") for i in range(xmm)}
