"""Restore, open, write at once: how a container starts.

What was restored is known from the mark that the restore leaves or, if another program restored it, from a
comparison with the pages as they were at the open. Nothing that the program writes at once is taken for another
database, however small the database is.
"""

import json
import os

import pytest

from harness.script import run
from harness.sql import fill, insert, restore, status, sync
from harness.worker import SqlError

ROWS = "SELECT count(*) FROM t"

RACE = """
load()
import shutil
db = connect(PRIMARY)
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name)")
db.executemany("INSERT INTO t(name) VALUES (?)", [(f"row {n}",) for n in range(SEED)])
one(db, "SELECT litestream_sync()")
db.close()
expected = SEED
for n in range(TRIES):
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(PATH + suffix):
            os.remove(PATH + suffix)
    if not WITH_STATE:
        shutil.rmtree(STATE, ignore_errors=True)
    if RESTORES:
        one(connect(":memory:"), "SELECT litestream_restore(?, ?)", URL, PATH)
        if not MARKED:
            shutil.rmtree(STATE, ignore_errors=True)
    db = connect(PRIMARY)
    rows = 1 + n * 29 // max(TRIES - 1, 1)
    db.execute("BEGIN")
    db.executemany("INSERT INTO t(name) VALUES (?)", [("new",)] * rows)
    db.execute("COMMIT")
    expected += rows
    one(db, "SELECT litestream_sync(20)")
    assert one(db, "SELECT count(*) FROM t") == expected
    db.close()
one(connect(":memory:"), "SELECT litestream_restore(?, ?)", URL, PATH + ".restored")
assert one(connect(PATH + ".restored"), "SELECT count(*) FROM t") == expected
print("done")
"""


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "unmarked"])
@pytest.mark.parametrize("with_state", [True, False], ids=["old state folder", "nothing left"])
def test_containers_start_again_and_again(marked, with_state, in_folder, tmp_path):
    tries = int(os.environ.get("LITESTREAM_STARTS", "50"))
    done = run(RACE, tmp_path, PRIMARY=in_folder.primary(tmp_path / "app.db", sync_interval="10ms"),
               PATH=str(tmp_path / "app.db"), STATE=str(tmp_path / ".app.db-litestream"), URL=in_folder.url,
               SEED=1, TRIES=tries, RESTORES=True, MARKED=marked, WITH_STATE=with_state, timeout=300,
               env={"LITESTREAM_SQL": "on"})
    assert "done" in done.stdout


def test_only_the_state_folder_is_lost_and_the_program_writes_at_once(in_folder, tmp_path):
    script = RACE.replace("for suffix in (\"\", \"-wal\", \"-shm\"):", "for suffix in ():")
    done = run(script, tmp_path, PRIMARY=in_folder.primary(tmp_path / "app.db", sync_interval="10ms"),
               PATH=str(tmp_path / "app.db"), STATE=str(tmp_path / ".app.db-litestream"), URL=in_folder.url,
               SEED=1, TRIES=50, RESTORES=False, MARKED=False, WITH_STATE=False, timeout=300,
               env={"LITESTREAM_SQL": "on"})
    assert "done" in done.stdout


def rewound(start, location, tmp_path, **options):
    """A database that was restored to the first of two states, and that state's and the last transaction."""
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(db)
    first = sync(db)
    insert(db, rows=50)
    last = sync(db)
    restore(db, location, tmp_path / "old.db", txid=f"{first:016x}", **options)
    db.close()
    return first, last


def test_a_database_that_was_restored_to_an_earlier_time_waits_for_a_decision(start, location, tmp_path):
    first, last = rewound(start, location, tmp_path)
    uri = location.primary(tmp_path / "old.db")
    for _ in range(2):
        db = start("python", location).open(uri)
        assert db.one(ROWS) == 200, "it is not brought forward"
        insert(db)
        with pytest.raises(SqlError, match=f"{first:016x}.*litestream_resume"):
            sync(db, 20)
        assert location.last_txid() == last
        rows = db.one(ROWS)
        db.run("DELETE FROM t WHERE id > 200")
        db.worker.end()
    db = start("python", location).open(uri)
    db.one("SELECT litestream_resume('force')")
    assert location.last_txid() > last
    restore(db, location, tmp_path / "restored.db")
    assert start().open(tmp_path / "restored.db").one(ROWS) == 200
    restore(db, location, tmp_path / "left.db", txid=f"{last:016x}")
    assert start().open(tmp_path / "left.db").one(ROWS) == 250
    assert rows == 201


def test_rewind_says_beforehand_that_it_is_to_be_the_present(start, location, tmp_path):
    _, last = rewound(start, location, tmp_path, rewind=True)
    db = start("python", location).open(location.primary(tmp_path / "old.db"))
    assert sync(db) == last + 1
    insert(db)
    sync(db)
    restore(db, location, tmp_path / "restored.db")
    assert start().open(tmp_path / "restored.db").one(ROWS) == 201


@pytest.mark.parametrize("options", [{}, {"rewind": True}], ids=["newest", "rewound"])
def test_a_restored_database_begins_anew_where_the_replica_was_emptied(start, location, tmp_path, options):
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(db, rows=200)
    last = sync(db)
    insert(db)
    sync(db)
    db.close()
    if options:
        options["txid"] = f"{last:016x}"
    restore(start("python", location).open(":memory:"), location, tmp_path / "restored.db", **options)
    for file in location.files():
        file.path.unlink()
    db = start("python", location).open(location.primary(tmp_path / "restored.db"))
    assert sync(db) == 1
    restore(db, location, tmp_path / "again.db")
    assert start().open(tmp_path / "again.db").content() == db.content()
    assert json.loads(status(db))["databases"][0].get("notice") is None


def test_a_restore_over_a_database_forgets_what_its_state_folder_said(start, location, tmp_path):
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(db)
    sync(db)
    db.close()
    restore(start("python", location).open(":memory:"), location, tmp_path / "app.db", force=True)
    before = {f.path for f in location.files()}
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    insert(db)
    sync(db)
    assert len({f.path for f in location.files()} - before) == 1
    assert json.loads(status(db))["databases"][0].get("notice") is None
