"""A copy of an older state is opened with the primary's URI, as by a script that reads yesterday's backup.

The copy has no state folder, or one that a restore left. It is brought forward if a restore left word which
transaction it is, and refused else; never is anything published by an open that commits nothing, and the real
primary goes on, whether it runs meanwhile or not.
"""

import json
import shutil
import subprocess

import pytest

from harness.paths import LITESTREAM, clean_env
from harness.sql import fill, insert, restore, status, sync
from harness.worker import SqlError

ROWS = "SELECT count(*) FROM t"


def by_litestream_restore_function(worker, location, target):
    restore(worker.open(":memory:", "restoring"), location, target)


def by_litestream(worker, location, target):
    url = location.full_url if location.is_s3 else location.url
    subprocess.run([LITESTREAM, "restore", "-o", target, url], env=clean_env(**location.env), check=True,
                   capture_output=True, timeout=60)


def by_cp(worker, location, target):
    plain = worker.open(target.parent / "app.db", "checkpointing")
    plain.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(target.parent / "app.db", target)
    plain.close()


WAYS = {"function": by_litestream_restore_function, "litestream": by_litestream, "cp": by_cp}


def contents(location):
    return {f.path: f.path.read_bytes() for f in location.files()}


def state_of(db):
    return json.loads(status(db))["databases"][0]


@pytest.fixture
def real(start, location, tmp_path):
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(db)
    sync(db)
    return db


def copy_and_go_on(real, location, tmp_path, way):
    """The copy, and fifty rows later that the primary confirmed."""
    WAYS[way](real.worker, location, tmp_path / "copy.db")
    insert(real, rows=50)
    sync(real)
    return location.primary(tmp_path / "copy.db")


@pytest.mark.parametrize("runs", [True, False], ids=["running", "closed"])
@pytest.mark.parametrize("way", WAYS)
def test_a_stale_copy_that_is_only_read_changes_nothing(way, runs, real, start, location, tmp_path):
    uri = copy_and_go_on(real, location, tmp_path, way)
    expected = real.content()
    if not runs:
        real.close()
    before = contents(location)
    copy = start("python", location).open(uri)
    rows = copy.one(ROWS)
    if way == "function":
        assert rows == 250, "it is brought forward before anybody reads"
        assert "brought forward" in state_of(copy)["notice"]
        assert copy.content() == expected
    else:
        assert rows == 200
        with pytest.raises(SqlError, match="litestream_restore.*litestream_resume"):
            sync(copy, 20)
        assert state_of(copy)["state"] == "stopped"
    copy.close()
    assert contents(location) == before
    if runs:
        insert(real, rows=3)
        sync(real)
        assert state_of(real)["state"] == "idle"
    restore(start("python", location).open(":memory:"), location, tmp_path / "restored.db")
    assert start().open(tmp_path / "restored.db").one(ROWS) == 250 + (3 if runs else 0)


@pytest.mark.parametrize("way", WAYS)
def test_the_newest_copy_takes_over_without_a_new_baseline(way, real, start, location, tmp_path):
    WAYS[way](real.worker, location, tmp_path / "copy.db")
    real.close()
    before = contents(location)
    copy = start("python", location).open(location.primary(tmp_path / "copy.db"))
    assert sync(copy) == location.last_txid()
    assert contents(location) == before, "nothing was committed"
    insert(copy)
    sync(copy)
    new = [f for f in location.files() if f.path not in before]
    assert len(new) == 1 and new[0].size < 20_000, "one row, not a copy of the database"
    restore(copy, location, tmp_path / "restored.db")
    assert start().open(tmp_path / "restored.db").content() == copy.content()


def test_a_stale_copy_goes_on_by_force_and_what_it_leaves_behind_can_be_restored(real, start, location, tmp_path):
    uri = copy_and_go_on(real, location, tmp_path, "cp")
    left_behind, expected = location.last_txid(), real.content()
    real.close()
    copy = start("python", location).open(uri)
    with pytest.raises(SqlError):
        sync(copy, 20)
    copy.one("SELECT litestream_resume('force')")
    restore(copy, location, tmp_path / "now.db")
    assert start().open(tmp_path / "now.db").content() == copy.content()
    restore(copy, location, tmp_path / "before.db", txid=f"{left_behind:016x}")
    assert start().open(tmp_path / "before.db").content() == expected


def test_a_stale_copy_is_known_after_a_few_requests(start, through_proxy, in_s3, proxy, tmp_path):
    real = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db"))
    fill(real, rows=20000)
    sync(real)
    uri = copy_and_go_on(real, through_proxy, tmp_path, "cp")
    real.close()
    before = len(proxy.requests)
    copy = start("python", through_proxy).open(uri)
    assert state_of(copy)["state"] == "stopped"
    asked = proxy.requests[before:]
    assert sum(r.method == "GET" and ".ltx" in r.target for r in asked) <= 3, [r.target for r in asked]


def test_it_stays_and_stops_if_the_setting_says_so(real, start, location, tmp_path):
    uri = copy_and_go_on(real, location, tmp_path, "function")
    copy = start("python", location).open(uri + "&rewound=stop")
    assert copy.one(ROWS) == 200
    with pytest.raises(SqlError, match="rewound=stop"):
        sync(copy, 20)


def test_a_copy_that_was_restored_and_changed_is_not_overwritten(real, start, location, tmp_path):
    """A variation: the restored file was written by a program without the library before it is opened."""
    uri = copy_and_go_on(real, location, tmp_path, "function")
    plain = start("python", load=False).open(tmp_path / "copy.db")
    plain.run("INSERT INTO t(name) VALUES ('mine')")
    plain.close()
    before = contents(location)
    copy = start("python", location).open(uri)
    assert copy.one("SELECT count(*) FROM t WHERE name = 'mine'") == 1
    with pytest.raises(SqlError, match="litestream_restore.*litestream_resume"):
        sync(copy, 20)
    assert contents(location) == before


def test_a_store_that_is_away_at_the_open_decides_later(start, through_proxy, in_s3, proxy, tmp_path):
    real = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db"))
    fill(real)
    sync(real)
    uri = copy_and_go_on(real, through_proxy, tmp_path, "function")
    real.close()
    before = contents(in_s3)
    proxy.refuse()
    copy = start("python", through_proxy).open(uri)
    assert copy.one(ROWS) == 200
    proxy.accept()
    with pytest.raises(SqlError, match="opened again"):
        sync(copy, 20)
    assert contents(in_s3) == before
    copy.close()
    copy = start("python", through_proxy).open(uri)
    assert copy.one(ROWS) == 250
