"""Settings and arguments as people write them are taken, or refused with what to write instead."""

import json

import pytest

from harness.paths import LIBRARY
from harness.sql import fill, sync, txid
from harness.worker import SqlError


def refusal(action) -> str:
    with pytest.raises(SqlError) as refused:
        action()
    return str(refused.value)


@pytest.mark.parametrize("setting, value", [
    ("snapshot_retention", "7d"), ("snapshot_retention", "30 days"), ("snapshot_interval", "1 week"), ("sync_interval", "60"),
])
def test_days_are_durations(setting, value, start, in_folder, tmp_path):
    db = start("python").open(in_folder.primary(tmp_path / "app.db", **{setting: value}))
    db.run("CREATE TABLE t(x)")
    assert sync(db) == in_folder.last_txid()


def test_a_large_number_without_a_unit_may_be_meant_in_milliseconds(start, in_folder, tmp_path):
    worker = start("python")
    for setting, value in [("sync_interval", "500"), ("sync_interval", "5000"), ("poll_interval", "250")]:
        message = refusal(lambda: worker.open(in_folder.primary(tmp_path / "app.db", **{setting: value})))
        assert message.startswith(f"{setting}: ") and f"{value}ms" in message, message


def test_sync_takes_a_duration(start, host, in_folder, tmp_path):
    db = start(host).open(in_folder.primary(tmp_path / "app.db"))
    db.run("CREATE TABLE t(x)")
    for timeout in ("'5s'", "'500ms'", "'1 minute'", "'20'", "20"):
        assert txid(db.one(f"SELECT litestream_sync({timeout})")) == in_folder.last_txid()
    assert "'soon' is not a duration" in refusal(lambda: db.rows("SELECT litestream_sync('soon')"))


@pytest.mark.parametrize("url, says", [
    ("s3://bucket/app&endpoint=http://127.0.0.1:9", "write '?' before the first setting"),
    ("~/backups/app", "'~' is not expanded"), ("file:~/backups/app", "'~' is not expanded"),
    ("file://~/backups/app", "'~' is not expanded"), (r"C:\backups\app", "a path of Windows"),
])
def test_urls_that_are_none_say_what_to_write(url, says, start, tmp_path):
    db = start("python").open(":memory:").load()
    assert says in refusal(lambda: db.rows("SELECT * FROM litestream_ltx(?)", url))
    assert list(tmp_path.iterdir()) == []


def test_paths_are_not_taken_literally(start, in_folder, tmp_path):
    db = start("python").open(in_folder.primary(tmp_path / "app.db")).load()
    db.run("CREATE TABLE t(x)")
    sync(db)
    calls = [lambda: db.rows("SELECT litestream_restore(?, '~/copy.db')", in_folder.url),
             lambda: db.worker.open(in_folder.replica(cache_dir="~/cache"), "r"),
             lambda: db.worker.open(in_folder.replica(hydrate=1, hydration_path="~/h.db"), "r")]
    for call in calls:
        assert "'~' is not expanded" in refusal(call)
    assert not (tmp_path / "~").exists()


def test_one_slash_is_as_good_as_two(start, in_s3, tmp_path):
    """Tcl folds them in the name of a database."""
    primary = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db").replace("//", "/"))
    fill(primary, rows=20)
    assert sync(primary) == in_s3.last_txid() > 0


def test_a_refused_open_has_our_words_only_and_once(start, host, shell):
    message = refusal(lambda: start(host).open("file:app.db?vfs=litestream"))
    assert "no replica URL for app.db" in message and "automatic extension" not in message
    session = shell()
    session.run(f".load {LIBRARY.with_suffix('')}")
    told = session.run(".open 'file:app.db?vfs=litestream'")
    assert told.count("no replica URL for app.db") == 1, told


def test_the_environment_alone_can_make_a_primary(start, host, in_folder, tmp_path):
    env = {"LITESTREAM_REPLICA_URL": in_folder.url, "LITESTREAM_OPEN_TIMEOUT": "0s"}
    message = refusal(lambda: start(host, env=env).open(f"file:{tmp_path}/app.db?vfs=litestream"))
    assert "add role=primary to the URI or set LITESTREAM_ROLE=primary" in message
    worker = start(host, env=env | {"LITESTREAM_ROLE": "primary"})
    db = worker.open(f"file:{tmp_path}/app.db?vfs=litestream")
    db.run("CREATE TABLE t(x)")
    assert sync(db) == in_folder.last_txid()
    assert worker.open(f"file:{tmp_path}/app.db?vfs=litestream&mode=ro", "ro").one("SELECT count(*) FROM t") == 0
    roles = json.loads(db.one("SELECT litestream_status()"))["databases"]
    assert [entry["role"] for entry in roles] == ["primary"]
