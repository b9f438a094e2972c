"""A host with many threads: each has a connection of its own, or all share one cache.

Threads commit, checkpoint, sync, open and close at once. In the end the replica has exactly what was committed.
"""

import sqlite3

import pytest

from harness.litestream import restore
from harness.script import run

WORK = """
load()
setup = connect(uri); setup.execute("CREATE TABLE t(thread, n, PRIMARY KEY (thread, n))"); setup.close()
keep = connect(uri) if keep_open else None
failures = []

def insert(db, thread, n):
    while True:
        try:
            db.execute("INSERT INTO t VALUES (?, ?)", (thread, n))
            return
        except sqlite3.OperationalError as e:
            if "locked" not in str(e):  # a shared cache does not wait for its own tables
                raise
            time.sleep(0.001)

def work(thread):
    try:
        for reopened in range(4):
            db = connect(uri)
            for n in range(25):
                insert(db, thread, reopened * 25 + n)
            if thread % 3 == 0:
                db.execute("SELECT litestream_sync(60)").fetchall()
            if thread % 3 == 1 and not shared:
                db.execute(f"PRAGMA wal_checkpoint({['PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'][reopened]})").fetchall()
            db.close()
    except BaseException as failure:
        failures.append(repr(failure))

threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures
if keep: keep.close()
"""


@pytest.mark.parametrize("keep_open", [True, False], ids=["one stays open", "all come and go"])
@pytest.mark.parametrize("shared", [False, True], ids=["own caches", "shared cache"])
def test_eight_threads(shared, keep_open, location, tmp_path):
    options = {"cache": "shared"} if shared else {}
    uri = location.primary(tmp_path / "app.db", close_timeout="60s", sync_interval="50ms", **options)
    run(WORK, tmp_path, location.env, timeout=300, uri=uri, shared=shared, keep_open=keep_open)
    assert location.gaps() == []
    source, restored = (sqlite3.connect(path) for path in
                        (tmp_path / "app.db", restore(location, tmp_path / "restored.db")))
    assert restored.execute("SELECT thread, count(*) FROM t GROUP BY 1").fetchall() == [(n, 100) for n in range(8)]
    everything = "SELECT * FROM t ORDER BY 1, 2"
    assert restored.execute(everything).fetchall() == source.execute(everything).fetchall()
    assert restored.execute("PRAGMA integrity_check").fetchone() == ("ok",)
