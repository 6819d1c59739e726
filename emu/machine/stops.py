"""Why the engine came back from a run, and how far it came."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class StopKind(Enum):
    """Why :meth:`Engine.run` came back."""

    COUNT = "the count was reached"
    INTERCEPT = "an intercepted instruction is next"
    NEW_CODE = "a block was just translated, and is next"
    FAULT = "the instruction at RIP raised an exception, or a software interrupt just retired"
    BUS = "the engine could not fetch or access at this address"


@dataclass(frozen=True, slots=True)
class EngineStop:
    """``executed`` counts instructions and rep iterations that retired; ``vector``... describe a FAULT.

    ``software`` is true for INT n, INT3 and INTO, where RIP is ``next_rip`` already; ``trap`` for a #DB by TF, which
    comes behind an instruction that retired.
    """

    kind: StopKind
    executed: int
    vector: int = 0
    error_code: int = 0
    cr2: int = 0
    software: bool = False
    trap: bool = False
    next_rip: int = 0
    detail: str = ""
