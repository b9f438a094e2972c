"""A server connects, then forks workers that use the connection of their parent (a prefork server whose parent had a pool).

SQLite forbids it, and no child can do anything useful with such a connection: its locks and its publisher are the
parent's. So each use in the child is an error at once, with one text that says what to do, and never a wait, a crash, or a
success that covers nothing; whatever the child does with it, the parent's locks, transaction and replication go on.
"""

import sqlite3

import pytest

from harness.litestream import restore
from harness.script import run

CHILD = """
def fork(work):
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(20)
    try:
        work()
        os._exit(0)
    except BaseException as failure:
        print(repr(failure), file=sys.stderr, flush=True)
        os._exit(1)

def in_child(work):
    _, status = os.waitpid(fork(work), 0)
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, f"the child ended with {code}"

def said(text):
    assert f"opened before fork by process {os.getppid()}" in text, text
    assert "open a new one" in text and "engine.dispose(close=False)" in text, text

def refused(db, sql, with_text=True):
    began = time.monotonic()
    try:
        rows = db.execute(sql).fetchall()
    except sqlite3.Error as failure:
        if with_text: said(str(failure))
    else:
        raise AssertionError(f"{sql}: {rows}")
    assert time.monotonic() - began < 1, sql

def heard():
    fresh = connect(":memory:")
    said(one(fresh, "SELECT last_error FROM litestream_status WHERE state = 'use refused'"))
"""

WITH_TEXT = ["SELECT litestream_sync(5)", "SELECT litestream_status()", "SELECT * FROM litestream_status",
             "SELECT litestream_txid()", "SELECT litestream_lag()", "SELECT litestream_snapshot()", "SELECT litestream_resume('force')",
             "SELECT * FROM litestream_restores", "SELECT * FROM litestream_ltx('{url}')", "PRAGMA litestream_txid",
             "PRAGMA journal_mode", "PRAGMA wal_checkpoint(TRUNCATE)"]
WITHOUT = ["SELECT * FROM t", "INSERT INTO t VALUES ('child')", "CREATE TABLE u(a)", "BEGIN IMMEDIATE", "VACUUM"]


def assert_restored(location, tmp_path, expected) -> None:
    assert location.gaps() == []
    db = sqlite3.connect(restore(location, tmp_path / "restored.db"))
    assert db.execute("SELECT who, count(*) FROM t GROUP BY 1 ORDER BY 1").fetchall() == expected
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def primary(location, tmp_path) -> str:
    return location.primary(tmp_path / "app.db", close_timeout="20s")


def test_each_first_use_is_refused_with_one_text(location, tmp_path):
    script = CHILD + """
load()
parent = connect(uri); parent.execute("CREATE TABLE t(who)"); parent.execute("INSERT INTO t VALUES ('parent')")
parent.execute("SELECT litestream_sync(30)").fetchall()
for sql in with_text:
    in_child(lambda: refused(parent, sql))
for sql in without:
    in_child(lambda: (refused(parent, sql, False), heard()))
parent.execute("INSERT INTO t VALUES ('parent')")
parent.execute("SELECT litestream_sync(30)").fetchall()
parent.close()
"""
    done = run(script, tmp_path, {**location.env, "LITESTREAM_SQL": "on"}, uri=primary(location, tmp_path),
               with_text=[sql.format(url=location.full_url) for sql in WITH_TEXT], without=WITHOUT)
    assert "app.db: this connection was opened before fork by process" in done.stderr
    assert_restored(location, tmp_path, [("parent", 2)])


def test_a_child_that_has_its_own_connection_may_touch_the_inherited_one(location, tmp_path):
    """The child's first open closes what it inherited: SQLite then reads the WAL index where it was mapped."""
    script = CHILD + """
load()
parent = connect(uri); parent.execute("CREATE TABLE t(who)"); parent.execute("INSERT INTO t VALUES ('parent')")
def work():
    own = connect(uri)
    own.execute("INSERT INTO t VALUES ('child')")
    for sql in without:
        refused(parent, sql, False)
    heard()
    refused(parent, "SELECT litestream_sync(5)")
    parent.close()
    own.execute("INSERT INTO t VALUES ('child')")
    own.execute("SELECT litestream_sync(30)").fetchall()
    own.close()
in_child(work)
parent.execute("INSERT INTO t VALUES ('parent')")
parent.execute("SELECT litestream_sync(30)").fetchall()
parent.close()
"""
    run(script, tmp_path, location.env, uri=primary(location, tmp_path), without=WITHOUT)
    assert_restored(location, tmp_path, [("child", 2), ("parent", 2)])


@pytest.mark.parametrize("how", ["close", "exit"])
def test_a_child_that_only_closes_it_hears_nothing(how, location, tmp_path):
    """What a pool does that is told of the fork: it forgets the connection, which is closed when the interpreter ends at the latest."""
    script = CHILD + """
load()
parent = connect(uri); parent.execute("CREATE TABLE t(who)"); parent.execute("INSERT INTO t VALUES ('parent')")
def work():
    own = connect(uri)
    own.execute("INSERT INTO t VALUES ('child')")
    if how == "close": parent.close()
    own.execute("SELECT litestream_sync(30)").fetchall()
    own.close()
if how == "exit":
    pid = os.fork()
    if not pid:
        work()
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
else: in_child(work)
parent.execute("INSERT INTO t VALUES ('parent')")
parent.execute("SELECT litestream_sync(30)").fetchall()
parent.close()
"""
    done = run(script, tmp_path, location.env, uri=primary(location, tmp_path), how=how)
    assert done.stderr == ""
    assert_restored(location, tmp_path, [("child", 1), ("parent", 2)])


@pytest.mark.parametrize("how", ["close", "ROLLBACK", "COMMIT", "exit"])
def test_a_transaction_that_is_open_at_the_fork_is_the_parents(how, location, tmp_path):
    """It is larger than the page cache: the index of the WAL, which both have mapped, holds pages of it, and SQLite's
    rollback takes them out without asking any file.
    """
    script = CHILD + """
load()
parent = connect(uri); parent.execute("CREATE TABLE t(who, data)"); parent.execute("PRAGMA cache_size=20")
parent.execute("INSERT INTO t VALUES ('before', 1)")
parent.execute("BEGIN")
for n in range(300): parent.execute("INSERT INTO t VALUES ('parent', zeroblob(2000))")
if how == "exit":
    pid = os.fork()
    if not pid: sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
elif how == "COMMIT": in_child(lambda: refused(parent, how, False))
else: in_child(lambda: parent.close() if how == "close" else parent.execute(how))
plain = sqlite3.connect(path, timeout=0, isolation_level=None)
refused_for = None
try: plain.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as locked: refused_for = str(locked)
assert refused_for == "database is locked", refused_for
plain.close()
assert one(parent, "SELECT sum(length(data)) FROM t WHERE who = 'parent'") == 600000
parent.execute("COMMIT")
parent.execute("SELECT litestream_sync(30)").fetchall()
parent.close()
"""
    run(script, tmp_path, location.env, uri=primary(location, tmp_path), path=tmp_path / "app.db", how=how)
    assert_restored(location, tmp_path, [("before", 1), ("parent", 300)])


def test_statements_that_are_under_way_and_prepared_ones(location, tmp_path):
    script = CHILD + """
load()
parent = connect(uri); parent.execute("CREATE TABLE t(who)")
parent.execute("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) INSERT INTO t SELECT 'parent' FROM n")
parent.execute("PRAGMA cache_size=10")
reading = parent.execute("SELECT who FROM t"); reading.fetchone()
def work(opens):
    if opens: own = connect(uri)
    try:
        rows = reading.fetchall()
        raise AssertionError(len(rows))
    except sqlite3.Error: pass
    heard()
in_child(lambda: work(False))
in_child(lambda: work(True))
assert len(reading.fetchall()) == 49999
parent.close()
"""
    run(script, tmp_path, location.env, uri=primary(location, tmp_path))
    assert_restored(location, tmp_path, [("parent", 50000)])


def test_a_replica_and_attached_databases(location, tmp_path):
    script = CHILD + """
load()
parent = connect(uri); parent.execute("CREATE TABLE t(who)"); parent.execute("INSERT INTO t VALUES ('parent')")
parent.execute("SELECT litestream_sync(30)").fetchall()
replica = connect(replica_uri)
assert one(replica, "SELECT who FROM t") == "parent"
both = connect(":memory:"); both.execute("ATTACH ? AS a", (uri,)); both.execute("ATTACH ? AS r", (replica_uri,))
assert one(both, "SELECT count(*) FROM a.t, r.t") == 1
for sql in ["SELECT litestream_status()", "SELECT litestream_lag()", "PRAGMA litestream_poll", "SELECT litestream_set_time('latest')"]:
    in_child(lambda: refused(replica, sql))
in_child(lambda: (refused(replica, "SELECT * FROM t", False), heard()))
for sql in ["SELECT litestream_sync(5)", "PRAGMA a.litestream_txid", "PRAGMA r.litestream_txid"]:
    in_child(lambda: refused(both, sql))
for sql in ["SELECT * FROM a.t", "SELECT * FROM r.t", "INSERT INTO a.t VALUES ('child')"]:
    in_child(lambda: (refused(both, sql, False), heard()))
in_child(lambda: (replica.close(), both.close(), connect(replica_uri).execute("SELECT * FROM t").fetchall()))
assert one(replica, "SELECT who FROM t") == "parent"
parent.close(); both.close()
"""
    run(script, tmp_path, {**location.env, "LITESTREAM_SQL": "on"}, uri=primary(location, tmp_path), replica_uri=location.replica())
    assert_restored(location, tmp_path, [("parent", 1)])
