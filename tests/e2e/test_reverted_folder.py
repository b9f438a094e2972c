"""A folder comes back as it was: a copy of it, state folder and all, or a disk or virtual machine that is reverted.

The state folder says which transaction the database is, and the pages bear it out: it is brought forward. What has
commits of its own beside those of the replica stops. Nothing is published by an open that commits nothing.
"""

import json
import shutil

import pytest

from harness.sql import fill, insert, restore, status, sync
from harness.worker import SqlError

ROWS = "SELECT count(*) FROM t"


def contents(location):
    return {f.path: f.path.read_bytes() for f in location.files()}


def state_of(db):
    return json.loads(status(db))["databases"][0]


def files_of(database):
    """The database, what lies beside it, and its folder of local state."""
    beside = [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm")]
    folder = database.with_name(f".{database.name}-litestream")
    return [p for p in [*beside, *folder.rglob("*")] if p.is_file()]


class Snapshot:
    """What a file system goes back to: the same files, with the content and the times of then."""

    def __init__(self, database):
        self.database = database
        self.files = {p: (p.read_bytes(), p.stat()) for p in files_of(database)}

    def revert(self):
        import os

        for path in files_of(self.database):
            if path not in self.files:
                path.unlink()
        for path, (content, stat) in self.files.items():
            with open(path, "r+b" if path.exists() else "wb") as file:
                file.write(content)
                file.truncate()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def copy_folder(database, name):
    """Another folder with all of it."""
    copy = database.with_name(name) / database.name
    copy.parent.mkdir()
    for suffix in ("", "-wal"):
        if (path := database.with_name(database.name + suffix)).exists():
            shutil.copy2(path, copy.with_name(copy.name + suffix))
    shutil.copytree(database.with_name(f".{database.name}-litestream"), copy.with_name(f".{database.name}-litestream"),
                    ignore=shutil.ignore_patterns("*.sock"))
    return copy


@pytest.fixture
def database(start, location, tmp_path):
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(db)
    sync(db)
    db.close()
    return tmp_path / "app.db"


def go_on(start, location, database, close=True):
    db = start("python", location).open(location.primary(database))
    insert(db, rows=50)
    sync(db)
    expected = db.content()
    if close:
        db.close()
    return db, expected


def assert_brought_forward(start, location, database, expected):
    before = contents(location)
    db = start("python", location).open(location.primary(database))
    assert db.one(ROWS) == 250
    assert "brought forward" in state_of(db)["notice"]
    assert db.content() == expected
    sync(db)
    assert contents(location) == before, "nothing was committed"
    return db


def test_a_disk_that_was_reverted(database, start, location, tmp_path):
    snapshot = Snapshot(database)
    _, expected = go_on(start, location, database)
    snapshot.revert()
    db = assert_brought_forward(start, location, database, expected)
    insert(db)
    sync(db)
    restore(db, location, tmp_path / "restored.db")
    assert start().open(tmp_path / "restored.db").content() == db.content()


def test_a_disk_that_was_reverted_while_the_database_was_open(database, start, location, tmp_path):
    """A variation: the snapshot was taken of a running primary, so that there is a WAL."""
    worker = start("python", location)
    db = worker.open(location.primary(database))
    insert(db, rows=5)
    sync(db)
    snapshot = Snapshot(database)
    insert(db, rows=45)
    sync(db)
    expected = db.content()
    worker.kill()
    snapshot.revert()
    assert_brought_forward(start, location, database, expected)


@pytest.mark.parametrize("runs", [True, False], ids=["running", "closed"])
def test_a_copied_folder(runs, database, start, location, tmp_path):
    copy = copy_folder(database, "copy")
    real, expected = go_on(start, location, database, close=not runs)
    db = assert_brought_forward(start, location, copy, expected)
    db.close()
    if runs:
        insert(real)
        sync(real)
        assert state_of(real)["state"] == "idle"


def test_a_copied_folder_of_the_newest_state_is_another_writer(database, start, location, tmp_path):
    copy = copy_folder(database, "copy")
    before = contents(location)
    db = start("python", location).open(location.primary(copy))
    sync(db)
    assert contents(location) == before
    real, _ = go_on(start, location, database, close=False)
    insert(db)
    with pytest.raises(SqlError, match="another primary"):
        sync(db, 20)
    insert(real)
    sync(real)
    restore(real, location, tmp_path / "restored.db")
    assert start().open(tmp_path / "restored.db").content() == real.content()


def test_a_reverted_disk_with_commits_of_its_own_stops(database, start, location, tmp_path):
    snapshot = Snapshot(database)
    go_on(start, location, database)
    snapshot.revert()
    plain = start("python", load=False).open(database)
    insert(plain)
    plain.close()
    before = contents(location)
    db = start("python", location).open(location.primary(database))
    assert db.one(ROWS) == 201
    with pytest.raises(SqlError, match="litestream_restore.*litestream_resume"):
        sync(db, 20)
    assert contents(location) == before


def test_it_stays_and_stops_if_the_setting_says_so(database, start, location, tmp_path):
    snapshot = Snapshot(database)
    go_on(start, location, database)
    snapshot.revert()
    db = start("python", location).open(location.primary(database, rewound="stop"))
    assert db.one(ROWS) == 200
    with pytest.raises(SqlError, match="rewound=stop"):
        sync(db, 20)


def test_another_process_has_it_open(database, start, location, tmp_path):
    snapshot = Snapshot(database)
    go_on(start, location, database)
    snapshot.revert()
    plain = start("python", load=False).open(database)
    assert plain.one(ROWS) == 200
    db = start("python", location).open(location.primary(database))
    assert db.one(ROWS) == 200, "nothing changes under a program that has it open"
    with pytest.raises(SqlError, match="litestream_restore.*litestream_resume"):
        sync(db, 20)


def test_a_process_that_is_killed_while_it_is_brought_forward(start, through_proxy, proxy, tmp_path):
    import threading

    database = tmp_path / "app.db"
    db = start("python", through_proxy).open(through_proxy.primary(database))
    fill(db, rows=5000)
    sync(db)
    db.close()
    snapshot = Snapshot(database)
    db = start("python", through_proxy).open(through_proxy.primary(database))
    insert(db, rows=5000)
    sync(db)
    expected = db.content()
    db.close()
    snapshot.revert()
    for delay in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3):
        worker = start("python", through_proxy)
        killer = threading.Timer(delay, worker._process.kill)
        worker.begin("open", name="db", target=through_proxy.primary(database), timeout=10)
        killer.start()
        killer.join()
        worker.kill()
    db = start("python", through_proxy).open(through_proxy.primary(database))
    assert db.content() == expected
