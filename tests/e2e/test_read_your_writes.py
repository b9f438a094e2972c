"""Who writes and then reads a replica finds what was written.

A connection that opens a replica which its process has open already joins the view of all, at most `poll_interval` old, so
right after `litestream_sync()` a row may be missing. `litestream_wait(txid)` waits until the replica shows that transaction,
and so does `min_txid=` in the URI before the open returns. What a replica never gets ends in an error that says what it has.
"""

import threading
import time

import pytest

from harness.sql import fill, insert, sync, txid
from harness.worker import SqlError

COUNT = "SELECT count(*) FROM t"


@pytest.fixture
def primary(start, location, tmp_path):
    primary = start("python", location).open(location.primary(tmp_path / "app.db", sync_interval="10ms"))
    fill(primary, 5)
    sync(primary)
    return primary


def test_a_reader_that_waits_for_the_transaction_is_never_stale(start, primary, location):
    worker = start("python", location)
    follower = worker.open(location.replica(poll_interval="1h"), "follower")
    reader = worker.open(location.replica(poll_interval="1h"), "reader")
    assert follower.one(COUNT) == reader.one(COUNT) == 5
    for n in range(1000):
        insert(primary)
        written = f"{sync(primary):016x}"
        assert reader.one("SELECT litestream_wait(?, 30)", written) == written
        assert reader.one(COUNT) == 6 + n
        # All connections of the process share what is known.
        assert follower.one(COUNT) == 6 + n
    assert reader.one("SELECT litestream_wait(?)", f"{1:016x}") == written, "what was there long before"


def test_an_open_waits_for_the_transaction_that_its_uri_names(start, host, primary, location):
    worker = start(host, location)
    joined = worker.open(location.replica(poll_interval="1h"), "first")
    assert joined.one(COUNT) == 5
    for n in range(20):
        insert(primary)
        written = sync(primary)
        reader = worker.open(location.replica(poll_interval="1h", min_txid=f"{written:016x}"), f"reader {n}")
        assert reader.one(COUNT) == 6 + n
    fresh = start(host, location).open(location.replica(min_txid=f"txid:{written}"))
    assert fresh.one(COUNT) == 25
    uri = location.replica(poll_interval="1h", open_timeout="300ms", min_txid=f"{written + 9:016x}")
    with pytest.raises(SqlError, match=f"does not hold {written + 9:016x} after .*, but {written:016x}.*open_timeout"):
        worker.open(uri, "never").one(COUNT)
    with pytest.raises(SqlError, match="min_txid"):
        worker.open(location.replica(min_txid=f"{written:016x}", asof=f"{written:016x}"), "both").one(COUNT)
    with pytest.raises(SqlError, match="min_txid.*not a TXID"):
        worker.open(location.replica(min_txid="soon"), "none").one(COUNT)


def test_a_wait_that_began_before_the_commit_ends_with_it(start, host, primary, location):
    reader = start(host, location).open(location.replica(poll_interval="1h"))
    assert reader.one(COUNT) == 5
    coming = sync(primary) + 1
    waiting, seen = threading.Event(), []

    def wait():
        waiting.set()
        seen.append(reader.one("SELECT litestream_wait(?, 60)", f"{coming:016x}"))
        seen.append(reader.one(COUNT))

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait()
    insert(primary)
    assert sync(primary) == coming
    thread.join(60)
    assert seen == [f"{coming:016x}", 6]


def test_a_wait_that_cannot_end_well_says_why(start, host, primary, location):
    worker = start(host, location)
    reader = worker.open(location.replica(poll_interval="1h"))
    last = sync(primary)
    beyond = f"{last + 1:016x}"
    began = time.monotonic()
    with pytest.raises(SqlError, match=f"does not hold {beyond} after 300ms, but {last:016x}"):
        reader.one("SELECT litestream_wait(?, '300ms')", beyond)
    assert time.monotonic() - began >= 0.3
    # In a transaction nothing changes; what it sees already is no reason to wait.
    reader.run("BEGIN")
    assert reader.one(COUNT) == 5
    insert(primary)
    assert sync(primary) == last + 1
    with pytest.raises(SqlError, match="a transaction is open.*end it"):
        reader.one("SELECT litestream_wait(?)", beyond)
    assert reader.one("SELECT litestream_wait(?)", f"{last:016x}") == f"{last:016x}"
    reader.run("COMMIT")
    # NULL: whatever there is now.
    assert reader.one("SELECT litestream_wait(NULL)") == beyond
    assert reader.one(COUNT) == 6
    past = worker.open(location.replica(asof=f"{last:016x}"), "past")
    assert past.one("SELECT litestream_wait(?)", f"{last:016x}") == f"{last:016x}"
    with pytest.raises(SqlError, match="was chosen: litestream_set_time"):
        past.one("SELECT litestream_wait(?)", beyond)
    past.one("SELECT litestream_set_time('latest')")
    assert past.one("SELECT litestream_wait(?)", beyond) == beyond


def test_a_wait_outlives_an_outage_and_says_what_it_was(start, in_s3, through_proxy, proxy, tmp_path):
    primary = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(primary, 5)
    sync(primary)
    reader = start("python", through_proxy).open(through_proxy.replica(poll_interval="1h"))
    assert reader.one(COUNT) == 5
    insert(primary)
    written = f"{sync(primary):016x}"
    proxy.refuse()
    with pytest.raises(SqlError, match=f"does not hold {written}"):
        reader.one("SELECT litestream_wait(?, 1)", written)
    waits = threading.Thread(target=lambda: seen.append(reader.one("SELECT litestream_wait(?, 100)", written)))
    seen = []
    waits.start()
    proxy.accept()
    waits.join(100)
    assert seen == [written] and reader.one(COUNT) == 6


def test_a_primary_beside_a_replica_waits_as_a_primary(start, primary, location, tmp_path):
    both = primary.worker.open(location.primary(tmp_path / "app.db", sync_interval="10ms"), "both")
    both.load()
    both.run(f"ATTACH '{location.replica(poll_interval='1h')}' AS replica")
    insert(both)
    written = sync(both)
    assert txid(both.one("SELECT litestream_wait(?)", f"{written:016x}")) == written
