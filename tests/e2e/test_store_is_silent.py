"""Requests that nobody answers: a router forgot the connections that were open, a server lost one request, an answer stops in
its middle or trickles. A second request on a new connection brings it after seconds, whatever reads; only a store that says
nothing at all makes an open fail, when `open_timeout` is over. An interrupt ends each wait. A link that is merely slow does
not get more requests for it.
"""

import time
from collections import Counter

import pytest

from harness.proxy import CutBody, Hang, LoseAnswer, Status, Trickle
from harness.sql import fill, insert, restore, sync
from harness.worker import SqlError

TOTAL = "SELECT count(*), sum(length(data)) FROM t"


@pytest.fixture
def primary(start, in_s3, tmp_path):
    db = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(db, 3000, 1000)
    sync(db)
    insert(db, 5)
    sync(db)
    return db


@pytest.fixture
def replica(start, primary, through_proxy):
    """It has read the schema and no more."""
    env = {"LITESTREAM_SQL": "on"}
    db = start("apsw", through_proxy, env=env).open(through_proxy.replica(poll_interval="1h"))
    db.rows("SELECT * FROM sqlite_schema")
    return db


def forgotten(proxy):
    """All connections that are open are dead, and do not say so."""
    last = proxy.connections
    return lambda request: Hang() if request.connection <= last else None


def first_of_each(*faults):
    seen = Counter()

    def of(request):
        seen[request.kind, request.path] += 1
        return dict(enumerate(faults, 1)).get(seen[request.kind, request.path])

    return of


def seconds(work) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_dead_connections_cost_seconds_whatever_reads(primary, replica, through_proxy, proxy, tmp_path):
    proxy.fault = forgotten(proxy)
    assert seconds(lambda: replica.rows(TOTAL)) < 8
    assert replica.rows(TOTAL) == primary.rows(TOTAL)
    insert(primary)
    sync(primary)
    proxy.fault = forgotten(proxy)
    assert seconds(lambda: replica.one("PRAGMA litestream_poll")) < 8
    assert replica.rows(TOTAL) == primary.rows(TOTAL)
    proxy.fault = forgotten(proxy)
    assert seconds(lambda: restore(replica, through_proxy, tmp_path / "copy.db")) < 8
    assert replica.worker.open(tmp_path / "copy.db", "copy").content() == primary.content()


@pytest.mark.parametrize("fault", [Hang(), Trickle(7), Trickle(7, 1)], ids=["silence", "stops", "trickles"])
def test_the_first_request_of_each_kind_gets_no_answer(start, primary, through_proxy, proxy, fault):
    worker = start("apsw", through_proxy)
    proxy.fault = first_of_each(fault)
    began = time.monotonic()
    replica = worker.open(through_proxy.replica())
    assert replica.rows(TOTAL) == primary.rows(TOTAL)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("fault", [Status(503, b""), LoseAnswer(), CutBody(10)], ids=["503", "closed", "cut"])
def test_the_second_request_fails_while_the_first_one_is_silent(primary, replica, through_proxy, proxy, fault):
    proxy.fault = first_of_each(Hang(), fault)
    assert seconds(lambda: replica.rows(TOTAL)) < 15
    insert(primary)
    sync(primary)
    assert seconds(lambda: replica.one("PRAGMA litestream_poll")) < 8
    assert replica.rows(TOTAL) == primary.rows(TOTAL)


@pytest.mark.parametrize("fault", [Hang(), Trickle(7, 1)], ids=["silence", "trickles"])
def test_a_store_that_says_nothing_fails_an_open_when_its_time_is_over(start, primary, through_proxy, proxy, fault):
    worker = start("apsw", through_proxy)
    proxy.fault = lambda request: fault
    began = time.monotonic()
    with pytest.raises(SqlError, match="did not answer within 1 s.*open_timeout"):
        worker.open(through_proxy.replica(open_timeout="1s"))
    assert time.monotonic() - began < 4
    proxy.fault = lambda request: None
    assert worker.open(through_proxy.replica(open_timeout="1s")).rows(TOTAL) == primary.rows(TOTAL)


@pytest.mark.parametrize("statement", ["PRAGMA litestream_poll", "SELECT litestream_set_time('1 minute ago')",
                                       "PRAGMA litestream_time = '1 minute ago'", TOTAL,
                                       "SELECT * FROM litestream_history('{url}')"])
def test_an_interrupt_ends_each_wait(replica, through_proxy, proxy, statement):
    proxy.fault = lambda request: Hang()
    began = time.monotonic()
    with pytest.raises(SqlError) as ended:
        replica.interrupted(statement.format(url=through_proxy.full_url), after=0.3)
    assert ended.value.kind == "InterruptError", ended.value
    assert time.monotonic() - began < 2


def test_a_slow_link_is_not_asked_twice(start, primary, through_proxy, proxy):
    worker = start("apsw", through_proxy)
    proxy.delay = 2.2
    replica = worker.open(through_proxy.replica(poll_interval="1h"))
    replica.rows("SELECT * FROM t WHERE id = 3")
    asked = Counter((r.method, r.target, r.headers.get("range")) for r in proxy.requests)
    twice = sum(n - 1 for n in asked.values())
    assert twice <= 1 < asked.total() / 3, asked
