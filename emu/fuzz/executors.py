"""Where batches run: in this process, in processes of this machine, or on a Dask cluster; all by one interface."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any
from urllib.parse import urlsplit

from emu.errors import FuzzError
from emu.workers import processes

_PATIENCE = 10
"""Seconds that a scheduler has to answer."""


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


class Cluster(Executor):
    """The workers of a Dask scheduler; a worker that is lost is Dask's to make good."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - of an optional dependency without types
        self._client = client
        self._executor = client.get_executor(pure=False)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401 - the interface
        """A future of the cluster's."""
        future: Future[Any] = self._executor.submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; it goes on without us."""
        del cancel_futures
        self._executor.shutdown(wait=wait)
        self._client.close()


def cluster(address: str) -> Executor:
    """The workers of the Dask scheduler at ``address``, as ``tcp://HOST:8786``; raises FuzzError."""
    try:
        from distributed import Client  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise FuzzError("Dask is not installed", where="--scheduler", hint="pip install 'kjump[cluster]'") from error
    place = urlsplit(address)
    try:
        if not place.hostname or not place.port:
            raise FuzzError("is no scheduler's address", where=address, hint="tcp://HOST:8786")
        socket.create_connection((place.hostname, place.port), _PATIENCE).close()
        return Cluster(Client(address, timeout=_PATIENCE))
    except (OSError, ValueError) as error:
        raise FuzzError(f"no scheduler answers: {error}", where=address, hint="dask scheduler, then workers") from error


def executor_for(jobs: int, scheduler: str) -> Executor:
    """What ``--jobs`` and ``--scheduler`` ask for."""
    if scheduler:
        return cluster(scheduler)
    return Inline() if jobs == 1 else processes(jobs)
