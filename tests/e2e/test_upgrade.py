"""Version 0.1.0 was here before, or still is.

What it left beside a database is taken over: replication goes on where it ended, and what waited is sent. The folders in
`tests/golden/state-0.1.0` were written by it: one of a clean close, two of `kill -9`, of which one was in an outage.

While a process still has it loaded, as in a deployment that replaces one process after the other, one of the two versions
publishes, and the other waits or is refused. These tests need that library: `LITESTREAM_VFS_OLD` names it, and they are
skipped without.
"""

import fcntl
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from harness.location import Location
from harness.paths import OLD_LIBRARY, ROOT
from harness.several import assert_each_is, bytes_in, primary_of, states
from harness.sql import insert, sync, txid
from harness.state import replica_state, replica_states, state_folder
from harness.wait import until
from harness.worker import SqlError

GOLDEN = ROOT / "tests" / "golden" / "state-0.1.0"
ROWS = {"closed": 101, "killed": 102, "waiting": 105}
LAST = {"closed": 2, "killed": 2, "waiting": 3}

both_versions = pytest.mark.skipif(OLD_LIBRARY is None, reason="LITESTREAM_VFS_OLD does not name version 0.1.0")


def left_behind(story: str, folder: Path, location: Location) -> Path:
    """A database with all that version 0.1.0 left, as if it had been written here in this boot of the machine."""
    golden, database = GOLDEN / story, folder / "app.db"
    for name in ("app.db", "app.db-wal"):
        if (golden / name).exists():
            shutil.copyfile(golden / name, folder / name)
    shutil.copytree(golden / "replica", location.folder)
    state = state_folder(database)
    shutil.copytree(golden / "state", state)
    file = database.stat()
    vfs = json.loads((state / "vfs.json").read_text())
    vfs |= {"url": location.url, "inode": file.st_ino,
            "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()}
    if "closed" in vfs:
        vfs["closed"] = {"device": file.st_dev, "inode": file.st_ino, "size": file.st_size,
                         "modified": [file.st_mtime_ns // 10**9, file.st_mtime_ns % 10**9]}
    (state / "vfs.json").write_text(json.dumps(vfs))
    return database


@pytest.mark.parametrize("story", ROWS)
def test_what_it_left_is_taken_over(start, in_folder, tmp_path, story):
    database = left_behind(story, tmp_path, in_folder)
    before = {f.path: f.path.read_bytes() for f in in_folder.files()}
    db = start("python").open(in_folder.primary(database))
    assert db.one("SELECT count(*) FROM t") == ROWS[story]
    insert(db)
    assert sync(db) == in_folder.last_txid() > LAST[story], "transactions are counted on"
    assert {path: path.read_bytes() for path in before} == before, "nothing is overwritten"
    assert_each_is(db, tmp_path, in_folder)
    new = sum(f.size for f in in_folder.files(0) if f.path not in before)
    whole = in_folder.files(0)[LAST[story] - 2].size
    assert new < whole, "it was copied anew"
    assert states(db)[in_folder.url]["state"] == "idle"
    # The state is where this version has it, and nowhere else.
    left = {path.name for path in state_folder(database).iterdir()}
    assert not left & {"vfs.json", "spool", "pages.sums", "wal", "handover", "history.json"}, left
    assert (replica_state(database) / "vfs.json").exists()
    # Once is enough.
    db.close()
    db = db.worker.open(in_folder.primary(database))
    insert(db)
    last = in_folder.last_txid()
    assert sync(db) == last + 1


@pytest.mark.parametrize("harm", ["another boot", "a copy of the file", "a broken state", "no checksums"])
def test_where_it_is_not_safe_the_database_is_compared(start, in_folder, tmp_path, harm):
    database = left_behind("killed", tmp_path, in_folder)
    state = state_folder(database)
    vfs = json.loads((state / "vfs.json").read_text())
    match harm:
        case "another boot":
            vfs["boot"] = "the boot before"
        case "a copy of the file":
            vfs["inode"] += 1
        case "no checksums":
            (state / "pages.sums").unlink()
    (state / "vfs.json").write_text("{" if harm == "a broken state" else json.dumps(vfs))
    before = {f.path: f.path.read_bytes() for f in in_folder.files()}
    # With the commit in the WAL the database is more than the replica. The WAL shows that it was the newest transaction before,
    # which suffices where it is known that the replica is this database's own.
    db = start("python").open(in_folder.primary(database))
    insert(db)
    if harm in ("a copy of the file", "a broken state"):
        with pytest.raises(SqlError, match="litestream_resume\\('force'\\)"):
            sync(db)
        assert txid(db.one("SELECT litestream_resume('force')")) == in_folder.last_txid()
    sync(db)
    assert {path: path.read_bytes() for path in before} == before
    assert_each_is(db, tmp_path, in_folder)
    assert (replica_state(database) / "vfs.json").exists()


def test_a_further_replica_comes_with_the_new_version(start, in_folder, in_s3, tmp_path):
    """What was left belongs to one of the two replicas that are named now."""
    database = left_behind("waiting", tmp_path, in_folder)
    before = bytes_in(in_folder)
    db = start("python", in_s3).open(primary_of(database, in_s3, in_folder))
    insert(db)
    assert sync(db) == in_s3.last_txid()
    assert_each_is(db, tmp_path, in_s3, in_folder)
    assert bytes_in(in_folder) - before < 3000, "it was copied anew"
    assert len(replica_states(database)) == 2


def test_a_later_format_is_refused(start, in_folder, tmp_path):
    db = start("python").open(in_folder.primary(tmp_path / "app.db"))
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name, data)")
    sync(db)
    db.close()
    before = {f.path: f.path.read_bytes() for f in in_folder.files()}
    noted = state_folder(tmp_path / "app.db") / "format.json"
    version = json.loads(noted.read_text())["version"]
    noted.write_text(json.dumps({"version": version + 1, "and": "more"}))
    with pytest.raises(SqlError) as refused:
        db.worker.open(in_folder.primary(tmp_path / "app.db")).rows("SELECT 1 FROM sqlite_schema")
    said = str(refused.value)
    assert f"has format {version + 1}" in said and f"knows {version} at most" in said and "later" in said, said
    assert {f.path: f.path.read_bytes() for f in in_folder.files()} == before
    # The database itself is there all the same, and with the folder gone it is compared.
    assert db.worker.open(tmp_path / "app.db", "plain").rows("SELECT * FROM t") == []
    shutil.rmtree(state_folder(tmp_path / "app.db"))
    db = db.worker.open(in_folder.primary(tmp_path / "app.db"))
    insert(db)
    assert sync(db) == in_folder.last_txid()


def version(start, location: Location, old: bool, **options):
    """A host that has one of the two versions loaded."""
    worker = start("python", location, load=not old, **options)
    if old:
        worker.load(OLD_LIBRARY)
    return worker


def publishing(database: Path) -> bool:
    """Whether some process holds the publisher lock."""
    with open(state_folder(database) / "vfs.lock", "r+b") as lock:
        try:
            # Version 0.1.0 locks the whole file, this one its byte 3.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 3)
        except OSError:
            return True
        return False


def test_who_publishes_by_the_lock_of_the_old_version_is_waited_for(start, in_folder, tmp_path):
    """That lock is on the whole file, of which the locks of this version are bytes."""
    database = tmp_path / "app.db"
    uri = in_folder.primary(database, sync_interval="50ms")
    worker, other = start("python"), start("python")
    db = worker.open(uri)
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
    sync(db)
    db.close()
    worker.end()
    with open(state_folder(database) / "vfs.lock", "r+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        first, second = start("python").open(uri), other.open(uri)
        for db in (first, second):
            assert db.one("SELECT state FROM litestream_status") == "standby"
            insert(db, rows=3)
            with pytest.raises(SqlError, match="litestream_sync"):
                sync(db, 1)
        assert in_folder.last_txid() == 1
    # It is gone: one of the two publishes, and the database counts as open.
    assert sync(first, 30) == sync(second, 30) == in_folder.last_txid() > 1
    assert sorted(db.one("SELECT state FROM litestream_status") for db in (first, second)).count("standby") == 1
    with open(state_folder(database) / "vfs.lock", "r+b") as lock, pytest.raises(OSError):
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(SqlError, match="open as a primary"):
        start("python", in_folder, env={"LITESTREAM_SQL": "on"}).open(":memory:").one(
            "SELECT litestream_restore(?, ?, ?)", in_folder.full_url, str(database), '{"force": true}')
    assert_each_is(first, tmp_path, in_folder)


@both_versions
@pytest.mark.parametrize("end", ["close", "kill"])
@pytest.mark.parametrize("old_first", [True, False], ids=["the old one first", "the new one first"])
def test_one_of_the_two_publishes(start, location, tmp_path, old_first, end):
    uri = location.primary(tmp_path / "app.db", sync_interval="50ms")
    first = version(start, location, old_first).open(uri)
    first.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
    sync(first)
    second = version(start, location, not old_first).open(uri)
    assert "standby" in second.one("SELECT litestream_status()")
    for n in range(20):
        insert(first, rows=5)
        insert(second, rows=5)
        if n % 5 == 4:
            assert sync((first, second)[n % 2]) == location.last_txid()
            (second, first)[n % 2].run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert sync(second) == location.last_txid()
    assert publishing(tmp_path / "app.db")
    # The one that goes is replaced by the other.
    insert(first, rows=3)
    first.worker.kill() if end == "kill" else first.close()
    insert(second, rows=3)
    assert sync(second, 30) == location.last_txid()
    assert location.gaps() == []
    assert '"standby"' not in second.one("SELECT litestream_status()")
    writers = {_node_id(f.path) for f in location.files(0)}
    print(f"{location.last_txid()} transactions by {len(writers)} writers")
    second.close()
    db = version(start, location, False).open(uri)
    insert(db)
    sync(db)
    assert_each_is(db, tmp_path, location)


def _node_id(path: Path) -> bytes:
    return path.read_bytes()[72:80]


@both_versions
def test_several_replicas_wait_until_the_old_process_is_gone(start, in_s3, in_folder, tmp_path):
    """A deployment brings the new version and a second replica: the old one knows nothing of that."""
    old = version(start, in_s3, True).open(in_s3.primary(tmp_path / "app.db"))
    old.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
    sync(old)
    new = version(start, in_s3, False).open(primary_of(tmp_path / "app.db", in_s3, in_folder))
    insert(new)
    with pytest.raises(SqlError) as late:
        sync(new, 1)
    assert in_folder.url in str(late.value) and in_s3.url not in str(late.value)
    rows = states(new)
    assert "0.1.0" in rows[in_folder.url]["last_error"] and rows[in_s3.url]["txid"]
    assert not in_folder.folder.exists()
    old.close()
    assert sync(new, 30) == in_s3.last_txid()
    assert_each_is(new, tmp_path, in_s3, in_folder)


@both_versions
def test_the_old_one_with_another_url_is_kept_out_or_told(start, in_s3, in_folder, tmp_path):
    new = version(start, in_s3, False).open(in_s3.primary(tmp_path / "app.db"))
    new.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
    sync(new)
    old = version(start, in_s3, True).open(in_folder.primary(tmp_path / "app.db"))
    insert(old)
    assert sync(new) == in_s3.last_txid()
    assert not in_folder.folder.exists(), "two publish"
    new.worker.kill()
    insert(old)
    until(lambda: publishing(tmp_path / "app.db"), 10)
    # And the other way round.
    with pytest.raises(SqlError, match="is open with replica="):
        version(start, in_s3, False).open(in_s3.primary(tmp_path / "app.db")).rows("SELECT * FROM t")
