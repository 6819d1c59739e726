"""Where batches run: in this process, in processes of this machine, or on a Dask cluster; all by one interface."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any

from emu.errors import FuzzError


class Inline(Executor):
    """Runs each call at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401 - the interface
        """A future that is done already."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it belongs to the future
            future.set_exception(error)
        return future


def _quiet_worker() -> None:
    """Ctrl-C is the campaign's business; its workers are ended by it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def processes(jobs: int) -> Executor:
    """``jobs`` fresh processes of this machine."""
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_quiet_worker)


def cluster(address: str) -> Executor:
    """The workers of the Dask scheduler at ``address``, as ``tcp://HOST:8786``; raises FuzzError."""
    try:
        from distributed import Client  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise FuzzError("Dask is not installed", where="--scheduler", hint="pip install 'kjump[cluster]'") from error
    try:
        client = Client(address, timeout=10)
        executor: Executor = client.get_executor(pure=False)
    except (OSError, ValueError) as error:
        raise FuzzError(f"no scheduler answers: {error}", where=address, hint="tcp://HOST:8786") from error
    return executor


def executor_for(jobs: int, scheduler: str) -> Executor:
    """What ``--jobs`` and ``--scheduler`` ask for."""
    if scheduler:
        return cluster(scheduler)
    return Inline() if jobs == 1 else processes(jobs)
