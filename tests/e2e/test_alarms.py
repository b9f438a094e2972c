"""Who is told when something goes wrong, and when it is over: webhooks, a heartbeat, and lines of the log for programs.

Each event is told once when it begins and once when it is over, with one id, signed, also by a pager that was dead or
failing meanwhile. A last close that leaves commits behind tells of it before the process ends.
"""

import json
import time

import pytest

from harness import monitor, outage
from harness.healing import assert_restores, flip, open_primary
from harness.proxy import Hang, Status
from harness.small_disk import fill_up, small_disk
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

    def pager(*answers: int | monitor.Slow) -> monitor.Recorder:
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
    # It happened, and does not last.
    metrics = db.load().one("SELECT litestream_metrics()")
    assert 'litestream_events_total{event="replication_resumed"} 1\n' in metrics
    assert not [line for line in metrics.splitlines() if line.startswith("litestream_alarm{")]


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


def test_pagers_that_are_slow(start, through_proxy, proxy, configured, pager, tmp_path):
    """One that answers after 8 seconds or byte by byte is told of all once. One that does not answer is told again every ten
    seconds and the pause, of the beginning, until it answers. They keep no commit and no other pager waiting."""
    silent = pager(monitor.NEVER)
    late, trickles, quick = pager(monitor.Slow(after=8)), pager(monitor.Slow(every=0.1)), pager()
    env = configured("webhooks:\n" + "".join(f"- url: {one.url}\n  events: [upload_failed]\n"
                                             for one in (silent, late, trickles, quick)))
    db = start("python", through_proxy, env=env).open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    proxy.refuse()
    longest, began = 0.0, time.monotonic()
    while not (silent.times and late.times and trickles.times and quick.times):
        begins = time.monotonic()
        insert(db)
        longest = max(longest, time.monotonic() - begins)
        assert begins - began < 20, "the pagers are not told"
    proxy.accept()
    firsts = [one.times[0] for one in (silent, late, trickles, quick)]
    # Whoever waited for another would wait for eight seconds.
    assert max(firsts) - min(firsts) < 5, "one waited for another"
    begun, _ = both(quick, "upload_failed", 60)
    assert quick.times[1] < silent.times[0] + 8, "what is over waited for a pager that is slow"
    began = time.monotonic()
    for _ in range(20):
        insert(db)
        sync(db)
    assert longest < 5 and time.monotonic() - began < 8, "a pager that is slow is in the way of commits"
    until(lambda: len(silent.times) > 1, 20, "an attempt at one that is silent ends")
    assert 10 < silent.times[1] - silent.times[0] < 20
    silent.answers[:] = [200]
    until(lambda: len(silent.told()) > 3, 40, "it is told in the end")
    assert [one["resolved"] for one in silent.told()] == [False, False, False, True]
    for slow in (late, trickles):
        both(slow, "upload_failed")
        assert len(slow.told()) == 2
    assert {one["id"] for one in silent.told() + late.told() + trickles.told()} == {begun["id"]}


@pytest.mark.parametrize("slow", [monitor.NEVER, monitor.Slow(after=8), monitor.Slow(every=1)], ids=str)
def test_a_last_close_waits_a_second_for_a_pager_that_is_slow(start, through_proxy, proxy, configured, pager, slow, tmp_path):
    waits, quick = pager(slow), pager()
    env = configured("webhooks:\n" + "".join(f"- url: {one.url}\n  events: [closed_unsent]\n" for one in (waits, quick)))
    db = start("python", through_proxy, env=env).open(through_proxy.primary(tmp_path / "app.db", close_timeout="300ms"))
    fill(db)
    sync(db)
    proxy.refuse()
    insert(db)
    began = time.monotonic()
    db.close()
    assert 0.9 < time.monotonic() - began < 5, "it waits for a second, and for what cannot be sent not at all"
    assert [len(one.told("closed_unsent")) for one in (waits, quick)] == [1, 1]


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


def both(recorder: monitor.Recorder, event: str, seconds: float = 60) -> list[dict]:
    """The beginning and the end of `event`, when it was told of both."""
    begun, over = until(lambda: len(told := recorder.told(event)) >= 2 and told[:2], seconds, f"{event} began and is over")
    assert (begun["resolved"], over["resolved"]) == (False, True) and begun["id"] == over["id"]
    return [begun, over]


def test_commits_that_wait_for_too_long(start, through_proxy, proxy, configured, pager, tmp_path):
    """The store does not fail, it does not answer: no upload has failed yet, and the pager is told all the same."""
    told = pager()
    env = configured(f"max-lag: 2s\nwebhooks:\n- url: {told.url}\n  events: [lag_high]\n")
    db = start("python", through_proxy, env=env).open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    proxy.fault = lambda request: Hang()
    insert(db)
    [begun] = until(lambda: told.told(), 40, "it is told")
    assert "a commit has waited" in begun["error"] and begun["replica"] == through_proxy.full_url.split("?")[0]
    proxy.fault = lambda request: None
    proxy.refuse()
    proxy.accept()
    both(told, "lag_high", 90)


def test_a_store_that_is_away_for_long_is_asked_less(start, through_proxy, proxy, configured, pager, tmp_path):
    told = pager()
    env = configured(f"webhooks:\n- url: {told.url}\n  events: [circuit_breaker_open]\n")
    db = start("python", through_proxy, env=env).open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    proxy.refuse()
    insert(db)
    until(lambda: told.told(), 120, "it is told")
    proxy.accept()
    both(told, "circuit_breaker_open")


def test_a_disk_that_fills(start, in_folder, configured, pager, tmp_path):
    told = pager()
    env = configured(f"disk-reserve: 4MiB\nwebhooks:\n- url: {told.url}\n  events: [disk_low]\n")
    with small_disk(tmp_path / "disk", 16) as disk:
        worker = start("python", env=env)
        db = worker.open(in_folder.primary(disk / "app.db", sync_interval="50ms"))
        fill(db)
        sync(db)
        filler = fill_up(disk)
        [begun] = until(lambda: told.told(), 40, "it is told")
        assert "its disk has 0 MiB left" in begun["error"] and begun["database"] == str(disk / "app.db")
        filler.unlink()
        both(told, "disk_low")
        worker.end()


def test_files_that_are_gone(start, in_folder, configured, pager, tmp_path):
    told = pager()
    env = configured(f"webhooks:\n- url: {told.url}\n  events: [hole_found]\n")
    db = open_primary(start, in_folder, tmp_path, env=env)
    in_folder.files()[0].path.unlink()
    db.one("SELECT litestream_snapshot()")
    begun, _ = both(told, "hole_found")
    assert "lost transactions" in begun["error"]
    assert_restores(db, in_folder, tmp_path)


def test_a_file_that_is_damaged(start, in_folder, configured, pager, tmp_path):
    """A verification finds it. A full copy heals what comes after it; the points in time that it holds are lost until somebody
    has its bytes."""
    told = pager()
    env = configured(f"webhooks:\n- url: {told.url}\n  events: [corruption_detected, verification_failed]\n")
    db = open_primary(start, in_folder, tmp_path, env=env, verify_interval="1s")
    damaged = in_folder.files()[2]
    sound = damaged.path.read_bytes()
    flip(damaged)
    insert(db)
    sync(db)
    for event in ("verification_failed", "corruption_detected"):
        # The full copy may have ended the one while the other was looked for.
        begun = until(lambda: told.told(event), 30, f"{event} is told")[0]
        assert not begun["resolved"] and begun["replica"] == in_folder.url
    until(lambda: in_folder.files(9), 30, "it is healed")
    assert_restores(db, in_folder, tmp_path)
    damaged.path.write_bytes(sound)
    insert(db)
    sync(db)
    for event in ("verification_failed", "corruption_detected"):
        both(told, event)


def test_the_heart_beats_while_all_is_well(start, in_s3, pager, tmp_path):
    beats = pager()
    db = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db", heartbeat_url=beats.url, heartbeat_interval="1m"))
    fill(db)
    sync(db)
    until(lambda: beats.requests, 25, "the first beat")
    assert beats.requests[0][0] == "/hook/private"


def test_a_heartbeat_that_can_go_nowhere_is_refused(start, in_folder, tmp_path):
    """The address may be a secret, and is not repeated."""
    uri = in_folder.primary(tmp_path / "app.db")
    for parameter, env in (("&heartbeat_url=not-one", {}), ("", {"LITESTREAM_HEARTBEAT_URL": "not-one"})):
        with pytest.raises(SqlError, match="(?i)heartbeat_url: it begins with https") as refused:
            fill(start("python", env=env).open(uri + parameter))
        assert "not-one" not in str(refused.value)


def test_a_webhook_that_cannot_be_is_refused_with_its_line(start, configured, through_proxy, tmp_path):
    for lines, message in (("webhooks:\n- events: [lag_high]\n", "has no url"),
                           ("webhooks:\n- url: https://x\n  events: [lag_hihg]\n", "no event 'lag_hihg'"),
                           ("webhooks:\n- url: ftp://x\n", "begins with https")):
        worker = start("python", through_proxy, env=configured(lines))
        with pytest.raises(SqlError, match=message):
            fill(worker.open(through_proxy.primary(tmp_path / "app.db")))
