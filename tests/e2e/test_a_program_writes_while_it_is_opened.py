"""Another program, in rollback mode, is in a short write while the application opens its database as a primary.

The database must be put into WAL mode for that. SQLite waits for connections that read, and refuses at once while
one writes; now it is waited for, up to five seconds.
"""

import threading
import time

import pytest

from harness.sql import restore, sync
from harness.worker import SqlError


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "BEGIN"])
def test_a_short_write_is_waited_for(start, in_folder, tmp_path, begin):
    other = start("python", load=False).open(tmp_path / "app.db")
    other.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT)", begin, "INSERT INTO t(name) VALUES ('theirs')")
    primary = start("python", in_folder)
    ended = threading.Timer(0.7, lambda: other.run("COMMIT"))
    ended.start()
    began = time.monotonic()
    db = primary.open(in_folder.primary(tmp_path / "app.db"))
    assert 0.5 < time.monotonic() - began < 5
    ended.join()
    assert db.one("SELECT name FROM t") == "theirs"
    sync(db)
    restore(db, in_folder, tmp_path / "restored.db")
    assert primary.open(tmp_path / "restored.db", "restored").content() == db.content()


def test_many_short_writes_are_waited_for(start, in_folder, tmp_path):
    """A variation: one write after the other, with a moment between them."""
    other = start("python", load=False).open(tmp_path / "app.db")
    other.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT)")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            other.run("BEGIN IMMEDIATE", "INSERT INTO t(name) VALUES ('theirs')")
            stop.wait(0.2)
            other.run("COMMIT")
            stop.wait(0.1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    finally:
        stop.set()
        writer.join()
    assert db.one("PRAGMA journal_mode") == "wal"
    sync(db)


def test_one_that_does_not_end_does_not_fail_the_open(start, in_folder, tmp_path):
    """Plain SQLite opens the database too. Until it can be put into WAL mode, `litestream_sync` says what is missing."""
    other = start("python", load=False).open(tmp_path / "app.db")
    other.run("CREATE TABLE t(x)", "BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)")
    began = time.monotonic()
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    assert 4 < time.monotonic() - began < 8
    with pytest.raises(SqlError, match="is not in WAL mode yet"):
        sync(db, 1)
    other.run("COMMIT")
    assert db.one("SELECT count(*) FROM t") == 1
    sync(db)
    restore(db, in_folder, tmp_path / "restored.db")
