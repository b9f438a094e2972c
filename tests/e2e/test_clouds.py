"""Replicas in Google Cloud Storage and Azure, as their emulators have them, and in Alibaba Cloud's OSS, as a server of our
own has it after the service's documentation.

The real Litestream 0.5.17 reads what we write, and we read what it writes and is writing, with the points in time of each.
The store goes away and comes back, connections break, answers are lost after the write landed: nothing is lost and
nothing is there twice. Of two primaries on one replica one stops.
"""

import itertools
import json
import shutil
import time

import pytest

from harness import litestream, outage
from harness.clouds import Azurite, FakeGcs, Oss
from harness.proxy import CutBody, CutRequest, LoseAnswer, Proxy, Status
from harness.sql import fill, insert, restore, status, sync
from harness.wait import until
from harness.worker import SqlError

NUMBERS = itertools.count(1)
STORES = {"gs": FakeGcs, "abs": Azurite, "oss": Oss}


@pytest.fixture(scope="module", params=list(STORES))
def server(request, tmp_path_factory):
    server = STORES[request.param](tmp_path_factory.mktemp(request.param))
    yield server
    server.stop()


@pytest.fixture
def location(server):
    """An empty replica in a bucket of the test's own."""
    return server.replica(f"bucket-{next(NUMBERS)}")


@pytest.fixture
def proxy(server):
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def through_proxy(location, proxy):
    return location.at(proxy.endpoint)


def is_write(request) -> bool:
    """Whether the request brings a file, or a part of one."""
    return request.method in ("PUT", "POST") and ("uploadType" in request.target or ".ltx" in request.path)


def fencing(db) -> str:
    return json.loads(status(db))["databases"][0]["fencing"]


def once_each(fault, matches):
    """`fault` for the first of every three requests that match."""
    seen = []

    def choose(request):
        if matches(request):
            seen.append(request)
            if len(seen) % 3 == 1:
                return fault
        return None

    return choose


def test_litestream_restores_what_we_wrote(start, location, tmp_path):
    worker = start("python", location)
    primary = worker.open(location.primary(tmp_path / "app.db"))
    fill(primary, rows=3000)
    sync(primary)
    counts = {}
    for _ in range(3):
        insert(primary, rows=20)
        txid = sync(primary)
        # Times are told apart by more than the clock's last digit.
        time.sleep(0.05)
        counts[primary.one("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')")] = (txid, primary.one("SELECT count(*) FROM t"))
        time.sleep(0.05)
    written = primary.content()
    assert worker.open(litestream.restore(location, tmp_path / "restored.db"), "restored").content() == written
    ours = [(f.level, f.min, f.max) for f in location.files()]
    theirs = [(f["level"], int(f["min_txid"], 16), int(f["max_txid"], 16)) for f in litestream.ltx(location, tmp_path)]
    assert sorted(theirs) == ours
    plain = start("python", load=False)
    for when, (txid, rows) in counts.items():
        restored = litestream.restore(location, tmp_path / f"at-{txid}.db", timestamp=when)
        assert plain.open(restored, f"at-{txid}").one("SELECT count(*) FROM t") == rows


def test_we_read_what_litestream_writes(start, location, tmp_path):
    source = start("python", load=False).open(tmp_path / "app.db")
    source.run("PRAGMA journal_mode=WAL")
    fill(source, rows=1000)
    reader, counts = start("python", location), {}
    with litestream.Replicate(tmp_path / "app.db", location, tmp_path) as theirs:
        replica = reader.open(location.replica(poll_interval="100ms"))
        while not {0, 1, 2, 9} <= theirs.compacted():
            insert(source, rows=3)
            theirs.sync()
            now = source.one("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')")
            counts[now] = source.one("SELECT count(*) FROM t")
            until(lambda: replica.one("SELECT count(*) FROM t") == counts[now], 10, "the replica follows")
            time.sleep(0.2)
    expected = source.content()
    until(lambda: replica.one("SELECT count(*) FROM t") == expected.tables["t"][0], 10, "the last rows")
    assert replica.content() == expected
    restore(replica, location, tmp_path / "restored.db")
    assert reader.open(tmp_path / "restored.db", "restored").content() == expected
    # Of what was merged away, the merged file has the time.
    last = list(counts)[-1]
    restore(replica, location, tmp_path / "then.db", timestamp=last)
    assert reader.open(tmp_path / "then.db", "then").one("SELECT count(*) FROM t") == counts[last]


def test_the_store_goes_away_and_comes_back(start, location, through_proxy, proxy, tmp_path):
    db = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    proxy.refuse()
    assert outage.work(db, 100) < 1
    until(lambda: proxy.endpoint in status(db), 15, "status names the endpoint that fails")
    proxy.accept()
    outage.assert_caught_up(db, location, tmp_path)
    assert location.gaps() == []


@pytest.mark.parametrize("fault", [LoseAnswer(), CutRequest(300), Status(503)], ids=["answer", "request", "busy"])
def test_writes_that_fail_are_written_once(fault, start, location, through_proxy, proxy, tmp_path):
    proxy.fault = once_each(fault, is_write)
    db = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db", sync_interval="10ms"))
    fill(db, rows=20)
    for _ in range(12):
        insert(db, rows=20)
        sync(db)
    proxy.fault = lambda request: None
    outage.assert_caught_up(db, location, tmp_path)
    assert location.gaps() == []


def test_downloads_that_break_off_are_fetched_again(start, location, through_proxy, proxy, tmp_path):
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(db, rows=2000)
    sync(db)
    proxy.fault = once_each(CutBody(1000), lambda request: request.method == "GET" and ".ltx" in request.path)
    replica = start("python", through_proxy).open(through_proxy.replica())
    assert replica.content() == db.content()


def test_of_two_primaries_one_writes_and_the_other_stops(start, location, tmp_path):
    first = start("python", location).open(location.primary(tmp_path / "first.db", sync_interval="10ms"))
    fill(first)
    sync(first)
    insert(first)
    first.run("PRAGMA wal_checkpoint(TRUNCATE)")
    sync(first)
    until(lambda: fencing(first) == "atomic", 15, "the store has shown that it keeps its condition")
    shutil.copy(tmp_path / "first.db", tmp_path / "second.db")
    second = start("python", location).open(location.primary(tmp_path / "second.db", sync_interval="10ms"))
    insert(second)
    sync(second)
    insert(first, rows=7)
    with pytest.raises(SqlError):
        sync(first, 5)
    insert(second)
    sync(second)
    assert location.gaps() == []
    restored = litestream.restore(location, tmp_path / "restored.db")
    assert start("python", load=False).open(restored).content() == second.content()


def test_a_replica_reads_in_few_requests(start, location, through_proxy, proxy, tmp_path):
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(db, rows=10000)
    sync(db)
    db.one("SELECT litestream_snapshot()")
    proxy.delay = 0.02
    replica = start("python", through_proxy).open(through_proxy.replica(poll_interval="1h"))
    counts = [len(proxy.requests)]
    assert replica.one("SELECT length(data) FROM t WHERE id = 7000") == 400
    counts.append(len(proxy.requests))
    began = time.monotonic()
    assert replica.one("SELECT sum(length(data)) FROM t") == 4000000
    elapsed = time.monotonic() - began
    counts.append(len(proxy.requests))
    gets = [r for r in proxy.requests if r.method == "GET" and ".ltx" in r.path]
    assert gets and all("range" in r.headers for r in gets)
    print(f"requests: {counts[0]} to open, {counts[1] - counts[0]} for a row, {counts[2] - counts[1]} for 10000 rows, {elapsed:.2f} s")
    assert counts[0] <= 6 and counts[1] - counts[0] <= 4 and counts[2] - counts[1] <= 25


# The emulator of Google's store takes requests of anybody: of its credentials there are Rust tests.
@pytest.mark.parametrize("server", ["abs"], indirect=True)
def test_a_wrong_key_is_named_and_never_shown(start, location, tmp_path):
    wrong = "d3Jvbmcta2V5"
    db = start("python", env={"LITESTREAM_AZURE_ACCOUNT_KEY": wrong}).open(location.primary(tmp_path / "app.db"))
    fill(db)
    with pytest.raises(SqlError, match="account-key") as refused:
        sync(db, 3)
    assert wrong not in str(refused.value) + status(db)
    db.close()
    # Nothing is lost by it.
    again = start("python", location).open(location.primary(tmp_path / "app.db"))
    sync(again)
    restored = litestream.restore(location, tmp_path / "restored.db")
    assert start("python", load=False).open(restored).content() == again.content()
