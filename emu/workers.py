"""Processes of this machine that share the work.

They are fresh ones, never forks: a machine's memory is shared with whoever was forked from its process, and so are the
parameters of the host code, so that two children that use a machine of their parent's change each other's runs.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def _start(then: Callable[..., None] | None, args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the business of whoever waits for the workers
    if then is not None:
        then(*args)


def processes(jobs: int, then: Callable[..., None] | None = None, args: tuple[Any, ...] = ()) -> ProcessPoolExecutor:
    """``jobs`` fresh processes, each of which calls ``then(*args)`` first; arguments and results are pickled."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(then, args))
