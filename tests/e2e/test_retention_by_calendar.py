"""A primary that keeps the last state of each of the latest hours, beside a short time within which every state stays.

Each hour is a run of its own, by a clock that is set: commits, what is due, the end. The states that are promised restore, by us and by
Litestream, those that are not go, and a verification takes the gaps for what they are.
"""

import json
import os
import sqlite3
import time
from collections import Counter

import pytest

from harness import litestream
from harness.clock import HOUR, Clock
from harness.location import Location
from harness.recorded import rfc3339
from harness.s3 import S3Server
from harness.sql import fill, insert, restore, sync
from harness.wait import until

POLICY = dict(levels="1s,2s", snapshot_interval="2s", snapshot_retention="1s", l0_retention="1s", sync_interval="20ms")
BY_NAME = {"LITESTREAM_LEVELS": ""}


@pytest.fixture
def clock(tmp_path):
    clock = Clock(tmp_path / "clock")
    yield clock
    clock.close()


@pytest.fixture
def there(tmp_path, clock):
    """A replica in a bucket of a server that has the clock too."""
    server = S3Server(tmp_path / "s3", env=clock.env)
    yield Location.s3(server.bucket("bucket"), "app", server.endpoint)
    server.stop()


def count(path) -> int:
    with sqlite3.connect(path) as db:
        return db.execute("SELECT count(*) FROM t").fetchone()[0]


def one_hour(worker, location: Location, folder, **policy) -> int:
    """Commits, waits until they are merged and what is due was deleted, and commits once more: the number of rows at the end."""
    db = worker.open(location.primary(folder / "app.db", **POLICY, **policy))
    if not db.one("SELECT count(*) FROM sqlite_schema WHERE name = 't'"):
        fill(db, rows=5)
    sync(db)
    for _ in range(3):
        last = max((file.max for file in location.files(1)), default=0)
        until(lambda: (insert(db), sync(db)) and max((file.max for file in location.files(1)), default=0) > last, 20, "level 1", every=0.2)
    rows = db.one("SELECT count(*) FROM t")
    db.close()
    return rows


def stored(location: Location, offset: int) -> None:
    """The server keeps the right time of its files: from now on what was just written was stored by the clock that is set."""
    for file in location.files():
        if (at := file.path.stat().st_mtime) < time.time() and file.path not in _DATED:
            os.utime(file.path, (at + offset, at + offset))
            _DATED.add(file.path)


_DATED: set = set()


def plan(db, location: Location, **options) -> list[tuple]:
    return [tuple(row) for row in db.rows("SELECT action, name, reason FROM litestream_retention_plan(?, ?)", location.full_url, json.dumps(options))]


def test_the_last_state_of_each_hour_is_there(start, there, tmp_path, clock):
    hours = {}
    begun = int(time.time()) // HOUR * HOUR
    for hour in range(6):
        # In the middle of the hour, whatever the time is.
        offset = begun + hour * HOUR + HOUR // 2 - int(time.time())
        clock.jump(offset)
        worker = start("python", there, env=BY_NAME | clock.env)
        hours[hour] = one_hour(worker, there, tmp_path, retention_hourly=3)
        worker.end()
        stored(there, offset)
    worker = start("python", there, env=BY_NAME | clock.env)
    db = worker.open(":memory:", "plain").load()
    for hour in (3, 4, 5):
        end = rfc3339((begun + (hour + 1) * HOUR) * 1000)
        report = restore(db, there, tmp_path / f"ours-{hour}.db", timestamp=end)
        assert count(tmp_path / f"ours-{hour}.db") == hours[hour]
        litestream.restore(there, tmp_path / f"theirs-{hour}.db", txid=int(report["txid"], 16))
        assert count(tmp_path / f"theirs-{hour}.db") == hours[hour]
    with pytest.raises(Exception, match="no state of"):
        restore(db, there, tmp_path / "old.db", timestamp=rfc3339((begun + HOUR) * 1000))
    options = {"retention_hourly": 3, "snapshot_retention": "1s", "l0_retention": "1s"}
    rows = plan(db, there, **options)
    assert {name for _, name, _ in rows} == {file.path.name for file in there.files()}
    reasons = [reason for action, _, reason in rows if action == "keep"]
    assert any("the last of its hour" in reason for reason in reasons), rows
    assert any("older than" in reason for action, _, reason in plan(db, there, **options | {"retention_hourly": 1}) if action == "delete")
    assert db.rows("SELECT * FROM litestream_verify(?, ?)", there.full_url, json.dumps(options)) == []


def test_without_a_calendar_nothing_changes(start, there, tmp_path, clock):
    begun = int(time.time())
    for hour in range(3):
        offset = begun + hour * HOUR - int(time.time())
        clock.jump(offset)
        worker = start("python", there, env=BY_NAME | clock.env)
        one_hour(worker, there, tmp_path)
        worker.end()
        stored(there, offset)
    worker = start("python", there, env=BY_NAME | clock.env)
    db = worker.open(":memory:", "plain").load()
    with pytest.raises(Exception, match="no state of"):
        restore(db, there, tmp_path / "old.db", timestamp=rfc3339((begun + HOUR) * 1000))
    kinds = Counter(action for action, *_ in plan(db, there))
    assert kinds["delete"] == 0 and kinds["keep"] == len(there.files())


def test_a_retention_that_is_nonsense_is_refused(start, there, tmp_path):
    db = start("python", there).open(":memory:", "plain").load()
    for options, says in (({"retention_hourly": "many"}, "retention_hourly"), ({"retention_weeks": 2}, "retention_weekly"),
                          ({"snapshot_at": "noon"}, "time of day")):
        with pytest.raises(Exception, match=says):
            plan(db, there, **options)
