"""The local state of a database is forgotten: after a restore by hand, or a folder that was copied from somewhere, nothing of it
is believed any more. The database and its replica are as they were, and replication continues by a comparison.
"""

import json

import pytest

from harness.sql import fill, insert, restore, sync
from harness.worker import SqlError


@pytest.fixture
def state(tmp_path):
    return tmp_path / ".app.db-litestream"


def test_the_next_open_compares_and_continues(start, location, tmp_path, state):
    worker = start("python", location)
    db = worker.open(location.primary(tmp_path / "app.db"))
    fill(db)
    before = sync(db)
    tools = worker.open(":memory:", "tools").load()
    with pytest.raises(SqlError, match="is open as a primary"):
        tools.one("SELECT litestream_reset(?)", str(tmp_path / "app.db"))
    db.close()
    # The database lingers, in this process; and there may be a sidecar's files.
    (state / "ltx").mkdir()
    answer = json.loads(tools.one("SELECT litestream_reset(?)", str(tmp_path / "app.db")))
    assert answer == {"path": str(tmp_path / "app.db"), "waiting_files": 0}
    assert {path.name for path in state.iterdir()} <= {"ltx", "vfs.lock", "format.json", "vfs.sock"}
    db = worker.open(location.primary(tmp_path / "app.db"))
    assert sync(db) == before, "nothing differs, and nothing is sent"
    insert(db)
    assert sync(db) == before + 1
    restore(db, location, tmp_path / "restored.db")
    assert start("python").open(tmp_path / "restored.db").content() == db.content()


def test_what_waits_is_counted(start, through_proxy, in_s3, proxy, tmp_path):
    worker = start("python", through_proxy)
    db = worker.open(through_proxy.primary(tmp_path / "app.db", close_timeout="100ms"))
    fill(db)
    sync(db)
    proxy.refuse()
    insert(db)
    db.close()
    tools = worker.open(":memory:", "tools").load()
    assert json.loads(tools.one("SELECT litestream_reset(?)", str(tmp_path / "app.db")))["waiting_files"] == 1
    proxy.accept()
    db = worker.open(through_proxy.primary(tmp_path / "app.db"))
    with pytest.raises(SqlError, match="resume"):
        sync(db, 20)
    db.one("SELECT litestream_resume('force')")
    restore(db, in_s3, tmp_path / "restored.db")
    assert start("python").open(tmp_path / "restored.db").content() == db.content()


def test_other_processes_keep_their_state(start, location, tmp_path):
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(db)
    tools = start("python", location).open(":memory:", "tools").load()
    with pytest.raises(SqlError, match="is open as a primary"):
        tools.one("SELECT litestream_reset(?)", str(tmp_path / "app.db"))
    with pytest.raises(SqlError):
        db.one("SELECT litestream_reset(?)", str(tmp_path / "other.db"))


def test_there_is_nothing_to_forget(start, tmp_path):
    tools = start("python").open(":memory:", "tools").load()
    assert json.loads(tools.one("SELECT litestream_reset(?)", str(tmp_path / "none.db")))["waiting_files"] == 0
    assert not list(tmp_path.iterdir())
