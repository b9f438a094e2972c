"""Several processes have a database open, and somebody asks one of them how replication stands.

Whichever is asked, it answers with what the process that publishes knows: the last transaction, its time, the lag, what
waits and the last error. A commit that was published is no lag; one that cannot be published is, everywhere. A
publisher that was stopped or killed is told, with what is known of it, and never waited for. `litestream_databases` lists
what all connections of the process have open, for those that may ask, and one query is fit for a health check in each of them.
"""

import json
import os
import signal
import time

import pytest

from harness import outage
from harness.proxy import Status
from harness.readme import blocks
from harness.sql import fill, insert, status, sync
from harness.wait import until
from harness.worker import SqlError

HEALTHY = "SELECT coalesce(min(last_error IS NULL AND lag < 60), 0) FROM litestream_status WHERE role IS NOT NULL"
ALL_HEALTHY = "SELECT coalesce(min(last_error IS NULL AND lag < 60), 0) FROM litestream_databases"


def row(db) -> dict:
    """The status of the connection's only database."""
    (row,) = json.loads(status(db))["databases"]
    return row


def position(db) -> tuple:
    found = row(db)
    return found.get("txid"), found.get("time"), found["lag"], found.get("last_error")


def two(start, location, tmp_path, **parameters):
    """A publisher with a filled database, and a standby."""
    uri = location.primary(tmp_path / "app.db", **parameters)
    publisher = start("python", location).open(uri)
    fill(publisher)
    sync(publisher)
    standby = start("python", location).open(uri)
    assert (row(publisher)["state"], row(standby)["state"]) == ("idle", "standby")
    return publisher, standby


def test_every_process_shows_the_publishers_position(start, location, tmp_path):
    publisher, standby = two(start, location, tmp_path)
    assert position(publisher) == position(standby)
    for db in (standby, publisher, standby):
        insert(db, rows=3)
        until(lambda: row(publisher)["txid"] == f"{location.last_txid():016x}" and row(publisher)["lag"] == 0, 10)
        until(lambda: position(standby) == position(publisher) and position(standby)[2:] == (0, None), 5,
              "the same position in both")
    for asked in ("litestream_txid()", "litestream_time()", "litestream_lag()"):
        # A commit that the publisher was told of and has not looked at yet counts as waiting, for some milliseconds.
        until(lambda: publisher.one(f"SELECT {asked}") == standby.one(f"SELECT {asked}"), 5, asked)
    for asked in ("litestream_txid", "litestream_time", "litestream_lag"):
        until(lambda: publisher.one(f"PRAGMA {asked}") == standby.one(f"PRAGMA {asked}") != "", 5, asked)


def test_lag_and_error_of_a_publisher_whose_store_fails(start, through_proxy, in_s3, proxy, tmp_path):
    publisher, standby = two(start, through_proxy, tmp_path, sync_interval="50ms")
    third = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db"))
    proxy.fault = lambda request: Status(403, outage.ACCESS_DENIED)
    insert(standby)
    began = time.monotonic()
    dbs = (publisher, standby, third)
    until(lambda: all("denied" in (row(db).get("last_error") or "").lower() for db in dbs), 15, "the error everywhere")
    before = [row(db)["lag"] for db in dbs]
    until(lambda: all(row(db)["lag"] > lag for db, lag in zip(dbs, before)), 15, "a lag that grows")
    assert max(row(db)["lag"] for db in dbs) <= time.monotonic() - began + 1
    assert {db.one(HEALTHY) for db in dbs} == {0}
    proxy.fault = lambda request: None
    outage.assert_caught_up(standby, in_s3, tmp_path)
    until(lambda: [position(db)[2:] for db in dbs] == [(0, None)] * 3, 15, "no lag and no error anywhere")
    assert {db.one(HEALTHY) for db in dbs} == {1}


def test_a_publisher_that_is_stopped_is_told_and_not_waited_for(start, in_folder, tmp_path):
    publisher, standby = two(start, in_folder, tmp_path)
    known = position(standby)
    os.kill(publisher.worker.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, publisher.worker.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        began = time.monotonic()
        found = row(standby)
        assert time.monotonic() - began < 2
        assert (found["txid"], found["time"]) == known[:2] != (None, None)
        assert f"process {publisher.worker.pid}" in found["last_error"] and "does not answer" in found["last_error"]
        insert(standby)
        until(lambda: row(standby)["lag"] > 0.5, 10, "the lag of a commit that nobody publishes")
        assert standby.one(HEALTHY) == 0
    finally:
        os.kill(publisher.worker.pid, signal.SIGCONT)
    last = f"{sync(standby):016x}"
    assert last > known[0]
    until(lambda: position(standby) == position(publisher) == (last, position(publisher)[1], 0, None), 10,
          "the publisher answers again")


def test_requests_beside_a_publisher_that_is_stopped_do_not_wait(start, in_folder, tmp_path):
    """It is told of more commits than its socket takes."""
    uri = in_folder.primary(tmp_path / "app.db", close_timeout="40s")
    publisher = start("python", in_folder).open(uri)
    fill(publisher)
    sync(publisher)
    host = start("python", in_folder)
    os.kill(publisher.worker.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, publisher.worker.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        began = time.monotonic()
        for request in range(20):
            db = host.open(uri)
            insert(db) if request % 3 else db.rows("SELECT count(*) FROM t")
            db.close()
        assert time.monotonic() - began < 40
    finally:
        os.kill(publisher.worker.pid, signal.SIGCONT)
    sync(publisher)
    outage.assert_caught_up(publisher, in_folder, tmp_path)


def test_a_publisher_that_was_killed_is_replaced_by_who_is_asked(start, location, tmp_path):
    publisher, standby = two(start, location, tmp_path)
    insert(standby)
    sync(standby)
    known = position(standby)
    publisher.worker.kill()
    until(lambda: row(standby)["state"] == "idle", 5, "this process publishes")
    assert position(standby)[:2] == known[:2] != (None, None)
    assert standby.one(HEALTHY) == 1


def test_a_connection_that_just_opened_does_not_say_starting(start, in_folder, tmp_path):
    uri = in_folder.primary(tmp_path / "app.db")
    first = start("python", in_folder).open(uri)
    assert row(first)["state"] == "empty"
    fill(first)
    sync(first)
    for worker in (first.worker, start("python", in_folder)):
        found = row(worker.open(uri, "second"))
        assert found["state"] in ("idle", "standby") and found["txid"] == f"{in_folder.last_txid():016x}", found
    first.worker.kill()
    found = row(start("python", in_folder).open(uri))
    assert found["state"] in ("idle", "standby") and found["txid"] == f"{in_folder.last_txid():016x}", found


def test_all_databases_of_the_process(start, in_s3, in_folder, tmp_path):
    worker = start("python", in_s3)
    app = worker.open(in_s3.primary(tmp_path / "app.db"), "app")
    fill(app)
    other = worker.open(in_folder.primary(tmp_path / "other.db"), "other")
    fill(other)
    sync(app), sync(other)
    reader = worker.open(in_s3.replica(), "reader")
    reader.one("SELECT count(*) FROM t")
    monitor = worker.open(":memory:", "monitor")
    # What other connections have open is not for everybody who runs SQL.
    with pytest.raises(SqlError, match="did not load litestream_vfs itself"):
        monitor.rows("SELECT * FROM litestream_databases")
    monitor.load()
    found = monitor.rows("SELECT path, role, url, state, last_error FROM litestream_databases")
    assert found == [
        [str(tmp_path / "app.db"), "primary", in_s3.url, "idle", None],
        [str(tmp_path / "other.db"), "primary", in_folder.url, "idle", None],
        [None, "replica", in_s3.url, "following", None],
    ]
    assert monitor.one(ALL_HEALTHY) == 1
    (in_folder.folder).rename(tmp_path / "away")
    in_folder.folder.write_text("not a folder")
    insert(other)
    until(lambda: monitor.one(ALL_HEALTHY) == 0, 15, "one of them is not well")
    assert app.one(HEALTHY) == 1
    in_folder.folder.unlink()
    (tmp_path / "away").rename(in_folder.folder)
    until(lambda: monitor.one(ALL_HEALTHY) == 1, 40, "all are well again")
    other.close(), reader.close()
    assert monitor.one("SELECT count(*) FROM litestream_databases") == 1
    app.close()
    assert monitor.one("SELECT count(*) FROM litestream_databases") == 0
    assert monitor.one(ALL_HEALTHY) == 0


def test_a_health_check_is_not_disturbed_by_what_failed_elsewhere(start, in_folder, tmp_path):
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    fill(db)
    sync(db)
    with pytest.raises(SqlError):
        db.worker.open("file:x.db?vfs=litestream&replica=nowhere://", "x").rows("SELECT 1")
    assert json.loads(status(db))["failures"] and db.one(HEALTHY) == 1


def test_the_queries_are_those_of_the_readme():
    text = " ".join(" ".join(block.text.split()) for block in blocks())
    assert f"{HEALTHY};" in text and f"{ALL_HEALTHY};" in text
