"""Of two replicas one is dead: the other is as if it were alone, and the dead one is sent what changed when it is back.

The program commits, the other replica is fresh, the disk that is used is bounded, and `litestream_sync` says which of
them is not there and why; with `sync_replicas=any` it does not wait for the dead one.
"""

import re
import time

import pytest

from harness import two_replicas
from harness.several import assert_each_is, bytes_in, primary_of, states
from harness.sql import fill, insert, restore, sync, txid
from harness.state import state_folder
from harness.wait import until
from harness.worker import SqlError
from test_spool_limit import waiting_bytes

QUICK = dict(sync_interval="50ms")


def wait_for_all(db) -> None:
    until(lambda: all(row["lag"] == 0 for row in states(db).values()), 30, "all is in both")


def opened(start, tmp_path, *locations, rows=3000, **parameters):
    credentials = {name: value for location in locations for name, value in location.env.items()}
    db = start("python", env=credentials).open(primary_of(tmp_path / "app.db", *locations, **QUICK | parameters))
    fill(db, rows=rows)
    db.one("SELECT litestream_sync()")
    wait_for_all(db)
    # What follows is in a generation of the WAL of its own.
    db.run("PRAGMA wal_checkpoint(TRUNCATE)")
    insert(db)
    db.one("SELECT litestream_sync()")
    wait_for_all(db)
    return db


def test_the_other_goes_on_and_the_dead_one_is_sent_what_changed(start, through_proxy, in_s3, in_folder, proxy, tmp_path):
    db = opened(start, tmp_path, through_proxy, in_folder, rows=15000, spool_limit="1MiB", sync_replicas="any")
    in_replica = bytes_in(in_s3)
    proxy.refuse()
    longest, most = 0.0, 0
    for n in range(150):
        db.run(f"UPDATE t SET data = randomblob(400) WHERE id > {n % 3 * 100} AND id <= {n % 3 * 100 + 100}")
        if n % 10 == 9:
            began = time.monotonic()
            assert db.one("SELECT litestream_sync()") is None, "it was met without the first replica"
            longest = max(longest, time.monotonic() - began)
            db.run("PRAGMA wal_checkpoint(TRUNCATE)")
            most = max(most, waiting_bytes(state_folder(tmp_path / "app.db")))
    assert longest < 2, "the dead replica held up the other one"
    assert most < 4 << 20
    rows = states(db)
    assert rows[in_folder.url]["state"] == "idle" and "last_error" not in rows[in_folder.url]
    dead = rows[in_s3.url]
    assert str(proxy.port) in dead["last_error"] and dead["lag"] > 0
    assert_each_is(db, tmp_path, in_folder, name="meanwhile")
    proxy.accept()
    until(lambda: states(db)[in_s3.url]["state"] == "idle", 30, "it is back")
    wait_for_all(db)
    assert txid(db.one("SELECT litestream_txid()")) == in_s3.last_txid()
    assert_each_is(db, tmp_path, in_s3, in_folder)
    sent, database = bytes_in(in_s3) - in_replica, (tmp_path / "app.db").stat().st_size
    print(f"{sent} bytes were sent to the one that was dead, of a database of {database}")
    # What changed, and the points in time of the outage as far as `spool_limit` had them.
    assert sent < (1 << 20) + 300_000 < database / 4, "more was sent than the pages that changed"


def test_sync_names_each_replica_that_is_not_there(start, through_proxy, in_s3, in_folder, proxy, tmp_path):
    db = opened(start, tmp_path, through_proxy, in_folder)
    proxy.refuse()
    insert(db)
    began = time.monotonic()
    with pytest.raises(SqlError) as late:
        sync(db, 1)
    assert 0.9 < time.monotonic() - began < 5
    assert in_s3.url in str(late.value) and str(proxy.port) in str(late.value) and in_folder.url not in str(late.value)
    assert states(db)[in_folder.url]["lag"] == 0
    # Another process is told the same.
    standby = start("python", in_s3).open(primary_of(tmp_path / "app.db", through_proxy, in_folder, **QUICK))
    insert(standby)
    with pytest.raises(SqlError) as late:
        sync(standby, 1)
    assert in_s3.url in str(late.value) and in_folder.url not in str(late.value)
    rows = states(standby)
    assert rows[in_folder.url]["lag"] < 0.5 and "last_error" not in rows[in_folder.url]
    assert rows[in_s3.url]["lag"] > 1 and str(proxy.port) in rows[in_s3.url]["last_error"]
    proxy.accept()
    assert sync(standby, 30) == in_s3.last_txid()
    assert_each_is(standby, tmp_path, in_s3, in_folder)


@pytest.mark.parametrize("number", ["1", "any"])
def test_a_number_of_them_is_enough(start, through_proxy, in_s3, in_folder, proxy, tmp_path, number):
    db = opened(start, tmp_path, in_folder, through_proxy, sync_replicas=number)
    uri = primary_of(tmp_path / "app.db", in_folder, through_proxy, **QUICK, sync_replicas=number)
    standby = start("python", in_s3).open(uri)
    proxy.refuse()
    for connection in (db, standby):
        insert(connection)
        assert sync(connection, 5) == in_folder.last_txid(), "the first one is there"
    proxy.accept()


def test_it_is_dead_when_the_database_is_opened_and_closed(start, through_proxy, in_s3, in_folder, proxy, tmp_path):
    opened(start, tmp_path, through_proxy, in_folder).close()
    uri = primary_of(tmp_path / "app.db", through_proxy, in_folder, **QUICK)
    proxy.refuse()
    worker = start("python", in_s3)
    for _ in range(3):
        began = time.monotonic()
        db = worker.open(uri)
        insert(db)
        # Until it has failed once it may be waited for; the other one is not forgotten for that.
        until(lambda: "last_error" in states(db)[in_s3.url], 10)
        db.close()
        assert time.monotonic() - began < 8
        console = worker.open(":memory:", "console").load()
        path = tmp_path / f"{time.monotonic_ns()}.db"
        restore(console, in_folder, path)
        rows = worker.open(tmp_path / "app.db", "plain").one("SELECT count(*) FROM t")
        assert worker.open(path, "restored").one("SELECT count(*) FROM t") == rows
    proxy.accept()
    db = worker.open(uri)
    assert sync(db) == in_s3.last_txid()
    assert_each_is(db, tmp_path, in_s3, in_folder)


def test_a_slow_one_does_not_slow_the_other(start, through_proxy, in_s3, in_folder, proxy, tmp_path):
    """The variation: each of its answers takes long, and it is silent now and then."""
    db = opened(start, tmp_path, through_proxy, in_folder, sync_replicas="any")
    proxy.delay = 1.0
    longest = 0.0
    for _ in range(30):
        insert(db)
        began = time.monotonic()
        db.one("SELECT litestream_sync()")
        longest = max(longest, time.monotonic() - began)
    assert longest < 0.9, "the slow replica was waited for"
    proxy.delay = 0.0
    wait_for_all(db)
    assert_each_is(db, tmp_path, in_s3, in_folder)


@pytest.mark.parametrize("dead", [False, True])
def test_mixed_work_with_both_and_with_one_dead(in_s3, tmp_path, dead):
    """In short; `scripts/two_replicas.py` runs it for as long as one likes."""
    report = two_replicas.run(10, 3, in_s3, tmp_path, dead, say=print)
    assert report["transactions"] > 50
    if dead:
        # What changed, and the points in time of the outage as far as `spool_limit` had them.
        assert report["changed"] < report["database"] / 2
        assert report["sent_to_s3"] < 1.1 * report["changed"] + (5 << 20)
