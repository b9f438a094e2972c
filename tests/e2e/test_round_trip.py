"""The main job, from each Python host and on each kind of store: primary, replica, restore."""

import json

import pytest

from harness.compare import differing_pages
from harness.sql import fill, insert, restore, sync
from harness.wait import until


def test_rows_travel_from_primary_to_replica_to_restored_file(start, host, location, tmp_path):
    primary = start(host, location).open(location.primary(tmp_path / "app.db"))
    fill(primary)
    assert sync(primary) == location.last_txid()
    written = primary.content()
    assert written.integrity == "ok" and written.tables["t"][0] == 200

    reader = start(host, location)
    assert reader.open(location.replica()).content() == written

    report = restore(reader.open(":memory:", "plain"), location, tmp_path / "restored.db")
    assert report["path"] == str(tmp_path / "restored.db")
    assert report["txid"] and report["files"] >= 1 and report["duration"] >= 0
    assert report["pages"] == written.page_count
    assert report["bytes"] == written.page_count * written.page_size == (tmp_path / "restored.db").stat().st_size
    primary.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert differing_pages(tmp_path / "app.db", tmp_path / "restored.db", written.page_size) == []
    assert reader.open(tmp_path / "restored.db", "restored").content() == written


def test_the_replica_follows_without_reopening(start, host, location, tmp_path):
    primary = start(host, location).open(location.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    replica = start(host, location).open(location.replica())
    assert replica.one("SELECT count(*) FROM t") == 200
    for expected in range(201, 206):
        insert(primary)
        sync(primary)
        # Two poll intervals of the default second.
        until(lambda: replica.one("SELECT count(*) FROM t") == expected, 2, "the new row on the replica")
    primary.run("CREATE TABLE later(x)", "INSERT INTO later VALUES (1)", "DROP TABLE pair", "DELETE FROM t WHERE id > 50",
                "VACUUM")
    sync(primary)
    until(lambda: replica.content() == primary.content(), 5, "the replica to be as the primary is")


def test_a_read_transaction_on_the_replica_sees_one_state(start, host, location, tmp_path):
    primary = start(host, location).open(location.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    worker = start(host, location)
    pinned = worker.open(location.replica(poll_interval="100ms"), "pinned")
    free = worker.open(location.replica(poll_interval="100ms"), "free")
    pinned.run("BEGIN")
    before = pinned.one("SELECT count(*) FROM t")
    insert(primary, 5000)
    sync(primary)
    until(lambda: free.one("SELECT count(*) FROM t") == before + 5000, 5, "the new rows on the other connection")
    assert pinned.one("SELECT count(*) FROM t") == before
    assert pinned.one("SELECT sum(length(data)) FROM t") == before * 400
    pinned.run("COMMIT")
    assert pinned.one("SELECT count(*) FROM t") == before + 5000


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 8192, 65536])
def test_page_size_round_trip_is_identical(page_size, start, location, tmp_path):
    primary = start("python", location).open(location.primary(tmp_path / "app.db"))
    plain = start("python", load=False).open(tmp_path / "app.db")
    assert plain.one("PRAGMA page_count") == 0, "opening writes nothing that would fix the page size"
    plain.close()
    primary.run(f"PRAGMA page_size={page_size}")
    fill(primary, rows=500)
    insert(primary, rows=2, size=3 * page_size)
    sync(primary)
    written = primary.content()
    assert (written.page_size, written.integrity) == (page_size, "ok")
    reader = start("apsw", location)
    assert reader.open(location.replica()).content() == written
    restore(reader.open(":memory:", "plain"), location, tmp_path / "restored.db")
    primary.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert differing_pages(tmp_path / "app.db", tmp_path / "restored.db", page_size) == []


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 8192, 65536])
def test_an_existing_database_of_this_page_size_replicates(page_size, start, in_folder, tmp_path):
    plain = start("python", load=False).open(tmp_path / "app.db")
    plain.run(f"PRAGMA page_size={page_size}", "PRAGMA journal_mode=WAL")
    fill(plain, rows=500)
    expected = plain.content()
    plain.close()
    worker = start("python", in_folder)
    primary = worker.open(in_folder.primary(tmp_path / "app.db"))
    sync(primary)
    restore(primary, in_folder, tmp_path / "restored.db")
    assert worker.open(tmp_path / "restored.db", "restored").content() == expected


def test_an_attached_database_replicates_as_main_does(start, host, location, tmp_path):
    worker = start(host, location)
    db = worker.open(tmp_path / "plain.db").load()
    db.rows("ATTACH ? AS app", location.primary(tmp_path / "app.db"))
    db.run("CREATE TABLE app.t(x)", "INSERT INTO app.t VALUES (1), (2)")
    until(lambda: location.files(), 10, "the first file of the attached database")
    db.run("DETACH app")
    restore(db, location, tmp_path / "restored.db")
    assert worker.open(tmp_path / "restored.db", "restored").rows("SELECT x FROM t") == [[1], [2]]
    assert db.rows("SELECT count(*) FROM sqlite_schema") == [[0]]


def test_restore_to_a_txid_gives_the_state_of_that_commit(start, location, tmp_path):
    primary = start("python", location).open(location.primary(tmp_path / "app.db"))
    primary.run("CREATE TABLE t(x)")
    states = {}
    for x in range(5):
        primary.run(f"INSERT INTO t VALUES ({x})")
        states[sync(primary)] = x + 1
    assert len(states) == 5
    for txid, rows in states.items():
        path = tmp_path / f"at-{txid}.db"
        restore(primary, location, path, txid=f"{txid:016x}")
        assert start("python", load=False).open(path).one("SELECT count(*) FROM t") == rows


def test_restore_to_a_timestamp_gives_the_state_of_that_time(start, location, tmp_path):
    primary = start("python", location).open(location.primary(tmp_path / "app.db"))
    primary.run("CREATE TABLE t(x)")
    times = []
    for x in range(3):
        primary.run(f"INSERT INTO t VALUES ({x})")
        sync(primary)
        times.append(primary.one("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"))
        moment = times[-1]
        until(lambda: primary.one("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')") > moment, 5)
    for rows, moment in enumerate(times, 1):
        path = tmp_path / f"at-{rows}.db"
        restore(primary, location, path, timestamp=moment)
        assert start("python", load=False).open(path).one("SELECT count(*) FROM t") == rows


def test_restore_creates_parents_and_replaces_only_when_told(start, location, tmp_path):
    worker = start("python", location)
    primary = worker.open(location.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    target = tmp_path / "a" / "b" / "restored.db"
    restore(primary, location, target)
    before = target.read_bytes()
    insert(primary)
    sync(primary)
    with pytest.raises(Exception, match="restored.db.*force"):
        restore(primary, location, target)
    assert target.read_bytes() == before
    restore(primary, location, target, force=True)
    assert worker.open(target, "restored").one("SELECT count(*) FROM t") == 201
    assert sorted(p.name for p in target.parent.iterdir() if "-" not in p.name) == ["restored.db"]


def test_the_report_of_restore_is_json(start, location, tmp_path):
    primary = start("apsw", location).open(location.primary(tmp_path / "app.db"))
    primary.run("CREATE TABLE t(x)")
    sync(primary)
    text = primary.load().one("SELECT litestream_restore(?, ?)", location.full_url, str(tmp_path / "r.db"))
    assert {"path", "txid", "pages", "bytes", "files", "duration"} <= json.loads(text).keys()
