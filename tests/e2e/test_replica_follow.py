"""How a replica follows its primary: when it looks, and what a transaction sees meanwhile."""

import time

import pytest

from harness.sql import fill, insert, sync, txid
from harness.wait import until

COUNT = "SELECT count(*) FROM t"


@pytest.fixture
def primary(start, in_s3, tmp_path):
    primary = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    return primary


@pytest.mark.parametrize("connections", [1, 50])
def test_there_is_one_request_in_an_interval_whatever_the_connections(start, host, primary, through_proxy, proxy,
                                                                     connections):
    worker = start(host, through_proxy)
    uri = through_proxy.replica(poll_interval="500ms", poll_idle_interval="500ms")
    for n in range(connections):
        assert worker.open(uri, f"connection {n}").one(COUNT) == 200
    before, began = len(proxy.requests), time.monotonic()
    time.sleep(5)  # the measurement itself
    asked, seconds = [r.kind for r in proxy.requests[before:]], time.monotonic() - began
    assert asked.count("LIST") <= 1 and set(asked) <= {"GET", "LIST"}
    assert 5 <= len(asked) <= seconds / 0.5 + 1


def test_polls_become_rarer_while_nobody_reads_and_the_next_reader_is_not_shown_old_news(start, host, primary,
                                                                                        through_proxy, proxy):
    replica = start(host, through_proxy).open(through_proxy.replica(poll_interval="50ms", poll_idle_interval="1h"))
    assert replica.one(COUNT) == 200
    # Ten at the interval, then each pause is twice as long as the one before it.
    before = len(proxy.requests)
    until(lambda: time.monotonic() - proxy.requests[-1].at > 2, 30, "a pause of two seconds")
    assert len(proxy.requests) - before <= 18
    insert(primary, 5)
    sync(primary)
    assert replica.one(COUNT) == 205
    # And it follows again at the interval.
    before = len(proxy.requests)
    until(lambda: len(proxy.requests) - before >= 5, 2)


def test_a_poll_on_demand_shows_what_was_synced(start, host, primary, location, through_proxy):
    replica = start(host, through_proxy).open(through_proxy.replica(poll_interval="1h"))
    assert replica.one(COUNT) == 200
    for n in range(1, 6):
        insert(primary)
        last = sync(primary)
        assert replica.one(COUNT) == 200 + n - 1
        assert txid(replica.one("PRAGMA litestream_poll")) == last
        assert replica.one(COUNT) == 200 + n
        assert txid(replica.one("SELECT litestream_txid()")) == last


def test_a_transaction_does_not_change_under_a_poll(start, host, primary, through_proxy):
    worker = start(host, through_proxy)
    reader, other = (worker.open(through_proxy.replica(poll_interval="1h"), name) for name in ("reader", "other"))
    reader.run("BEGIN")
    assert reader.one(COUNT) == 200
    for _ in range(10):
        primary.run("UPDATE t SET name = 'changed', data = randomblob(300)")
        insert(primary, 20)
        sync(primary)
        other.one("PRAGMA litestream_poll")
        assert reader.one("SELECT count(*) FROM t WHERE name <> 'changed'") == 200
        reader.one("PRAGMA litestream_poll")
        assert reader.one(COUNT) == 200
    assert other.one(COUNT) == 400
    reader.run("COMMIT")
    assert reader.one(COUNT) == 400
    assert reader.one("PRAGMA integrity_check") == "ok"


def test_an_outage_leaves_what_is_known_readable_and_says_so(start, host, primary, through_proxy, proxy):
    replica = start(host, through_proxy).open(through_proxy.replica(poll_interval="50ms", cache_size="64MiB"))
    content = replica.content()
    proxy.refuse()
    until(lambda: replica.one("SELECT state FROM litestream_status") == "retrying", 60)
    assert replica.content() == content
    proxy.accept()
    insert(primary)
    sync(primary)
    until(lambda: replica.one(COUNT) == 201, 60)
    until(lambda: replica.one("SELECT state FROM litestream_status") == "following", 60)
