"""A replica that is followed asks for the next file by its name: level 0 is contiguous.

That costs a twelfth of a listing. What it cannot tell, whether a file was merged away before it was asked for, or the replica
is another one by now, a listing tells, every thirty polls and at least every half minute; and at once where something does not
fit. So nothing here may ever show a wrong row, and nothing may stay hidden for longer.
"""

import json
import os
import shutil
import signal
import time

import pytest

from harness import litestream
from harness.proxy import Status
from harness.sql import fill, insert, status, sync
from harness.wait import until

COUNT = "SELECT count(*) FROM t"
POLLS = {"poll_interval": "100ms"}
LIST_EVERY = 3.0
"""Seconds: thirty polls."""


def notice(db) -> str:
    return json.loads(status(db))["databases"][0].get("notice") or ""


@pytest.fixture
def primary(start, in_s3, tmp_path):
    db = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db", sync_interval="10ms"))
    fill(db, 5)
    sync(db)
    return db


def test_nothing_new_costs_gets_and_what_is_new_comes_with_one(start, host, primary, through_proxy, proxy):
    replica = start(host, through_proxy).open(through_proxy.replica(poll_interval="500ms"))
    assert replica.one(COUNT) == 5
    before = len(proxy.requests)
    for n in range(10):
        insert(primary)
        sync(primary)
        until(lambda: replica.one(COUNT) == 6 + n, 5)
    kinds = [request.kind for request in proxy.requests[before:]]
    assert kinds.count("LIST") <= 1 and set(kinds) <= {"GET", "LIST"}
    assert replica.content() == primary.content()
    assert notice(replica) == ""


def test_a_listing_now_and_then_knows_the_files_again(start, host, primary, through_proxy, proxy):
    """A listing has finer times than the answer that brought a file: it is the same file all the same."""
    replica = start(host, through_proxy).open(through_proxy.replica(**POLLS))
    for n in range(5):
        insert(primary)
        sync(primary)
        until(lambda: replica.one(COUNT) == 6 + n, 5)
    listings = proxy.counts()["LIST"]
    until(lambda: proxy.counts()["LIST"] >= listings + 2, 4 * LIST_EVERY, "two listings")
    assert notice(replica) == ""
    assert replica.content() == primary.content()


def test_a_primary_that_deletes_level_0_at_once_is_followed(start, host, in_s3, through_proxy, tmp_path):
    primary = start("python", in_s3, env={"LITESTREAM_LEVELS": "1s"}).open(
        in_s3.primary(tmp_path / "app.db", sync_interval="10ms", l0_retention="1s"))
    fill(primary, 5)
    sync(primary)
    replica = start(host, through_proxy).open(through_proxy.replica(**POLLS))
    rows, shown = 5, 5
    until_when = time.monotonic() + 6
    while time.monotonic() < until_when:
        insert(primary)
        sync(primary)
        rows, written = rows + 1, time.monotonic()
        while (now := replica.one(COUNT)) != rows:
            assert shown <= now <= rows
            shown = now
            assert time.monotonic() - written < LIST_EVERY + 3, "behind for longer than is said"
            time.sleep(0.02)
    assert replica.content() == primary.content()


def test_a_replica_that_was_paused_while_its_next_files_went_finds_the_rest(start, host, in_s3, through_proxy, tmp_path):
    primary = start("python", in_s3, env={"LITESTREAM_LEVELS": "1s"}).open(
        in_s3.primary(tmp_path / "app.db", sync_interval="10ms", l0_retention="1s"))
    fill(primary, 5)
    first = sync(primary)
    primary.one("SELECT litestream_snapshot()")
    worker = start(host, through_proxy)
    replica = worker.open(through_proxy.replica(**POLLS))
    assert replica.one(COUNT) == 5
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        for _ in range(8):
            insert(primary)
            sync(primary)

        def gone() -> bool:
            insert(primary)
            sync(primary)
            return min(file.min for file in in_s3.files(0)) > first + 1

        until(gone, 30, "the next file is merged away", every=0.3)
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    until(lambda: replica.one(COUNT) == primary.one(COUNT), LIST_EVERY + 5)
    assert replica.content() == primary.content()
    assert notice(replica) == ""


def test_a_replica_that_was_reset_and_ends_where_it_was_is_read_anew(start, host, in_s3, through_proxy, tmp_path):
    """The file that is asked for next is one of another database."""
    first = start("python", in_s3)
    db = first.open(in_s3.primary(tmp_path / "first.db"), "first")
    fill(db, 2)
    last = sync(db)
    first.end()
    replica = start(host, through_proxy).open(through_proxy.replica(**POLLS))
    assert replica.one(COUNT) == 2
    time.sleep(1.1)  # a bucket has whole seconds
    shutil.rmtree(in_s3.folder)
    other = start("python", in_s3).open(in_s3.primary(tmp_path / "other.db", sync_interval="10ms"), "other")
    fill(other, 7)
    rows = 7
    while sync(other) <= last + 3:
        insert(other)
        rows += 1
    until(lambda: replica.one(COUNT) == rows, LIST_EVERY + 5)
    assert replica.content() == other.content()
    assert "no longer holds" in notice(replica)


def test_a_bucket_that_denies_what_is_not_there_is_followed_by_listings(start, host, primary, through_proxy, proxy):
    """As S3 does without the right to list, and gateways do at will."""
    def denied(request):
        missing = request.kind == "GET" and "/0000/" in request.path and not (
            through_proxy.folder.parent.parent / request.path.lstrip("/")).exists()
        return Status(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>") if missing else None

    proxy.fault = denied
    replica = start(host, through_proxy).open(through_proxy.replica(**POLLS))
    assert replica.one(COUNT) == 5
    listings = proxy.counts()["LIST"]
    until(lambda: proxy.counts()["LIST"] >= listings + 3, 5, "listings")
    for n in range(5):
        insert(primary)
        sync(primary)
        until(lambda: replica.one(COUNT) == 6 + n, 5)
    before = len(proxy.requests)
    until(lambda: len(proxy.requests) >= before + 5, 5, "some polls")
    assert [request.target for request in proxy.requests[before:] if request.kind != "LIST"] == []
    assert replica.one("SELECT state FROM litestream_status") == "following"


def test_what_litestream_writes_is_followed_with_a_listing_for_news_only(start, host, in_s3, through_proxy, proxy,
                                                                       tmp_path):
    """Its files do not say whose they are."""
    database = tmp_path / "app.db"
    db = start("python").open(database)
    db.run("PRAGMA journal_mode=WAL")
    fill(db, 5)
    with litestream.Replicate(database, in_s3, tmp_path) as sidecar:
        sidecar.sync()
        replica = start(host, through_proxy).open(through_proxy.replica(**POLLS))
        assert replica.one(COUNT) == 5
        for n in range(5):
            insert(db)
            sidecar.sync()
            until(lambda: replica.one(COUNT) == 6 + n, 5)
        before, listings = len(proxy.requests), proxy.counts()["LIST"]
        until(lambda: len(proxy.requests) >= before + 10, 5, "some polls")
        assert proxy.counts()["LIST"] <= listings + 1
        assert replica.content() == db.content()


def test_a_hydrated_replica_knows_its_file_again_after_a_restart(start, in_s3, primary, through_proxy, proxy, tmp_path):
    uri = through_proxy.replica(tmp_path / "replica.db", hydrate=1, **POLLS)
    worker = start("python", through_proxy)
    replica = worker.open(uri)
    complete = lambda db: db.one("PRAGMA litestream_hydration_progress") == "100.0"  # noqa: E731
    until(lambda: complete(replica), 20)
    for n in range(3):
        insert(primary, 1)
        sync(primary)
        until(lambda: replica.one(COUNT) == 6 + n, 5)
    until(lambda: complete(replica), 20)
    replica.close()
    worker.end()
    again = start("python", through_proxy).open(uri)
    until(lambda: complete(again), 20)
    assert again.content() == primary.content()
    assert notice(again) == ""
