"""A program ends without closing its connections: by the end of the script, sys.exit, an exception, os._exit, a signal.

Ending takes no longer than `close_timeout`, is not changed by us (its exit code and what it prints are its own), and what
was committed is in the replica then, or after the next open.
"""

import signal

import pytest

from harness.litestream import restore
from harness.script import run

ENDS = {
    "end of the script": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise SystemExit(4)", 4),
    "os._exit": ("os._exit(5)", 5),
    "while a daemon thread writes": ("""
def write():
    other = connect(uri)
    while True: other.execute("UPDATE other SET n = n + 1")
threading.Thread(target=write, daemon=True).start()
time.sleep(0.1)
sys.exit(6)""", 6),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "abort": ("os.abort()", -signal.SIGABRT),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends_without_closing(end, location, tmp_path):
    statement, code = ENDS[end]
    uri = location.primary(tmp_path / "app.db")
    script = f"""
load()
db = connect(uri)
db.execute("CREATE TABLE other(n)"); db.execute("INSERT INTO other VALUES (0)")
db.execute("CREATE TABLE t(x)")
for n in range(20): db.execute("INSERT INTO t VALUES (?)", (n,))
db.execute("BEGIN"); db.execute("INSERT INTO t VALUES ('not committed')")
if {end!r} == "while a daemon thread writes": db.execute("ROLLBACK")
{statement}
"""
    done = run(script, tmp_path, location.env, check=False, timeout=30, uri=uri)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    # The next open sends what is left.
    run("""
load()
db = connect(uri)
assert one(db, "SELECT count(*) FROM t") == 20
db.execute("SELECT litestream_sync(30)").fetchall()
db.close()
""", tmp_path, location.env, uri=uri)
    assert location.gaps() == []
    import sqlite3

    restored = sqlite3.connect(restore(location, tmp_path / "restored.db"))
    assert restored.execute("SELECT x FROM t ORDER BY x").fetchall() == [(n,) for n in range(20)]
    assert restored.execute("SELECT n FROM other").fetchall() == sqlite3.connect(tmp_path / "app.db").execute(
        "SELECT n FROM other").fetchall()
