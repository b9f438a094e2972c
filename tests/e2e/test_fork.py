"""A process forks; each child that opens its own connection works, and the parent is not disturbed.

Servers load the library, or load it and open databases, then fork their workers. Threads do not survive a fork, and locks
that a thread of ours holds at that moment would stay locked in the child for ever. The story: in each order of load, open
and fork the child commits, syncs and closes; the parent commits and syncs afterwards; at the end the replica has it all.
"""

import pytest

from harness.litestream import restore
from harness.script import run

CHILD = """
def child(uri, name, rows=5):
    signal.alarm(60)
    db = connect(uri)
    for _ in range(rows):
        db.execute("INSERT INTO t VALUES (?)", (name,))
    db.close()

def wait(pid):
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, f"the child ended with {code}"

def fork(work):
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException as failure:
        print(repr(failure), file=sys.stderr, flush=True)
        os._exit(1)
"""

STORIES = {
    "load, fork, open": """
load()
setup = connect(uri); setup.execute("CREATE TABLE t(who)"); setup.close()
pids = [fork(lambda: child(uri, "child")) for _ in range(2)]
for pid in pids: wait(pid)
parent = connect(uri)
""",
    "load, open, fork": """
load()
parent = connect(uri); parent.execute("CREATE TABLE t(who)")
pids = [fork(lambda: child(uri, "child")) for _ in range(2)]
for pid in pids: wait(pid)
""",
    "load, open, write, fork at once": """
load()
parent = connect(uri); parent.execute("CREATE TABLE t(who)")
parent.execute("INSERT INTO t VALUES ('before')")
pids = [fork(lambda: child(uri, "child")) for _ in range(2)]
for pid in pids: wait(pid)
parent.execute("DELETE FROM t WHERE who = 'before'")
""",
    "fork, load, open": """
def late():
    load()
    child(uri, "child")
plain = connect(plain_uri); plain.execute("PRAGMA journal_mode=WAL").fetchall(); plain.execute("CREATE TABLE t(who)")
plain.close()
pids = [fork(late) for _ in range(2)]
for pid in pids: wait(pid)
load()
parent = connect(uri)
""",
    "open, fork, fork again": """
load()
parent = connect(uri); parent.execute("CREATE TABLE t(who)")
def middle():
    child(uri, "child")
    wait(fork(lambda: child(uri, "child")))
wait(fork(middle))
""",
}


@pytest.mark.parametrize("story", STORIES)
def test_children_commit_and_the_parent_goes_on(story, location, tmp_path):
    script = CHILD + STORIES[story] + """
parent.execute("INSERT INTO t VALUES ('parent')")
parent.execute("SELECT litestream_sync(30)").fetchall()
assert parent.execute("SELECT who, count(*) FROM t GROUP BY 1 ORDER BY 1").fetchall() == [("child", 10), ("parent", 1)]
parent.close()
"""
    run(script, tmp_path, location.env, uri=location.primary(tmp_path / "app.db", close_timeout="20s"),
        plain_uri=f"file:{tmp_path}/app.db")
    assert_restored(location, tmp_path, [("child", 10), ("parent", 1)])


def test_multiprocessing_with_fork(location, tmp_path):
    script = CHILD + """
import multiprocessing
load()
parent = connect(uri); parent.execute("CREATE TABLE t(who)")
pool = multiprocessing.get_context("fork").Pool(3)
pool.starmap(child, [(uri, "child")] * 6, chunksize=1)
pool.close(); pool.join()
parent.execute("INSERT INTO t VALUES ('parent')")
parent.execute("SELECT litestream_sync(30)").fetchall()
parent.close()
"""
    run(script, tmp_path, location.env, uri=location.primary(tmp_path / "app.db", close_timeout="20s"))
    assert_restored(location, tmp_path, [("child", 30), ("parent", 1)])


def test_a_fork_while_the_publisher_works_does_not_hang_the_child(location, tmp_path):
    """What a thread of ours locks at the moment of the fork, of ours or of SQLite's, is not locked in the child."""
    script = CHILD + """
load()
parent = connect(uri); parent.execute("CREATE TABLE t(who)")
for n in range(150):
    parent.execute("INSERT INTO t VALUES ('parent')")
    def work():
        signal.alarm(20)
        db = connect(uri)
        db.execute("INSERT INTO t VALUES ('child')")
        os._exit(0)  # without a close, as a worker that is killed
    wait(fork(work))
parent.execute("SELECT litestream_sync(30)").fetchall()
parent.close()
"""
    run(script, tmp_path, location.env, timeout=300,
        uri=location.primary(tmp_path / "app.db", sync_interval="10ms", close_timeout="20s"))
    assert_restored(location, tmp_path, [("child", 150), ("parent", 150)])


def test_a_child_publishes_when_the_parent_has_died(location, tmp_path):
    """The child has inherited the open lock file of its parent: that must not keep the lock alive."""
    script = CHILD + """
load()
parent = connect(uri); parent.execute("CREATE TABLE t(who)")
parent.execute("SELECT litestream_sync(30)").fetchall()
went, goes = os.pipe()
def orphan():
    signal.alarm(60)
    os.close(goes)
    os.read(went, 1)  # until the parent is gone
    db = connect(uri)
    db.execute("INSERT INTO t VALUES ('child')")
    db.execute("SELECT litestream_sync(20)").fetchall()
    db.close()
    open("published", "w").close()
fork(orphan)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run(script, tmp_path, location.env, uri=location.primary(tmp_path / "app.db"), check=False)
    assert done.returncode == -9
    assert (tmp_path / "published").exists(), done.stderr
    assert_restored(location, tmp_path, [("child", 1)])


def assert_restored(location, tmp_path, expected) -> None:
    import sqlite3

    assert location.gaps() == []
    db = sqlite3.connect(restore(location, tmp_path / "restored.db"))
    assert db.execute("SELECT who, count(*) FROM t GROUP BY 1 ORDER BY 1").fetchall() == expected
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_child_takes_its_own_locks_whatever_its_parent_has_locked(through_proxy, in_s3, proxy, tmp_path):
    """SQLite's VFS remembers the locks of a process; a child inherits the memory and not the locks. The parent's publisher
    reads the database, under locks, at the moment of the fork; the parent then closes, which deletes a WAL that nobody has
    locked, and the child writes on.
    """
    script = CHILD + """
load()
went, goes = os.pipe(); back, answer = os.pipe()
parent = connect(uri); parent.execute("CREATE TABLE t(who)")
parent.execute("INSERT INTO t SELECT 'parent'")
time.sleep(0.5)  # the slow store has the first copy under way: the publisher holds its view
def work():
    signal.alarm(60)
    os.close(goes)
    db = connect(uri)
    db.execute("INSERT INTO t VALUES ('child')")
    os.write(answer, b"1")
    os.read(went, 1)  # until the parent has closed
    for _ in range(10):
        db.execute("INSERT INTO t VALUES ('child')")
    os._exit(0)
pid = fork(work)
os.read(back, 1)
parent.close()
os.close(goes)
wait(pid)
after = connect(uri)
assert one(after, "SELECT count(*) FROM t WHERE who = 'child'") == 11, after.execute("SELECT who FROM t").fetchall()
after.execute("SELECT litestream_sync(60)").fetchall()
after.close()
"""
    proxy.delay = 1
    run(script, tmp_path, through_proxy.env, uri=through_proxy.primary(tmp_path / "app.db", close_timeout="10s"))
    assert_restored(in_s3, tmp_path, [("child", 11), ("parent", 1)])
