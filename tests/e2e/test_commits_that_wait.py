"""`commit=replicated`: a commit returns when it is in the replica.

The story: a program that must not lose what it answered for has its commits wait. What returned is in the replica though
nobody calls `litestream_sync`, the process is killed, and its disk is thrown away. Nothing else waits: no reader, no rollback,
no transaction without a change. When the replica cannot be reached the commit fails after `commit_timeout`, in a way that
undoes nothing and that no host answers by another attempt; status and log say which one it was, and why.
"""

import json
import time

import pytest

from harness import litestream
from harness.commits import records_what_is_on_disk
from harness.script import run
from harness.several import primary_of, states
from harness.sql import status, sync
from harness.wait import until
from harness.worker import SqlError

SLOW = dict(sync_interval="1h")
"""Without somebody who waits, nothing is sent after the first file."""

UNCONFIRMED = {"python": "OperationalError", "apsw": "ProtocolError"}


def waiting(start, location, tmp_path, host="python", **parameters):
    """A connection whose commits wait, to a database with two rows."""
    worker = start(host, location)
    parameters = SLOW | dict(commit="replicated") | parameters
    db = worker.open(location.primary(tmp_path / "app.db", **parameters))
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name)", "INSERT INTO t(name) VALUES ('one'), ('two')")
    return db


def names_in(location, tmp_path, start):
    """What the replica holds, as Litestream restores it."""
    for name in ("restored.db", "restored.db-wal", "restored.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    restored = start("python", load=False).open(litestream.restore(location, tmp_path / "restored.db"), "restored")
    return [name for (name,) in restored.rows("SELECT name FROM t ORDER BY id")]


def failures(db):
    return [f for f in json.loads(status(db))["failures"] if f["state"] == "commit unconfirmed"]


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL", "FULL"])
def test_what_returned_is_in_the_replica(host, synchronous, start, location, tmp_path):
    db = waiting(start, location, tmp_path, host)
    db.run(f"PRAGMA synchronous={synchronous}")
    assert names_in(location, tmp_path, start) == ["one", "two"]
    db.run("INSERT INTO t(name) VALUES ('autocommit')")
    assert names_in(location, tmp_path, start)[2:] == ["autocommit"]
    db.run("BEGIN", "INSERT INTO t(name) VALUES ('explicit')", "SAVEPOINT s", "INSERT INTO t(name) VALUES ('no')",
           "ROLLBACK TO s", "RELEASE s", "COMMIT")
    assert names_in(location, tmp_path, start)[3:] == ["explicit"]
    db.run("SAVEPOINT s", "INSERT INTO t(name) VALUES ('savepoint')", "RELEASE s")
    db.run("VACUUM")
    db.worker.kill()
    assert names_in(location, tmp_path, start)[4:] == ["savepoint"]


def test_the_next_transaction_follows_the_pragma(host, start, in_folder, tmp_path):
    db = waiting(start, in_folder, tmp_path, host, commit="local")
    sync(db)
    assert db.one("PRAGMA litestream_commit") == "local"
    assert db.one("PRAGMA litestream_commit=REPLICATED") == "replicated"
    db.run("INSERT INTO t(name) VALUES ('waits')")
    assert names_in(in_folder, tmp_path, start)[2:] == ["waits"]
    db.run("BEGIN IMMEDIATE", "INSERT INTO t(name) VALUES ('as it began')", "PRAGMA litestream_commit=local", "COMMIT")
    assert names_in(in_folder, tmp_path, start)[3:] == ["as it began"]
    db.run("INSERT INTO t(name) VALUES ('local')")
    assert names_in(in_folder, tmp_path, start)[4:] == []
    assert db.one("PRAGMA litestream_commit = 1") == "1"
    for value, why in [("2", "'2' is more than there are: this database has 1 replica"),
                       ("sometimes", "none of local, replicated, or a number of replicas from 1")]:
        with pytest.raises(SqlError, match=why):
            db.run(f"PRAGMA litestream_commit = '{value}'")
    assert db.one("PRAGMA litestream_commit") == "1"
    replica = db.worker.open(in_folder.replica(), "replica")
    with pytest.raises(SqlError, match="is for a primary"):
        replica.run("PRAGMA litestream_commit")


def test_nothing_else_waits(host, start, through_proxy, proxy, tmp_path):
    db = waiting(start, through_proxy, tmp_path, host, commit_timeout="20s")
    proxy.refuse()
    other = db.worker.open(through_proxy.primary(tmp_path / "app.db", commit="local", **SLOW), "other")
    began = time.monotonic()
    db.run("SELECT * FROM t", "BEGIN", "INSERT INTO t(name) VALUES ('no')", "ROLLBACK", "BEGIN IMMEDIATE", "COMMIT",
           "UPDATE t SET name = 'no' WHERE id = 99", "CREATE TEMP TABLE s(x)", "INSERT INTO s VALUES (1)",
           "PRAGMA wal_checkpoint(TRUNCATE)")
    other.run("INSERT INTO t(name) VALUES ('local')")
    assert time.monotonic() - began < 5
    assert db.one("PRAGMA litestream_commit") == "replicated"
    proxy.accept()


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_commit_that_is_not_confirmed_stands(host, autocommit, start, through_proxy, in_s3, proxy, tmp_path):
    """TEMP tables and a rollback-journal database of the same transaction keep their rows too."""
    db = waiting(start, through_proxy, tmp_path, host, commit_timeout="500ms")
    db.run(f"ATTACH '{tmp_path}/other.db' AS other", "CREATE TABLE other.o(x)", "CREATE TEMP TABLE s(x)")
    proxy.refuse()
    began = time.monotonic()
    with pytest.raises(SqlError, match="locking protocol") as unconfirmed:
        if autocommit:
            db.run("INSERT INTO t(name) VALUES ('three')")
        else:
            db.run("BEGIN", "INSERT INTO t(name) VALUES ('three')", "INSERT INTO other.o VALUES (1)",
                   "INSERT INTO s VALUES (1)", "COMMIT")
    assert 0.4 < time.monotonic() - began < 5
    assert unconfirmed.value.kind == UNCONFIRMED[host]
    assert db.rows("SELECT name FROM t WHERE id = 3") == [["three"]]
    if not autocommit:
        assert (db.one("SELECT count(*) FROM other.o"), db.one("SELECT count(*) FROM s")) == (1, 1)
    (failure,) = failures(db)
    assert "is committed here and not confirmed" in failure["last_error"] and str(proxy.port) in failure["last_error"]
    proxy.accept()
    until(lambda: states(db)[in_s3.url]["state"] == "idle", 30, "it is back")
    db.run("INSERT INTO t(name) VALUES ('four')")
    assert names_in(in_s3, tmp_path, start) == ["one", "two", "three", "four"]
    row = states(db)[in_s3.url]
    assert row["commits_waited"] >= 3 and 0 < row["commit_wait_median"] <= row["commit_wait_p99"]
    assert row["commits_per_upload"] > 0


def test_a_replica_that_stopped_fails_commits_at_once(start, in_folder, tmp_path):
    db = waiting(start, in_folder, tmp_path, commit_timeout="60s")
    another = start("python", in_folder).open(in_folder.primary(litestream.restore(in_folder, tmp_path / "another.db")))
    another.run("INSERT INTO t(name) VALUES ('of another machine')")
    sync(another)
    began = time.monotonic()
    with pytest.raises(SqlError, match="locking protocol"):
        db.run("INSERT INTO t(name) VALUES ('three')")
    with pytest.raises(SqlError, match="locking protocol"):
        db.run("INSERT INTO t(name) VALUES ('four')")
    assert time.monotonic() - began < 30
    assert states(db)[in_folder.url]["state"] == "stopped"
    assert db.one("SELECT count(*) FROM t") == 4


def test_nothing_is_sent_before_it_is_on_disk(start, through_proxy, proxy, tmp_path):
    """Where commits wait: the disk that is kept after a power failure is never behind the replica, whoever committed."""
    worker = start("python", through_proxy, env=records_what_is_on_disk(tmp_path))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", commit="replicated", sync_interval="10ms"))
    db.run("PRAGMA synchronous=NORMAL", "CREATE TABLE t(id INTEGER PRIMARY KEY, name)", "INSERT INTO t(name) VALUES ('waits')",
           "PRAGMA litestream_commit=local")

    def sent() -> set[str]:
        """The files of level 0: merges are sent by the clock, whatever is committed."""
        return {request.path for request in list(proxy.requests) if request.kind == "PUT" and "/0000/" in request.path}

    for _ in range(10):
        before = sent()
        insert_name(db)
        until(lambda: sent() > before, what="it is sent")
        assert (tmp_path / "app.db-wal.durable").read_bytes() == (tmp_path / "app.db-wal").read_bytes()


def test_two_of_three_replicas_are_enough(start, in_s3, through_proxy, proxy, in_folder, tmp_path):
    from harness.location import Location
    second = Location.file(tmp_path / "second")
    db = start("python", env=through_proxy.env).open(
        primary_of(tmp_path / "app.db", through_proxy, in_folder, second, commit=2, commit_timeout="2s", **SLOW))
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name)", "INSERT INTO t(name) VALUES ('one')")
    until(lambda: in_s3.files(), 20, "the copy is there")
    proxy.refuse()
    longest = 0.0
    for _ in range(5):
        began = time.monotonic()
        db.run("INSERT INTO t(name) VALUES ('more')")
        longest = max(longest, time.monotonic() - began)
    assert longest < 1.5, "the dead replica held up a commit"
    rows = db.one("SELECT count(*) FROM t")
    assert len(names_in(in_folder, tmp_path, start)) == len(names_in(second, tmp_path, start)) == rows
    in_folder_path = tmp_path / "replica"
    in_folder_path.rename(tmp_path / "elsewhere")
    in_folder_path.write_text("no folder")
    with pytest.raises(SqlError, match="locking protocol"):
        db.run("INSERT INTO t(name) VALUES ('too few')")
    in_folder_path.unlink()
    (tmp_path / "elsewhere").rename(in_folder_path)
    proxy.accept()
    until(lambda: all(row["lag"] == 0 for row in states(db).values()), 60, "they are back")
    db.run("INSERT INTO t(name) VALUES ('again')")
    assert db.one("PRAGMA integrity_check") == "ok"
    assert names_in(second, tmp_path, start)[-2:] == ["too few", "again"]


def test_two_attached_primaries_wait_together(start, through_proxy, in_folder, proxy, tmp_path):
    db = waiting(start, through_proxy, tmp_path, commit_timeout="1s").load()
    db.run(f"ATTACH '{in_folder.primary(tmp_path / 'aux.db', commit='replicated', commit_timeout='1s', **SLOW)}' AS aux",
           "CREATE TABLE aux.t(id INTEGER PRIMARY KEY, name)")
    db.run("BEGIN", "INSERT INTO t(name) VALUES ('both')", "INSERT INTO aux.t(name) VALUES ('both')", "COMMIT")
    assert names_in(in_folder, tmp_path, start) == ["both"]
    assert names_in(through_proxy, tmp_path, start)[2:] == ["both"]
    proxy.refuse()
    began = time.monotonic()
    with pytest.raises(SqlError, match="locking protocol"):
        db.run("BEGIN", "INSERT INTO t(name) VALUES ('one')", "INSERT INTO aux.t(name) VALUES ('one')", "COMMIT")
    assert time.monotonic() - began < 5
    assert names_in(in_folder, tmp_path, start) == ["both", "one"], "the other one is confirmed all the same"
    proxy.accept()


def test_automatic_checkpoints_stay_as_the_host_set_them(start, in_folder, tmp_path):
    db = waiting(start, in_folder, tmp_path)
    wal = tmp_path / "app.db-wal"
    assert db.rows("PRAGMA wal_autocheckpoint") == [[1000]], "a number, as SQLite answers"
    assert db.rows("PRAGMA wal_autocheckpoint=20") == [[20]]
    for _ in range(60):
        insert_name(db)
    assert wal.stat().st_size < 60 * 4200, "nothing was checkpointed"
    assert db.rows("PRAGMA wal_autocheckpoint") == [[20]]
    insert_name(db)
    assert db.rows("PRAGMA wal_autocheckpoint=0") == [[0]]
    before = wal.stat().st_size
    for _ in range(60):
        insert_name(db)
    assert wal.stat().st_size > before + 20 * 4096, "it was checkpointed all the same"
    assert db.rows("PRAGMA wal_autocheckpoint") == [[0]]
    insert_name(db)
    assert len(names_in(in_folder, tmp_path, start)) == db.one("SELECT count(*) FROM t"), "all of them waited"


def insert_name(db):
    db.run("INSERT INTO t(name) VALUES ('more')")


def test_a_database_that_is_kept_by_one_connection(host, start, through_proxy, in_s3, proxy, tmp_path):
    """`locking_mode=EXCLUSIVE`: no lock shows a commit."""
    db = waiting(start, through_proxy, tmp_path, host, commit_timeout="1s")
    db.run("PRAGMA locking_mode=EXCLUSIVE")
    for name in ("three", "four"):
        db.run(f"INSERT INTO t(name) VALUES ('{name}')")
        assert names_in(in_s3, tmp_path, start)[-1] == name
    proxy.refuse()
    with pytest.raises(SqlError, match="locking protocol"):
        db.run("INSERT INTO t(name) VALUES ('five')")
    proxy.accept()
    until(lambda: states(db)[in_s3.url]["lag"] == 0, 30, "it is back")
    assert names_in(in_s3, tmp_path, start)[-1] == "five"


def test_a_process_that_does_not_publish(start, in_folder, tmp_path):
    publisher = waiting(start, in_folder, tmp_path, commit="local")
    standby = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db", commit="replicated", **SLOW))
    for n in range(3):
        standby.run(f"INSERT INTO t(name) VALUES ('standby {n}')")
        assert names_in(in_folder, tmp_path, start)[-1] == f"standby {n}"
    publisher.worker.kill()
    standby.run("INSERT INTO t(name) VALUES ('alone')")
    assert names_in(in_folder, tmp_path, start)[-1] == "alone"


def test_the_publisher_dies_while_somebody_waits(start, through_proxy, in_s3, proxy, tmp_path):
    publisher = waiting(start, through_proxy, tmp_path, commit="local")
    sync(publisher)
    standby = start("python", through_proxy).open(
        through_proxy.primary(tmp_path / "app.db", commit="replicated", commit_timeout="30s", **SLOW))
    standby.one("SELECT count(*) FROM t")
    proxy.refuse()
    standby.worker.begin("exec", name="db", sql="INSERT INTO t(name) VALUES ('waits')")
    until(lambda: publisher.one("SELECT count(*) FROM t") == 3, 10, "it is committed")
    publisher.worker.kill()
    proxy.accept()
    assert json.loads(standby.worker._line("exec", 30)) == {"ok": []}
    assert names_in(in_s3, tmp_path, start) == ["one", "two", "waits"]


def test_another_connection_closes_while_one_waits(start, through_proxy, in_s3, proxy, tmp_path):
    db = waiting(start, through_proxy, tmp_path, commit_timeout="30s")
    other = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db", **SLOW))
    other.one("SELECT count(*) FROM t")
    proxy.refuse()
    db.worker.begin("exec", name="db", sql="INSERT INTO t(name) VALUES ('waits')")
    until(lambda: other.one("SELECT count(*) FROM t") == 3, 10, "it is committed")
    other.close()
    assert not db.worker._selector.select(0), "it did not wait"
    proxy.accept()
    assert json.loads(db.worker._line("exec", 30)) == {"ok": []}
    assert names_in(in_s3, tmp_path, start) == ["one", "two", "waits"]


def test_an_interrupt_ends_the_wait(start, through_proxy, proxy, tmp_path):
    """Hosts before SQLite 3.41, as the system's Python here, do not show it: they wait for `commit_timeout`."""
    db = waiting(start, through_proxy, tmp_path, "apsw", commit_timeout="60s")
    proxy.refuse()
    began = time.monotonic()
    with pytest.raises(SqlError, match="locking protocol"):
        db.interrupted("INSERT INTO t(name) VALUES ('three')", after=0.5)
    assert time.monotonic() - began < 10
    assert db.one("SELECT count(*) FROM t") == 3
    assert "interrupted" in failures(db)[0]["last_error"]
    db.run("PRAGMA litestream_commit=local")
    proxy.accept()


def test_waiting_without_asking_for_an_upload(start, in_folder, tmp_path):
    db = waiting(start, in_folder, tmp_path, commit="local", sync_interval="2s")
    first = sync(db)
    began = time.monotonic()
    insert_name(db)
    with pytest.raises(SqlError, match="after 100ms"):
        db.one("SELECT litestream_wait(?, '100ms')", f"{first + 5:016x}")
    assert int(db.one("SELECT litestream_wait(NULL)"), 16) == first + 1
    assert time.monotonic() - began > 0.5, "it did not ask for an upload"
    assert int(db.one("SELECT litestream_wait(?)", f"{first:016x}"), 16) == first + 1
    with pytest.raises(SqlError, match="is not a TXID"):
        db.one("SELECT litestream_wait('soon')")


def test_the_wal_stays_small_while_many_wait(start, through_proxy, proxy, tmp_path):
    db = waiting(start, through_proxy, tmp_path)
    proxy.delay = 0.02
    wal, largest = tmp_path / "app.db-wal", 0
    workers = [start("python", through_proxy) for _ in range(2)]
    uri = through_proxy.primary(tmp_path / "app.db", commit="replicated", **SLOW)
    script = f"WITH RECURSIVE n(i) AS (SELECT 1) INSERT INTO t(name) SELECT hex(randomblob(3000)) FROM n"
    others = [worker.open(uri) for worker in workers]
    for round in range(150):
        for other in others:
            other.worker.begin("exec", name="db", sql=script)
        for other in others:
            assert json.loads(other.worker._line("exec", 60)) == {"ok": []}
        largest = max(largest, wal.stat().st_size)
    assert largest < 6 << 20, "the WAL never restarted"
    assert proxy.counts()["PUT"] > 100, "they did not wait"
    assert db.one("SELECT count(*) FROM t") == 302


def test_a_host_with_a_hook_of_its_own(start, through_proxy, in_s3, proxy, tmp_path):
    """It stays, and is called; then only the status says that a commit is not confirmed."""
    db = waiting(start, through_proxy, tmp_path, "apsw", commit="local", commit_timeout="1s")
    sync(db)
    db.worker.call("wal_hook", name="db")
    db.run("PRAGMA litestream_commit=replicated")
    for n in range(3):
        insert_name(db)
        assert len(names_in(in_s3, tmp_path, start)) == 3 + n
    assert db.worker.call("hook_calls") == 3
    proxy.refuse()
    insert_name(db)
    assert db.worker.call("hook_calls") == 4 and len(failures(db)) == 1
    proxy.accept()


def test_a_hook_that_takes_the_place_of_ours(start, in_folder, tmp_path):
    db = waiting(start, in_folder, tmp_path, "apsw")
    db.worker.call("wal_hook", name="db")
    for _ in range(3):
        insert_name(db)
    assert db.worker.call("hook_calls") == 3
    assert len(names_in(in_folder, tmp_path, start)) == 5
    # Whoever asks SQLite for its own hook gets it, and ours with it.
    db.run("PRAGMA wal_autocheckpoint=1000")
    insert_name(db)
    assert db.worker.call("hook_calls") == 3
    assert len(names_in(in_folder, tmp_path, start)) == 6


BEGIN = """
load()
db = connect(uri)
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name)")
def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_statement_that_is_reset_early_is_confirmed_by_the_next(start, in_folder, tmp_path):
    script = BEGIN + """
for n in range(3):
    rows = db.execute("INSERT INTO t(name) VALUES ('a'), ('b'), ('c') RETURNING id")
    rows.fetchone()
    rows.close()
rows = db.execute("SELECT id FROM t")
rows.fetchone()
die()
"""
    run(script, tmp_path, check=False, uri=in_folder.primary(tmp_path / "app.db", commit="replicated", **SLOW))
    assert len(names_in(in_folder, tmp_path, start)) == 9
    script = """
load()
db = connect(uri)
db.execute("SELECT count(*) FROM t").fetchone()
os.rename(folder, folder + ".away")
open(folder, "w").close()
rows = db.execute("INSERT INTO t(name) VALUES ('a'), ('b'), ('c') RETURNING id")
rows.fetchone()
rows.close()
try:
    db.execute("SELECT 1").fetchall()
except sqlite3.OperationalError:
    print("unconfirmed")
print(db.execute("SELECT count(*) FROM t").fetchone()[0])
os.unlink(folder)
os.rename(folder + ".away", folder)
"""
    uri = in_folder.primary(tmp_path / "app.db", commit="replicated", commit_timeout="500ms", **SLOW)
    assert run(script, tmp_path, uri=uri, folder=str(in_folder.folder)).stdout.splitlines() == ["unconfirmed", "12"]


def test_connections_that_share_a_cache(start, in_folder, tmp_path):
    script = BEGIN + """
other = connect(uri)
for n in range(3):
    db.execute("INSERT INTO t(name) VALUES ('db')")
    other.execute("INSERT INTO t(name) VALUES ('other')")
die()
"""
    run(script, tmp_path, check=False,
        uri=in_folder.primary(tmp_path / "app.db", commit="replicated", cache="shared", **SLOW))
    assert names_in(in_folder, tmp_path, start) == ["db", "other"] * 3


def test_a_forked_child_waits_for_itself(start, in_folder, tmp_path):
    script = BEGIN + """
db.execute("INSERT INTO t(name) VALUES ('parent')")
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    child = connect(uri)
    child.execute("INSERT INTO t(name) VALUES ('child')")
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(pid, 0)
db.execute("INSERT INTO t(name) VALUES ('parent')")
die()
"""
    run(script, tmp_path, check=False, uri=in_folder.primary(tmp_path / "app.db", commit="replicated", **SLOW))
    assert names_in(in_folder, tmp_path, start) == ["parent", "child", "parent"]
