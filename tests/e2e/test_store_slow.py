"""The store is slow: each request takes seconds. The application does not: it commits at its own pace, the replica follows
with few, larger files, and nothing is logged, because nothing fails.
"""

from harness import outage
from harness.sql import fill, sync

DELAY = 1.5


def test_commits_do_not_wait_for_a_slow_store(start, through_proxy, in_s3, proxy, tmp_path):
    worker = start("python", through_proxy, env=outage.logged(tmp_path))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    before = proxy.counts()["PUT"]
    proxy.delay = DELAY
    assert outage.work(db, 600) < DELAY / 2
    outage.catch_up(db)
    assert proxy.counts()["PUT"] - before < 10, "commits that wait go out together"
    proxy.delay = 0
    outage.assert_caught_up(db, in_s3, tmp_path)
    assert outage.changes(tmp_path) == []
    assert set(proxy.stored().values()) == {1}
