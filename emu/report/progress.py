"""A sign of life for work that takes longer than a second."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.status import Status


def progress(text: str) -> AbstractContextManager[Status | None]:
    """A spinner on a terminal, nothing where stderr is not one."""
    if not sys.stderr.isatty():
        return nullcontext(None)
    return Status(text, console=Console(stderr=True), spinner="line")
