"""Who is told when something goes wrong, and when it is over: webhooks, a heartbeat, and lines of the log for programs.

Each event is told once when it begins and once when it is over, with one id, signed, also by a pager that was dead or
failing meanwhile. A last close that leaves commits behind tells of it before the process ends.
"""

import json
import time

import pytest

from harness import monitor, outage
from harness.proxy import Status
from harness.sql import fill, insert, sync
from harness.wait import until
from harness.worker import SqlError

SECRET = "a secret of both"


@pytest.fixture
def configured(through_proxy, tmp_path):
    """Writes a configuration file with these lines at its top, and gives the environment for it."""
    def configured(lines: str) -> dict[str, str]:
        config = tmp_path / "litestream.yml"
        config.write_text(lines)
        return {"LITESTREAM_CONFIG": str(config), "LITESTREAM_LOG_FORMAT": "json",
                "LITESTREAM_LOG_LEVEL": "info", "LITESTREAM_LOG_FILE": str(tmp_path / "log.json")}
    return configured


@pytest.fixture
def pager():
    recorders = []

    def pager(*answers: int) -> monitor.Recorder:
        recorders.append(monitor.Recorder(*answers))
        return recorders[-1]

    yield pager
    for recorder in recorders:
        recorder.close()


def test_an_outage_is_told_once_and_once_when_it_is_over(start, through_proxy, proxy, configured, pager, tmp_path):
    all_events, lags = pager(), pager(500, 503, 200)
    dead = pager()
    dead.close()
    env = configured("max-lag: 1s\nwebhooks:\n"
                     f"- url: {all_events.url}\n  secret: {SECRET}\n"
                     f"- url: {lags.url}\n  events: [upload_failed]\n"
                     f"- url: {dead.url}\n")
    db = start("python", through_proxy, env=env).open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    proxy.refuse()
    for _ in range(5):
        insert(db)
        with pytest.raises(SqlError):
            sync(db, 0.3)
    [begun] = until(lambda: all_events.told("upload_failed"), 15, "the pager is told")
    assert not begun["resolved"] and begun["database"] == str(tmp_path / "app.db") and str(proxy.port) in begun["error"]
    assert begun["replica"] == through_proxy.full_url.split("?")[0] and begun["version"]
    proxy.accept()
    both = until(lambda: len(told := all_events.told("upload_failed")) == 2 and told, 60, "it is over")
    assert both[1]["resolved"] and both[1]["id"] == begun["id"] and both[1]["attempts"] > 1
    all_events.assert_signed(SECRET)
    # The one that failed twice is told in the end: of the beginning, then of the end.
    late = until(lambda: len(told := lags.told()) == 4 and told, 30, "it is told in the end")
    assert [one["resolved"] for one in late] == [False, False, False, True]
    assert {one["id"] for one in late} == {begun["id"]}
    sync(db)
    assert len(all_events.told("upload_failed")) == 2
    lines = [json.loads(line) for line in (tmp_path / "log.json").read_text().splitlines()]
    [line] = [line for line in lines if line.get("event") == "upload_failed" and "tried again" in line["msg"]]
    assert line["level"] == "WARN" and line["db"] == str(tmp_path / "app.db") and line["replica"] == begun["replica"]
    assert not any("private" in line["msg"] for line in lines), "the address of a webhook is a secret"


def test_a_replication_that_stops_and_begins_again(start, in_s3, configured, pager, tmp_path):
    told = pager()
    env = configured(f"webhooks:\n- url: {told.url}\n  events: [replication_stopped, replication_resumed]\n")
    db = start("python", in_s3, env=env).open(in_s3.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    (tmp_path / "app.db").rename(tmp_path / "moved.db")
    insert(db)
    with pytest.raises(SqlError):
        sync(db, 5)
    [stopped] = until(lambda: told.told("replication_stopped"), 10, "it is told that replication stopped")
    assert "was removed" in stopped["error"] and not stopped["resolved"]
    (tmp_path / "moved.db").rename(tmp_path / "app.db")
    db.one("SELECT litestream_resume()")
    [_, over] = until(lambda: len(all_ := told.told("replication_stopped")) == 2 and all_, 10, "it is over")
    assert over["resolved"] and over["id"] == stopped["id"]
    assert len(until(lambda: told.told("replication_resumed"), 10, "it began again")) == 1


def test_a_close_that_leaves_commits_behind(start, through_proxy, proxy, configured, pager, tmp_path):
    told = pager()
    env = configured(f"webhooks:\n- url: {told.url}\n  events: [closed_unsent]\n")
    worker = start("python", through_proxy, env=env)
    db = worker.open(through_proxy.primary(tmp_path / "app.db", close_timeout="300ms"))
    fill(db)
    sync(db)
    proxy.refuse()
    insert(db)
    worker.end()
    [closed] = told.told()
    assert closed["event"] == "closed_unsent" and "next open" in closed["error"]


def test_what_is_wrong_at_the_open_already_is_told(start, in_folder, configured, pager, tmp_path):
    first = start("python").open(in_folder.primary(tmp_path / "first.db"))
    fill(first)
    sync(first)
    other = start("python", load=False).open(tmp_path / "app.db")
    other.run("CREATE TABLE other(x)", "INSERT INTO other VALUES (1)")
    other.close()
    told = pager()
    env = configured(f"webhooks:\n- url: {told.url}\n  events: [replication_stopped]\n")
    db = start("python", env=env).open(in_folder.primary(tmp_path / "app.db"))
    with pytest.raises(SqlError):
        sync(db, 10)
    [stopped] = until(lambda: told.told(), 10, "it is told")
    assert "another database" in stopped["error"]


def test_closes_wait_for_no_pager_that_is_dead(start, through_proxy, proxy, in_folder, configured, pager, tmp_path):
    dead = pager()
    dead.close()
    worker = start("python", through_proxy, env=configured(f"webhooks:\n- url: {dead.url}\n"))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    proxy.refuse()
    insert(db)
    until(lambda: "cannot be told" in (tmp_path / "log.json").read_text(), 20, "the pager is dead")
    began = time.monotonic()
    for n in range(8):
        other = worker.open(in_folder.primary(tmp_path / "other.db"), f"other{n}")
        other.rows("SELECT 1 FROM sqlite_schema")
        other.close()
    assert time.monotonic() - began < 6, "each waited a second"


def test_refused_credentials_are_an_alarm_of_their_own(start, through_proxy, proxy, configured, pager, tmp_path):
    told = pager()
    env = configured(f"webhooks:\n- url: {told.url}\n  events: [auth_failure]\n")
    db = start("python", through_proxy, env=env).open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    proxy.fault = lambda request: Status(403, outage.ACCESS_DENIED)
    insert(db)
    [begun] = until(lambda: told.told(), 20, "it is told")
    assert begun["event"] == "auth_failure"
    proxy.fault = lambda request: None
    until(lambda: [one for one in told.told() if one["resolved"]], 60, "it is over")


def test_the_heart_beats_while_all_is_well(start, in_s3, pager, tmp_path):
    beats = pager()
    db = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db", heartbeat_url=beats.url, heartbeat_interval="1m"))
    fill(db)
    sync(db)
    until(lambda: beats.requests, 25, "the first beat")
    assert beats.requests[0][0] == "/hook/private"


def test_a_webhook_that_cannot_be_is_refused_with_its_line(start, configured, through_proxy, tmp_path):
    for lines, message in (("webhooks:\n- events: [lag_high]\n", "has no url"),
                           ("webhooks:\n- url: https://x\n  events: [lag_hihg]\n", "no event 'lag_hihg'"),
                           ("webhooks:\n- url: ftp://x\n", "begins with https")):
        worker = start("python", through_proxy, env=configured(lines))
        with pytest.raises(SqlError, match=message):
            fill(worker.open(through_proxy.primary(tmp_path / "app.db")))
