"""The store is down: connections are refused, for as long as it takes.

The application commits, checkpoints and closes as without us; commits wait on local disk; status names the endpoint. When
the store is back, everything goes out in order, and nobody has to ask for it. One line in the log says that it fails, and
one that it works again.
"""

import pytest

from harness import outage
from harness.sql import fill, insert, status, sync
from harness.wait import until
from harness.worker import SqlError


@pytest.fixture
def primary(start, through_proxy, tmp_path):
    worker = start("python", through_proxy, env=outage.logged(tmp_path))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    return db


def test_the_application_works_on_and_the_replica_catches_up(primary, through_proxy, in_s3, proxy, tmp_path):
    proxy.refuse()
    assert outage.work(primary) < 1
    until(lambda: proxy.endpoint in status(primary), 15, "status names the endpoint that fails")
    with pytest.raises(SqlError, match=str(proxy.port)):
        sync(primary, 0.5)
    proxy.accept()
    outage.assert_caught_up(primary, in_s3, tmp_path)
    outage.assert_told(tmp_path, "fails", "works")
    assert set(proxy.stored().values()) == {1}


def test_several_processes_come_and_go_meanwhile(primary, start, through_proxy, in_s3, proxy, tmp_path):
    proxy.refuse()
    outage.work(primary, 50)
    for n in range(3):
        worker = start("python", through_proxy)
        other = worker.open(through_proxy.primary(tmp_path / "app.db", close_timeout="0s"))
        insert(other, rows=100)
        worker.kill() if n == 1 else worker.end()
    proxy.accept()
    # What the others committed is not on its way yet: nothing has shown it to the publisher.
    sync(primary, 30)
    outage.assert_caught_up(primary, in_s3, tmp_path)


def test_a_primary_that_starts_during_the_outage(start, through_proxy, in_s3, proxy, tmp_path):
    proxy.refuse()
    worker = start("python", through_proxy, env=outage.logged(tmp_path))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    assert outage.work(db) < 1
    until(lambda: outage.changes(tmp_path) == ["fails"], 15, "the log says so")
    proxy.accept()
    outage.assert_caught_up(db, in_s3, tmp_path)
    outage.assert_told(tmp_path, "fails", "works")
