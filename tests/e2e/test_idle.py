"""Idle costs nothing."""

import time

import pytest

from harness import proc
from harness.sql import fill, sync

SECONDS = 60


@pytest.mark.slow
def test_an_idle_primary_asks_nothing_of_the_store_and_of_the_cpu(start, host, through_proxy, proxy, tmp_path):
    worker = start(host, through_proxy)
    primary = worker.open(through_proxy.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    before, cpu = len(proxy.requests), proc.cpu_seconds(worker.pid)
    time.sleep(SECONDS)  # the measurement itself
    assert [f"{r.method} {r.target}" for r in proxy.requests[before:]] == []
    assert proc.cpu_seconds(worker.pid) - cpu <= 0.02
