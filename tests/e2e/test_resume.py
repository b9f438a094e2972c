"""After a close, a crash or an outage the next open goes on, and nothing is lost."""

import json
import os
import threading
import time

import pytest

from harness.location import Location
from harness.proxy import Hang, LoseAnswer, Status
from harness.sql import fill, insert, restore, status, sync
from harness.wait import until
from harness.worker import HostDied, SqlError


def assert_replica_is(primary, location, tmp_path, name="restored.db"):
    sync(primary, 30)
    assert location.gaps() == []
    restore(primary, location, tmp_path / name)
    assert primary.worker.open(tmp_path / name, name).content() == primary.content()


def test_a_clean_close_leaves_everything_in_the_replica(start, location, tmp_path):
    worker = start("python", location)
    primary = worker.open(location.primary(tmp_path / "app.db"))
    fill(primary)
    primary.close()
    restore(worker.open(":memory:", "plain"), location, tmp_path / "restored.db")
    assert worker.open(tmp_path / "restored.db", "r").content() == worker.open(tmp_path / "app.db", "a").content()


def test_the_next_open_after_a_clean_close_sends_only_what_is_new(start, location, tmp_path):
    uri = location.primary(tmp_path / "app.db")
    primary = start("python", location).open(uri)
    fill(primary, rows=5000)
    primary.close()
    before = {f.path for f in location.files()}
    primary = start("python", location).open(uri)
    insert(primary)
    sync(primary)
    new = [f for f in location.files() if f.path not in before]
    assert new and sum(f.size for f in new) < 100_000, "the database was sent again"
    assert_replica_is(primary, location, tmp_path)


def test_the_next_open_goes_on_after_kill_9(start, host, location, tmp_path):
    uri = location.primary(tmp_path / "app.db")
    for round_ in range(3):
        worker = start(host, location)
        primary = worker.open(uri)
        if round_ == 0:
            fill(primary)
        for _ in range(20):
            insert(primary, rows=5)
        worker.kill()
    primary = start(host, location).open(uri)
    assert primary.one("SELECT count(*) FROM t") == 200 + 3 * 20 * 5
    assert_replica_is(primary, location, tmp_path)


def test_reopening_after_kill_9_sends_what_changed_and_no_more(start, location, tmp_path):
    rows = int(os.environ.get("LITESTREAM_REOPEN_ROWS", "20000"))
    uri = location.primary(tmp_path / "app.db")
    worker = start("python", location)
    primary = worker.open(uri)
    fill(primary, rows)
    sync(primary, 600)
    size = (tmp_path / "app.db").stat().st_size
    before = {f.path for f in location.files()}
    for n in range(100):
        primary.run(f"UPDATE t SET data = randomblob(400) WHERE id = {1 + n * (rows // 100)}")
    worker.kill()
    primary = start("python", location).open(uri)
    assert_replica_is(primary, location, tmp_path)
    sent = sum(f.size for f in location.files() if f.path not in before)
    print(f"database {size} bytes, sent {sent}")
    assert 0 < sent < 1_000_000


def test_kill_9_in_the_middle_of_writes_and_checkpoints(start, location, tmp_path):
    uri = location.primary(tmp_path / "app.db")
    first = start("python", location)
    first.open(uri).run("CREATE TABLE t(id INTEGER PRIMARY KEY, name, data)")
    first.end()
    for _ in range(5):
        worker = start("python", location)
        primary = worker.open(uri)
        primary.run("PRAGMA wal_autocheckpoint=20")
        killer = threading.Timer(0.3, worker._process.kill)
        killer.start()
        with pytest.raises((HostDied, BrokenPipeError)):
            while True:
                insert(primary, rows=3)
        killer.join()
    primary = start("python", location).open(uri)
    assert primary.one("SELECT count(*) FROM t") > 0
    assert_replica_is(primary, location, tmp_path)


def test_commits_of_an_outage_go_out_when_it_ends(start, through_proxy, proxy, tmp_path):
    primary = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    proxy.refuse()
    for _ in range(30):
        insert(primary, rows=100)
    primary.run("PRAGMA wal_checkpoint(TRUNCATE)")
    insert(primary)
    with pytest.raises(SqlError):
        sync(primary, 0.5)
    until(lambda: proxy.endpoint in status(primary), 15, "status names the endpoint that fails")
    proxy.accept()
    assert_replica_is(primary, through_proxy, tmp_path)


def test_a_throttling_store_costs_time_and_nothing_else(start, through_proxy, proxy, tmp_path):
    count = iter(range(10**9))
    proxy.fault = lambda request: Status(503) if next(count) % 3 == 0 else None
    primary = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(primary)
    for _ in range(5):
        insert(primary)
        sync(primary, 30)
    assert_replica_is(primary, through_proxy, tmp_path)


def test_a_put_that_landed_without_an_answer_is_recognised(start, through_proxy, proxy, tmp_path):
    primary = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    lost = []

    def lose_first_put(request):
        if request.method == "PUT" and not lost:
            lost.append(request)
            return LoseAnswer()

    proxy.fault = lose_first_put
    insert(primary)
    sync(primary, 30)
    assert lost
    insert(primary)
    assert_replica_is(primary, through_proxy, tmp_path)


@pytest.mark.parametrize("outage", ["refused", "silent"])
def test_close_is_bounded_when_the_endpoint_is_dead(outage, start, through_proxy, proxy, tmp_path):
    uri = through_proxy.primary(tmp_path / "app.db", close_timeout="1s")
    worker = start("python", through_proxy)
    primary = worker.open(uri)
    fill(primary)
    sync(primary)
    if outage == "refused":
        proxy.refuse()
    else:
        proxy.fault = lambda request: Hang()
    insert(primary, rows=300)
    began = time.monotonic()
    primary.close()
    assert time.monotonic() - began < 3
    assert worker.end(10) == 0
    proxy.fault = lambda request: None
    proxy.accept() if outage == "refused" else None
    again = start("python", through_proxy).open(uri)
    assert again.one("SELECT count(*) FROM t") == 500
    assert_replica_is(again, through_proxy, tmp_path)


def test_what_the_plain_shell_wrote_while_we_were_closed_is_replicated(start, shell, location, tmp_path):
    uri = location.primary(tmp_path / "app.db")
    worker = start("python", location)
    primary = worker.open(uri)
    fill(primary)
    primary.close()
    plain = shell()
    plain.run(".open app.db\nINSERT INTO t(name) SELECT 'plain' FROM t;\nPRAGMA wal_checkpoint(TRUNCATE);")
    plain.end()
    primary = start("python", location).open(uri)
    assert primary.one("SELECT count(*) FROM t WHERE name = 'plain'") == 200
    assert_replica_is(primary, location, tmp_path)


def test_closing_right_after_a_commit_sends_it(start, location, tmp_path):
    uri = location.primary(tmp_path / "app.db", sync_interval="10s")
    worker = start("python", location)
    for n in range(1, 6):
        primary = worker.open(uri)
        primary.run("CREATE TABLE IF NOT EXISTS t(x)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
        primary.close()
        restore(worker.open(":memory:", "plain"), location, tmp_path / f"restored-{n}.db")
        assert worker.open(tmp_path / f"restored-{n}.db", "r").one("SELECT count(*) FROM t") == 2 * n


def test_going_back_to_an_earlier_replica_says_nothing_false(start, tmp_path):
    worker = start("python")
    one, two = (Location.file(tmp_path / name) for name in ("one", "two"))
    for n, location in enumerate((one, two, one, two, one)):
        db = worker.open(location.primary(tmp_path / "app.db"))
        db.run("CREATE TABLE IF NOT EXISTS t(x)", f"INSERT INTO t VALUES ({n})")
        sync(db)
        notice = json.loads(status(db))["databases"][0].get("notice", "")
        assert "no copy" not in notice and bool(notice) == (n > 1), notice
        restore(db, location, tmp_path / f"{n}.db")
        assert worker.open(tmp_path / f"{n}.db", "restored").content() == db.content()
        db.close()
