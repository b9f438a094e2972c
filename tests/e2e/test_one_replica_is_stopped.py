"""Of three replicas one is taken by another primary: its replication stops, and the other two go on.

Somebody copied the database with its state to another machine and opened it there with one of the three URLs.
"""

import json
import shutil

import pytest

from harness.location import Location
from harness.several import assert_each_is, primary_of, states
from harness.sql import fill, insert, sync, txid
from harness.wait import until
from harness.worker import SqlError

QUICK = dict(sync_interval="50ms", close_timeout="30s")


@pytest.fixture
def taken(start, in_s3, in_folder, tmp_path):
    """A primary of three replicas, of which another one took the second, and that third one."""
    third = Location.file(tmp_path / "third")
    db = start("python", in_s3).open(primary_of(tmp_path / "app.db", in_s3, in_folder, third, **QUICK))
    fill(db)
    sync(db)
    shutil.copy(tmp_path / "app.db", tmp_path / "other.db")
    for suffix in ("-wal",):
        shutil.copy(tmp_path / f"app.db{suffix}", tmp_path / f"other.db{suffix}")
    shutil.copytree(tmp_path / ".app.db-litestream", tmp_path / ".other.db-litestream",
                    ignore=shutil.ignore_patterns("*.sock"))
    other = start("python", in_s3).open(primary_of(tmp_path / "other.db", in_folder, **QUICK))
    insert(other, rows=3)
    sync(other)
    other.close()
    insert(db, rows=2)
    until(lambda: states(db)[in_folder.url]["state"] == "stopped", 15, "it is stopped")
    return db, third


def test_the_other_two_go_on(start, in_s3, in_folder, taken, tmp_path):
    db, third = taken
    theirs = {f.path: f.path.read_bytes() for f in in_folder.files()}
    for _ in range(5):
        insert(db, rows=2)
        with pytest.raises(SqlError) as refused:
            sync(db, 20)
        assert in_folder.url in str(refused.value) and "another primary" in str(refused.value)
    rows = states(db)
    until(lambda: all(states(db)[r.url]["lag"] == 0 for r in (in_s3, third)), 15, "the others are there")
    assert [row["state"] for row in rows.values()].count("stopped") == 1
    assert "litestream_resume('force'" in rows[in_folder.url]["last_error"]
    assert_each_is(db, tmp_path, in_s3, third)
    assert {f.path: f.path.read_bytes() for f in in_folder.files()} == theirs, "nothing is overwritten"
    # To look again changes nothing for it, and nothing for the others.
    with pytest.raises(SqlError, match="stopped|ahead"):
        db.one("SELECT litestream_resume(?)", in_folder.url)
    insert(db)
    until(lambda: all(states(db)[r.url]["lag"] == 0 for r in (in_s3, third)), 15, "the others are there")
    # By force it goes on, alone.
    before = in_s3.last_txid()
    assert txid(db.one("SELECT litestream_resume('force', ?)", in_folder.url)) == in_folder.last_txid()
    assert in_s3.last_txid() == before
    insert(db)
    assert sync(db) == in_s3.last_txid()
    assert_each_is(db, tmp_path, in_s3, in_folder, third, name="after")


def test_it_stays_stopped_over_a_close(start, in_s3, in_folder, taken, tmp_path):
    db, third = taken
    db.close()
    db = db.worker.open(primary_of(tmp_path / "app.db", in_s3, in_folder, third, sync_replicas="2", **QUICK))
    insert(db)
    assert sync(db) == in_s3.last_txid(), "two of three are enough"
    assert states(db)[in_folder.url]["state"] == "stopped"
    # Another process is told the same, and publishes to the other two when it takes over.
    standby = start("python", in_s3).open(primary_of(tmp_path / "app.db", in_s3, in_folder, third, sync_replicas="2", **QUICK))
    assert "another" in states(standby)[in_folder.url]["last_error"] or "ahead" in states(standby)[in_folder.url]["last_error"]
    insert(standby)
    assert sync(standby) == in_s3.last_txid()
    db.worker.kill()
    insert(standby)
    assert sync(standby, 30) == in_s3.last_txid()
    assert_each_is(standby, tmp_path, in_s3, third)


def test_a_snapshot_of_all_names_the_one_that_is_stopped(in_folder, taken, tmp_path):
    db, third = taken
    insert(db)
    with pytest.raises(SqlError) as refused:
        db.one("SELECT litestream_snapshot()")
    assert in_folder.url in str(refused.value)
    assert txid(db.one("SELECT litestream_snapshot(?)", third.url)) == third.last_txid()
    assert json.dumps(states(db)[third.url])
