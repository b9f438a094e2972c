"""A checkpoint cuts the WAL to nothing, or a close leaves a WAL of no bytes.

After a `wal_checkpoint(TRUNCATE)` the index has no page numbers any more, and the next commit begins a generation whose
link to the one before was lost in some orders: after a TRUNCATE of a WAL that was empty already, after two of them with a
close or a kill behind, and after a close with SQLITE_FCNTL_PERSIST_WAL and `journal_size_limit=0`. The database was then
compared page by page at the next open or, when a large part of its pages had changed, replication stopped. Right: the
chain of records goes through all of these, and only what changed is sent.
"""

import pytest

from harness.sql import fill, insert, restore, status, sync

TRUNCATE = "PRAGMA wal_checkpoint(TRUNCATE)"


def opened(start, location, tmp_path, **options):
    return start("apsw", location).open(location.primary(tmp_path / "app.db", **options))


def ends(db, killed):
    if killed:
        db.worker.kill()
    else:
        db.close()


def files(location):
    return sorted(file.path for file in location.files())


def assert_continues(db, location, tmp_path, before, commits, killed):
    """What was committed goes out: no copy, no comparison, no stop. A kill between a file's arrival and the note of it
    has its pages sent once more."""
    sync(db, 30)
    added = [path for path in files(location) if path not in before]
    assert len(added) in ({commits, commits + 1} if killed else {commits}), (added, status(db))
    whole = (tmp_path / "app.db").stat().st_size
    for path in added:
        assert path.stat().st_size < whole / 4, "more was sent than what changed"
    path = tmp_path / f"restored {commits}.db"
    restore(db, location, path)
    restored = db.worker.open(path, "restored")
    assert restored.one("PRAGMA integrity_check") == "ok" and restored.content() == db.content()


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
@pytest.mark.parametrize("truncated", [1, 2, 3])
def test_a_log_that_was_cut_before_the_end(start, in_folder, tmp_path, truncated, killed):
    db = opened(start, in_folder, tmp_path)
    fill(db)
    sync(db)
    db.close()
    before = files(in_folder)
    db = opened(start, in_folder, tmp_path, sync_interval="1h")
    sync(db)
    insert(db)
    for _ in range(truncated):
        assert db.rows(TRUNCATE)[0][0] == 0
    ends(db, killed)
    db = opened(start, in_folder, tmp_path)
    assert_continues(db, in_folder, tmp_path, before, 1, killed)
    insert(db)
    assert_continues(db, in_folder, tmp_path, before, 2, killed)


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_an_empty_log_is_cut_and_then_written(start, in_folder, tmp_path, killed):
    db = opened(start, in_folder, tmp_path)
    fill(db)
    sync(db)
    db.close()
    before = files(in_folder)
    db = opened(start, in_folder, tmp_path)
    assert db.rows(TRUNCATE)[0][0] == 0
    insert(db)
    ends(db, killed)
    db = opened(start, in_folder, tmp_path)
    assert_continues(db, in_folder, tmp_path, before, 1, killed)


def test_a_close_that_keeps_the_log(start, through_proxy, in_s3, proxy, tmp_path):
    """Most pages were changed while the store was away: it stopped at the next open."""
    db = opened(start, through_proxy, tmp_path)
    fill(db)
    sync(db)
    proxy.refuse()
    db.worker.call("persist_wal", name=db.name)
    db.run("PRAGMA journal_size_limit=0", "DELETE FROM t", "PRAGMA user_version=7")
    insert(db)
    db.close()
    assert (tmp_path / "app.db-wal").stat().st_size == 0
    proxy.accept()
    db = opened(start, through_proxy, tmp_path)
    sync(db, 30)
    assert db.one("PRAGMA user_version") == 7
    restore(db, in_s3, tmp_path / "restored.db")
    restored = db.worker.open(tmp_path / "restored.db", "restored")
    assert restored.one("PRAGMA integrity_check") == "ok" and restored.content() == db.content()
