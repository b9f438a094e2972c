"""A refused open of a primary has the primary result code that plain SQLite has for the same file, at the open or at the
first statement: programs decide by it. A file that is no database was SQLITE_CORRUPT, on which some delete it.

A function that fails does so with SQLITE_ERROR, and its extended code says what is wrong: `docs/sql.md` lists them. Any other primary
code would have SQLite undo the transaction that is open, or a program take its database for damaged.
"""

import fcntl
import os
import subprocess
import sys

import apsw
import pytest

from harness.paths import LIBRARY

FLAGS = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE


def garbage(path):
    path.write_bytes(b"This is a text, and a rather long one. " * 200)


def a_short_text(path):
    path.write_bytes(b"hello\n")


def an_encrypted_database(path):
    path.write_bytes(os.urandom(8192))


def a_header_and_garbage(path):
    """The first bytes are right, the rest makes no sense: found by SQLite itself, not by us."""
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)


def a_directory(path):
    path.mkdir()


def a_link_to_itself(path):
    path.symlink_to(path)


def a_link_to_nowhere(path):
    path.symlink_to(path.parent / "nowhere" / "x.db")


def nothing(path):
    pass


@pytest.fixture(scope="module", autouse=True)
def loaded():
    loader = apsw.Connection(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(str(LIBRARY))


def outcome(uri: str) -> tuple[int, str]:
    """The primary code of the open or else of the first statement, and its text; 0 if both succeed."""
    try:
        db = apsw.Connection(uri, flags=FLAGS)
        db.execute("CREATE TABLE IF NOT EXISTS t(x)")
        db.close()
        return 0, ""
    except apsw.Error as e:
        return e.result, str(e)


@pytest.mark.parametrize("make, name, says", [
    (garbage, "app.db", "is not a database"), (a_short_text, "app.db", "is not a database"),
    (an_encrypted_database, "app.db", "is not a database"), (a_header_and_garbage, "app.db", "is not a database"),
    (a_directory, "app.db", "cannot open"), (nothing, "missing/app.db", "its folder cannot be used"),
    (a_link_to_itself, "app.db", ""), (a_link_to_nowhere, "app.db", ""), (nothing, "x" * 300, ""), (nothing, "app.db", ""),
])
def test_the_code_is_that_of_plain_sqlite(make, name, says, in_folder, tmp_path):
    ours, plain = tmp_path / "ours", tmp_path / "plain"
    for folder in (ours, plain):
        folder.mkdir()
        make(folder / name)
    code, text = outcome(in_folder.primary(ours / name, close_timeout="0s"))
    assert code == outcome(f"file:{plain / name}")[0], text
    assert says in text
    if code:
        assert in_folder.files() == []


def test_a_locked_database_is_busy(in_folder, tmp_path):
    """Another program is writing it, in rollback mode, longer than an open waits."""
    apsw.Connection(str(tmp_path / "app.db")).execute("CREATE TABLE t(x)")
    with open(tmp_path / "app.db", "rb+") as file:
        # SQLite's pending, reserved and shared locks.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 512, 0x40000000)
        child = subprocess.run([sys.executable, "-c", f"""
import apsw
loader = apsw.Connection(":memory:"); loader.enable_load_extension(True); loader.load_extension({str(LIBRARY)!r})
for uri in {[in_folder.primary(tmp_path / "app.db"), f"file:{tmp_path}/app.db"]!r}:
    try:
        apsw.Connection(uri, flags={FLAGS}).execute("CREATE TABLE u(x)")
    except apsw.Error as e:
        print(e.result)
"""], capture_output=True, text=True, timeout=60)
    assert child.stdout.split() == [str(apsw.SQLITE_BUSY)] * 2, child.stdout + child.stderr


@pytest.mark.parametrize("call, code", [
    ("SELECT litestream_restore('floppy://a', 'x.db') FROM t", 33025),
    ("SELECT litestream_restore('file:///nowhere/r', 'x.db') FROM t", 33281),
    ("SELECT litestream_restore('s3://b/a?endpoint=http://127.0.0.1:1&region=r', 'x.db') FROM t", 34049),
    ("SELECT * FROM t, litestream_ltx('s3://b/a?endpoint=http://127.0.0.1:1&region=r')", 34049),
    ("SELECT litestream_sync() FROM t", 35585),
    ("SELECT litestream_restore('file:///nowhere/r', 'x.db', '{\"age_identity_file\": \"/nowhere/key\"}') FROM t", 36609),
])
def test_a_function_that_fails_says_what_is_wrong_and_undoes_nothing(call, code, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "k")
    db = apsw.Connection(str(tmp_path / "plain.db"))
    db.enable_load_extension(True)
    db.load_extension(str(LIBRARY))
    db.execute("CREATE TABLE t(x); INSERT INTO t VALUES (1); BEGIN; INSERT INTO t VALUES (2)")
    with pytest.raises(apsw.SQLError) as failed:
        db.execute(call).fetchall()
    assert (failed.value.result, failed.value.extendedresult) == (apsw.SQLITE_ERROR, code), failed.value
    assert db.in_transaction and db.execute("SELECT count(*) FROM t").get == 2
