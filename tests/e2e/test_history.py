"""What becomes of published files: levels, snapshots, retention, with intervals short enough for a test."""

import time

import pytest

from harness import history, litestream
from harness.location import Location
from harness.sql import fill, insert, restore, sync, txid
from harness.wait import until
from harness.worker import SqlError

SHORT = dict(levels="1s,2s", snapshot_interval="3s", snapshot_retention="2s", l0_retention="1s", sync_interval="50ms")


@pytest.mark.slow
def test_at_many_moments_both_restore_what_the_database_holds(location, tmp_path):
    report = history.run(20, 1, location, tmp_path)
    assert report["checks"] > 4 and report["kills"] + report["closes"] > 1 and report["deepest"] == 3


def test_a_snapshot_is_made_when_asked_for(start, host, location, tmp_path):
    worker = start(host, location)
    primary = worker.open(location.primary(tmp_path / "app.db"))
    fill(primary)
    first = txid(primary.one("SELECT litestream_snapshot()"))
    assert [(f.min, f.max) for f in location.files(9)] == [(1, first)] and first == sync(primary)
    assert txid(primary.one("SELECT litestream_snapshot()")) == first, "there is one already"
    insert(primary)
    second = txid(primary.one("SELECT litestream_snapshot()"))
    assert second > first and [f.max for f in location.files(9)] == [first, second]
    source = primary.content()
    for at, name in ((second, "theirs.db"), (None, "latest.db")):
        assert worker.open(litestream.restore(location, tmp_path / name, txid=at), name).content() == source
    restore(primary, location, tmp_path / "ours.db")
    assert worker.open(tmp_path / "ours.db", "ours").content() == source


def test_only_a_primary_makes_snapshots(start, in_folder, tmp_path):
    worker = start("python", in_folder)
    primary = worker.open(in_folder.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    replica = worker.open(in_folder.replica(), "replica")
    with pytest.raises(SqlError, match="reads a replica"):
        replica.one("SELECT litestream_snapshot()")
    with pytest.raises(SqlError, match="unsafe use|not authorized|DIRECTONLY"):
        primary.run("CREATE VIEW v AS SELECT litestream_snapshot()", "SELECT * FROM v")


def _left(location: Location) -> dict[int, int]:
    return {level: len(location.files(level)) for level in range(10) if location.files(level)}


def test_a_process_that_is_opened_for_a_moment_compacts_in_the_end(start, location, tmp_path):
    worker = start("python", location)
    uri = location.primary(tmp_path / "app.db", **SHORT)
    db = worker.open(uri)
    fill(db)
    db.close()
    for _ in range(60):
        db = worker.open(uri)
        insert(db, 2)
        db.close()
        time.sleep(0.2)  # the time that passes is what it is about
    assert location.files(2) and location.files(9), _left(location)
    assert location.files(2)[0].min > 1, "what only leads to older states is deleted"
    assert len(location.files(0)) < 30, "files of level 0 are deleted"
    db = worker.open(uri)
    source = db.content()
    assert worker.open(litestream.restore(location, tmp_path / "theirs.db"), "theirs").content() == source


def test_without_retention_nothing_is_deleted_and_nobody_asks_to(start, through_proxy, proxy, tmp_path):
    worker = start("python", through_proxy)
    primary = worker.open(through_proxy.primary(tmp_path / "app.db", **SHORT, retention="off"))
    fill(primary)

    def goes_on() -> bool:
        insert(primary, 2)
        sync(primary)
        return len(through_proxy.files(9)) >= 2 and len(through_proxy.files(2)) >= 2

    until(goes_on, 30, "snapshots", every=0.1)
    last = through_proxy.last_txid()
    until(lambda: through_proxy.files(2)[-1].max == last, 20, "the end of level 2")
    assert len(through_proxy.files(0)) == last
    deletions = [r for r in proxy.requests if r.method == "DELETE" or r.target.endswith("?delete") or "?delete=" in r.target]
    assert deletions == []


def test_litestream_goes_on_with_the_levels_that_we_began(start, in_folder, tmp_path):
    worker = start("python", in_folder)
    uri = in_folder.primary(tmp_path / "app.db", **SHORT)
    db = worker.open(uri)
    fill(db)
    for _ in range(20):
        insert(db, 2)
        sync(db)
        time.sleep(0.1)  # so that more than one window is merged
    until(lambda: in_folder.files(2) and in_folder.files(9), 20, "levels and a snapshot")
    db.close()
    restored = tmp_path / "restored.db"
    litestream.restore(in_folder, restored)
    db = worker.open(restored, "restored")
    assert db.content().integrity == "ok"
