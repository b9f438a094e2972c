"""Somebody removes the folder of local state, or what is in it, while the database is open: it looks like rubbish.

The database works on, status and the log tell of what could not be kept, and replication heals: at the latest by a copy of
the database. The replica never lacks a commit.
"""

import shutil

import pytest

from harness import outage
from harness.sql import fill, insert, sync
from harness.state import replica_state


@pytest.fixture
def state(tmp_path):
    return tmp_path / ".app.db-litestream"


@pytest.mark.parametrize("what", ["the folder", "the spool", "the state file"])
@pytest.mark.parametrize("when", ["while the store is up", "while commits wait"])
def test_local_state_is_removed(what, when, state, start, through_proxy, in_s3, proxy, tmp_path):
    worker = start("python", through_proxy, env=outage.logged(tmp_path))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    if when == "while commits wait":
        proxy.refuse()
        for _ in range(5):
            insert(db, rows=100)
            db.run("PRAGMA wal_checkpoint(TRUNCATE)")
    if what == "the state file":
        (replica_state(tmp_path / "app.db") / "vfs.json").unlink()
    else:
        shutil.rmtree(state if what == "the folder" else replica_state(tmp_path / "app.db") / "spool")
    for _ in range(5):
        insert(db, rows=100)
        db.run("PRAGMA wal_checkpoint(TRUNCATE)")
    if when == "while commits wait":
        proxy.accept()
    outage.assert_caught_up(db, in_s3, tmp_path)
    # And the next process finds its way.
    insert(db, rows=10)
    worker.kill()
    again = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db"))
    insert(again, rows=10)
    sync(again, 30)
    outage.assert_caught_up(again, in_s3, tmp_path)


def test_the_folder_is_removed_while_the_database_is_closed(state, start, through_proxy, in_s3, tmp_path):
    uri = through_proxy.primary(tmp_path / "app.db")
    worker = start("python", through_proxy)
    db = worker.open(uri)
    fill(db)
    db.close()
    shutil.rmtree(state)
    db = worker.open(uri)
    insert(db)
    sync(db, 30)
    outage.assert_caught_up(db, in_s3, tmp_path)
