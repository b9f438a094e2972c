"""Idle costs nothing, once the history of what was written is done.

Next to it a bare process does nothing but look at the files as often: where a hypervisor takes memory back that
lay idle, even that is charged up to 12 ms of CPU for each time it wakes.
"""

import subprocess
import time

import pytest

from harness import proc
from harness.paths import SYSTEM_PYTHON
from harness.sql import fill, sync
from harness.wait import until

SECONDS = 60
EVERY = 10  # the default of `watch_interval`
BARE = f"""
import os, sys, time
began = time.process_time()
for _ in range({SECONDS // EVERY}):
    time.sleep({EVERY})
    os.stat(sys.argv[1]), os.stat(sys.argv[1] + "-wal")
print(time.process_time() - began)
"""
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
    wake_ups, bytes_read = proc.wake_ups(worker.pid), proc.bytes_read(worker.pid)
    bare = subprocess.run([SYSTEM_PYTHON, "-c", BARE, tmp_path / "app.db"], check=True, stdout=subprocess.PIPE, text=True)
    assert [f"{r.method} {r.target}" for r in proxy.requests[before:]] == []
    # The first look after the last commit may read the state, some hundred bytes.
    assert proc.bytes_read(worker.pid) - bytes_read < 4096
    # Each look is a few steps of the timer.
    after = proc.wake_ups(worker.pid)
    assert sum(count - wake_ups.get(thread, 0) for thread, count in after.items()) <= SECONDS
    cpu, bare_cpu = proc.cpu_seconds(worker.pid) - cpu, float(bare.stdout)
    print(f"{cpu:.2f} s of CPU, the bare process {bare_cpu:.4f} s")
    assert cpu <= 0.02 + 20 * bare_cpu
