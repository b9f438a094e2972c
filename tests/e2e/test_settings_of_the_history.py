"""An application names how much history is kept; somebody else opens its database without saying so.

The application runs with `retention=off`, or keeps thirty days. A script opens the same primary with nothing
but the replica URL, once, and only reads. Or a second process stands by with other settings and takes over.
What was named is remembered: nobody's files are deleted because somebody else did not name it, and whoever
names something else while the database is open is refused, in the process and across processes.
"""

import json
import os
import time

import pytest

from harness.location import Location
from harness.sql import fill, insert, restore, status, sync
from harness.wait import until
from harness.worker import SqlError

BY_NAME = {"LITESTREAM_LEVELS": ""}
"""Nothing is named but what the test names: an empty variable counts as not set."""

SHORT = dict(levels="1s,2s", snapshot_interval="1s", l0_retention="720h", sync_interval="50ms")
"""Files become old within a test."""

LONG = "720h"


def points(db, location: Location) -> int:
    return db.load().one("SELECT count(*) FROM litestream_history(?)", location.full_url)


def some_history(db, location: Location, snapshots: int = 3) -> None:
    """Commits until there are snapshots, of which a short retention would leave one."""
    fill(db)

    def goes_on() -> bool:
        insert(db, 2)
        sync(db)
        return len(location.files(9)) >= snapshots

    until(goes_on, 30, "snapshots", every=0.1)


def age(location: Location, days: int = 3) -> None:
    """Makes what is in the replica this old, by the server's own times."""
    then = time.time() - days * 86400
    for file in location.files():
        os.utime(file.path, (then, then))


def works(db, location: Location) -> None:
    """Goes on until what is published now was merged, twice: between the two, what was due was done."""
    for _ in range(2):
        last = location.files(1)[-1].max
        until(lambda: insert(db) or sync(db) and location.files(1)[-1].max > last + 1, 20, "level 1", every=0.1)


@pytest.mark.parametrize("named", [dict(retention="off"), dict(snapshot_retention=LONG)], ids=["off", "long"])
def test_a_script_that_names_nothing_deletes_nothing(start, in_s3, tmp_path, named):
    app = start("python", in_s3, env=BY_NAME).open(in_s3.primary(tmp_path / "app.db", **SHORT, **named))
    some_history(app, in_s3)
    app.close()
    age(in_s3)
    script = start("python", in_s3, env=BY_NAME).open(in_s3.primary(tmp_path / "app.db", **SHORT))
    snapshots, before = in_s3.files(9), points(script, in_s3)
    works(script, in_s3)
    assert in_s3.files(9)[: len(snapshots)] == snapshots
    if "retention" in named:
        assert points(script, in_s3) >= before
    source = script.content()
    restore(script, in_s3, tmp_path / "restored.db")
    assert script.worker.open(tmp_path / "restored.db", "restored").content() == source


def test_a_shorter_retention_acts_when_it_is_named_and_is_told(start, in_s3, tmp_path):
    uri = in_s3.primary(tmp_path / "app.db", **SHORT, snapshot_retention=LONG)
    worker = start("python", in_s3, env=BY_NAME)
    app = worker.open(uri)
    some_history(app, in_s3)
    app.close()
    age(in_s3)
    snapshots = in_s3.files(9)
    app = worker.open(in_s3.primary(tmp_path / "app.db", snapshot_retention="1h"))
    told = json.loads(status(app))["databases"][0]["notice"]
    assert "snapshot_retention=1h (it was 720h)" in told
    works(app, in_s3)
    until(lambda: snapshots[0] not in in_s3.files(9), 20, "the end of the first snapshot")
    app.close()
    # It is the one that holds from now on, for those who name nothing as well.
    app = worker.open(in_s3.primary(tmp_path / "app.db"))
    with pytest.raises(SqlError, match="snapshot_retention=720h is asked for.*snapshot_retention=1h"):
        worker.open(uri, "other").rows("SELECT * FROM t")


@pytest.mark.parametrize("across", [False, True], ids=["process", "processes"])
def test_other_values_are_refused_while_the_database_is_open(start, in_folder, tmp_path, across):
    worker = start("python", in_folder, env=BY_NAME)
    app = worker.open(in_folder.primary(tmp_path / "app.db", retention="off", snapshot_retention=LONG))
    fill(app)
    sync(app)
    other = start("python", in_folder, env=BY_NAME) if across else worker
    for named, values in [
        (dict(retention="on"), ["retention=on", "retention=off"]),
        (dict(snapshot_retention="1h"), ["snapshot_retention=1h", "snapshot_retention=720h"]),
        (dict(levels="1s"), ["levels=1s", "levels=30s,5m,1h"]),
        (dict(l0_retention="1s"), ["l0_retention=1s", "l0_retention=5m"]),
        (dict(snapshot_interval="1h"), ["snapshot_interval=1h", "snapshot_interval=24h"]),
    ]:
        with pytest.raises(SqlError) as refused:
            other.open(in_folder.primary(tmp_path / "app.db", **named), "refused").rows("SELECT * FROM t")
        assert all(value in str(refused.value) for value in values), refused.value
    # Who names nothing, or the same, is welcome, and changes nothing.
    for named in (dict(), dict(retention="off"), dict(retention="off", snapshot_retention="2592000")):
        welcome = other.open(in_folder.primary(tmp_path / "app.db", **named), "welcome")
        insert(welcome)
        sync(welcome)
        welcome.close()
    assert sync(app) == in_folder.last_txid()


def test_the_environment_names_settings_too(start, in_folder, tmp_path):
    app = start("python", in_folder, env=BY_NAME).open(in_folder.primary(tmp_path / "app.db", snapshot_retention=LONG))
    fill(app)
    sync(app)
    env = BY_NAME | {"LITESTREAM_SNAPSHOT_RETENTION": "1h"}
    script = start("python", in_folder, env=env)
    with pytest.raises(SqlError, match="snapshot_retention=1h is asked for.*snapshot_retention=720h.*environment"):
        script.open(in_folder.primary(tmp_path / "app.db")).rows("SELECT * FROM t")


def test_a_standby_takes_over_with_the_settings_of_the_publisher(start, in_s3, tmp_path):
    publisher = start("python", in_s3, env=BY_NAME)
    app = publisher.open(in_s3.primary(tmp_path / "app.db", **SHORT, retention="off"))
    some_history(app, in_s3)
    standby = start("python", in_s3, env=BY_NAME).open(in_s3.primary(tmp_path / "app.db", **SHORT))
    assert standby.one("SELECT count(*) FROM t") > 0
    publisher.kill()
    # While the standby has it open, nobody else may name anything else, though the publisher is gone.
    with pytest.raises(SqlError, match="retention=on is asked for.*retention=off"):
        start("python", in_s3, env=BY_NAME).open(
            in_s3.primary(tmp_path / "app.db", retention="on")).rows("SELECT * FROM t")
    age(in_s3)
    snapshots = in_s3.files(9)
    works(standby, in_s3)
    assert '"standby"' not in status(standby)
    assert in_s3.files(9)[: len(snapshots)] == snapshots


def test_a_process_that_was_killed_leaves_its_settings_and_no_lock(start, in_folder, tmp_path):
    for signal_number, named in enumerate([dict(retention="off"), dict(snapshot_retention=LONG)]):
        worker = start("python", in_folder, env=BY_NAME)
        app = worker.open(in_folder.primary(tmp_path / "app.db", **named))
        app.run(f"CREATE TABLE t{signal_number}(x)")
        sync(app)
        worker.kill()
    worker = start("python", in_folder, env=BY_NAME)
    worker.open(in_folder.primary(tmp_path / "app.db"))
    for named in (dict(retention="on"), dict(snapshot_retention="1h")):
        with pytest.raises(SqlError, match="is open with"):
            worker.open(in_folder.primary(tmp_path / "app.db", **named), "refused").rows("SELECT * FROM t0")


def test_each_replica_has_settings_of_its_own(start, tmp_path):
    worker = start("python", env=BY_NAME)
    one, two = (Location.file(tmp_path / name) for name in ("one", "two"))
    for location, named in [(one, dict(retention="off")), (two, dict()), (one, dict())]:
        db = worker.open(location.primary(tmp_path / "app.db", **named))
        db.run("CREATE TABLE IF NOT EXISTS t(x)", "INSERT INTO t VALUES (1)")
        sync(db)
        expected = "off" if location is one else "on"
        with pytest.raises(SqlError, match=f"is open with retention={expected}"):
            other = "on" if expected == "off" else "off"
            worker.open(location.primary(tmp_path / "app.db", retention=other), "refused").rows("SELECT * FROM t")
        db.close()


def test_what_was_named_before_is_shown_as_what_holds(start, in_s3, tmp_path):
    """Somebody names nothing, and `litestream_config` shows them what holds: not the defaults, which do not."""
    worker = start("python", in_s3, env={**BY_NAME, "LITESTREAM_L0_RETENTION": "2h"})

    def shown(**named: str) -> dict[str, tuple[str, str]]:
        db = worker.open(in_s3.primary(tmp_path / "app.db", **named))
        rows = db.rows("SELECT setting, value, origin FROM litestream_config")
        db.close()
        return {setting: (value, origin) for setting, value, origin in rows}

    shown(snapshot_interval="6h", retention="off", levels="40s,10m", retention_daily="3", l0_retention="1h")
    rows = shown()
    assert rows["snapshot_interval"] == ("6h", "remembered") and rows["retention"] == ("off", "remembered")
    assert rows["levels"] == ("40s,10m", "remembered") and rows["retention_daily"] == ("3", "remembered")
    assert rows["snapshot_retention"] == ("24h", "default")
    assert rows["l0_retention"] == ("2h", "LITESTREAM_L0_RETENTION")
    # The numbers of the calendar count together.
    rows = shown(retention_weekly="2", snapshot_interval="12h")
    assert rows["retention_weekly"] == ("2", "URI parameter retention_weekly") and "retention_daily" not in rows
    assert rows["snapshot_interval"] == ("12h", "URI parameter snapshot_interval")
    # Named as for an open, while nobody has it open.
    ask = ("SELECT value, origin FROM litestream_config(?) WHERE setting = 'snapshot_interval'",
           in_s3.primary(tmp_path / "app.db"))
    assert worker.open(":memory:", "console").load().rows(*ask) == [["12h", "remembered"]]
