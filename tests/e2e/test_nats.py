"""Replicas in object stores of NATS JetStream.

The real Litestream 0.5.17 restores and lists what we wrote, and we follow and restore what it writes, with the points in time
of each. The server goes away and comes back, connections break, of two primaries one stops. A server that lets nobody in is
told, without the password.
"""

import itertools
import json
import subprocess
import time
from dataclasses import replace

import pytest

from harness import litestream, outage
from harness.breaker import Breaker
from harness.nats import NatsServer
from harness.nats_jwt import Users
from harness.sql import fill, insert, restore, status, sync
from harness.wait import until
from harness.worker import SqlError

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.stop()


@pytest.fixture
def bucket():
    return f"bucket-{next(NUMBERS)}"


@pytest.fixture
def there(server, bucket):
    """An empty replica."""
    return server.replica(bucket)


def test_litestream_restores_and_lists_what_we_wrote(start, there, tmp_path):
    worker = start("python", there)
    primary = worker.open(there.primary(tmp_path / "app.db"))
    fill(primary, rows=3000)
    states, counts = {}, {}
    for _ in range(3):
        insert(primary, rows=20)
        states[sync(primary)] = rows = primary.one("SELECT count(*) FROM t")
        # Times are told apart by more than the clock's last digit.
        time.sleep(0.05)
        counts[primary.one("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')")] = rows
        time.sleep(0.05)
    primary.one("SELECT litestream_snapshot()")
    written = primary.content()
    assert worker.open(litestream.restore(there, tmp_path / "restored.db"), "restored").content() == written
    for txid, rows in states.items():
        restored = litestream.restore(there, tmp_path / f"at-{txid}.db", txid=txid)
        assert worker.open(restored, f"at-{txid}").one("SELECT count(*) FROM t") == rows
    for n, (when, rows) in enumerate(counts.items()):
        restored = litestream.restore(there, tmp_path / f"then-{n}.db", timestamp=when)
        assert worker.open(restored, f"then-{n}").one("SELECT count(*) FROM t") == rows
    theirs = [(f["level"], int(f["min_txid"], 16), int(f["max_txid"], 16)) for f in litestream.ltx(there, tmp_path)]
    assert sorted(theirs) == [(f.level, f.min, f.max) for f in there.files()]


def test_we_follow_and_restore_what_litestream_is_writing(start, there, tmp_path):
    source = start("python", load=False).open(tmp_path / "app.db")
    source.run("PRAGMA journal_mode=WAL")
    fill(source, rows=3000)
    reader, counts = start("python", there), {}
    with litestream.Replicate(tmp_path / "app.db", there, tmp_path) as theirs:
        replica = reader.open(there.replica(poll_interval="200ms"))
        for _ in range(6):
            insert(source, rows=3)
            theirs.sync()
            now = source.one("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')")
            counts[now] = source.one("SELECT count(*) FROM t")
            until(lambda: replica.one("SELECT count(*) FROM t") == counts[now], 10, "the replica follows")
            time.sleep(0.3)
    assert replica.content() == source.content()
    restore(replica, there, tmp_path / "last.db")
    assert reader.open(tmp_path / "last.db", "last").content() == source.content()


def test_the_server_goes_away_under_load_and_comes_back(start, tmp_path):
    server = NatsServer(tmp_path / "nats")
    there = server.replica("away")
    db = start("python", there, env=outage.logged(tmp_path)).open(there.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    server.stop()
    assert outage.work(db, 100) < 1
    with pytest.raises(SqlError) as refused:
        sync(db, 0.5)
    assert str(server.port) in str(refused.value)
    server.start()
    sync(db)
    outage.assert_caught_up(db, there, tmp_path)
    outage.assert_told(tmp_path, "fails", "works")
    server.stop()


@pytest.mark.parametrize("loses", [False, True], ids=["cut", "answers"])
def test_connections_break_while_files_are_sent(loses, start, server, bucket, there, tmp_path):
    breaker = Breaker(server.port)
    through = server.replica(bucket, breaker.port)
    db = start("python", through).open(through.primary(tmp_path / "app.db", sync_interval="20ms"))
    fill(db, rows=1000)
    sync(db)
    breaker.loses_answers = loses
    for cut in range(500, 4500, 400):
        breaker.cut_after = cut
        seen = breaker.connections
        insert(db, rows=5)
        until(lambda: breaker.connections > seen, 15, "a connection broke, and there is another")
    breaker.cut_after = None
    sync(db)
    outage.assert_caught_up(db, there, tmp_path)
    breaker.close()


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
    restored = litestream.restore(there, tmp_path / "restored.db")
    assert second.worker.open(restored, "restored").content() == second.content()


def test_a_wrong_password_is_named_and_never_shown(start, server, bucket, there, tmp_path):
    wrong = server.replica(bucket, server.port, password="wrong-password")
    db = start("python", env=outage.logged(tmp_path)).open(wrong.primary(tmp_path / "app.db"))
    fill(db)
    with pytest.raises(SqlError, match="check username and password") as refused:
        sync(db, 2)
    said = str(refused.value) + status(db) + (tmp_path / "host.log").read_text()
    assert str(server.port) in str(refused.value) and "wrong-password" not in said


SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
"""A user of the documentation of NATS."""


def certificates(folder) -> None:
    """`ca.pem`, and for the server and a client `*.pem` and `*.key` that it signed."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

    def run(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for who in ("server", "client"):
        run("req", *key, "-keyout", f"{who}.key", "-out", f"{who}.csr", "-subj", f"/CN={who}")
        run("x509", "-req", "-in", f"{who}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-out", f"{who}.pem", "-extfile", "names")


@pytest.mark.parametrize("login", ["token", "nkey", "certificate"])
def test_each_login_lets_in_and_a_wrong_one_is_named(login, start, tmp_path):
    server = NatsServer(tmp_path / "nats")
    there, folder = server.replica("logins"), server.folder
    certificates(folder)
    settings, wrong, config = {
        "token": ({"token": "hunter2"}, {"token": "hunter3"}, "authorization { token: hunter2 }"),
        "nkey": ({"nkey": SEED}, {"token": "hunter3"}, "authorization { users: [{ nkey: %s }] }" % PUBLIC),
        "certificate": (
            {"tls": "true", "client-cert": str(folder / "client.pem"), "client-key": str(folder / "client.key")}, {"tls": "true"},
            f'tls {{ cert_file: "{folder}/server.pem", key_file: "{folder}/server.key", ca_file: "{folder}/ca.pem", verify: true }}',
        ),
    }[login]
    server.restart_with(config)
    trusting = start("python", env={"SSL_CERT_FILE": str(folder / "ca.pem")})
    place, refused = replace(there, settings=settings), replace(there, settings=wrong)
    outside = trusting.open(refused.primary(tmp_path / "other.db"), "other")
    fill(outside)
    with pytest.raises(SqlError, match="client-cert" if login == "certificate" else "check token") as said:
        sync(outside, 2)
    assert "hunter" not in str(said.value) and SEED not in str(said.value)
    db = trusting.open(place.primary(tmp_path / "app.db"))
    fill(db)
    sync(db)
    assert trusting.open(place.replica(), "replica").content() == db.content()
    server.stop()


@pytest.mark.parametrize("by", ["creds", "jwt"])
def test_a_user_of_an_operator_is_let_in_and_one_of_a_stranger_is_not(by, start, tmp_path):
    server = NatsServer(tmp_path / "nats")
    users = Users(server.folder)
    server.restart_with(users.config, users.login())
    there = server.replica("jwts")
    settings = {"creds": {"creds": str(users.creds)}, "jwt": {"jwt": users.jwt, "seed": users.user.seed}}[by]
    refused = replace(there, settings={"jwt": users.strangers_jwt, "seed": users.user.seed})
    outside = start("python").open(refused.primary(tmp_path / "other.db"), "other")
    fill(outside)
    with pytest.raises(SqlError, match="check jwt and seed") as said:
        sync(outside, 2)
    assert users.user.seed not in str(said.value) and users.strangers_jwt not in str(said.value)
    db = start("python").open(replace(there, settings=settings).primary(tmp_path / "app.db"))
    fill(db)
    sync(db)
    assert start("python").open(replace(there, settings=settings).replica(), "replica").content() == db.content()
    server.stop()


def test_a_replica_reads_only_the_messages_that_it_needs(start, server, bucket, there, tmp_path):
    db = start("python", there).open(there.primary(tmp_path / "app.db"))
    fill(db, rows=10000)
    sync(db)
    db.one("SELECT litestream_snapshot()")
    breaker = Breaker(server.port)
    through = server.replica(bucket, breaker.port)
    breaker.delay = 0.02
    times, received = [time.monotonic()], []
    replica = start("python", through).open(through.replica(poll_interval="1h"))
    times.append(time.monotonic())
    received.append(breaker.received)
    assert replica.one("SELECT length(data) FROM t WHERE id = 7000") == 400
    times.append(time.monotonic())
    received.append(breaker.received)
    assert replica.one("SELECT sum(length(data)) FROM t") == 4000000
    times.append(time.monotonic())
    opened, row, scan = (after - before for before, after in zip(times, times[1:]))
    print(f"at 20 ms: {opened:.2f} s to open, {row:.2f} s for a row, {scan:.2f} s for 10000 rows; received {received}")
    # The file has 4 MB.
    assert received[1] < 2_000_000
    breaker.close()
