"""A process with a thousand databases runs into its limit of open files, which is often 1024.

SQLite needs three descriptors for a database in WAL mode: the file, the WAL, and its index. A primary costs two more: the
file of its locks, and the database file as each replica reads it, which SQLite keeps as long as a connection has locks.
What other processes say is heard by one socket for all databases of the process.
"""

import shutil
import sqlite3

import pytest

from harness.litestream import restore
from harness.location import Location
from harness.script import run
from harness.several import primary_of
from harness.sql import insert, sync
from harness.state import state_folder

COUNT = """
def opened(uris):
    dbs = [connect(uri) for uri in uris]
    for db in dbs:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(x)")
        for n in range(3):
            db.execute("INSERT INTO t VALUES (randomblob(5000))")
            # The next commit restarts the WAL.
            db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        db.execute("INSERT INTO t VALUES (1)")
        if "litestream" in uris[0]:
            db.execute("SELECT litestream_sync(30)").fetchall()
    return dbs

def descriptors():
    # A file that a thread has open for a moment is none of them.
    return min(len(os.listdir("/proc/self/fd")) for _ in range(100))

load()
kept = opened(uris[:2])
before = descriptors()
kept += opened(uris[2:])
print((descriptors() - before) / (len(uris) - 2))
"""


@pytest.mark.parametrize("replicas", [1, 2])
def test_what_a_primary_costs(in_folder, tmp_path, replicas):
    locations = (in_folder, Location.file(tmp_path / "second"))[:replicas]
    primaries = [
        primary_of(tmp_path / f"app{n}.db", *(one_of(location, n) for location in locations)) for n in range(42)
    ]
    ours = float(run(COUNT, tmp_path, in_folder.env, uris=primaries).stdout)
    plain = float(run(COUNT, tmp_path, uris=[f"file:plain{n}.db" for n in range(42)]).stdout)
    assert plain == 3 and plain + 1 < ours <= plain + 1 + replicas, ours


def test_with_another_process(start, in_folder, tmp_path):
    """The publisher hears it, and tells each of its databases apart."""
    uris = [one_of(in_folder, n).primary(tmp_path / f"app{n}.db", sync_interval="50ms") for n in range(3)]
    publisher, other = start("python"), start("python")
    first = [publisher.open(uri, f"db{n}") for n, uri in enumerate(uris)]
    for db in first:
        db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
        sync(db)
    sockets = [state_folder(tmp_path / f"app{n}.db") / "vfs.sock" for n in range(3)]
    assert len({path.stat().st_ino for path in sockets}) == 1
    second = [other.open(uri, f"db{n}") for n, uri in enumerate(uris)]
    for n, db in enumerate(second):
        insert(db, rows=n + 1)
        sync(db)
        assert db.one("SELECT state FROM litestream_status") == "standby"
    # A database of which the folder, and with it a name of the socket, is gone is no loss to the others.
    second[0].close()
    first[0].close()
    shutil.rmtree(state_folder(tmp_path / "app0.db"))
    late = one_of(in_folder, 3).primary(tmp_path / "app3.db")
    first.append(publisher.open(late, "late"))
    first[3].run("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
    second.append(other.open(late, "late"))
    insert(second[3], rows=4)
    sync(second[3])
    for n in (1, 2, 3):
        with sqlite3.connect(restore(one_of(in_folder, n), tmp_path / f"restored{n}.db")) as db:
            assert db.execute("SELECT count(*) FROM t").fetchone() == (n + 1,)
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def one_of(location: Location, n: int) -> Location:
    """The replica of the database with this number."""
    return Location.file(location.folder / f"{n}")



LIMITED = """
import resource

load()
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + more, 1024))
try:
    db = connect(uri)
    db.execute("CREATE TABLE t(x)")
    db.execute("SELECT litestream_sync(2)").fetchall()
except sqlite3.Error as failure:
    print(failure)
"""


@pytest.mark.parametrize("more", [2, 4, 5, 6, 8, 9, 10, 11])
def test_too_few_descriptors_are_told_as_that(in_folder, tmp_path, more):
    """An error that names the limit, or what SQLite says of it, and no panic."""
    done = run(LIMITED, tmp_path, in_folder.env, uri=in_folder.primary(tmp_path / "app.db", close_timeout="100ms"), more=more)
    assert "panicked" not in done.stderr, done.stderr
    assert "thread" not in done.stdout and "EXCLUSIVE" not in done.stdout, done.stdout
    assert "ulimit -n" in done.stdout or "unable to open database file" in done.stdout, done.stdout
