"""A database gets one more replica, or one less, when it is opened again.

A further one gets a full copy while programs write, in this process and in others, and the replicas that were there before
get what is committed meanwhile as if nothing had happened. The local state of one that is removed goes; the replica itself
stays what it was, and is gone back to.
"""

import time

import pytest

from harness.location import Location
from harness.several import assert_each_is, bytes_in, content, primary_of, states
from harness.sql import fill, insert, restore, sync
from harness.state import replica_states
from harness.wait import until
from harness.worker import SqlError

QUICK = dict(sync_interval="50ms", close_timeout="30s")


def test_a_fourth_is_added_while_programs_write(start, through_proxy, in_s3, proxy, tmp_path):
    folders = [Location.file(tmp_path / name) for name in ("one", "two", "three")]
    db = start("python", in_s3).open(primary_of(tmp_path / "app.db", *folders, **QUICK))
    fill(db, rows=5000)
    sync(db)
    db.worker.end()
    last = [location.last_txid() for location in folders]
    uri = primary_of(tmp_path / "app.db", *folders, through_proxy, **QUICK)
    # The copy takes a while: each answer does.
    proxy.delay = 0.3
    db, other = (start("python", in_s3).open(uri) for _ in range(2))
    is_new = through_proxy.url
    copying, written = 0, 0
    deadline = time.monotonic() + 30
    while states(db)[is_new]["state"] != "idle" or written < 20:
        assert time.monotonic() < deadline
        insert(db), insert(other)
        written += 1
        rows = states(other)
        copying += rows[is_new].get("txid") is None
        assert "last_error" not in rows[is_new]
    assert copying, "the test must see the copy on its way"
    proxy.delay = 0.0
    sync(other, 30)
    assert_each_is(other, tmp_path, *folders, in_s3)
    database = (tmp_path / "app.db").stat().st_size
    for location, txid in zip(folders, last):
        # However many commits there were, each is small.
        largest = max(file.size for file in location.files() if file.max > txid)
        assert largest < database / 4, "one that was there was sent the database again"


def test_the_others_get_commits_while_a_further_one_is_silent(start, through_proxy, in_s3, in_folder, proxy, tmp_path):
    """The variation: the copy does not get on at all."""
    db = start("python", in_s3).open(in_folder.primary(tmp_path / "app.db", **QUICK))
    fill(db)
    db.close()
    proxy.refuse()
    db = db.worker.open(primary_of(tmp_path / "app.db", in_folder, through_proxy, sync_replicas="any", **QUICK))
    for _ in range(10):
        insert(db)
        assert sync(db, 10) == in_folder.last_txid()
        db.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert_each_is(db, tmp_path, in_folder, name="meanwhile")
    proxy.accept()
    until(lambda: states(db)[in_s3.url]["state"] == "idle", 30, "the copy")
    db.one("SELECT litestream_sync()")
    until(lambda: states(db)[in_s3.url]["lag"] == 0, 30, "all of it")
    assert_each_is(db, tmp_path, in_folder, in_s3)


def test_the_state_of_one_that_is_removed_goes(start, in_s3, in_folder, tmp_path):
    worker = start("python", in_s3)
    db = worker.open(primary_of(tmp_path / "app.db", in_s3, in_folder, **QUICK))
    fill(db, rows=2000)
    sync(db)
    db.close()
    assert len(replica_states(tmp_path / "app.db")) == 2
    left = {f.path: f.path.read_bytes() for f in in_folder.files()}
    db = worker.open(primary_of(tmp_path / "app.db", in_s3, **QUICK))
    (state,) = replica_states(tmp_path / "app.db")
    assert list(states(db)) == [in_s3.url]
    insert(db)
    sync(db)
    assert {f.path: f.path.read_bytes() for f in in_folder.files()} == left
    db.close()
    # It is named again: it is sent what changed since.
    before = bytes_in(in_folder)
    db = worker.open(primary_of(tmp_path / "app.db", in_s3, in_folder, **QUICK))
    insert(db)
    sync(db, 30)
    assert len(replica_states(tmp_path / "app.db")) == 2 and state in replica_states(tmp_path / "app.db")
    assert_each_is(db, tmp_path, in_s3, in_folder)
    assert bytes_in(in_folder) - before < (tmp_path / "app.db").stat().st_size / 2


def test_one_is_replaced_by_another(start, in_s3, in_folder, tmp_path):
    worker = start("python", in_s3)
    db = worker.open(primary_of(tmp_path / "app.db", in_s3, in_folder, **QUICK))
    fill(db)
    db.close()
    new = Location.file(tmp_path / "new")
    db = worker.open(primary_of(tmp_path / "app.db", new, in_s3, **QUICK))
    insert(db)
    assert sync(db) == new.last_txid()
    assert_each_is(db, tmp_path, in_s3, new)
    assert len(replica_states(tmp_path / "app.db")) == 2


def test_one_that_holds_another_database_is_not_taken(start, in_s3, in_folder, tmp_path):
    worker = start("python", in_s3)
    other = worker.open(in_folder.primary(tmp_path / "other.db", **QUICK))
    fill(other, rows=50)
    sync(other)
    other.close()
    theirs = {f.path: f.path.read_bytes() for f in in_folder.files()}
    db = worker.open(in_s3.primary(tmp_path / "app.db", **QUICK))
    fill(db)
    db.close()
    db = worker.open(primary_of(tmp_path / "app.db", in_s3, in_folder, **QUICK))
    insert(db)
    with pytest.raises(SqlError, match="holds another database"):
        sync(db)
    until(lambda: states(db)[in_s3.url]["lag"] == 0, 15, "the first one has it")
    assert states(db)[in_folder.url]["state"] == "stopped"
    assert_each_is(db, tmp_path, in_s3)
    assert {f.path: f.path.read_bytes() for f in in_folder.files()} == theirs


def test_a_restored_database_goes_on_with_all_its_replicas(start, in_s3, in_folder, tmp_path):
    """A container with an empty disk: restored from one of them, opened with both."""
    worker = start("python", in_s3)
    db = worker.open(primary_of(tmp_path / "app.db", in_s3, in_folder, **QUICK))
    fill(db, rows=1000)
    sync(db)
    db.close()
    before = [bytes_in(location) for location in (in_s3, in_folder)]
    console = worker.open(":memory:", "console").load()
    restore(console, in_s3, tmp_path / "new.db")
    db = worker.open(primary_of(tmp_path / "new.db", in_s3, in_folder, **QUICK))
    insert(db)
    assert sync(db) == in_s3.last_txid()
    assert_each_is(db, tmp_path, in_s3, in_folder)
    for location, size in zip((in_s3, in_folder), before):
        assert bytes_in(location) - size < (tmp_path / "new.db").stat().st_size / 2
    assert content(db, tmp_path / "restored.0.ours.db") == db.content()
