"""Any state of a recorded history comes back exactly: restored, and read as of then."""

import json
import random
import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from harness import readme
from harness.litestream import Replicate
from harness.location import Location
from harness.recorded import Commit, committed, digest, now, record, rfc3339
from harness.sql import restore, sync, txid
from harness.wait import until
from harness.worker import Connection, SqlError

TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data TEXT)"


def ours(start, location: Location, folder: Path, commits: int) -> list[Commit]:
    """A history that this library wrote, a file for each commit."""
    primary = start("apsw", location).open(location.primary(folder / "app.db", sync_interval="10ms"))
    primary.run(TABLE)
    sync(primary)
    history = record(primary, lambda: sync(primary), commits, seed=5)
    primary.close()
    return history


def litestreams(start, location: Location, folder: Path, commits: int) -> list[Commit]:
    """A history that Litestream wrote, with its usual compaction."""
    db = start("apsw", load=False).open(folder / "app.db")
    db.run("PRAGMA journal_mode=WAL", TABLE)
    with Replicate(folder / "app.db", location, folder, sync="1h", levels=("30s", "5m", "1h"), snapshot="24h",
                   l0_retention="5m", monitor="1s") as sidecar:
        sidecar.sync()
        return record(db, sidecar.sync, commits, seed=6)


def spellings(n: int) -> list[str]:
    return [f"{n:016x}", f"0x{n:x}", f"txid:{n}", f"#{n}"]


def points(history: list[Commit], times: dict[int, int], count: int) -> list[tuple[dict, str, Commit]]:
    """Random points: options of a restore, the same for `asof`, and the commit that they mean."""
    rng = random.Random(7)
    found = []
    while len(found) < count:
        i = rng.randrange(len(history))
        commit = history[i]
        at = times[commit.txid]
        if rng.random() < 0.4:
            spelling = rng.choice(spellings(commit.txid))
            found.append(({"txid": spelling}, spelling, commit))
            continue
        following = min((t for n, t in times.items() if n > commit.txid), default=at + 86_400_000)
        if following <= at:
            continue
        # Equal to the commit, or before the next one.
        ms = at if rng.random() < 0.4 else rng.randrange(at, following)
        text = rng.choice([rfc3339(ms), f"{ms // 1000}.{ms % 1000:03d}"])
        found.append(({"timestamp": text}, text, commit))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("write", [ours, litestreams])
def test_200_points_of_2000_commits(write, start, in_folder, tmp_path):
    history = write(start, in_folder, tmp_path, 2000)
    times = committed(in_folder)
    assert [c.txid for c in history] == sorted({c.txid for c in history}), "a file for each commit"
    for commit in history:
        assert commit.before <= times[commit.txid] <= commit.after, commit

    worker = start("apsw", in_folder)
    db = worker.open(":memory:", "plain").load()
    listed = {txid(n): time for n, time in db.rows("SELECT txid, time FROM litestream_history(?)", in_folder.full_url)}
    assert {n: datetime.fromisoformat(t) for n, t in listed.items()} == {
        n: datetime.fromtimestamp(ms // 1000, timezone.utc).replace(microsecond=ms % 1000 * 1000)
        for n, ms in times.items()}

    reader = worker.open(in_folder.replica(), "reader")
    for n, (options, asof, commit) in enumerate(points(history, times, 200)):
        path = tmp_path / f"{n}.db"
        report = restore(db, in_folder, path, **options)
        assert txid(report["txid"]) == commit.txid, options
        assert digest(worker.open(path, "restored")) == commit.content, options
        past = worker.open(in_folder.replica(asof=asof), "past")
        assert digest(past) == commit.content, asof
        assert txid(past.one("SELECT litestream_txid()")) == commit.txid
        reader.one("SELECT litestream_set_time(?)", asof)
        assert digest(reader) == commit.content, asof
        path.unlink()


def moments(times: dict[int, int]) -> list[int]:
    """Just before each commit, at it, just after it, between it and the next one, and long after the last."""
    ordered = sorted(times.values())
    between = [(a + b) // 2 for a, b in zip(ordered, ordered[1:])]
    return sorted({*between, ordered[-1] + 86_400_000, *(ms + off for ms in ordered for off in (-1, 0, 1))})


@pytest.mark.parametrize("write", [ours, litestreams])
def test_before_at_between_and_after_the_commits(write, start, location, tmp_path):
    history = write(start, location, tmp_path, 10)
    times = committed(location)
    first, last = min(times), max(times)
    contents = {commit.txid: commit.content for commit in history}
    assert set(times) - set(contents) <= set(range(history[0].txid)), "what comes before is without rows"
    worker = start("apsw", location)
    db = worker.open(":memory:", "plain").load()
    reader = worker.open(location.replica(), "reader")
    without_rows = worker.open(":memory:", "without_rows")
    without_rows.run(TABLE)
    empty = digest(without_rows)
    path = tmp_path / "restored.db"
    seen = set()
    for ms in moments(times):
        text = rfc3339(ms)
        covered = [n for n, at in times.items() if at <= ms]
        if not covered:
            for attempt in [
                lambda: restore(db, location, path, timestamp=text),
                lambda: reader.one("SELECT litestream_set_time(?)", text),
                lambda: worker.open(location.replica(asof=text), "refused").rows("SELECT * FROM sqlite_schema"),
            ]:
                with pytest.raises(SqlError, match=f"covers.*{first:016x}.*{last:016x}"):
                    attempt()
            seen.add("refused")
            continue
        expected = max(covered)
        assert txid(restore(db, location, path, timestamp=text)["txid"]) == expected, text
        assert digest(worker.open(path, "restored")) == contents.get(expected, empty), text
        past = worker.open(location.replica(asof=text), "past")
        assert txid(past.one("SELECT litestream_txid()")) == expected and digest(past) == contents.get(expected, empty), text
        reader.one("SELECT litestream_set_time(?)", text)
        assert digest(reader) == contents.get(expected, empty), text
        path.unlink()
        seen.add(expected)
    assert seen == {"refused", *times}
    for wrong in (f"txid:{last + 1}", "0xffffffffffffffff"):
        with pytest.raises(SqlError, match=f"covers.*{first:016x}.*{last:016x}"):
            restore(db, location, path, txid=wrong)
    assert not path.exists()


def test_points_out_of_reach_are_refused_with_the_range(start, host, location, tmp_path):
    history = ours(start, location, tmp_path, 5)
    times = committed(location)
    first, last = min(times), max(times)
    worker = start(host, location)
    db = worker.open(":memory:", "plain").load()
    reader = worker.open(location.replica(), "reader")
    covered = [f"{first:016x}", f"{last:016x}", rfc3339(times[first]).rstrip("Z").rstrip("0")]
    early = rfc3339(times[first] - 1)
    for options, point in [({"timestamp": early}, early), ({"txid": f"txid:{last + 1}"}, f"txid:{last + 1}")]:
        messages = []
        for attempt in [
            lambda: restore(db, location, tmp_path / "new" / "never.db", **options),
            lambda: db.rows("SELECT * FROM litestream_restore_plan(?, ?)", location.full_url, json.dumps(options)),
            lambda: reader.one("SELECT litestream_set_time(?)", point),
            lambda: reader.rows(f"PRAGMA litestream_time = '{point}'"),
            lambda: worker.open(location.replica(asof=point), "refused").rows("SELECT * FROM sqlite_schema"),
        ]:
            with pytest.raises(SqlError) as refused:
                attempt()
            messages.append(str(refused.value))
        for message in messages:
            assert f"{first:016x}" in message and f"{last:016x}" in message and "covers" in message, message
            if not location.is_s3:
                assert all(word in message for word in covered), message
    assert not (tmp_path / "new").exists()
    assert digest(reader) == history[-1].content, "a refused time changes nothing"
    # There is no later commit: the last one is the state of any time after it.
    assert txid(restore(db, location, tmp_path / "late.db", timestamp=rfc3339(now() + 86_400_000))["txid"]) == last


@pytest.mark.parametrize("text, words", [
    ("noon", ["'noon'", "2026-01-31T12:00:00Z", "5 minutes ago"]),
    ("5 minutes", ["'5 minutes'", "ago"]),
    ("2026-02-30", ["'2026-02-30'"]),
    ("0x0", ["'0x0'", "TXID"]),
    ("txid:2a", ["'txid:2a'", "TXID"]),
    ("#99999999999999999999", ["TXID"]),
])
def test_malformed_points_are_named_wherever_they_are_given(text, words, start, host, in_folder, tmp_path):
    ours(start, in_folder, tmp_path, 1)
    worker = start(host, in_folder)
    reader = worker.open(in_folder.replica(), "reader")
    plain = worker.open(":memory:", "plain")
    option = "txid" if "TXID" in words else "timestamp"
    for attempt in [
        lambda: restore(plain, in_folder, tmp_path / "never.db", **{option: text}),
        lambda: reader.one("SELECT litestream_set_time(?)", text),
        lambda: reader.rows(f"PRAGMA litestream_time = '{text}'"),
        lambda: worker.open(in_folder.replica(asof=text), "refused").rows("SELECT * FROM sqlite_schema"),
    ]:
        with pytest.raises(SqlError) as refused:
            attempt()
        missing = [word for word in words if word not in str(refused.value)]
        assert not missing, f"{missing} not in: {refused.value}"
    assert not (tmp_path / "never.db").exists()


def test_a_replica_goes_back_and_forth_in_time(start, host, location, tmp_path):
    worker = start(host, location)
    primary = worker.open(location.primary(tmp_path / "app.db", sync_interval="10ms"), "primary")
    primary.run(TABLE)
    sync(primary)
    history = record(primary, lambda: sync(primary), 8, seed=1)
    reader = worker.open(location.replica(poll_interval="50ms"), "reader")
    assert digest(reader) == history[-1].content
    for commit in [history[2], history[6], history[0]]:
        assert reader.one("SELECT litestream_set_time(?)", f"txid:{commit.txid}").endswith("Z")
        assert digest(reader) == commit.content
        assert txid(reader.one("PRAGMA litestream_txid")) == commit.txid
    assert reader.one("SELECT state FROM litestream_status WHERE schema = 'main'") == "past"
    # It stays there while the primary goes on.
    record(primary, lambda: sync(primary), 2, seed=2)
    assert digest(reader) == history[0].content
    # A transaction sees one state to its end.
    reader.rows("BEGIN")
    digest(reader)
    with pytest.raises(SqlError) as refused:
        reader.one("SELECT litestream_set_time('latest')")
    assert "transaction" in str(refused.value)
    reader.rows("COMMIT")
    reader.rows("PRAGMA litestream_time = latest")
    until(lambda: digest(reader) == digest(primary), 10, "the reader to follow again")
    assert reader.one("SELECT state FROM litestream_status WHERE schema = 'main'") == "following"


def test_only_a_replica_can_be_read_as_of_another_time(start, host, in_folder, tmp_path):
    worker = start(host, in_folder)
    plain = worker.open(tmp_path / "plain.db", "plain")
    primary = worker.open(in_folder.primary(tmp_path / "app.db"), "primary")
    for db, words in [(plain, ["vfs=litestream"]), (primary, ["mode=ro"])]:
        with pytest.raises(SqlError) as refused:
            db.one("SELECT litestream_set_time('yesterday')")
        assert all(word in str(refused.value) for word in words), str(refused.value)
    with pytest.raises(SqlError) as refused:
        worker.open(in_folder.primary(tmp_path / "b.db", asof="yesterday"), "b").rows("SELECT 1 FROM sqlite_schema")
    assert "mode=ro" in str(refused.value)


def readme_comparison(location: Location, then: str) -> list[str]:
    """The statements of the documents, with this replica and this time in them."""
    [example] = [block.text for block in readme.blocks() if block.mark == "compare"]
    settings = "".join(f"&{k}={v}" for k, v in location.settings.items())
    example = example.replace("s3://bucket/app", location.url + settings).replace("yesterday 14:00", then)
    return [statement.strip() for statement in example.split(";") if statement.strip()]


def test_two_times_are_compared_in_one_statement_as_the_readme_does(start, host, location, tmp_path):
    worker = start(host, location)
    primary = worker.open(location.primary(tmp_path / "app.db"), "primary")
    primary.run(TABLE, "INSERT INTO t VALUES (1, 'kept', ''), (2, 'changed', ''), (3, 'lost', '')")
    sync(primary)
    then = committed(location)[location.last_txid()]
    until(lambda: now() > then, what="the next millisecond")
    primary.run("UPDATE t SET name = 'other' WHERE id = 2", "DELETE FROM t WHERE id = 3", "INSERT INTO t VALUES (4, 'new', '')")
    sync(primary)

    *attach, compare = readme_comparison(location, rfc3339(then))
    db = worker.open("file::memory:", "plain").load()
    db.run(*attach)
    assert sorted(db.rows(compare)) == [[2, "changed", ""], [3, "lost", ""]]
    assert db.rows("SELECT id FROM now.t EXCEPT SELECT id FROM past.t") == [[4]]
    assert dict(db.rows("SELECT schema, state FROM litestream_status WHERE schema IS NOT NULL")) == {
        "past": "past", "now": "following"}
    assert db.one("SELECT litestream_set_time('latest', 'past')")
    assert db.rows("SELECT * FROM past.t EXCEPT SELECT * FROM now.t") == []


def test_history_costs_what_is_asked_of_it(start, location, tmp_path):
    history = ours(start, location, tmp_path, 150)
    times = committed(location)
    worker = start("apsw", location)
    db = worker.open(":memory:", "plain").load()
    rows = db.rows("SELECT txid, time, pages, bytes, level FROM litestream_history(?)", location.full_url)
    assert [txid(row[0]) for row in rows] == sorted(times, reverse=True)
    files = {file.max: file for file in location.files(0)}
    for n, time, pages, size, level in rows:
        assert datetime.fromisoformat(time).timestamp() * 1000 == pytest.approx(times[txid(n)], abs=0.5)
        assert (size, level) == (files[txid(n)].size, 0)
        assert pages >= 1
    # Nothing is read of files whose time and pages nobody wants.
    middle = files[history[70].txid].path
    middle.write_bytes(b"x" * middle.stat().st_size)
    assert db.one("SELECT count(*) FROM litestream_history(?)", location.full_url) == len(times)
    assert len(db.rows("SELECT time FROM litestream_history(?) LIMIT 20", location.full_url)) == 20
    with pytest.raises(SqlError) as refused:
        db.rows("SELECT time FROM litestream_history(?)", location.full_url)
    assert f"{history[70].txid:016x}" in str(refused.value)


def test_an_empty_replica_has_no_history(start, host, location):
    db: Connection = start(host, location).open(":memory:", "plain").load()
    with pytest.raises(SqlError) as refused:
        db.rows("SELECT * FROM litestream_history(?)", location.full_url)
    assert "empty" in str(refused.value)
