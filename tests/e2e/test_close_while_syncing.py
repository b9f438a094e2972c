"""A connection closes while a sync is under way, on another connection or on its own, from another thread.

The store is slow, so that the sync takes its time. The close of another connection does not wait for it; that of its own
connection waits for the statement to end, as SQLite's does. Nobody crashes, and the commit arrives.
"""

import sqlite3

import pytest

from harness.litestream import restore
from harness.script import run

BOTH = """
load()
first, second = connect(uri, check_same_thread=False), connect(uri)
first.execute("CREATE TABLE t(x)")
synced = []
def sync():
    synced.append(one(first, "SELECT litestream_sync(30)"))
thread = threading.Thread(target=sync)
second.execute("INSERT INTO t VALUES (1)")
begun = threading.Event()
first.set_trace_callback(lambda statement: begun.set())
thread.start()
begun.wait()  # the statement runs
"""

STORIES = {
    "another connection": """
began = time.monotonic()
second.close()
assert time.monotonic() - began < 1.5, "the close waited for the sync"
thread.join(); first.close()
""",
    "its own connection": """
import ctypes
sqlite = ctypes.CDLL("libsqlite3.so.0")
# CPython keeps the handle right behind the object's header. A closed connection becomes a zombie until its statements end.
handle = ctypes.cast(id(first) + object.__basicsize__, ctypes.POINTER(ctypes.c_void_p))[0]
assert sqlite.sqlite3_close_v2(ctypes.c_void_p(handle)) == 0
thread.join()
second.close()
sys.stdout.flush(); os._exit(0 if synced else 1)  # CPython does not know that its connection is gone
""",
    "all connections": """
second.close()
thread.join(); first.close()
""",
    "all connections while a third thread opens": """
opened = []
def reopen():
    for _ in range(20):
        db = connect(uri); opened.append(one(db, "SELECT count(*) FROM t")); db.close()
third = threading.Thread(target=reopen); third.start()
second.close()
thread.join(); first.close(); third.join()
assert opened == [1] * 20, opened
""",
}


@pytest.mark.parametrize("story", STORIES)
def test_close_while_a_sync_is_under_way(story, through_proxy, proxy, tmp_path):
    proxy.delay = 0.7
    run(BOTH + STORIES[story], tmp_path, through_proxy.env, timeout=300,
        uri=through_proxy.primary(tmp_path / "app.db", close_timeout="30s"))
    proxy.delay = 0
    restored = sqlite3.connect(restore(through_proxy, tmp_path / "restored.db"))
    assert restored.execute("SELECT * FROM t").fetchall() == [(1,)]
