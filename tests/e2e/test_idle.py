"""Idle costs nothing, once the history of what was written is done."""

import time

import pytest

from harness import proc
from harness.sql import fill, sync
from harness.wait import until

SECONDS = 60
SHORT = dict(levels="1s,2s", snapshot_interval="3s", snapshot_retention="1s", l0_retention="1s")


@pytest.mark.slow
def test_an_idle_primary_asks_nothing_of_the_store_and_of_the_cpu(start, host, through_proxy, proxy, tmp_path):
    worker = start(host, through_proxy)
    primary = worker.open(through_proxy.primary(tmp_path / "app.db", **SHORT))
    fill(primary)
    sync(primary)
    until(lambda: through_proxy.files(2) and len(through_proxy.files(0)) == 1, 20, "levels, and their retention")
    until(lambda: time.monotonic() - proxy.requests[-1].at > 4, 20, "the end of the history")
    before, cpu = len(proxy.requests), proc.cpu_seconds(worker.pid)
    time.sleep(SECONDS)  # the measurement itself
    assert [f"{r.method} {r.target}" for r in proxy.requests[before:]] == []
    assert proc.cpu_seconds(worker.pid) - cpu <= 0.02
