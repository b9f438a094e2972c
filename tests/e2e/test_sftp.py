"""A replica on an SFTP server, reached over connections that break, by keys of all kinds, and by Litestream's own URL.

A connection is cut in the middle of an upload and of a download, or its last answers are lost: nothing is lost and nothing is
there twice. Who is not let in, and a server whose key is not known, are told in the status, with what to write.
"""

import json
import os
import subprocess
import time

import pytest

from harness import litestream, outage
from harness.breaker import Breaker
from harness.sftp import SftpServer
from harness.sql import fill, insert, restore, status, sync
from harness.wait import until
from harness.worker import SqlError


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = SftpServer(tmp_path_factory.mktemp("sftp"))
    yield server
    server.remove()


@pytest.fixture
def there(server, request):
    return server.location(f"{request.node.name}/app")


@pytest.fixture
def breaker(server):
    breaker = Breaker(server.port)
    yield breaker
    breaker.close()


@pytest.fixture
def through(server, breaker, request):
    """The same replica, through a proxy."""
    return server.location(f"{request.node.name}/app", breaker.port)


def refusal(db, words: str) -> str:
    """The error of `litestream_sync`, once the status has it and these words in it."""
    until(lambda: words in status(db), 30, words)
    with pytest.raises(SqlError, match=words) as refused:
        sync(db, 0.5)
    return str(refused.value)


@pytest.mark.parametrize("loses", [False, True], ids=["cut", "answers"])
def test_connections_break_while_files_are_sent(loses, start, there, through, breaker, tmp_path):
    db = start("python", through).open(through.primary(tmp_path / "app.db", sync_interval="20ms"))
    fill(db, rows=1000)
    sync(db)
    breaker.loses_answers = loses
    before = breaker.connections
    # A little more than what it takes to log in, then more with each try.
    for cut in range(3000, 9000, 500):
        breaker.cut_after = cut
        seen = breaker.connections
        insert(db, rows=5)
        until(lambda: breaker.connections > seen, 15, "a connection broke, and there is another")
    breaker.cut_after = None
    sync(db)
    outage.assert_caught_up(db, there, tmp_path)
    assert breaker.connections - before >= 12


def test_downloads_that_break_off_continue(start, there, through, breaker, tmp_path):
    db = start("python", there).open(there.primary(tmp_path / "app.db"))
    fill(db, rows=3000)
    sync(db)
    # The requests of a read are small.
    breaker.cut_after = 6000
    replica = start("python", through).open(through.replica())
    assert replica.content() == db.content()
    assert breaker.connections > 1


def test_a_replica_reads_in_few_round_trips(start, there, through, breaker, tmp_path):
    db = start("python", there).open(there.primary(tmp_path / "app.db"))
    fill(db, rows=10000)
    sync(db)
    db.one("SELECT litestream_snapshot()")
    breaker.delay = 0.02
    times = [time.monotonic()]
    replica = start("python", through).open(through.replica(poll_interval="1h"))
    times.append(time.monotonic())
    assert replica.one("SELECT length(data) FROM t WHERE id = 7000") == 400
    times.append(time.monotonic())
    assert replica.one("SELECT sum(length(data)) FROM t") == 4000000
    times.append(time.monotonic())
    opened, row, scan = (after - before for before, after in zip(times, times[1:]))
    print(f"at 20 ms: {opened:.2f} s to open, {row:.2f} s for a row, {scan:.2f} s for 10000 rows; {breaker.connections} connections")
    assert breaker.connections <= 3


def test_the_agent_has_the_key(server, start, tmp_path):
    socket = server.folder / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        until(socket.exists, what="the agent listens")
        env = {"SSH_AUTH_SOCK": str(socket)}
        there = server.location("by-agent/app", **{"key-path": ""})
        db = start("python", env=env).open(there.primary(tmp_path / "app.db"))
        fill(db)
        refusal(db, "agent")
        subprocess.run(["ssh-add", "-q", str(server.key)], env=os.environ | env, check=True)
        sync(db)
        restored = litestream.restore(there, tmp_path / "restored.db")
        assert start("python", load=False).open(restored).content() == db.content()
    finally:
        agent.kill()
        agent.wait()


def test_a_key_that_is_not_let_in_and_one_that_has_a_passphrase(server, start, tmp_path):
    there = server.location("keys/app", **{"key-path": str(tmp_path / "key")})
    secret = "passphrase-that-must-never-be-printed"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", secret, "-f", str(tmp_path / "key")], check=True)
    env = outage.logged(tmp_path)
    db = start("python", env=env).open(there.primary(tmp_path / "app.db"))
    fill(db)
    refusal(db, "key-passphrase")
    db.worker.kill()
    env["LITESTREAM_SFTP_KEY_PASSPHRASE"] = secret
    db = start("python", env=env).open(there.primary(tmp_path / "app.db"))
    refused = refusal(db, "check key-path and user")
    with (server.folder / "authorized_keys").open("a") as allowed:
        allowed.write((tmp_path / "key.pub").read_text())
    sync(db)
    assert secret not in refused + status(db) + (tmp_path / "host.log").read_text()
    restored = litestream.restore(there, tmp_path / "restored.db")
    assert start("python", load=False).open(restored).content() == db.content()


def test_a_server_that_nobody_knows_is_an_error_that_shows_its_key(server, start, tmp_path):
    there = server.location("unknown/app", **{"host-key": ""})
    env = {"HOME": str(tmp_path)}
    db = start("python", env=env).open(there.primary(tmp_path / "app.db"))
    fill(db)
    refused = refusal(db, "is not known")
    shown = subprocess.run(["ssh-keygen", "-lf", str(server.folder / "host.pub")], stdout=subprocess.PIPE, text=True).stdout
    assert shown.split()[1] in refused and server.host_key in refused
    assert shown.split()[1] in status(db)
    # It is believed what people accepted by `ssh`.
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
    sync(db)
    assert there.last_txid() >= 1


def test_litestreams_own_url_is_the_same_replica(server, start, there, tmp_path):
    """Its command line takes the path of the URL from the server's root, as we do."""
    with (tmp_path / "litestream.yml").open("w") as config:
        json.dump({"dbs": [{"path": str(tmp_path / "app.db"), "replica": there.litestream()}]}, config)
    env = {"LITESTREAM_CONFIG": str(tmp_path / "litestream.yml")}
    db = start("python", env=env).open(f"file:{tmp_path}/app.db?vfs=litestream")
    fill(db)
    sync(db)
    assert there.last_txid() >= 1
    insert(db)
    sync(db)
    restore(db, there, tmp_path / "ours.db")
    restored = litestream.restore(there, tmp_path / "theirs.db")
    worker = start("python", load=False)
    assert worker.open(restored).content() == worker.open(tmp_path / "ours.db", "ours").content() == db.content()
    # The time of a file is its last transaction's, in whole seconds.
    last = there.files(0)[-1].path.stat()
    assert abs(last.st_mtime - time.time()) < 60 and last.st_mtime_ns % 1_000_000_000 == 0
