"""Several processes have one database open as its primary.

One of them publishes. What the others commit reaches the replica without waiting for the publisher's own
next commit, in order and once, however they checkpoint and restart the WAL; `litestream_sync` works in
each of them; when the publisher dies, whatever children it leaves, another takes over within two seconds.
A process that lives for a moment leaves its commits in the replica, or where the next one finds them.
"""

import os
import subprocess
import sys
import textwrap
import time

import pytest

from conftest import NO_TICKS
from harness.paths import LIBRARY, SYSTEM_PYTHON, clean_env
from harness.sql import fill, insert, restore, status, sync, txid
from harness.wait import until
from harness.worker import SqlError


def assert_replica_is(db, location, tmp_path):
    sync(db, 30)
    assert location.gaps() == []
    restore(db, location, tmp_path / "restored.db", force=True)
    restored = db.worker.open(tmp_path / "restored.db", "restored")
    assert restored.content() == db.content()
    restored.close()


def full_copies(location, rows: int) -> list:
    """The files that hold a whole database of `rows` rows of random data."""
    return [f for f in location.files(0) if f.size > rows * 400 * 0.8]


def two(start, location, tmp_path, **parameters):
    """A publisher with a filled database, and a process that does not publish."""
    uri = location.primary(tmp_path / "app.db", **parameters)
    publisher = start("python", location).open(uri)
    fill(publisher, rows=1000)
    sync(publisher)
    standby = start("python", location).open(uri)
    standby.one("SELECT count(*) FROM t")
    return publisher, standby


def test_what_another_process_commits_goes_out_without_the_publishers_help(start, location, tmp_path):
    _, standby = two(start, location, tmp_path)
    last = location.last_txid()
    began = time.monotonic()
    insert(standby, rows=10)
    until(lambda: location.last_txid() > last, 5, "the commit of the other process")
    assert time.monotonic() - began < 2
    assert '"standby"' in status(standby)


def test_sync_in_each_process_covers_the_commits_of_all(start, location, tmp_path):
    publisher, standby = two(start, location, tmp_path)
    for n in range(10):
        insert(standby, rows=3)
        insert(publisher, rows=3)
        before = (standby, publisher)[n % 2].content()
        assert sync((standby, publisher)[n % 2]) == location.last_txid()
        restore(standby, location, tmp_path / f"r{n}.db")
        assert standby.worker.open(tmp_path / f"r{n}.db", "r").content() == before


def test_the_publisher_is_the_one_to_make_snapshots(start, location, tmp_path):
    publisher, standby = two(start, location, tmp_path)
    insert(standby)
    with pytest.raises(SqlError, match="published by another process"):
        standby.one("SELECT litestream_snapshot()")
    assert txid(publisher.one("SELECT litestream_snapshot()")) == location.last_txid()


def test_another_process_restarts_empties_and_closes_the_wal(start, location, tmp_path):
    publisher, standby = two(start, location, tmp_path)
    standby.run("PRAGMA wal_autocheckpoint=10")
    for n in range(30):
        insert(standby, rows=20)
        if n % 3 == 0:
            standby.run(f"PRAGMA wal_checkpoint({('TRUNCATE', 'RESTART', 'FULL')[n // 3 % 3]})")
        if n % 5 == 0:
            insert(publisher)
    assert_replica_is(standby, location, tmp_path)
    assert_replica_is(publisher, location, tmp_path)
    assert len(full_copies(location, 1000)) == 1, "the database was copied again"


def test_a_killed_publisher_is_replaced_within_two_seconds(start, location, tmp_path):
    publisher, standby = two(start, location, tmp_path, sync_interval="10s")
    # The first goes out at once, the second waits for the interval: it is in the WAL only.
    insert(publisher)
    insert(publisher)
    publisher.worker.kill()
    began = time.monotonic()
    until(lambda: '"standby"' not in status(standby), 10, "another publisher")
    assert time.monotonic() - began < 2
    assert_replica_is(standby, location, tmp_path)
    assert len(full_copies(location, 1000)) == 1, "the database was copied again"


def test_the_wal_is_lost_between_the_death_and_the_takeover(start, location, tmp_path):
    publisher, standby = two(start, location, tmp_path, sync_interval="10s")
    insert(publisher)
    insert(publisher, rows=100)
    publisher.worker.kill()
    for _ in range(5):
        insert(standby, rows=20)
        standby.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert_replica_is(standby, location, tmp_path)
    assert len(full_copies(location, 1000)) == 1, "the database was copied again"


def test_children_of_a_dead_publisher_do_not_keep_others_out(start, location, tmp_path):
    uri = location.primary(tmp_path / "forked.db")
    script = textwrap.dedent(f"""
        import os, signal, sqlite3, sys
        first = sqlite3.connect(":memory:"); first.enable_load_extension(True)
        first.load_extension({str(LIBRARY)!r})
        db = sqlite3.connect({uri!r}, uri=True, isolation_level=None)
        db.execute("CREATE TABLE t(x)"); db.execute("INSERT INTO t VALUES (1)")
        db.execute("SELECT litestream_sync()").fetchall()
        child = os.fork()
        if child == 0:
            signal.pause()
        print(child, flush=True)
        sys.stdin.read()
    """)
    # All who have a database open agree on the settings of its history, which the environment names too.
    parent = subprocess.Popen([SYSTEM_PYTHON, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=clean_env(**NO_TICKS, **location.env), cwd=tmp_path)
    child = int(parent.stdout.readline())
    try:
        other = start("python", location).open(uri)
        parent.kill()
        parent.wait()
        other.run("INSERT INTO t VALUES (2)")
        sync(other, 5)
        assert '"standby"' not in status(other)
    finally:
        os.kill(child, 9)


def test_a_process_of_a_moment_leaves_its_commits(start, location, tmp_path):
    uri = location.primary(tmp_path / "app.db", close_timeout="0s")
    keeper = start("python", location).open(uri)
    keeper.run("CREATE TABLE t(x)")
    sync(keeper)
    script = textwrap.dedent(f"""
        import os, sqlite3, sys
        first = sqlite3.connect(":memory:"); first.enable_load_extension(True)
        first.load_extension({str(LIBRARY)!r})
        db = sqlite3.connect({uri!r}, uri=True, isolation_level=None)
        db.execute("INSERT INTO t VALUES (1)")
        os._exit(0) if sys.argv[1] == "exit" else db.close()
    """)

    def moment(how: str) -> None:
        subprocess.run([SYSTEM_PYTHON, "-c", script, how], env=clean_env(**location.env), cwd=tmp_path, check=True)

    last = location.last_txid()
    moment("close")
    until(lambda: location.last_txid() > last, 5, "the commit of the moment")
    last = location.last_txid()
    moment("exit")
    assert sync(keeper) > last
    keeper.worker.end()
    for how in ("close", "exit", "exit", "close"):
        moment(how)
    again = start("python", location).open(uri)
    assert again.one("SELECT count(*) FROM t") == 6
    assert_replica_is(again, location, tmp_path)


def test_four_processes_count_while_the_publisher_is_killed(start, in_s3, tmp_path):
    seconds = float(os.environ.get("LITESTREAM_COUNT_SECONDS", "12"))
    uri = in_s3.primary(tmp_path / "app.db", sync_interval="100ms")
    first = start("python", in_s3).open(uri)
    first.run("CREATE TABLE counter(name PRIMARY KEY, n)", "CREATE TABLE total(n)", "INSERT INTO total VALUES (0)",
              "CREATE TABLE ballast(x)",
              "INSERT INTO ballast WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500)"
              " SELECT randomblob(2000) FROM n")
    sync(first)
    first.worker.end()
    main = str(__file__).replace("test_processes.py", "harness/counter_main.py")
    env = clean_env(**in_s3.env)
    numbers = iter(range(10**6))

    def count(left: float) -> tuple[subprocess.Popen, str]:
        name = f"p{next(numbers)}"
        command = [SYSTEM_PYTHON, main, str(LIBRARY), uri, name, str(left), str(tmp_path / name)]
        return subprocess.Popen(command, env=env, cwd=tmp_path), name

    end = time.monotonic() + seconds
    running = [count(seconds) for _ in range(4)]
    killed = 0
    while time.monotonic() < end - 3:
        time.sleep(min(5.0, seconds / 4))  # how long each publisher may live is the story
        victim = next((p for p in running if p[0].pid == publisher_of(tmp_path / ".app.db-litestream")), None)
        if victim:
            victim[0].kill()
            victim[0].wait()
            killed += 1
            running.remove(victim)
            running.append(count(end - time.monotonic()))
    for process, _ in running:
        assert process.wait(60) == 0
    assert killed >= 2
    db = start("python", in_s3).open(uri)
    sync(db, 60)
    counts = dict(db.rows("SELECT name, n FROM counter"))
    for name, n in counts.items():
        acknowledged = (tmp_path / name).stat().st_size // 2
        assert acknowledged <= n <= acknowledged + 1, name
    assert db.one("SELECT n FROM total") == sum(counts.values())
    assert_replica_is(db, in_s3, tmp_path)
    replica = start("python", in_s3).open(in_s3.replica())
    assert dict(replica.rows("SELECT name, n FROM counter")) == counts
    # A process may die between the header of a generation and word of it: then a copy is due.
    assert len(full_copies(in_s3, 2000)) <= 1 + killed
    print(f"{sum(counts.values())} transactions, {killed} publishers killed,"
          f" {len(full_copies(in_s3, 2000))} full copies, {in_s3.last_txid()} TXIDs", file=sys.stderr)


def publisher_of(folder) -> int:
    """The process that holds the lock by which one publishes."""
    inode = (folder / "vfs.lock").stat().st_ino
    for line in open("/proc/locks"):
        fields = line.split()
        # Byte 3 of the file is that lock.
        if fields[1] == "POSIX" and fields[5].rpartition(":")[2] == str(inode) and fields[6] == "3":
            return int(fields[4])
    return 0
