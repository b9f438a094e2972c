"""The disk with the folder of local state is full while the store is down, so that nothing can be kept for later.

The database, on another disk, works on; status says what is full; when there is space and a store again, replication heals
by itself, if need be by a copy of the database, and never by a replica that lacks something.
"""

import pytest

from harness import outage
from harness.small_disk import fill_up, small_disk
from harness.sql import fill, insert, status, sync
from harness.wait import until
from harness.worker import HostDied


@pytest.fixture
def state(tmp_path):
    """The folder of local state, on a small disk."""
    with small_disk(tmp_path / ".app.db-litestream", 2) as folder:
        yield folder


def start_primary(start, location, tmp_path):
    worker = start("python", location, env=outage.logged(tmp_path))
    return worker.open(location.primary(tmp_path / "app.db", sync_interval="50ms"))


def test_the_spool_is_full_while_the_store_is_down(state, start, through_proxy, in_s3, proxy, tmp_path):
    db = start_primary(start, through_proxy, tmp_path)
    fill(db)
    sync(db)
    proxy.refuse()
    filler = fill_up(state)
    for _ in range(20):
        insert(db, rows=500)
        db.run("PRAGMA wal_checkpoint(TRUNCATE)")
    until(lambda: "No space left" in status(db) + (tmp_path / "host.log").read_text(), 15, "it is told what is full")
    proxy.accept()
    filler.unlink()
    outage.assert_caught_up(db, in_s3, tmp_path)
    insert(db)
    outage.assert_caught_up(db, in_s3, tmp_path)


def test_a_full_disk_does_not_stop_replication_while_the_store_is_up(state, start, through_proxy, in_s3, tmp_path):
    """Nothing needs to be kept: the WAL is the buffer."""
    db = start_primary(start, through_proxy, tmp_path)
    fill(db)
    sync(db)
    fill_up(state)
    for _ in range(10):
        insert(db, rows=100)
        sync(db, 30)
    outage.assert_caught_up(db, in_s3, tmp_path)


def test_kill_9_with_a_full_disk(state, start, through_proxy, in_s3, proxy, tmp_path):
    db = start_primary(start, through_proxy, tmp_path)
    fill(db)
    sync(db)
    proxy.refuse()
    fill_up(state)
    for _ in range(5):
        insert(db, rows=500)
        db.run("PRAGMA wal_checkpoint(TRUNCATE)")
    db.worker.kill()
    proxy.accept()
    (state / "filler").unlink()
    again = start_primary(start, through_proxy, tmp_path)
    assert again.one("SELECT count(*) FROM t") == 200 + 5 * 500
    sync(again, 30)
    outage.assert_caught_up(again, in_s3, tmp_path)


def test_the_disk_of_the_database_is_full(start, through_proxy, in_s3, tmp_path):
    """SQLite refuses the transaction; it is not in the replica, and the ones before and after it are."""
    with small_disk(tmp_path / "disk", 4) as disk:
        worker = start("python", through_proxy)
        db = worker.open(through_proxy.primary(disk / "app.db", sync_interval="50ms"))
        fill(db)
        sync(db)
        filler = fill_up(disk)
        refused = 0
        for _ in range(5):
            try:
                insert(db, rows=300)
            except HostDied:
                raise
            except Exception as e:
                assert "full" in str(e), e
                refused += 1
        assert refused
        filler.unlink()
        insert(db, rows=3)
        sync(db, 30)
        outage.assert_caught_up(db, in_s3, tmp_path)
        db.close()
        worker.kill()
