"""The SQL functions in detail: arguments, columns, attached databases, interrupts, where they may be used."""

import json
import threading
import time

import pytest

from harness.location import sqlite_uri
from harness.proxy import Hang
from harness.sql import fill, insert, restore, status, sync, txid
from harness.wait import until
from harness.worker import SqlError

COLUMNS = ["schema", "path", "role", "url", "state", "txid", "time", "lag", "waiting_files", "waiting_bytes",
           "fencing", "page_size", "pages", "cache_bytes", "requests", "files", "sealed_files", "sealed_since", "sealed_to",
           "verified_txid", "verified_at", "commits_waited", "commit_wait_median", "commit_wait_p99", "commits_per_upload",
           "notice", "last_error"]


def error(db, sql, *params) -> str:
    with pytest.raises(SqlError) as raised:
        db.rows(sql, *params)
    return str(raised.value)


# --- status ---


def test_the_status_of_a_primary_has_these_columns(start, host, in_folder, tmp_path):
    db = start(host).open(in_folder.primary(tmp_path / "app.db"))
    fill(db)
    last = sync(db)
    assert [row[1] for row in db.rows("PRAGMA table_info(litestream_status)")] == COLUMNS
    [row] = db.rows("SELECT * FROM litestream_status")
    row = dict(zip(COLUMNS, row))
    assert row["schema"] == "main" and row["path"] == str(tmp_path / "app.db") and row["role"] == "primary"
    assert row["url"] == in_folder.url and row["state"] == "idle" and txid(row["txid"]) == last
    assert (row["lag"], row["waiting_files"], row["waiting_bytes"], row["last_error"]) == (0, 0, 0, None)
    [entry] = json.loads(status(db))["databases"]
    assert entry == {k: v for k, v in row.items() if v is not None}


def test_without_a_database_of_ours_status_is_empty_and_no_error(start, host):
    db = start(host).open(":memory:")
    assert db.rows("SELECT * FROM litestream_status") == []
    assert json.loads(status(db)) == {"databases": [], "failures": []}


def test_status_keeps_why_an_attach_was_refused(start, host, tmp_path):
    db = start(host).open(tmp_path / "plain.db")
    uri = sqlite_uri(tmp_path / "app.db", vfs="litestream")
    error(db, "ATTACH ? AS app", uri)
    [[schema, path, state, message]] = db.rows("SELECT schema, path, state, last_error FROM litestream_status")
    assert (schema, path, state) == (None, str(tmp_path / "app.db"), "open refused")
    assert "no replica URL for app.db" in message
    # The same failure again is the same row.
    error(db, "ATTACH ? AS app", uri)
    assert len(db.rows("SELECT * FROM litestream_status")) == 1


def test_status_may_be_used_in_a_view(start, in_folder, tmp_path):
    db = start("python").open(in_folder.primary(tmp_path / "app.db"))
    db.run("CREATE VIEW replication AS SELECT role, state FROM litestream_status")
    assert db.rows("SELECT role FROM replication") == [["primary"]]


# --- attached databases ---


def test_sync_covers_attached_databases_and_answers_for_the_first(start, host, tmp_path, in_folder):
    from harness.location import Location

    other = Location.file(tmp_path / "other-replica")
    db = start(host).open(in_folder.primary(tmp_path / "app.db")).load()
    db.rows("ATTACH ? AS other", other.primary(tmp_path / "other.db"))
    db.run("CREATE TABLE main.t(x)", "CREATE TABLE other.t(x)", "INSERT INTO other.t VALUES (1)")
    assert sync(db) == in_folder.last_txid() == txid(db.one("SELECT litestream_txid()"))
    assert other.last_txid() >= 1
    assert [row[0] for row in db.rows("SELECT schema FROM litestream_status")] == ["main", "other"]
    restore(db, other, tmp_path / "restored.db")
    assert db.worker.open(tmp_path / "restored.db", "restored").rows("SELECT x FROM t") == [[1]]


def test_an_attached_database_is_found_behind_a_plain_main(start, host, in_folder, tmp_path):
    db = start(host).open(tmp_path / "plain.db").load()
    db.rows("ATTACH ? AS app", in_folder.primary(tmp_path / "app.db"))
    db.run("CREATE TABLE app.t(x)")
    assert sync(db) == in_folder.last_txid()


# --- sync ---


@pytest.mark.parametrize("argument, words", [
    ("-1", "timeout: -1 is not a number of seconds"),
    ("1e300", "is not a number of seconds"),
    ("'soon'", "timeout: 'soon' is not a duration"),
    ("x'00'", "argument 1 does not fit: it is of type Blob"),
])
def test_sync_names_a_wrong_timeout(argument, words, start, in_folder, tmp_path):
    db = start("python").open(in_folder.primary(tmp_path / "app.db"))
    assert words in error(db, f"SELECT litestream_sync({argument})").replace("-1.0", "-1")


# --- restore ---


@pytest.mark.parametrize("options, words", [
    ('{"froce": true}', "unknown parameter 'froce'; did you mean 'force'?"),
    ('{"overwrite": true}', "unknown parameter 'overwrite'"),
    ("force", "not a JSON object"),
    ('{"txid": "12"}', "txid: '12' is not a TXID"),
    ('{"timestamp": "noon"}', "timestamp: 'noon' is not a time"),
    ('{"parallelism": 0}', "parallelism: '0'"),
    ('{"txid": "0000000000000001", "timestamp": "2026-01-01T00:00:00Z"}', "both given"),
])
def test_restore_names_a_wrong_option(options, words, start, in_folder, tmp_path):
    db = start("python").open(":memory:").load()
    message = error(db, "SELECT litestream_restore(?, ?, ?)", in_folder.url, str(tmp_path / "x.db"), options)
    assert message.startswith("litestream_restore: ") and words in message
    assert not (tmp_path / "x.db").exists()


def test_restore_says_what_is_missing(start, in_folder):
    db = start("python").open(":memory:").load()
    assert "no replica URL" in error(db, "SELECT litestream_restore(NULL, 'x.db')")
    assert "no path" in error(db, "SELECT litestream_restore(?, NULL)", in_folder.url)
    assert "no path" in error(db, "SELECT litestream_restore(?, '')", in_folder.url)
    assert "wrong number of arguments" in error(db, "SELECT litestream_restore('x')")


def test_restore_takes_store_settings_as_options(start, host, in_s3, tmp_path):
    db = start(host, in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(db)
    last = sync(db)
    options = json.dumps(in_s3.settings)
    report = json.loads(db.load().one("SELECT litestream_restore(?, ?, ?)", in_s3.url, str(tmp_path / "r.db"), options))
    assert txid(report["txid"]) == last and report["path"] == str(tmp_path / "r.db")
    assert report["bytes"] == (tmp_path / "r.db").stat().st_size == report["pages"] * 4096
    assert report["files"] >= 1 and report["duration"] > 0


# --- ltx ---


def test_ltx_takes_its_url_from_another_table(start, in_folder, tmp_path):
    db = start("python").open(in_folder.primary(tmp_path / "app.db"))
    fill(db)
    sync(db)
    db.load().run("CREATE TABLE replicas(url)")
    db.rows("INSERT INTO replicas VALUES (?), (?)", in_folder.url, f"file://{tmp_path}/none")
    direct = db.rows("SELECT * FROM litestream_ltx(?)", in_folder.url)
    assert direct
    joined = db.rows("SELECT f.* FROM litestream_ltx(r.url) AS f, replicas AS r")
    assert joined[: len(direct)] == direct or len(joined) >= len(direct)
    level, low, high, size, timestamp, name, sealed = direct[0]
    assert name == f"{low}-{high}.ltx" and size > 100 and timestamp.endswith("Z") and sealed == 0


def test_ltx_takes_store_settings_as_a_second_argument(start, in_s3, tmp_path):
    db = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(db)
    sync(db)
    rows = db.load().rows("SELECT * FROM litestream_ltx(?, ?)", in_s3.url, json.dumps(in_s3.settings))
    assert rows == db.rows("SELECT * FROM litestream_ltx(?)", in_s3.full_url) != []


def test_ltx_names_a_wrong_argument(start):
    db = start("python").open(":memory:").load()
    assert "give it a replica URL" in error(db, "SELECT * FROM litestream_ltx")
    assert "url is not text" in error(db, "SELECT * FROM litestream_ltx(7)")
    assert "did you mean 'endpoint'" in error(db, "SELECT * FROM litestream_ltx('s3://b', '{\"endpiont\": 1}')")


def test_ltx_cannot_hide_in_a_schema(start, in_folder, tmp_path):
    db = start("python").open(in_folder.primary(tmp_path / "app.db"))
    with pytest.raises(SqlError, match="unsafe"):
        db.run("CREATE VIEW v AS SELECT * FROM litestream_ltx('file:///x')", "SELECT * FROM v")


# --- interrupts ---


def can_interrupt(db) -> bool:
    """Whether the host's SQLite lets an extension see an interrupt (3.41 and later)."""
    return tuple(map(int, db.one("SELECT sqlite_version()").split("."))) >= (3, 41)


@pytest.mark.parametrize("call", ["SELECT litestream_sync(60)", "SELECT * FROM litestream_ltx('{url}')",
                                  "SELECT litestream_restore('{url}', '{path}')"])
def test_an_interrupt_ends_what_waits_for_the_store(call, through_proxy, proxy, tmp_path):
    import os
    import apsw

    from harness.paths import LIBRARY

    os.environ |= through_proxy.env
    loader = apsw.Connection(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(str(LIBRARY))
    uri = through_proxy.primary(tmp_path / "app.db", close_timeout="0s")
    flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    db = apsw.Connection(uri, flags=flags)
    db.enable_load_extension(True)
    db.load_extension(str(LIBRARY))
    db.execute("CREATE TABLE t(x)")
    db.execute("SELECT litestream_sync()")
    proxy.fault = lambda request: Hang()
    db.execute("INSERT INTO t VALUES (1)")
    timer = threading.Timer(0.5, db.interrupt)
    timer.start()
    began = time.monotonic()
    with pytest.raises(apsw.InterruptError):
        db.execute(call.format(url=through_proxy.full_url, path=tmp_path / "r.db")).fetchall()
    assert 0.4 < time.monotonic() - began < 3
    assert not (tmp_path / "r.db").exists()
    db.close()
