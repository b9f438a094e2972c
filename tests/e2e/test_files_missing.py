"""Files are missing from the replica: a lifecycle rule, `rm`, somebody who tidies up.

A primary has published and goes on. Without the files that are gone no restore gets to what it publishes. It notices
that at its next open, at a merge, a snapshot or a deletion, and once an hour while it publishes, and heals the replica
from the database: all pages go out as the next transaction, and as a snapshot, from which a restore can begin. With
`auto_recover=false` it stops instead, and says what to do.
"""

import shutil
import time

import pytest

from harness.healing import assert_healed, assert_restores, bytes_of, open_primary, reopen, state_of
from harness.litestream import restore as litestream_restore
from harness.proxy import LateAnswer
from harness.sql import insert, restore, sync, txid
from harness.wait import until
from harness.worker import SqlError

GONE = {
    "the oldest": lambda files: files[:1],
    "one in the middle": lambda files: files[3:4],
    "the newest": lambda files: files[-1:],
    "all": lambda files: files,
}


def remove(files) -> None:
    for file in files:
        file.path.unlink()


def left(location) -> dict:
    return bytes_of(location.files())


@pytest.mark.parametrize("gone", GONE)
def test_what_is_gone_when_it_is_opened_is_healed(start, location, tmp_path, gone):
    open_primary(start, location, tmp_path).close()
    last = location.last_txid()
    remove(GONE[gone](location.files()))
    kept = left(location)
    db = reopen(start, location, tmp_path)
    assert sync(db) == last + 1, "transactions are counted on"
    assert_healed(db, location, tmp_path, last, kept)
    # Once is enough.
    snapshots = location.files(9)
    db.close()
    db = reopen(start, location, tmp_path)
    insert(db)
    sync(db)
    assert location.files(9) == snapshots
    assert_restores(db, location, tmp_path, "again")


@pytest.mark.parametrize("ask", ["litestream_resume('force')", "litestream_resume()", "litestream_snapshot()"])
def test_what_is_gone_while_it_is_open_is_healed_when_somebody_asks(start, location, tmp_path, ask):
    db = open_primary(start, location, tmp_path)
    last = location.last_txid()
    remove(location.files()[:1])
    kept = left(location)
    assert txid(db.one(f"SELECT {ask}")) == last + 1
    assert_healed(db, location, tmp_path, last, kept)


def test_what_is_gone_while_it_is_open_is_noticed_by_what_keeps_the_history(start, location, tmp_path):
    db = open_primary(start, location, tmp_path, levels="1s,2s", l0_retention="1s")
    last = location.last_txid()
    until(lambda: location.files(2) and location.files(2)[-1].max == last and len(location.files(0)) == 1, 15, "rest")
    remove(location.files())

    def is_healed() -> bool:
        insert(db)
        sync(db)
        return bool(location.files(9))

    until(is_healed, 20, "a snapshot", every=0.2)
    assert "lost transactions" in state_of(db)["notice"]
    assert_restores(db, location, tmp_path)


def test_a_reader_goes_on_over_a_hole(start, location, tmp_path):
    db = open_primary(start, location, tmp_path)
    reader = start("python", location).open(location.replica(poll_interval="50ms"))
    rows = reader.one("SELECT count(*) FROM t")
    remove(location.files()[2:4])
    db.one("SELECT litestream_resume('force')")
    insert(db, rows=3)
    sync(db)
    until(lambda: reader.one("SELECT count(*) FROM t") == rows + 3, 15, "the reader goes on")
    assert reader.content() == db.content()
    # One that begins now finds a beginning.
    later = start("python", location).open(location.replica("later.db"))
    assert later.content() == db.content()


def test_states_before_a_hole_can_be_restored(start, location, tmp_path):
    db = open_primary(start, location, tmp_path)
    before = location.files()[2].max
    restore(db, location, tmp_path / "expected.db", txid=f"{before:016x}")
    remove(location.files()[4:5])
    db.one("SELECT litestream_resume('force')")
    litestream_restore(location, tmp_path / "theirs.db", txid=before)
    restore(db, location, tmp_path / "ours.db", txid=f"{before:016x}")
    expected, ours, theirs = ((tmp_path / name).read_bytes() for name in ("expected.db", "ours.db", "theirs.db"))
    assert ours == expected == theirs
    assert_restores(db, location, tmp_path, "newest")


def test_without_auto_recover_it_stops(start, location, tmp_path):
    open_primary(start, location, tmp_path).close()
    last = location.last_txid()
    remove(location.files()[:1])
    kept = left(location)
    db = reopen(start, location, tmp_path, auto_recover="false")
    with pytest.raises(SqlError, match="lost transactions.*litestream_resume\\('force'\\).*auto_recover=true"):
        sync(db)
    state = state_of(db)
    assert state["state"] == "stopped" and "lost transactions" in state["last_error"]
    insert(db)
    with pytest.raises(SqlError, match="lost transactions"):
        db.one("SELECT litestream_resume()")
    assert left(location) == kept, "nothing is published"
    assert txid(db.one("SELECT litestream_resume('force')")) == last + 1
    assert "had lost transactions: its files do not lead from" in state_of(db)["notice"]
    assert 'litestream_events_total{event="hole_found"} 1\n' in db.load().one("SELECT litestream_metrics()")
    assert_restores(db, location, tmp_path)
    assert {path: path.read_bytes() for path in kept} == kept


def test_content_that_is_brought_back_goes_on_as_it_was(start, location, tmp_path):
    open_primary(start, location, tmp_path).close()
    shutil.copytree(location.folder, tmp_path / "away")
    remove(location.files()[2:])
    db = reopen(start, location, tmp_path, auto_recover="false")
    with pytest.raises(SqlError, match="lost transactions"):
        sync(db)
    shutil.copytree(tmp_path / "away", location.folder, dirs_exist_ok=True)
    db.one("SELECT litestream_resume()")
    insert(db)
    sync(db)
    assert location.files(9) == []
    assert_restores(db, location, tmp_path)


def test_a_rule_that_deletes_what_is_old_takes_the_snapshot_and_what_follows_it(start, location, tmp_path):
    db = open_primary(start, location, tmp_path)
    db.one("SELECT litestream_snapshot()")
    for _ in range(4):
        insert(db, rows=2)
        sync(db)
    db.close()
    # All but the last two files of level 0.
    last = location.last_txid()
    remove(f for f in location.files() if f.max < last - 1)
    kept = left(location)
    db = reopen(start, location, tmp_path)
    sync(db)
    assert_healed(db, location, tmp_path, last, kept)


@pytest.mark.parametrize("moment", ["at some moment", "before it hears that the copy is there"])
def test_killed_in_the_middle_of_healing(start, through_proxy, proxy, tmp_path, moment):
    open_primary(start, through_proxy, tmp_path).close()
    last = through_proxy.last_txid()
    remove(through_proxy.files()[:1])
    if moment != "at some moment":
        proxy.fault = lambda request: LateAnswer(60) if request.method in ("PUT", "POST") else None
    db = reopen(start, through_proxy, tmp_path)
    until(lambda: through_proxy.last_txid() > last, 15, "the copy")
    db.worker.kill()
    proxy.fault = lambda request: None
    db = reopen(start, through_proxy, tmp_path)
    sync(db)
    assert_restores(db, through_proxy, tmp_path)


def test_an_idle_primary_asks_nothing_whatever_is_gone(start, through_proxy, proxy, tmp_path):
    db = open_primary(start, through_proxy, tmp_path)
    until(lambda: time.monotonic() - proxy.requests[-1].at > 1, 15, "rest")
    remove(through_proxy.files()[:1])
    before = len(proxy.requests)
    time.sleep(3)  # what does not happen has no sign
    assert proxy.requests[before:] == []
    # Of the files that follow, none is a reason to list them before an hour is over.
    for _ in range(3):
        insert(db)
        sync(db)
    assert [r.method for r in proxy.requests[before:] if r.method == "GET"] == []
