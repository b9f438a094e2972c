"""A program without the library puts a database into rollback mode and writes it, while a primary has it open and idle.

The commits are noticed within `watch_interval`, and the database is put back into WAL mode. `litestream_sync` looks by
itself, and while the program still has the database locked it says what is missing.
"""

import sqlite3

import pytest

from harness import litestream
from harness.sql import status, sync
from harness.wait import until
from harness.worker import SqlError


def in_rollback_mode(path, rows=8):
    db = sqlite3.connect(path, isolation_level=None)
    assert db.execute("PRAGMA journal_mode = delete").fetchone() == ("delete",)
    for n in range(rows):
        db.execute("INSERT INTO t VALUES (?)", (n,))
    return db


def made(path):
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t(x)")
    db.execute("INSERT INTO t VALUES (-1)")
    db.commit()
    db.close()


def rows_of(location, path):
    restored = sqlite3.connect(litestream.restore(location, path))
    assert restored.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    count = restored.execute("SELECT count(*) FROM t").fetchone()[0]
    restored.close()
    return count


@pytest.fixture
def idle(start, in_folder, tmp_path):
    """A primary that was opened and has read nothing: it has no lock that keeps others out of rollback mode."""
    made(tmp_path / "app.db")
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db", watch_interval="1s"))
    until(lambda: in_folder.files(0), 15, "the first copy")
    return db


def test_its_commits_are_noticed(idle, in_folder, tmp_path):
    last = in_folder.last_txid()
    in_rollback_mode(tmp_path / "app.db").close()
    until(lambda: in_folder.last_txid() > last, 15, "its commits in the replica")
    sync(idle)
    assert rows_of(in_folder, tmp_path / "restored.db") == 9
    assert idle.one("PRAGMA journal_mode") == "wal"


def test_a_sync_covers_them(idle, in_folder, tmp_path):
    in_rollback_mode(tmp_path / "app.db").close()
    sync(idle)
    assert rows_of(in_folder, tmp_path / "restored.db") == 9


def test_while_it_has_the_database_locked_a_sync_says_so(idle, in_folder, tmp_path):
    db = in_rollback_mode(tmp_path / "app.db")
    db.execute("BEGIN IMMEDIATE")
    with pytest.raises(SqlError, match="not in WAL mode"):
        sync(idle, 2)
    assert "not in WAL mode" in status(idle)
    db.execute("COMMIT")
    sync(idle)
    assert rows_of(in_folder, tmp_path / "restored.db") == 9
    db.close()
