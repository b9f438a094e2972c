"""A process is killed, or still at work, in the first, large transaction of a new database. Its page cache has spilled:
the file is there, its first page is zeros, and the journal is hot.

Every open as a primary was refused then, "it does not begin as SQLite files do", though SQLite rolls such a journal back
at the first statement, or waits for the one that writes. An open judges no content; replication begins when SQLite has
made a database of it.
"""

import threading
import time

import pytest

from harness.sql import fill, restore, sync
from harness.worker import SqlError

LARGE = ("PRAGMA cache_size=5", "BEGIN", "CREATE TABLE big(x)",
         "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
         " INSERT INTO big SELECT randomblob(1000) FROM n")


def in_a_large_transaction(start, location, path, through_us):
    """A connection in the first transaction of a new database, part of which is in the file."""
    writer = start("python", location) if through_us else start("python", load=False)
    db = writer.open(location.primary(path) if through_us else path)
    db.run(*LARGE)
    assert path.read_bytes()[:16] == bytes(16), "the cache has not spilled, or page 1 with it"
    assert path.with_name("app.db-journal").stat().st_size > 0
    return db


def assert_replicates(db, location, tmp_path):
    assert db.one("PRAGMA journal_mode") == "wal"
    sync(db)
    restore(db, location, tmp_path / "restored.db")
    restored = db.worker.open(tmp_path / "restored.db", "restored")
    assert restored.one("PRAGMA integrity_check") == "ok" and restored.content() == db.content()


@pytest.mark.parametrize("through_us", [True, False], ids=["ours", "plain"])
def test_one_of_a_killed_process_is_rolled_back(start, in_folder, tmp_path, through_us):
    in_a_large_transaction(start, in_folder, tmp_path / "app.db", through_us).worker.kill()
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    assert db.rows("SELECT name FROM sqlite_schema") == []
    fill(db)
    assert_replicates(db, in_folder, tmp_path)


def test_the_one_that_writes_is_waited_for_by_the_statement(start, in_folder, tmp_path):
    first = in_a_large_transaction(start, in_folder, tmp_path / "app.db", True)
    second = start("python", in_folder)
    began = time.monotonic()
    db = second.open(in_folder.primary(tmp_path / "app.db"))
    assert time.monotonic() - began < 5
    ends = threading.Timer(0.5, lambda: first.run("COMMIT"))
    ends.start()
    assert db.one("SELECT count(*) FROM big") == 500
    ends.join()
    assert_replicates(db, in_folder, tmp_path)


def test_until_there_is_a_database_sync_says_what_is_missing(start, in_folder, tmp_path):
    """A variation: the file never becomes one."""
    (tmp_path / "app.db").write_bytes(bytes(range(256)) * 64)
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db", close_timeout="0s"))
    with pytest.raises(SqlError, match="file is not a database"):
        db.one("SELECT count(*) FROM sqlite_schema")
    with pytest.raises(SqlError, match="is not in WAL mode yet: it does not begin as SQLite's files do"):
        sync(db, 2)
