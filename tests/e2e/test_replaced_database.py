"""A database file is removed or replaced, and the hidden folder of local state beside it stays.

The new file is not what the state folder speaks of, and is published at no start until somebody says so. Under an
open primary it is an error that says what happened.
"""

import json
import os
import shutil

import pytest

from harness.sql import SCHEMA, fill, insert, restore, status, sync
from harness.wait import until
from harness.worker import SqlError

ROWS = "SELECT count(*) FROM t"


def contents(location):
    return {f.path: f.path.read_bytes() for f in location.files()}


def state_of(db):
    return json.loads(status(db))["databases"][0]


@pytest.fixture
def filled(start, location, tmp_path):
    """A good replica of a thousand rows, and the database that it is of, closed."""
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(db, rows=1000)
    sync(db)
    db.close()
    return tmp_path / "app.db"


def remove(database):
    for suffix in ("", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def plain_database(start, path, rows=1):
    db = start("python", load=False).open(path)
    db.run(*SCHEMA)
    insert(db, rows=rows)
    db.close()
    return path


def assert_refused_until_forced(start, location, database, tmp_path, rows):
    before = contents(location)
    for _ in range(3):
        db = start("python", location).open(location.primary(database))
        db.run(*(sql.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS").replace("CREATE INDEX", "CREATE INDEX IF NOT EXISTS")
                 for sql in SCHEMA))
        with pytest.raises(SqlError, match="litestream_restore.*litestream_resume"):
            sync(db, 20)
        db.close()
        assert contents(location) == before
    restore(start("python", location).open(":memory:"), location, tmp_path / "good.db")
    assert start().open(tmp_path / "good.db").one(ROWS) == 1000
    db = start("python", location).open(location.primary(database))
    db.one("SELECT litestream_resume('force')")
    restore(db, location, tmp_path / "forced.db")
    assert start().open(tmp_path / "forced.db").one(ROWS) == rows


def test_it_was_removed_and_the_program_makes_a_new_one(filled, start, location, tmp_path):
    remove(filled)
    assert_refused_until_forced(start, location, filled, tmp_path, 0)


def test_another_program_made_a_new_one(filled, start, location, tmp_path):
    remove(filled)
    plain_database(start, filled)
    assert_refused_until_forced(start, location, filled, tmp_path, 1)


def test_it_was_renamed_over(filled, start, location, tmp_path):
    os.replace(plain_database(start, tmp_path / "new.db", rows=7), filled)
    assert_refused_until_forced(start, location, filled, tmp_path, 7)


def test_another_database_was_copied_into_it(filled, start, location, tmp_path):
    """A variation: the file is the same one by its inode and its birth, and all its pages are another database's."""
    shutil.copy(plain_database(start, tmp_path / "new.db", rows=7), filled)
    assert_refused_until_forced(start, location, filled, tmp_path, 7)


def test_a_fresh_one_is_in_its_place_while_a_connection_is_open(start, location, tmp_path):
    database = tmp_path / "app.db"
    worker = start("python", location)
    old = worker.open(location.primary(database), "old")
    fill(old, rows=1000)
    sync(old)
    before = contents(location)
    remove(database)
    os.replace(plain_database(start, tmp_path / "new.db"), database)
    new = worker.open(location.primary(database), "new")
    for db in (new, old):
        with pytest.raises(SqlError, match="was replaced by another file while it was open"):
            sync(db, 20)
    with pytest.raises(SqlError, match="was replaced"):
        new.one("SELECT litestream_resume('force')")
    assert contents(location) == before
    worker.end()
    assert_refused_until_forced(start, location, database, tmp_path, 1)


@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_status_says_that_the_file_is_gone_under_an_open_primary(what, start, location, tmp_path):
    database = tmp_path / "app.db"
    db = start("python", location).open(location.primary(database, watch_interval="100ms"))
    fill(db)
    sync(db)
    if what == "removed":
        database.unlink()
    else:
        os.replace(plain_database(start, tmp_path / "new.db"), database)
    until(lambda: state_of(db)["state"] == "stopped", 5)
    assert f"was {what}" in state_of(db)["last_error"]
    insert(db)
    with pytest.raises(SqlError, match=f"was {what}.*while it was open"):
        sync(db, 20)


def test_a_file_that_comes_back_goes_on(start, location, tmp_path):
    database = tmp_path / "app.db"
    db = start("python", location).open(location.primary(database))
    fill(db)
    sync(db)
    os.rename(database, tmp_path / "away.db")
    with pytest.raises(SqlError, match="was removed"):
        sync(db, 20)
    os.rename(tmp_path / "away.db", database)
    insert(db)
    db.one("SELECT litestream_resume()")
    restore(db, location, tmp_path / "restored.db")
    assert start().open(tmp_path / "restored.db").content() == db.content()


def test_who_has_the_old_file_open_leaves_alone_what_waits_for_the_new_one(start, in_s3, through_proxy, proxy, tmp_path):
    """Everything is removed and made anew by another process, which has an outage: the waiting files are its points in time."""
    path = tmp_path / "app.db"
    old = start("python", through_proxy).open(through_proxy.primary(path))
    fill(old)
    sync(old)
    remove(path)
    shutil.rmtree(tmp_path / ".app.db-litestream")
    shutil.rmtree(in_s3.folder)
    in_s3.folder.mkdir()
    new = start("python", through_proxy).open(through_proxy.primary(path, sync_interval="100ms"))
    fill(new)
    last = sync(new)
    proxy.refuse()

    def waiting():
        return {path: path.read_bytes() for path in (tmp_path / ".app.db-litestream").rglob("spool/*.ltx")}

    insert(new)
    until(lambda: state_of(new)["state"] == "retrying", 20)
    for n in range(1, 4):
        insert(new)
        until(lambda: len(waiting()) > n, 20)
    before = waiting()
    with pytest.raises(SqlError, match="was replaced by another file"):
        sync(old)
    until(lambda: state_of(old)["state"] == "stopped", 20)
    assert waiting() == before and len(before) > 3
    proxy.accept()
    assert sync(new) > last + 1
    restore(new, in_s3, tmp_path / "restored.db")
    assert start().open(tmp_path / "restored.db").one(ROWS) == new.one(ROWS)
