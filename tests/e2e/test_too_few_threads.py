"""A container's pids limit, or `ulimit -u`: the system refuses to start threads.

An open, a restore, or whatever else needs a thread then fails at once with an error that says so, or works with the
threads that it got; nothing waits for ever, panics, or stays silent. What is open replicates as soon as the limit is
lifted, without being opened again.
"""

import os
import sqlite3
import tempfile
from pathlib import Path

import pytest

from harness.litestream import restore
from harness.script import run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as a user without other processes")

USER = 54321

LIMITED = f"""
import resource

MOST = resource.getrlimit(resource.RLIMIT_NPROC)[1]

def become_user():
    os.setgroups([]); os.setgid({USER}); os.setuid({USER})

def limit(more):
    \"\"\"So many threads more than there are.\"\"\"
    resource.setrlimit(resource.RLIMIT_NPROC, (len(os.listdir("/proc/self/task")) + more, MOST))

def lift():
    resource.setrlimit(resource.RLIMIT_NPROC, (MOST, MOST))

def says_why(text):
    assert "refuses to start a thread" in text and "ulimit -u" in text, text

def attempt(work):
    began = time.monotonic()
    try:
        return work()
    except sqlite3.Error as failure:
        says_why(str(failure))
    finally:
        assert time.monotonic() - began < 8, time.monotonic() - began

signal.alarm(100)
load()
become_user()
"""


@pytest.fixture
def folder():
    """It is the user's, and can be reached by him."""
    with tempfile.TemporaryDirectory(prefix="litestream-vfs-") as name:
        os.chown(name, USER, USER)
        yield Path(name)


def there(location, folder):
    """The replica, where the user may write it."""
    return location if location.is_s3 else location.file(folder / "replica")


def assert_restored(location, folder, rows) -> None:
    assert location.gaps() == []
    db = sqlite3.connect(restore(location, folder / "restored.db"))
    assert db.execute("SELECT n FROM t ORDER BY 1").fetchall() == [(n,) for n in range(rows)]
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("more", range(3))
def test_an_open_fails_with_the_reason_or_works(more, location, folder):
    location = there(location, folder)
    script = LIMITED + """
limit(more)
db = attempt(lambda: connect(uri))
print(db is not None)
if db:
    db.execute("CREATE TABLE t(n)"); db.execute("INSERT INTO t VALUES (0)")
    attempt(lambda: db.execute("SELECT litestream_sync(3)").fetchall())
    state, why = db.execute("SELECT state, last_error FROM litestream_status").fetchone()
    if why: says_why(why)
    else: assert state in ("idle", "publishing"), state
lift()
if not db:
    db = connect(uri); db.execute("CREATE TABLE t(n)"); db.execute("INSERT INTO t VALUES (0)")
db.execute("INSERT INTO t VALUES (1)")
db.execute("SELECT litestream_sync(30)").fetchall()
assert db.execute("SELECT state, last_error FROM litestream_status WHERE schema = 'main'").fetchone() == ("idle", None)
db.close()
"""
    done = run(script, folder, location.env, uri=location.primary(folder / "app.db", close_timeout="20s"), more=more)
    assert "panicked" not in done.stderr and "bug" not in done.stderr, done.stderr
    if more == 0:
        assert "False" in done.stdout
        assert "refuses to start a thread" in done.stderr
    assert_restored(location, folder, 2)


def test_all_that_needs_a_thread_says_why_it_has_none(location, folder):
    location = there(location, folder)
    script = LIMITED + """
pid = os.fork()
if not pid:
    db = connect(uri); db.execute("CREATE TABLE t(n)"); db.execute("INSERT INTO t VALUES (0)")
    db.execute("SELECT litestream_sync(30)").fetchall()
    db.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
sql = connect(":memory:")
statements = [f"SELECT litestream_restore('{url}', 'copy.db')", f"SELECT * FROM litestream_verify('{url}')",
              f"SELECT * FROM litestream_ltx('{url}')", f"SELECT * FROM litestream_restore_plan('{url}')"]
limit(0)
for statement in statements:
    assert attempt(lambda: sql.execute(statement).fetchall()) is None, statement
assert attempt(lambda: connect(replica_uri)) is None
for more in range(1, 5):
    limit(more)
    for statement in statements:
        attempt(lambda: sql.execute(statement).fetchall())
        if os.path.exists("copy.db"): os.remove("copy.db")
    attempt(lambda: connect(replica_uri).execute("SELECT * FROM t").fetchall())
lift()
for statement in statements: sql.execute(statement).fetchall()
assert connect(replica_uri).execute("SELECT * FROM t").fetchall() == [(0,)]
"""
    done = run(script, folder, {**location.env, "LITESTREAM_SQL": "on"}, uri=location.primary(folder / "app.db"),
               replica_uri=location.replica(), url=location.full_url)
    assert "panicked" not in done.stderr, done.stderr
    assert_restored(location, folder, 1)
