"""What every store that is reached by the network must do, whatever its protocol.

It is away for a while under load, and comes back: no commit waits, nothing is lost. Credentials end while a database is
written, and hold again: nothing is lost, and the message names the remedy and no secret. An
answer breaks off in the middle of a file: it is fetched again. A replica at a distance of 20 ms reads a row, and all rows, in few
round trips and without reading all there is.
"""

import itertools
import os
import time

import pytest

from harness import outage
from harness.breaker import Breaker
from harness.clouds import ACCOUNT_KEY, Azurite, FakeGcs, Oss
from harness.location import Location
from harness.nats import PASSWORD as NATS_PASSWORD
from harness.nats import NatsServer
from harness.oss import SECRET as OSS_SECRET
from harness.s3 import SECRET_KEY, S3Server
from harness.sftp import SftpServer
from harness.sql import fill, insert, status, sync
from harness.wait import until
from harness.webdav import PASSWORD as WEBDAV_PASSWORD
from harness.webdav import WebDavServer
from harness.worker import SqlError

NUMBERS = itertools.count(1)
SECRETS = [ACCOUNT_KEY, NATS_PASSWORD, OSS_SECRET, SECRET_KEY, WEBDAV_PASSWORD]
STORES = {"s3": S3Server, "gs": FakeGcs, "abs": Azurite, "oss": Oss, "webdav": WebDavServer, "sftp": SftpServer,
          "nats": NatsServer}
REMEDIES = {"s3": "secret-access-key", "oss": "secret-access-key", "webdav": "password", "sftp": "key",
            "nats": "check username and password"}
"""What the message names where credentials are refused. The emulator of Google's store takes requests of anybody,
and that of Azure loses what is new when it begins again with another key: of a wrong one there is a test in `test_clouds.py`."""


@pytest.fixture(scope="module", params=list(STORES))
def store(request, tmp_path_factory):
    """The name of a kind of store, and a server of it."""
    server = STORES[request.param](tmp_path_factory.mktemp(request.param) / "server")
    yield request.param, server
    server.stop()


@pytest.fixture
def breaker(store):
    breaker = Breaker(store[1].port)
    yield breaker
    breaker.close()


@pytest.fixture
def places(store, breaker) -> tuple[Location, Location]:
    """An empty replica, and the same through the proxy."""
    kind, server = store
    name = f"bucket-{next(NUMBERS)}"
    through = f"http://127.0.0.1:{breaker.port}"
    if kind == "s3":
        direct = Location.s3(server.bucket(name), "app", server.endpoint)
        return direct, direct.at(through)
    if kind in ("webdav", "sftp"):
        return server.location(name), server.location(name, breaker.port)
    direct = server.replica(name)
    return direct, server.replica(name, breaker.port) if kind == "nats" else direct.at(through)


def test_the_store_is_away_under_load(start, store, breaker, places, tmp_path):
    """In short; LITESTREAM_OUTAGE_SECONDS=20 makes it longer."""
    direct, through = places
    db = start("python", through).open(through.primary(tmp_path / "app.db"))
    fill(db)
    sync(db)
    breaker.refuse()
    ends, longest, commits = time.monotonic() + float(os.environ.get("LITESTREAM_OUTAGE_SECONDS", "2")), 0.0, 0
    while time.monotonic() < ends:
        longest, commits = max(longest, outage.work(db, 50)), commits + 50
    with pytest.raises(SqlError):
        sync(db, 0.5)
    breaker.accept()
    back = time.monotonic()
    sync(db)
    print(f"{store[0]}: {commits} commits, the longest {longest:.3f} s; all there {time.monotonic() - back:.1f} s after")
    assert longest < 2, "a commit waited for the store"
    outage.assert_caught_up(db, direct, tmp_path)


@pytest.mark.parametrize("store", list(REMEDIES), indirect=True)
def test_credentials_end_and_hold_again(start, store, places, tmp_path):
    kind, server = store
    there, _ = places
    db = start("python", there, env=outage.logged(tmp_path)).open(there.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    server.lock_out()
    outage.work(db, 100)
    with pytest.raises(SqlError) as refused:
        sync(db, 1)
    said = str(refused.value)
    print(f"{kind}: {said}")
    assert REMEDIES[kind] in said, said
    server.let_in()
    sync(db)
    outage.assert_caught_up(db, there, tmp_path)
    assert not any(secret in said + status(db) + (tmp_path / "host.log").read_text() for secret in SECRETS)


def test_downloads_that_break_off_are_fetched_again(start, store, breaker, places, tmp_path):
    direct, through = places
    db = start("python", direct).open(direct.primary(tmp_path / "app.db"))
    fill(db, rows=3000)
    sync(db)
    replica = start("python", through).open(through.replica(poll_interval="1h"))
    # All that NATS is asked at the same time comes by one connection, in messages of 128 KiB.
    one_for_all = store[0] == "nats"
    seen, breaker.cut_answers_after = breaker.connections, 600_000 if one_for_all else 100_000
    assert replica.content() == db.content()
    assert breaker.connections > seen + (0 if one_for_all else 3)
    print(f"{breaker.connections - seen} connections broke")


def test_a_replica_at_20_ms_reads_in_few_round_trips(start, store, breaker, places, tmp_path):
    direct, through = places
    db = start("python", direct).open(direct.primary(tmp_path / "app.db"))
    fill(db, rows=10000)
    sync(db)
    db.one("SELECT litestream_snapshot()")
    breaker.delay = 0.02
    worker = start("python", through)
    seen = [(time.monotonic(), breaker.turns, breaker.received)]

    def step(statement=None):
        found = replica.one(statement) if statement else None
        seen.append((time.monotonic(), breaker.turns, breaker.received))
        return found

    replica = worker.open(through.replica(poll_interval="1h"))
    step()
    assert step("SELECT length(data) FROM t WHERE id = 7000") == 400
    assert step("SELECT sum(length(data)) FROM t") == 4000000
    spent = [[after - before for before, after in zip(a, b)] for a, b in zip(seen, seen[1:])]
    for what, (seconds, turns, received) in zip(["open", "a row", "10000 rows"], spent):
        print(f"{store[0]}, {what}: {seconds:.2f} s, {turns} round trips, {received} bytes")
    # The file has 4 MB.
    assert spent[0][2] + spent[1][2] < 1_500_000
    assert spent[0][1] <= 30 and spent[1][1] <= 8 and spent[2][1] <= 60
