"""A mirror that lags, or a cache, lists what the replica held before. A follower that has seen more keeps it: its rows do not
go back and come again, its lag counts from when the state was last confirmed, and the status says why. What is really another
history, or really gone, is taken at once.
"""

import json
import shutil
import time

import pytest

from harness.location import Location
from harness.proxy import Status, older_listing
from harness.sql import fill, insert, status, sync
from harness.wait import until

COUNT = "SELECT count(*) FROM t"
FAST = {"poll_interval": "50ms"}


@pytest.fixture
def primary(start, in_s3, tmp_path):
    db = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(db, 2)
    sync(db)
    return db


def keys(location: Location) -> set[str]:
    """What the bucket holds now."""
    bucket = location.folder.parent
    return {str(path.relative_to(bucket)) for path in location.folder.rglob("*.ltx")}


def lag_of_before(proxy, known: set[str]):
    """From now on listings are those of the time when the bucket held `known`."""
    proxy.fault = lambda request: older_listing(known) if request.kind == "LIST" else None


def notice(db) -> str:
    return json.loads(status(db))["databases"][0].get("notice", "")


def test_the_newest_state_that_was_seen_stays(start, host, primary, in_s3, through_proxy, proxy):
    before = keys(in_s3)
    insert(primary, 4)
    sync(primary)
    replica = start(host, through_proxy).open(through_proxy.replica(**FAST))
    assert replica.one(COUNT) == 6
    lag_of_before(proxy, before)
    until(lambda: "TXID" in notice(replica), 5, "a notice")
    assert "seen before" in notice(replica)
    polls = len(proxy.requests)
    until(lambda: len(proxy.requests) > polls + 10, 5, "more polls")
    assert replica.one(COUNT) == 6
    replica.one("SELECT litestream_set_time('now')")
    assert replica.one(COUNT) == 6, "nor does a time of now lead back"
    replica.one("SELECT litestream_set_time('latest')")
    assert replica.one("SELECT litestream_lag()") > 0.2
    # The mirror catches up in part: what is new is shown, and then all is well.
    proxy.fault = lambda request: None
    insert(primary)
    sync(primary)
    until(lambda: replica.one(COUNT) == 7, 5)
    until(lambda: not notice(replica), 5, "no notice any more")
    until(lambda: replica.one("SELECT litestream_lag()") < 0.2, 5)


def test_an_older_listing_that_is_empty_changes_nothing(start, host, primary, in_s3, through_proxy, proxy):
    replica = start(host, through_proxy).open(through_proxy.replica(**FAST))
    assert replica.one(COUNT) == 2
    lag_of_before(proxy, set())
    until(lambda: "empty" in status(replica), 5, "the status says so")
    assert replica.one(COUNT) == 2


@pytest.mark.parametrize("rows", [1, 50])
def test_a_replica_that_began_anew_is_read_anew(start, host, location, tmp_path, rows):
    """Its files end earlier, or later, and were stored later."""
    first = start("python", location)
    db = first.open(location.primary(tmp_path / "first.db"), "first")
    fill(db, 2)
    for _ in range(5):
        insert(db)
        sync(db)
    first.end()
    replica = start(host, location).open(location.replica(**FAST))
    assert replica.one(COUNT) == 7
    # Files have whole seconds in a bucket.
    time.sleep(1.1)
    shutil.rmtree(location.folder)
    other = start("python", location).open(location.primary(tmp_path / "other.db"), "other")
    fill(other, rows)
    sync(other)
    until(lambda: replica.one(COUNT) == rows, 10)
    assert replica.content() == other.content()


def test_what_a_reader_cannot_find_is_gone(start, host, primary, in_s3, through_proxy, proxy):
    """The newest files were removed: listings and reads agree."""
    insert(primary, 2500, 1000)
    sync(primary)
    before = keys(in_s3)
    primary.run("UPDATE t SET data = randomblob(1000)")
    sync(primary)
    newest = through_proxy.files()[-1]
    replica = start(host, through_proxy).open(through_proxy.replica(poll_interval="1h"))
    rows = replica.one(COUNT)
    name = newest.path.name
    proxy.fault = lambda request: (older_listing(before) if request.kind == "LIST" else
                                   Status(404) if name in request.path else None)
    until(lambda: _total(replica) is not None, 10, "the earlier state is read")
    assert replica.one(COUNT) == rows
    assert "no longer holds" in notice(replica)


def _total(db):
    try:
        return db.one("SELECT sum(length(data)) FROM t")
    except Exception:
        return None
