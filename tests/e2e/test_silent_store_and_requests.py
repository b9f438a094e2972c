"""A store that accepts connections and never answers, and a program that opens the database for each request.

Only the first close waits for that store, up to `close_timeout`. That it said nothing is then a failure like another one: the
status and the log tell of it once, and neither closes nor opens wait any more, whether the attempt under way outlives the
request or not. Who has only read, of a database that is all in the replica, waits not even then. As soon as the store answers
all is as before: what was committed meanwhile arrives, and closes wait for what they committed, however late each answer comes.
"""

import contextlib
import re
import socket
import sqlite3
import time

import pytest

from harness import outage
from harness.litestream import restore
from harness.proxy import Hang
from harness.sql import fill, insert, sync
from harness.wait import until

CLOSE_TIMEOUT = 20
ERROR = "SELECT last_error FROM litestream_status"


def silence(proxy):
    proxy.fault = lambda request: Hang()


def rows(db) -> int:
    return db.one("SELECT count(*) FROM t")


def restored_rows(location, path) -> int:
    with sqlite3.connect(restore(location, path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return db.execute("SELECT count(*) FROM t").fetchone()[0]


def told(folder, pattern) -> int:
    """How many lines of the log have it."""
    log = folder / "host.log"
    return sum(bool(re.search(pattern, line)) for line in log.read_text().splitlines())


def seconds(work) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def request(worker, uri, work) -> None:
    db = worker.open(uri)
    work(db)
    db.close()


@pytest.fixture
def host(start, through_proxy, tmp_path):
    """Starts a process that logs."""
    return lambda: start("python", through_proxy, env=outage.logged(tmp_path))


@pytest.mark.parametrize("parameters", [{}, {"verify_interval": "1h"}], ids=["", "verified"])
@pytest.mark.parametrize("begins", ["before", "meanwhile", "with nothing"])
def test_only_the_first_close_waits(host, begins, parameters, through_proxy, in_s3, proxy, tmp_path):
    uri = through_proxy.primary(tmp_path / "app.db", sync_interval="50ms", close_timeout=f"{CLOSE_TIMEOUT}s", **parameters)
    worker = host()
    if begins == "with nothing":
        silence(proxy)
        request(worker, uri, lambda db: fill(db, rows=20))
    else:
        request(worker, uri, lambda db: (fill(db, rows=20), sync(db)))
        if begins == "meanwhile":
            worker.end()
            worker = host()
        silence(proxy)
        request(worker, uri, insert)
    errors = []

    def six_requests():
        for n in range(6):
            request(worker, uri, insert if n % 3 == 2 else rows)
            request(worker, uri, lambda db: errors.append(db.one(ERROR)))

    assert seconds(six_requests) < CLOSE_TIMEOUT
    assert all(error and "did not answer within" in error and through_proxy.url in error for error in errors), errors
    assert told(tmp_path, "did not answer within .*; it is tried again") == 1

    proxy.fault = lambda request: None
    expected = 20 + (begins != "with nothing") + 2
    number = iter(range(1000))

    def arrives():
        # The requests that are under way have no answer in their time.
        request(worker, uri, rows)
        time.sleep(0.5)
        return in_s3.files() and restored_rows(in_s3, tmp_path / f"restored-{next(number)}.db") == expected

    until(arrives, 150, "all is sent")
    until(lambda: request_error(worker, uri) is None, 30, "the error is over")
    request(worker, uri, insert)
    assert restored_rows(in_s3, tmp_path / "restored.db") == expected + 1
    assert in_s3.gaps() == []


def request_error(worker, uri):
    found = []
    request(worker, uri, lambda db: found.append(db.one(ERROR)))
    return found[0]


def test_who_has_only_read_does_not_wait(host, through_proxy, proxy, tmp_path):
    uri = through_proxy.primary(tmp_path / "app.db", close_timeout=f"{CLOSE_TIMEOUT}s")
    worker = host()
    request(worker, uri, lambda db: (fill(db, rows=20), sync(db)))
    worker.end()
    silence(proxy)
    worker = host()
    assert seconds(lambda: [request(worker, uri, rows) for _ in range(10)]) < CLOSE_TIMEOUT


@pytest.fixture
def lost():
    """The port of a server that neither takes connections nor refuses them."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_no_close_waits_for_the_look_at_a_store_that_failed(host, lost, in_s3, tmp_path):
    uri = in_s3.at(f"http://127.0.0.1:{lost}").primary(tmp_path / "app.db", close_timeout="60s")
    worker = host()
    db = worker.open(uri)
    fill(db, rows=20)
    until(lambda: db.one(ERROR), 60, "it failed")
    db.close()
    db = worker.open(uri)
    assert rows(db) == 20
    # The next attempt is under way.
    time.sleep(0.5)
    assert seconds(db.close) < 4


def test_a_store_that_answers_late_is_waited_for(host, through_proxy, in_s3, proxy, tmp_path):
    uri = through_proxy.primary(tmp_path / "app.db", sync_interval="50ms", close_timeout="60s")
    proxy.delay = 1.5
    worker = host()
    request(worker, uri, lambda db: fill(db, rows=20))
    for n in range(3):
        assert restored_rows(in_s3, tmp_path / f"restored-{n}.db") == 20 + n
        request(worker, uri, insert)
    worker.end()
    worker = host()
    request(worker, uri, insert)
    assert restored_rows(in_s3, tmp_path / "restored.db") == 24
    assert told(tmp_path, "did not answer") == 0


def test_a_close_without_patience_says_nothing_of_a_store_that_answers(host, through_proxy, in_s3, proxy, tmp_path):
    uri = through_proxy.primary(tmp_path / "app.db", sync_interval="50ms", close_timeout="0s")
    proxy.delay = 0.2
    worker = host()
    request(worker, uri, lambda db: (fill(db, rows=20), sync(db)))
    for _ in range(5):
        request(worker, uri, insert)
    until(lambda: restored_rows(in_s3, tmp_path / f"restored-{time.monotonic()}.db") == 25, 30, "all is sent")
    assert told(tmp_path, "did not answer") == 0
