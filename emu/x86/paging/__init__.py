"""Paging of every mode, without an engine: what tables mean, whether an access would fault and why.

Linear and physical addresses are plain integers here; each docstring says which is meant.
"""

from emu.x86.paging.mappings import Mapping, mappings, merge, translate
from emu.x86.paging.modes import (
    Entry,
    Level,
    PagingMode,
    PagingState,
    ReadEntry,
    decode_entry,
    is_canonical,
    is_canonical_base,
    mode_of,
)
from emu.x86.paging.walk import (
    NOT_CANONICAL,
    Access,
    NotCanonical,
    PageFault,
    Reached,
    Rights,
    Step,
    Walk,
    admit,
    descend,
    explain,
    judge,
    reach,
    walk,
)

__all__ = [
    "NOT_CANONICAL",
    "Access",
    "Entry",
    "Level",
    "Mapping",
    "NotCanonical",
    "PageFault",
    "PagingMode",
    "PagingState",
    "Reached",
    "ReadEntry",
    "Rights",
    "Step",
    "Walk",
    "admit",
    "decode_entry",
    "descend",
    "explain",
    "is_canonical",
    "is_canonical_base",
    "judge",
    "mappings",
    "merge",
    "mode_of",
    "reach",
    "translate",
    "walk",
]
