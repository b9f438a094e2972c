"""The clock of the primary's machine is wrong, and then it is set.

A board without a clock boots in the year 2000 (or 1990), commits, and learns the right time a moment later. Or
somebody's clock shows 2036, or a few hours too much, for one commit. Nothing of the history is deleted or held
back by that, each point in time is the one that it says, for `litestream restore -timestamp` as well, and the
status says what is wrong. A store that refuses requests with a wrong time is asked with its own.
"""

import json
import re
import time
from datetime import datetime, timezone

import pytest

from harness import litestream
from harness.clock import DAY, HOUR, YEAR, Clock
from harness.location import Location
from harness.proxy import Status
from harness.recorded import committed, now, rfc3339
from harness.sql import fill, insert, restore, status, sync
from harness.wait import until

JUMPS = {"hour_ago": -HOUR, "in_2000": -26 * YEAR, "in_1990": -36 * YEAR, "in_an_hour": HOUR, "in_six_hours": 6 * HOUR,
         "in_2036": 10 * YEAR, "in_2062": 36 * YEAR}

SHORT = dict(levels="1s,2s", snapshot_interval="1s", snapshot_retention="30m", l0_retention="30m", sync_interval="50ms")


@pytest.fixture
def clock(tmp_path):
    clock = Clock(tmp_path / "clock")
    yield clock
    clock.close()


def notice(db) -> str:
    return json.loads(status(db))["databases"][0].get("notice", "")


def moment() -> int:
    """A moment with nothing in the milliseconds around it."""
    time.sleep(0.02)
    then = now()
    time.sleep(0.02)
    return then


def one_more(db, name: str) -> None:
    db.rows("INSERT INTO t(name) VALUES (?)", name)
    sync(db)


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_a_commit_by_a_wrong_clock_has_its_place_in_time(start, location, tmp_path, clock, jump):
    began = now()
    worker = start("python", location, env=clock.env)
    db = worker.open(location.primary(tmp_path / "app.db"))
    fill(db, rows=5)
    sync(db)
    one_more(db, "right")
    before = moment()
    clock.jump(jump)
    one_more(db, "wrong")
    between = moment()
    clock.jump(0)
    one_more(db, "right again")
    after = moment()

    times = [at for _, at in sorted(committed(location).items())]
    assert times == sorted(times) and began - 2000 <= times[0] and times[-1] <= after
    plain = start("python", location)
    for at, last in ((before, "right"), (between, "wrong"), (after, "right again")):
        for name, path in (("ours", tmp_path / f"ours-{at}.db"), ("theirs", tmp_path / f"theirs-{at}.db")):
            if name == "ours":
                restore(db, location, path, timestamp=rfc3339(at))
            elif at != after:  # Litestream refuses a time after the last
                litestream.restore(location, path, timestamp=rfc3339(at))
            else:
                continue
            names = [name for name, in plain.open(path, name).rows("SELECT name FROM t ORDER BY id")]
            assert names[-1] == last, (name, last, names)
    past = plain.open(location.replica(asof=rfc3339(before)), "past")
    assert past.one("SELECT name FROM t ORDER BY id DESC") == "right"


def merged_up_to(location: Location, txid: int) -> bool:
    return bool(location.files(1)) and location.files(1)[-1].max >= txid


def goes_on(db, location: Location) -> None:
    """What is published now is merged in its time: what was due by then was done."""
    last = sync(db)
    until(lambda: insert(db) or sync(db) and merged_up_to(location, last), 15, "level 1", every=0.1)


@pytest.mark.parametrize("jumps", [(-HOUR, -36 * YEAR), (HOUR, 6 * HOUR), (10 * YEAR, 36 * YEAR)],
                         ids=["back", "hours", "years"])
def test_nothing_is_deleted_or_held_back_by_a_jump(start, location, tmp_path, clock, jumps):
    worker = start("python", location, env=clock.env)
    uri = location.primary(tmp_path / "app.db", **SHORT)
    db = worker.open(uri)
    fill(db, rows=5)
    until(lambda: insert(db) or sync(db) and len(location.files(9)) >= 2, 20, "snapshots", every=0.1)
    for n, jump in enumerate(jumps):
        before = {(file.level, file.max) for file in location.files()}
        clock.jump(jump)
        goes_on(db, location)
        if n == 0:
            # The next process finds it like that.
            db.close()
            db = worker.open(uri)
            goes_on(db, location)
        assert before <= {(file.level, file.max) for file in location.files()}, "files are gone"
        clock.jump(0)
        goes_on(db, location)
        assert before <= {(file.level, file.max) for file in location.files()}, "files are gone"
    snapshots = len(location.files(9))
    until(lambda: insert(db) or sync(db) and len(location.files(9)) > snapshots, 15, "a snapshot", every=0.1)
    source = db.content()
    restore(db, location, tmp_path / "ours.db")
    litestream.restore(location, tmp_path / "theirs.db")
    for name in ("ours", "theirs"):
        assert worker.open(tmp_path / f"{name}.db", name).content() == source


def test_what_is_wrong_is_told_once(start, location, tmp_path, clock):
    clock.jump(6 * HOUR)
    worker = start("python", location, env=clock.env)
    db = worker.open(location.primary(tmp_path / "app.db"))
    fill(db, rows=5)
    sync(db)
    told = notice(db)
    assert re.search(r"the clock of this machine is [56] h \d+ min ahead of that of " + re.escape(location.url), told), told
    one_more(db, "again")
    assert notice(db) == told, "once"
    clock.jump(-3 * DAY)
    one_more(db, "behind")
    assert notice(db) == told, "they still disagree"
    clock.jump(0)
    one_more(db, "right")
    clock.jump(-3 * DAY)
    one_more(db, "behind")
    assert re.search(r"the clock of this machine is [23] days behind", notice(db))
    lag = db.one("SELECT litestream_lag()")
    assert lag == 0, "no commit waits, whatever the clock shows"


def test_a_board_boots_without_a_clock_and_the_newest_was_yesterdays(start, location, tmp_path, clock):
    worker = start("python", location)
    db = worker.open(location.primary(tmp_path / "app.db"))
    fill(db, rows=5)
    sync(db)
    db.close()
    yesterday = moment()
    time.sleep(1)  # a store tells its time in seconds
    # It boots and commits before it asks anybody for the time.
    clock.jump(-26 * YEAR)
    board = start("python", location, env=clock.env).open(location.primary(tmp_path / "app.db"))
    one_more(board, "from 2000")
    clock.jump(0)
    one_more(board, "from today")
    litestream.restore(location, tmp_path / "theirs.db", timestamp=rfc3339(yesterday))
    restore(board, location, tmp_path / "ours.db", timestamp=rfc3339(yesterday))
    for name in ("ours", "theirs"):
        restored = worker.open(tmp_path / f"{name}.db", name)
        assert restored.one("SELECT count(*) FROM t WHERE name LIKE 'from%'") == 0


SKEWED = b"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>"


@pytest.mark.parametrize("jump", [-26 * YEAR, -HOUR, 6 * HOUR])
def test_a_store_that_refuses_a_wrong_time_is_asked_with_its_own(start, through_proxy, proxy, tmp_path, clock, jump):
    def refuse(request):
        signed = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        if abs(signed.timestamp() - time.time()) < 900:
            return None
        date = datetime.now(timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
        return Status(403, SKEWED, (("date", date),))

    proxy.fault = refuse
    clock.jump(jump)
    db = start("python", through_proxy, env=clock.env).open(through_proxy.primary(tmp_path / "app.db"))
    fill(db, rows=5)
    assert sync(db, 20) == through_proxy.last_txid()
    refused = sum(1 for request in proxy.requests if refuse(request))
    one_more(db, "again")
    assert sum(1 for request in proxy.requests if refuse(request)) == refused, "it is told once"
    source = db.content()
    restore(db, through_proxy, tmp_path / "restored.db")
    assert db.worker.open(tmp_path / "restored.db", "restored").content() == source
