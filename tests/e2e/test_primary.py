"""A primary behaves as SQLite does, and says why where it must not."""

import time

import pytest

from harness.location import sqlite_uri
from harness.sql import fill, insert, restore, status, sync
from harness.wait import until
from harness.worker import SqlError


def test_a_database_with_a_rollback_journal_is_switched_to_wal(start, host, in_folder, tmp_path):
    plain = start("python", load=False).open(tmp_path / "app.db")
    assert plain.one("PRAGMA journal_mode") == "delete"
    fill(plain)
    expected = plain.content()
    plain.close()
    worker = start(host, in_folder)
    primary = worker.open(in_folder.primary(tmp_path / "app.db"))
    assert primary.one("PRAGMA journal_mode") == "wal"
    sync(primary)
    restore(primary, in_folder, tmp_path / "restored.db")
    restored = worker.open(tmp_path / "restored.db", "restored")
    assert restored.content() == expected


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"])
def test_leaving_wal_mode_is_refused_with_a_message(mode, start, host, in_folder, tmp_path):
    primary = start(host, in_folder).open(in_folder.primary(tmp_path / "app.db"))
    fill(primary)
    with pytest.raises(SqlError, match="(?i)wal"):
        primary.rows(f"PRAGMA journal_mode={mode}")
    assert primary.one("PRAGMA journal_mode") == "wal"
    insert(primary)
    assert sync(primary) == in_folder.last_txid()


def test_checkpoints_are_sqlites_own(start, in_folder, tmp_path):
    """No pinned read transaction: automatic checkpoints keep the WAL short, TRUNCATE empties it."""
    primary = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    fill(primary)
    for _ in range(60):
        insert(primary, rows=200)
    wal = tmp_path / "app.db-wal"
    assert wal.stat().st_size < 3 * 1000 * 4120, "automatic checkpoints restart the WAL"
    assert primary.rows("PRAGMA wal_checkpoint(TRUNCATE)") == [[0, 0, 0]]
    assert wal.stat().st_size == 0
    sync(primary)
    restore(primary, in_folder, tmp_path / "restored.db")
    assert in_folder.gaps() == []
    assert primary.worker.open(tmp_path / "restored.db", "restored").content() == primary.content()


def check_that_the_replica_has_only_the_row_that_was_kept(primary, replica):
    sync(primary)
    until(lambda: replica.one("SELECT count(*) FROM t") == 201, 5, "the row that was kept")
    assert replica.content() == primary.content()


def test_rolled_back_work_never_reaches_the_replica(start, host, location, tmp_path):
    primary = start(host, location).open(location.primary(tmp_path / "app.db"))
    primary.run("PRAGMA cache_size=10")
    fill(primary)
    sync(primary)
    replica = start(host, location).open(location.replica(poll_interval="100ms"))
    primary.run("BEGIN")
    insert(primary, rows=3000)  # spills into the WAL
    primary.run("ROLLBACK", "INSERT INTO t(name) VALUES ('kept')")
    check_that_the_replica_has_only_the_row_that_was_kept(primary, replica)


def test_work_after_a_rolled_back_savepoint_reaches_the_replica(start, host, location, tmp_path):
    """SQLite before its fix (3.40.1 has the bug, without us too) leaves frames with wrong checksums here: the
    WAL-index says that they are committed, readers see them, and only a recovery after a crash would not."""
    primary = start(host, location).open(location.primary(tmp_path / "app.db"))
    primary.run("PRAGMA cache_size=10")
    fill(primary)
    sync(primary)
    replica = start(host, location).open(location.replica(poll_interval="100ms"))
    primary.run("BEGIN", "SAVEPOINT s")
    insert(primary, rows=3000)  # spills into the WAL
    primary.run("ROLLBACK TO s", "INSERT INTO t(name) VALUES ('kept')", "COMMIT")
    check_that_the_replica_has_only_the_row_that_was_kept(primary, replica)


def test_exclusive_locking_mode_replicates(start, in_folder, tmp_path):
    primary = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    primary.run("PRAGMA locking_mode=EXCLUSIVE")
    for _ in range(5):
        insert(primary, rows=300)
    sync(primary)
    expected = primary.content()
    restore(primary, in_folder, tmp_path / "restored.db")
    assert primary.worker.open(tmp_path / "restored.db", "restored").content() == expected


def test_a_new_database_is_healthy_from_its_first_commit_on(start, tmp_path):
    """It becomes one in WAL mode after that, and until then nobody knows that anything keeps it from it."""
    worker = start("python")
    for n in range(5):
        db = worker.open(sqlite_uri(tmp_path / f"{n}.db", vfs="litestream", replica=f"file://{tmp_path}/replica-{n}"), f"{n}")
        db.run("CREATE TABLE t(x)", "INSERT INTO t VALUES (1)")
        began = time.monotonic()
        while time.monotonic() < began + 0.5:
            [[state, error]] = db.rows("SELECT state, last_error FROM litestream_status WHERE role = 'primary'")
            assert state != "retrying" and error is None
        sync(db)


def test_a_new_database_that_is_locked_exclusively_from_the_start_says_that_it_waits(start, in_folder, tmp_path):
    primary = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    primary.run("PRAGMA locking_mode=EXCLUSIVE")
    fill(primary)
    with pytest.raises(SqlError, match="not in WAL mode yet: a connection keeps it locked"):
        sync(primary, 2)


@pytest.mark.parametrize("when", ["from the start", "before the first copy"])
def test_a_new_database_that_is_locked_exclusively_gets_there_when_it_is_closed(start, in_folder, tmp_path, when):
    """Its lock is the first step of a close, too: however long ago it was taken, the close begins when it begins."""
    patience = 4
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db", close_timeout=f"{patience}s"))
    if when == "before the first copy":
        db.run("CREATE TABLE first(x)")
    locked = time.monotonic()
    db.run("PRAGMA locking_mode=EXCLUSIVE")
    fill(db)
    while time.monotonic() < locked + patience + 0.5:
        insert(db)
        time.sleep(0.1)
    expected = db.content()
    db.close()
    assert in_folder.files(), "the close waited for it"
    restore(start("python").open(":memory:").load(), in_folder, tmp_path / "restored.db")
    assert start("python", load=False).open(tmp_path / "restored.db").content() == expected


def test_two_processes_write_through_us_and_nothing_is_missing(start, location, tmp_path):
    uri = location.primary(tmp_path / "app.db")
    first = start("python", location).open(uri)
    first.run("CREATE TABLE t(who, n)")
    second = start("apsw", location).open(uri)
    for n in range(100):
        first.rows("INSERT INTO t VALUES ('first', ?)", n)
        second.rows("INSERT INTO t VALUES ('second', ?)", n)
        if n % 25 == 0:
            second.run("PRAGMA wal_checkpoint(TRUNCATE)")
    sync(first)
    restore(first, location, tmp_path / "restored.db")
    restored = first.worker.open(tmp_path / "restored.db", "restored")
    assert restored.rows("SELECT who, count(*) FROM t GROUP BY 1 ORDER BY 1") == [["first", 100], ["second", 100]]
    assert location.gaps() == []


def test_sync_in_a_process_that_does_not_publish_waits_for_the_one_that_does(start, location, tmp_path):
    uri = location.primary(tmp_path / "app.db")
    first = start("python", location).open(uri)
    first.run("CREATE TABLE t(x)")
    second = start("apsw", location).open(uri)
    second.run("INSERT INTO t VALUES (1)")
    assert sync(second, 10) == location.last_txid()
    restore(second, location, tmp_path / "restored.db")
    assert second.worker.open(tmp_path / "restored.db", "r").one("SELECT count(*) FROM t") == 1


def test_the_other_process_publishes_when_the_first_dies(start, location, tmp_path):
    uri = location.primary(tmp_path / "app.db")
    first = start("python", location)
    first.open(uri).run("CREATE TABLE t(x)", "INSERT INTO t VALUES (1)")
    second = start("python", location).open(uri)
    first.kill()
    second.run("INSERT INTO t VALUES (2)")
    assert sync(second, 20) == location.last_txid()
    restore(second, location, tmp_path / "restored.db")
    assert second.worker.open(tmp_path / "restored.db", "r").rows("SELECT x FROM t") == [[1], [2]]


def test_a_plain_writer_beside_us_leaves_no_silent_gap(start, location, tmp_path):
    primary = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    plain = start("apsw", load=False).open(tmp_path / "app.db")
    insert(plain, rows=50)
    plain.run("PRAGMA wal_checkpoint(TRUNCATE)")
    insert(plain, rows=50)
    insert(primary)
    sync(primary)
    restore(primary, location, tmp_path / "restored.db")
    assert primary.worker.open(tmp_path / "restored.db", "restored").content() == primary.content()
    assert location.gaps() == []


def test_a_second_primary_on_the_same_replica_stops_loudly(start, location, tmp_path):
    mine = start("python", location).open(location.primary(tmp_path / "mine.db"))
    fill(mine)
    sync(mine)
    theirs = start("python", location).open(location.primary(tmp_path / "theirs.db"))
    theirs.run("CREATE TABLE other(x)", "INSERT INTO other VALUES (1)")
    with pytest.raises(SqlError, match=r"app|replica") as conflict:
        sync(theirs, 5)
    assert conflict.value.kind != "HostDied"
    assert theirs.one("SELECT count(*) FROM other") == 1, "the database itself keeps working"
    assert location.url in status(theirs)
    insert(mine)
    sync(mine)
    restore(mine, location, tmp_path / "restored.db")
    assert mine.worker.open(tmp_path / "restored.db", "restored").content() == mine.content()


def test_an_application_writes_on_while_the_first_snapshot_is_made(start, in_s3, proxy, tmp_path):
    location = in_s3.at(proxy.endpoint)
    plain = start("python", load=False).open(tmp_path / "app.db")
    plain.run("PRAGMA journal_mode=WAL")
    fill(plain, rows=20000, size=1000)
    plain.close()
    proxy.delay = 0.1
    worker = start("python", location)
    primary = worker.open(location.primary(tmp_path / "app.db"))
    for _ in range(50):
        insert(primary, rows=10)
    assert not in_s3.files(), "the writes were not meant to wait for the snapshot"
    sync(primary, 60)
    restore(primary, location, tmp_path / "restored.db")
    assert worker.open(tmp_path / "restored.db", "restored").content() == primary.content()


def test_under_load_one_file_per_sync_interval(start, through_proxy, proxy, tmp_path):
    """The cost in PUTs is bounded by time, not by commits."""
    primary = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db", sync_interval="1s"))
    primary.run("CREATE TABLE t(x)")
    sync(primary)
    began, before = len(proxy.requests), proxy.counts()["PUT"]
    worker_time = primary.one("SELECT julianday('now')")
    while (seconds := (primary.one("SELECT julianday('now')") - worker_time) * 86400) < 4:
        primary.run("INSERT INTO t VALUES (1)")
    puts = proxy.counts()["PUT"] - before
    assert 3 <= puts <= seconds + 2, [r.target for r in proxy.requests[began:]]
