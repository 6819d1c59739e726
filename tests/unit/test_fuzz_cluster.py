"""The same campaign on a Dask cluster of two local workers, one of which is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client, LocalCluster

from emu.errors import FuzzError
from emu.fuzz.batch import Plan, close_worlds
from emu.fuzz.campaign import Totals
from emu.fuzz.executors import Inline, cluster
from emu.fuzz.runner import Campaign, Limits
from emu.journey.scene import find_journey, make_scene
from emu.journey.scene_data import scene_json

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PLAN = Plan("segments", scene_json(make_scene(find_journey("jump"), ram="24M", target="2M@16M")), 3)
CASES = 900


def essence(totals: Totals) -> dict[str, Any]:
    stats = {name: value for name, value in totals.to_json().items() if "second" not in name}
    return stats | {"corpus": totals.corpus, "covered": totals.covered}


@pytest.fixture
def two_workers() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as found:
        yield found


def test_a_killed_worker_s_batches_are_done_again_and_none_is_counted_twice(two_workers: LocalCluster) -> None:
    address = two_workers.scheduler_address
    killed: list[int] = []
    running = threading.Event()

    def kill() -> None:
        running.wait(60)
        with Client(address) as client:
            pids = list(client.run(os.getpid).values())
        os.kill(pids[0], signal.SIGKILL)
        killed.append(pids[0])

    killer = threading.Thread(target=kill)
    killer.start()

    def tell(_totals: Totals, done: int) -> None:
        if done and not killed:
            running.set()
            time.sleep(0.2)

    campaign = Campaign(PLAN, lambda: cluster(address), tell=tell)
    totals = campaign.run(Limits(CASES))
    running.set()
    killer.join()
    assert killed
    assert totals.cases == CASES == sum(totals.tally.values())
    alone = Campaign(PLAN, Inline).run(Limits(CASES))
    close_worlds()
    assert essence(totals) == essence(alone)


def test_a_scheduler_that_is_not_there_is_said_so() -> None:
    with pytest.raises(FuzzError, match="no scheduler answers"):
        cluster("tcp://127.0.0.1:9")
