"""Idle costs nothing, once the history of what was written is done.

Counted are requests, wake-ups and bytes read, not CPU time: where a hypervisor takes memory back that lay idle, a
process that only sleeps 10 s and calls stat(2) is charged up to 12 ms for each time it wakes.
"""

import time

import pytest

from harness import proc
from harness.sql import fill, sync
from harness.wait import until

SECONDS = 60
SHORT = dict(levels="1s,2s", snapshot_interval="3s", snapshot_retention="1s", l0_retention="1s")


@pytest.mark.slow
def test_an_idle_primary_asks_nothing_of_the_store_and_hardly_wakes(start, host, through_proxy, proxy, tmp_path):
    worker = start(host, through_proxy)
    primary = worker.open(through_proxy.primary(tmp_path / "app.db", **SHORT))
    fill(primary)
    sync(primary)
    until(lambda: through_proxy.files(2) and len(through_proxy.files(0)) == 1, 20, "levels, and their retention")
    until(lambda: time.monotonic() - proxy.requests[-1].at > 4, 20, "the end of the history")
    before, wake_ups, bytes_read = len(proxy.requests), proc.wake_ups(worker.pid), proc.bytes_read(worker.pid)
    time.sleep(SECONDS)  # the measurement itself
    assert [f"{r.method} {r.target}" for r in proxy.requests[before:]] == []
    # The first look after the last commit may read the state, some hundred bytes.
    assert proc.bytes_read(worker.pid) - bytes_read < 4096
    # A look for foreign writers every 10 s (`watch_interval`), each of a few steps of the timer.
    after = proc.wake_ups(worker.pid)
    assert sum(count - wake_ups.get(thread, 0) for thread, count in after.items()) <= SECONDS
