"""What an operator sees: metrics, health, status and the page, of one process and of several that share a port.

An outage shows in each of them while it lasts, and that it is over afterwards. No URL is shown to everybody, and who is not
on this machine needs a token. Who connects and says nothing keeps nobody away.
"""

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack

import pytest

from harness import monitor
from harness.monitor import Metrics, get
from harness.paths import LIBRARY, SYSTEM_PYTHON, clean_env
from harness.proxy import LoseAnswer
from harness.location import Location
from harness.s3 import free_port
from harness.sql import fill, insert, sync
from harness.wait import until
from harness.worker import SqlError


@pytest.fixture
def port() -> int:
    return free_port()


def test_figures_are_litestreams_and_ours(start, in_s3, port, tmp_path):
    db = start("python", in_s3).open(
        in_s3.primary(tmp_path / "app.db", listen=f"127.0.0.1:{port}", sync_interval="50ms")
        + f"&replica=file://{tmp_path}/elsewhere")
    fill(db)
    sync(db)
    for _ in range(3):
        insert(db, rows=5)
        sync(db)
    db.run("PRAGMA wal_checkpoint(TRUNCATE)")
    insert(db)
    sync(db)
    metrics = until(lambda: Metrics.of(port), 10, "somebody listens")
    metrics.check()
    path = str(tmp_path / "app.db")
    assert metrics("litestream_txid", db=path) == int(db.one("SELECT litestream_txid()"), 16)
    assert metrics("litestream_db_size", db=path) == (tmp_path / "app.db").stat().st_size
    assert metrics("litestream_wal_size", db=path) == (tmp_path / "app.db-wal").stat().st_size
    assert metrics("litestream_total_wal_bytes", db=path) > 8 * 4096
    assert metrics("litestream_checkpoint_count", db=path, mode="TRUNCATE") == 1
    published = sum(metrics("litestream_published_txid", db=path, replica=replica) for replica in ("s3", "file"))
    assert metrics("litestream_sync_count", db=path) == published and metrics("litestream_sync_error_count", db=path) == 0
    assert metrics("litestream_sync_seconds", db=path) > 0
    for replica in ("s3", "file"):
        of = {"db": path, "replica": replica}
        assert metrics("litestream_replica_up", **of) == 1 and metrics("litestream_lag_seconds", **of) == 0
        assert metrics("litestream_lag_transactions", **of) == 0
        assert metrics("litestream_replica_state", state="idle", **of) == 1
        assert abs(metrics("litestream_published_timestamp_seconds", **of) - time.time()) < 60
        # Whoever keeps the history hears of a file a moment after it is published.
        last = metrics("litestream_published_txid", **of)
        until(lambda: Metrics.of(port)("litestream_level_files", level=0, **of) == last, 10, "all files are counted")
        assert metrics("litestream_replica_requests_total", operation="PUT", price_class="A", **of) >= last
    files = in_s3.files(0)
    assert metrics("litestream_replica_operation_total", replica_type="s3", operation="PUT") >= len(files)
    moved = metrics("litestream_replica_operation_bytes", replica_type="s3", operation="PUT")
    assert moved >= sum(path.stat().st_size for path in in_s3.level(0).iterdir())
    seconds = "litestream_replica_operation_duration_seconds"
    assert metrics(seconds + "_count", replica_type="s3", operation="PUT") == metrics(
        "litestream_replica_operation_total", replica_type="s3", operation="PUT")
    bucket = in_s3.full_url.split("://")[1].split("/")[0]
    assert bucket not in metrics.text and "elsewhere" not in metrics.text
    assert get(port, "/healthz") == (200, "ok\n")
    status = monitor.status(port)
    assert [r["name"] for r in status["databases"][0]["replicas"]] == ["s3", "file"]
    points = json.loads(get(port, f"/points.json?db={path}&replica=s3")[1])["points"]
    assert {int(point["max"], 16) for point in points} == set(range(1, int(metrics("litestream_txid", db=path)) + 1))
    # The same for a program with a /metrics of its own.
    own = Metrics(db.load().one("SELECT litestream_metrics()"))
    assert own("litestream_txid", db=path) == metrics("litestream_txid", db=path)


@pytest.mark.parametrize("loses", [False, True], ids=["answered", "answers lost"])
def test_restore_points_have_the_size_of_their_files(start, through_proxy, proxy, port, tmp_path, loses):
    """Of the first copy, of a file that was made in memory, and of one that was too large for that after an outage."""
    lost = set()

    def lose(request):
        is_new = loses and request.method in ("PUT", "POST") and request.path not in lost
        return is_new and not lost.add(request.path) and LoseAnswer() or None

    proxy.fault = lose
    db = start("python", through_proxy).open(
        through_proxy.primary(tmp_path / "app.db", listen=f"127.0.0.1:{port}", sync_interval="50ms"))
    fill(db)
    sync(db, 60)
    insert(db)
    sync(db, 60)
    proxy.refuse()
    for _ in range(2):
        insert(db, rows=60, size=100_000)
        with pytest.raises(SqlError):
            sync(db, 0.3)
    proxy.accept()
    sync(db, 60)
    files = {(file.level, file.min, file.max): file.path.stat().st_size for file in through_proxy.files()}
    assert len(files) >= 3 and max(files.values()) > 4 << 20 and bool(lost) == loses

    def points() -> dict:
        shown = json.loads(get(port, f"/points.json?db={tmp_path}/app.db&replica=s3")[1])["points"] or []
        return {(p["level"], int(p["min"], 16), int(p["max"], 16)): p["size"] for p in shown}

    assert until(lambda: len(shown := points()) == len(files) and shown, 10, "all files are known") == files
    assert Metrics.of(port)("litestream_level_bytes", db=str(tmp_path / "app.db")) == sum(files.values())


def test_an_outage_shows_and_that_it_is_over(start, through_proxy, proxy, port, tmp_path):
    db = start("python", through_proxy).open(
        through_proxy.primary(tmp_path / "app.db", listen=f"127.0.0.1:{port}", sync_interval="50ms", max_lag="1s"))
    fill(db)
    sync(db)
    proxy.refuse()
    insert(db)
    path = str(tmp_path / "app.db")
    code, why = until(lambda: (answer := get(port, "/healthz"))[0] == 503 and answer, 20, "it is unhealthy")
    assert path in why and "s3" in why and "has waited" in why and "://" not in why
    metrics = Metrics.of(port)
    of = {"db": path, "replica": "s3"}
    assert metrics("litestream_replica_up", **of) == 0 and metrics("litestream_lag_seconds", **of) > 1
    assert metrics("litestream_lag_transactions", **of) >= 1
    assert metrics("litestream_alarm", event="upload_failed", **of) == 1
    assert metrics("litestream_replication_errors_total", **of) >= 1
    assert metrics("litestream_replica_operation_errors_total", replica_type="s3", code="unavailable") >= 1
    # Beside the file that is on its way.
    insert(db)
    until(lambda: Metrics.of(port)("litestream_outbox_bytes", **of), 10, "what waits is counted")
    [replica] = monitor.status(port)["databases"][0]["replicas"]
    assert str(proxy.port) in replica["error"] and replica["failing_since"] <= time.time() * 1000
    proxy.accept()
    until(lambda: get(port, "/healthz")[0] == 200, 60, "it is healthy again")
    metrics = Metrics.of(port)
    metrics.check()
    assert metrics("litestream_replica_up", **of) == 1 and metrics("litestream_outbox_files", **of) == 0
    assert metrics("litestream_alarm", event="upload_failed", **of) is None
    assert metrics("litestream_events_total", event="upload_failed") == 1
    over = [one for one in monitor.status(port)["occurrences"] if one["event"] == "upload_failed"]
    assert len(over) == 1 and over[0]["until"] > over[0]["since"]


def test_the_first_process_has_the_port_and_the_next_one_takes_over(start, in_folder, port, tmp_path):
    workers, paths = [], {str(tmp_path / name) for name in ("shared.db", "b.db", "c.db")}
    for name in ("b.db", "shared.db", "c.db"):
        worker = start("python")
        listen = f"127.0.0.1:{port}"
        fill(worker.open(Location.file(tmp_path / f"of-{name}").primary(tmp_path / name, listen=listen)))
        if name != "shared.db":
            shared = worker.open(Location.file(tmp_path / "of-shared.db").primary(tmp_path / "shared.db"), "shared")
            shared.rows("SELECT count(*) FROM sqlite_schema")
        workers.append(worker)
        until(lambda: monitor.is_there(port), 10, "somebody listens")

    def seen(processes: set[int], databases: set[str]) -> dict | None:
        status = monitor.status(port)
        is_whole = {p["pid"] for p in status["processes"]} == processes
        return status if is_whole and {d["path"] for d in status["databases"]} == databases else None

    pids = {worker.pid for worker in workers}
    status = until(lambda: seen(pids, paths), 10, "all of them are seen")
    assert status["processes"][0]["pid"] == workers[0].pid
    [shared] = [d for d in status["databases"] if d["path"].endswith("shared.db")]
    assert shared["publishes"] and shared["replicas"][0]["state"] == "idle"
    points = f"/points.json?db={tmp_path}/c.db&replica=file"
    until(lambda: json.loads(get(port, points)[1])["points"], 10, "restore points of what another process publishes")
    workers[0].kill()
    died = time.monotonic()
    until(lambda: monitor.is_there(port), 10, "the next one answers")
    assert time.monotonic() - died < 1
    status = until(lambda: seen(pids - {workers[0].pid}, paths - {str(tmp_path / "b.db")}), 10, "without the first")
    assert {p["pid"] for p in status["processes"]} == {workers[1].pid, workers[2].pid}


FORKS = """
import os, sqlite3, sys, time
uri, library = sys.argv[1:]
first = sqlite3.connect(":memory:")
first.enable_load_extension(True)
first.load_extension(library)
db = sqlite3.connect(uri, uri=True)
db.execute("CREATE TABLE IF NOT EXISTS t (x)")
db.execute("SELECT litestream_sync()")
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.close(write)
    os.read(read, 1)
    os._exit(0)
print(child, flush=True)
sys.stdin.readline()
os.kill(os.getpid(), 9)
"""


def test_a_forked_child_holds_no_port(in_folder, start, port, tmp_path):
    uri = in_folder.primary(tmp_path / "app.db", listen=f"127.0.0.1:{port}")
    parent = subprocess.Popen([SYSTEM_PYTHON, "-c", FORKS, uri, str(LIBRARY)], env=clean_env(), text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    until(lambda: monitor.is_there(port), 10, "the parent listens")
    parent.stdin.write("die\n")
    parent.stdin.flush()
    parent.wait(10)
    try:
        os.kill(child, 0)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            probe.listen()
    finally:
        os.kill(child, signal.SIGKILL)


def test_who_may_see_what(start, in_folder, port, tmp_path):
    other = free_port()
    for at, parameters in ((port, {"listen": f"127.0.0.1:{port}"}),
                           (other, {"listen": f":{other}", "listen_token": "s3cret"})):
        worker = start("python")
        name = f"{at}.db"
        fill(worker.open(Location.file(tmp_path / f"of-{name}").primary(tmp_path / name, **parameters)))
        until(lambda at=at: monitor.is_there(at), 10, "somebody listens")
    for path in ("/", "/status.json", f"/points.json?db={tmp_path}/{port}.db&replica=file"):
        assert get(port, path)[0] == 200
        assert get(port, path, host=f"localhost:{port}")[0] == 200
        # A page of somebody else's, whose name leads to this machine.
        assert get(port, path, host="evil.example")[0] == 401
        assert get(other, path, host=f"localhost:{other}")[0] == 401
        assert get(other, path, Authorization="Bearer s3cre")[0] == 401
        assert get(other, path, Authorization="Bearer s3cret")[0] == 200
        assert get(other, path + ("&" if "?" in path else "?") + "token=s3cret")[0] == 200
    for path in ("/metrics", "/healthz"):
        assert get(other, path, host="db.example")[0] == 200
    for path in ("/", "/metrics", "/status.json"):
        assert get(port, path, method="POST")[0] == 405
    assert get(port, "/nothing")[0] == 404
    assert get(port, "/metrics", **{"X-Long": "x" * 20000})[0] == 431


def test_who_says_nothing_keeps_nobody_away(start, in_folder, port, tmp_path):
    db = start("python").open(in_folder.primary(tmp_path / "app.db", listen=f"127.0.0.1:{port}"))
    fill(db)
    until(lambda: monitor.is_there(port), 10, "somebody listens")
    with ExitStack() as silent:
        for n in range(300):
            connection = silent.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            if n % 2:
                connection.send(b"GET /metrics HTTP/1.1\r\nHost: ")
        began = time.monotonic()
        assert Metrics.of(port)("litestream_databases", role="primary") == 1
        assert time.monotonic() - began < 5
        insert(db)
        sync(db)


def test_who_takes_no_answer_leaves_the_program_its_descriptors(start, in_folder, port, tmp_path):
    worker = start("python")
    db = worker.open(in_folder.primary(tmp_path / "app.db", listen=f"127.0.0.1:{port}"))
    fill(db)
    until(lambda: monitor.is_there(port), 10, "somebody listens")
    descriptors = lambda: len(os.listdir(f"/proc/{worker.pid}/fd"))
    before, most = descriptors(), 0
    with ExitStack() as greedy:
        for _ in range(400):
            connection = greedy.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            connection.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            most = max(most, descriptors())
        assert most < before + 160, f"{most - before} more"
        insert(db)
        sync(db)


def test_the_address_is_one_of_litestreams_file(start, tmp_path, port):
    config = tmp_path / "litestream.yml"
    config.write_text(f"addr: '127.0.0.1:{port}'\nmax-lag: 30s\ndbs:\n- path: {tmp_path}/app.db\n  replica:\n"
                      f"    url: file://{tmp_path}/replica\n")
    worker = start("python", env={"LITESTREAM_CONFIG": str(config)})
    db = worker.open(f"file:{tmp_path}/app.db?vfs=litestream")
    fill(db)
    until(lambda: monitor.is_there(port), 10, "somebody listens")
    assert monitor.status(port)["max_lag"] == 30_000
    rows = {row[0]: tuple(row[1:]) for row in db.rows("SELECT setting, value, origin FROM litestream_config")}
    assert rows["listen"] == (f"127.0.0.1:{port}", f"{config}:1")
    assert rows["max_lag"] == ("30s", f"{config}:2")
