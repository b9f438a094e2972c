"""The store throttles: 503 SlowDown, first for everything, then for every second request.

Requests become fewer instead of more; the application does not notice; all arrives, each object once.
"""

import itertools

from harness import outage
from harness.proxy import Status
from harness.sql import fill, sync
from harness.wait import until


def test_a_throttling_store_is_asked_less_often(start, through_proxy, in_s3, proxy, tmp_path):
    worker = start("python", through_proxy, env=outage.logged(tmp_path))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="20ms"))
    fill(db)
    sync(db)
    before = len(proxy.requests)
    proxy.fault = lambda request: Status(503, outage.SLOW_DOWN)
    assert outage.work(db) < 1
    until(lambda: outage.changes(tmp_path) == ["fails"], 15, "the log says so")
    assert len(proxy.requests) - before < 30
    turn = itertools.count()
    proxy.fault = lambda request: Status(503, outage.SLOW_DOWN) if next(turn) % 2 else None
    outage.assert_caught_up(db, in_s3, tmp_path)
    assert outage.work(db, 100) < 1
    outage.assert_caught_up(db, in_s3, tmp_path)
    assert set(proxy.stored().values()) == {1}
    assert outage.changes(tmp_path)[:2] == ["fails", "works"]
