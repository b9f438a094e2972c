"""Somebody else is on the replica, or it is not what we left.

It is ahead of us, was wiped, holds another database or another page size, or two machines publish to it:
publishing stops (what was wiped stops it with `auto_recover=false` only) with an error that says what was found and what to do, in `litestream_status` and in
`litestream_sync`. The database keeps working, nothing in the replica is overwritten, and an operator
decides with `litestream_resume()`.
"""

import json
import shutil

import pytest

from harness.sql import fill, insert, restore, status, sync, txid
from harness.worker import SqlError


def content_of(location) -> dict:
    return {f.path: f.path.read_bytes() for f in location.files()}


def assert_stopped(db, location, *words: str) -> None:
    """Publishing stops and says all of `words`; nothing that is there is overwritten."""
    before = content_of(location)
    rows = db.one("SELECT count(*) FROM t")
    insert(db, rows=2)
    with pytest.raises(SqlError) as error:
        sync(db, 20)
    for word in words:
        assert word in str(error.value)
    state = json.loads(status(db))["databases"][0]
    assert state["state"] == "stopped"
    assert all(word in state["last_error"] for word in words)
    assert db.one("SELECT count(*) FROM t") == rows + 2
    assert content_of(location) == before


def resume(db, *arguments: str) -> int:
    return txid(db.one(f"SELECT litestream_resume({', '.join(map(repr, arguments))})"))


def assert_forced(db, location, tmp_path) -> None:
    """By force, the local database is what the replica ends with."""
    before = content_of(location)
    assert resume(db, "force") == location.last_txid()
    after = content_of(location)
    assert {path: after.get(path) for path in before} == before, "something was overwritten"
    assert_goes_on(db, location, tmp_path)


def assert_goes_on(db, location, tmp_path) -> None:
    insert(db)
    sync(db)
    assert location.gaps() == []
    restore(db, location, tmp_path / "restored.db", force=True)
    restored = db.worker.open(tmp_path / "restored.db", "restored")
    assert restored.content() == db.content()
    restored.close()


def copy_database(tmp_path, name: str) -> None:
    """Another machine with the same database and the same local state."""
    shutil.copy(tmp_path / "app.db", tmp_path / name)
    shutil.copytree(tmp_path / ".app.db-litestream", tmp_path / f".{name}-litestream",
                    ignore=shutil.ignore_patterns("*.sock"))


def filled(start, location, tmp_path, name="app.db", rows=300):
    db = start("python", location).open(location.primary(tmp_path / name))
    fill(db, rows=rows)
    sync(db)
    return db


def test_the_replica_was_wiped(start, location, tmp_path):
    filled(start, location, tmp_path).close()
    shutil.rmtree(location.folder)
    db = start("python", location).open(location.primary(tmp_path / "app.db", auto_recover="false"))
    assert_stopped(db, location, "lost transactions", "litestream_resume('force')")
    assert_forced(db, location, tmp_path)


def test_the_replica_was_wiped_and_brought_back(start, location, tmp_path):
    filled(start, location, tmp_path).close()
    shutil.move(location.folder, tmp_path / "away")
    db = start("python", location).open(location.primary(tmp_path / "app.db", auto_recover="false"))
    assert_stopped(db, location, "lost transactions", "litestream_resume()")
    with pytest.raises(SqlError, match="lost transactions"):
        resume(db)
    shutil.rmtree(location.folder, ignore_errors=True)
    shutil.move(tmp_path / "away", location.folder)
    resume(db)
    assert_goes_on(db, location, tmp_path)


def test_the_replica_is_ahead_and_so_is_the_database(start, location, tmp_path):
    filled(start, location, tmp_path).close()
    copy_database(tmp_path, "other.db")
    other = start("python", location).open(location.primary(tmp_path / "other.db"))
    insert(other, rows=5)
    sync(other)
    other.close()
    plain = start("python", load=False).open(tmp_path / "app.db")
    insert(plain)
    plain.close()
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    assert_stopped(db, location, "is ahead of this database", "litestream_resume('force')")
    assert_forced(db, location, tmp_path)


def test_the_replica_holds_another_database(start, location, tmp_path):
    filled(start, location, tmp_path, "theirs.db").close()
    ours = start("python").open(tmp_path / "app.db", "plain")
    fill(ours, rows=200)
    ours.close()
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    assert_stopped(db, location, "holds another database", "another replica URL")
    # Closing and opening again does not make it ours.
    db.close()
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    assert_stopped(db, location, "holds another database")
    assert_forced(db, location, tmp_path)


def test_a_new_database_that_was_refused_stays_refused(start, location, tmp_path):
    filled(start, location, tmp_path, "theirs.db").close()
    for _ in range(2):
        db = start("python", location).open(location.primary(tmp_path / "app.db"))
        db.run("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, name, data)")
        assert_stopped(db, location, "another replica URL")
        db.worker.end()


def test_a_database_that_was_restored_goes_on(start, location, tmp_path):
    first = filled(start, location, tmp_path)
    first.close()
    restore(first.worker.open(":memory:", "plain"), location, tmp_path / "new.db")
    db = start("python", location).open(location.primary(tmp_path / "new.db"))
    insert(db, rows=3)
    assert_goes_on(db, location, tmp_path)


def test_the_replica_has_another_page_size(start, location, tmp_path):
    filled(start, location, tmp_path).close()
    for name in ("app.db", "app.db-wal", "app.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    plain = start("python").open(tmp_path / "app.db", "plain")
    plain.run("PRAGMA page_size=8192")
    fill(plain)
    plain.close()
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    assert_stopped(db, location, "page size 4096", "8192")
    # A replica cannot change its page size, not even by force.
    with pytest.raises(SqlError, match="page size"):
        resume(db, "force")


def test_two_machines_publish(start, location, tmp_path):
    filled(start, location, tmp_path).close()
    shutil.copy(tmp_path / "app.db", tmp_path / "other.db")
    one = start("python", location).open(location.primary(tmp_path / "app.db"))
    # It is the newest state, and so may go on where the replica ends.
    two = start("python", location).open(location.primary(tmp_path / "other.db"))
    for db in (one, two):
        sync(db)
    insert(two)
    sync(two)
    assert_stopped(one, location, "another primary", "litestream_resume('force')")
    # The operator lets the first go on, and the second is told.
    assert_forced(one, location, tmp_path)
    assert_stopped(two, location, "another primary")


def test_the_operator_decides_in_a_process_that_does_not_publish(start, location, tmp_path):
    filled(start, location, tmp_path).close()
    shutil.rmtree(location.folder)
    uri = location.primary(tmp_path / "app.db", auto_recover="false")
    publisher = start("python", location).open(uri)
    assert_stopped(publisher, location, "lost transactions")
    other = start("python", location).open(uri)
    with pytest.raises(SqlError, match="lost transactions"):
        sync(other, 20)
    assert resume(other, "force") == location.last_txid()
    assert_goes_on(publisher, location, tmp_path)


def test_resume_when_nothing_stopped_is_a_sync(start, location, tmp_path):
    db = filled(start, location, tmp_path)
    insert(db)
    assert resume(db) == location.last_txid()
    with pytest.raises(SqlError, match="'force'"):
        resume(db, "maybe")
