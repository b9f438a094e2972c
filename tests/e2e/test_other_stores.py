"""Stores other than S3 and folders: what the real Litestream 0.5.17 writes there we read and follow, and the other way round.

Each test runs once for each store, against a real server.
"""

import json
import time

import pytest

from harness import litestream, outage
from harness.proxy import CutRequest, LoseAnswer, Proxy
from harness.sftp import SftpServer
from harness.sql import fill, insert, restore, status, sync
from harness.wait import until
from harness.webdav import PASSWORD as WEBDAV_PASSWORD
from harness.webdav import WebDavServer
from harness.worker import SqlError

SERVERS = {"webdav": WebDavServer, "sftp": SftpServer}
SECRETS = [WEBDAV_PASSWORD]


@pytest.fixture(params=SERVERS)
def server(request, tmp_path):
    server = SERVERS[request.param](tmp_path / "server")
    yield server
    server.remove()


@pytest.fixture
def there(server):
    """An empty replica."""
    return server.location("some where/app")


def test_litestream_restores_lists_and_reads_what_we_wrote(start, there, tmp_path):
    worker = start("python", there)
    primary = worker.open(there.primary(tmp_path / "app.db"))
    fill(primary, rows=3000)
    states = {}
    for i in range(4):
        insert(primary, rows=20)
        states[sync(primary)] = primary.one("SELECT count(*) FROM t")
    # A snapshot, in several parts.
    primary.one("SELECT litestream_snapshot()")
    written = primary.content()
    restored = litestream.restore(there, tmp_path / "restored.db")
    assert worker.open(restored, "restored").content() == written
    for txid, rows in states.items():
        restored = litestream.restore(there, tmp_path / f"at-{txid}.db", txid=txid)
        assert worker.open(restored, f"at-{txid}").one("SELECT count(*) FROM t") == rows
    ours = primary.load().rows("SELECT level, min_txid, max_txid FROM litestream_ltx(?)", there.full_url)
    theirs = [[f["level"], f["min_txid"], f["max_txid"]] for f in litestream.ltx(there, tmp_path)]
    assert sorted(theirs) == sorted(ours) and len(ours) >= 5
    assert not [p for p in there.folder.rglob("*") if p.name.endswith(".tmp")]


def test_we_follow_and_restore_what_litestream_is_writing(start, there, tmp_path):
    source = start("python", load=False).open(tmp_path / "app.db")
    source.run("PRAGMA journal_mode=WAL")
    fill(source, rows=1000)
    reader = start("python", there)
    with litestream.Replicate(tmp_path / "app.db", there, tmp_path) as theirs:
        replica = reader.open(there.replica(poll_interval="200ms"))
        for _ in range(5):
            insert(source, rows=3)
            theirs.sync()
            expected = source.one("SELECT count(*) FROM t")
            until(lambda: replica.one("SELECT count(*) FROM t") == expected, 10, "the replica follows")
            restore(replica, there, tmp_path / f"restored-{expected}.db")
            restored = reader.open(tmp_path / f"restored-{expected}.db", "restored")
            assert restored.one("SELECT count(*) FROM t") == expected
    restore(replica, there, tmp_path / "last.db")
    assert reader.open(tmp_path / "last.db", "last").content() == source.content()


def test_a_point_in_time_is_found_in_what_litestream_wrote(start, there, tmp_path):
    source = start("python", load=False).open(tmp_path / "app.db")
    source.run("PRAGMA journal_mode=WAL")
    fill(source)
    counts = {}
    with litestream.Replicate(tmp_path / "app.db", there, tmp_path, levels=("1h",), snapshot="1h",
                              l0_retention="1h") as theirs:
        for _ in range(3):
            insert(source)
            theirs.sync()
            # Times of some stores are whole seconds.
            time.sleep(1.1)
            counts[time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())] = source.one("SELECT count(*) FROM t")
            time.sleep(1.1)
        # Litestream knows no time after its last transaction.
        insert(source)
        theirs.sync()
    db = start("python", there).open(":memory:")
    for n, (when, rows) in enumerate(counts.items()):
        restore(db, there, tmp_path / f"ours-{n}.db", timestamp=when)
        assert db.worker.open(tmp_path / f"ours-{n}.db", f"ours-{n}").one("SELECT count(*) FROM t") == rows
        litestream.restore(there, tmp_path / f"theirs-{n}.db", timestamp=when)
        assert db.worker.open(tmp_path / f"theirs-{n}.db", f"theirs-{n}").one("SELECT count(*) FROM t") == rows


def test_the_store_goes_away_under_load_and_comes_back(start, server, there, tmp_path):
    db = start("python", there, env=outage.logged(tmp_path)).open(there.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    server.stop()
    assert outage.work(db, 100) < 1
    with pytest.raises(SqlError) as refused:
        sync(db, 0.5)
    assert str(server.port) in str(refused.value)
    server.start()
    # Who waits makes it look at once.
    sync(db)
    outage.assert_caught_up(db, there, tmp_path)
    outage.assert_told(tmp_path, "fails", "works")


# By SFTP: test_sftp.py.
@pytest.mark.parametrize("server", ["webdav"], indirect=True)
def test_uploads_are_cut_and_answers_are_lost(start, server, tmp_path):
    """A part of a body, then the connection is gone; or all of it, and its answer is gone."""
    proxy = Proxy(server.port)
    there = server.location("app", proxy.port)
    db = start("python", there).open(there.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db, rows=1000)
    writes = 0

    def fault(request):
        nonlocal writes
        writes += request.method in ("PUT", "MOVE", "POST")
        return (CutRequest(100) if request.method == "PUT" and writes % 3 == 1
                else LoseAnswer() if request.method in ("PUT", "MOVE") and writes % 4 == 2 else None)

    proxy.fault = fault
    for _ in range(8):
        insert(db, rows=5)
        until(lambda before=writes: writes > before, 15, "it is tried")
    proxy.fault = lambda request: None
    sync(db)
    outage.assert_caught_up(db, server.location("app"), tmp_path)
    assert writes >= 8
    proxy.close()


def test_of_two_primaries_one_stops(start, there, tmp_path):
    first = start("python", there).open(there.primary(tmp_path / "one.db"))
    fill(first)
    sync(first)
    (tmp_path / "two").mkdir()
    litestream.restore(there, tmp_path / "two" / "two.db")
    second = start("python", there).open(there.primary(tmp_path / "two" / "two.db"))
    insert(second)
    sync(second)
    insert(first)
    with pytest.raises(SqlError) as refused:
        sync(first)
    assert "another" in str(refused.value).lower(), refused.value
    shown = json.loads(status(first))["databases"][0]
    assert shown["state"] == "stopped" and shown["fencing"] == "atomic", shown
    expected = second.content()
    restored = litestream.restore(there, tmp_path / "restored.db")
    assert second.worker.open(restored, "restored").content() == expected


@pytest.mark.parametrize("server", ["webdav"], indirect=True)
def test_a_wrong_password_is_named_and_never_shown(start, server, tmp_path):
    there = server.location("app", password="wrong-password")
    db = start("python", there, env=outage.logged(tmp_path)).open(there.primary(tmp_path / "app.db"))
    fill(db)
    with pytest.raises(SqlError) as refused:
        sync(db, 2)
    said = str(refused.value) + status(db) + (tmp_path / "host.log").read_text()
    assert "password" in str(refused.value) and str(server.port) in str(refused.value), refused.value
    assert "wrong-password" not in said and not any(secret in said for secret in SECRETS)
