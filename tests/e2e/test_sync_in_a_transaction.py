"""`litestream_sync()` inside an open write transaction says to commit first: no TXID can cover what it writes."""

import pytest

from harness.sql import fill, insert, sync
from harness.worker import SqlError

FUNCTIONS = ["litestream_sync()", "litestream_snapshot()", "litestream_resume()", "litestream_resume('force')"]


@pytest.fixture
def db(start, host, in_folder, tmp_path):
    db = start(host, in_folder).open(in_folder.primary(tmp_path / "app.db"))
    fill(db)
    return db


@pytest.mark.parametrize("function", FUNCTIONS)
def test_it_says_to_commit_first(function, db, in_folder):
    for begin in ("BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT s"):
        db.run(begin)
        insert(db)
        with pytest.raises(SqlError, match="write transaction open: COMMIT first"):
            db.one(f"SELECT {function}")
        db.run("ROLLBACK" if begin != "SAVEPOINT s" else "RELEASE s")
    assert sync(db) == in_folder.last_txid()


def test_a_statement_that_writes_is_a_transaction(db):
    with pytest.raises(SqlError, match="COMMIT first"):
        db.run("INSERT INTO t(name) SELECT litestream_sync()")
    assert db.one("SELECT count(*) FROM t WHERE name LIKE '0%'") == 0


def test_a_transaction_that_only_reads_is_none(db, in_folder):
    db.run("BEGIN")
    db.one("SELECT count(*) FROM t")
    assert sync(db) == in_folder.last_txid()
    db.run("CREATE TEMP TABLE mine(x)", "INSERT INTO mine VALUES (1)")
    assert sync(db) == in_folder.last_txid(), "what is temporary is not replicated"
    db.run("COMMIT")


def test_an_attached_primary_counts_too(start, in_folder, tmp_path):
    """A variation: it is an attached database that is written."""
    from harness.location import Location

    other = Location.file(tmp_path / "other")
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    db.load().rows("ATTACH ? AS other", other.primary(tmp_path / "other.db"))
    db.run("CREATE TABLE main.t(x)", "CREATE TABLE other.t(x)")
    sync(db)
    db.run("BEGIN", "INSERT INTO other.t VALUES (1)")
    with pytest.raises(SqlError, match="'other' has a write transaction open"):
        sync(db)
    db.run("COMMIT")
    sync(db)
