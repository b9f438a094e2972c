"""A container starts with an empty disk: the open brings the database back, or says why it cannot."""

import os
import shutil
import signal

import pytest

from harness import container
from harness.sql import fill, insert, restore, sync
from harness.worker import Connection, SqlError


def opened(start, location, path, **options):
    return start("python", location).open(location.primary(path, restore="missing", **options))


def wiped(tmp_path, name: str = "disk"):
    folder = tmp_path / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder / "app.db"


def test_a_missing_database_is_restored_and_goes_on(start, location, tmp_path):
    db = opened(start, location, wiped(tmp_path))
    fill(db)
    before, last = db.content(), sync(db)
    db.worker.kill()
    db = opened(start, location, wiped(tmp_path))
    assert db.content() == before
    assert db.load().rows("SELECT state, txid FROM litestream_restores") == [["done", f"{last:016x}"]]
    insert(db)
    # The next transaction, of what changed only.
    assert sync(db) == last + 1 == location.last_txid()
    newest = max(location.files(0), key=lambda file: file.max)
    assert newest.size < 100_000 and location.gaps() == []
    restore(db, location, tmp_path / "restored.db")
    assert db.worker.open(tmp_path / "restored.db", "restored").content() == db.content()


def test_without_it_the_error_is_as_before(start, in_folder, tmp_path):
    db = opened(start, in_folder, wiped(tmp_path))
    fill(db)
    sync(db)
    db.worker.kill()
    path = wiped(tmp_path)
    db = start("python", in_folder).open(in_folder.primary(path))
    db.run("CREATE TABLE other(x)")
    with pytest.raises(SqlError):
        sync(db, 5)


def test_an_empty_replica_begins_a_new_database(start, location, tmp_path):
    path = wiped(tmp_path)
    db = opened(start, location, path)
    fill(db)
    assert sync(db) == location.last_txid()


def test_a_file_that_was_removed_while_it_is_open_is_not_begun_anew(start, in_folder, tmp_path):
    path = wiped(tmp_path)
    db = opened(start, in_folder, path)
    fill(db)
    before = db.content()
    sync(db)
    for name in os.listdir(path.parent):
        if name.startswith("app.db"):
            (path.parent / name).unlink()
    with pytest.raises(SqlError, match="was removed while this process has it open"):
        db.worker.open(in_folder.primary(path, restore="missing"), "second").rows("SELECT count(*) FROM sqlite_schema")
    assert not path.exists()
    db.worker.kill()
    assert opened(start, in_folder, path).content() == before


@pytest.mark.parametrize("leftover", ["zero bytes", "wal", "wal and shm"])
def test_what_is_left_of_an_earlier_life_is_not_taken(start, in_folder, tmp_path, leftover):
    path = wiped(tmp_path)
    db = opened(start, in_folder, path)
    fill(db)
    before = db.content()
    sync(db)
    wal, shm = (tmp_path / f"kept{suffix}" for suffix in ("-wal", "-shm"))
    insert(db, 50)
    wal.write_bytes((path.parent / "app.db-wal").read_bytes())
    shm.write_bytes((path.parent / "app.db-shm").read_bytes())
    db.worker.kill()
    # The replica has all; an older log lies about.
    path = wiped(tmp_path)
    if leftover == "zero bytes":
        path.touch()
    else:
        (path.parent / "app.db-wal").write_bytes(wal.read_bytes())
        if "shm" in leftover:
            (path.parent / "app.db-shm").write_bytes(shm.read_bytes())
    last = in_folder.last_txid()
    db = opened(start, in_folder, path)
    assert db.content().integrity == "ok" and db.one("SELECT count(*) FROM t") in (200, 250)
    insert(db)
    assert sync(db) == last + 1
    restore(db, in_folder, tmp_path / "restored.db")
    assert db.worker.open(tmp_path / "restored.db", "restored").content() == db.content()
    assert before.schema == db.content().schema


def test_a_store_that_cannot_be_reached_creates_nothing(start, in_s3, tmp_path):
    path = wiped(tmp_path)
    away = in_s3.at("http://127.0.0.1:9")
    with pytest.raises(SqlError, match="is missing, and cannot be restored"):
        opened(start, away, path).rows("SELECT 1")
    assert list(path.parent.iterdir()) == []


def test_the_first_that_has_it_is_taken(start, in_folder, in_s3, tmp_path):
    """The first replica is away or empty, the second has the database."""
    db = opened(start, in_folder, wiped(tmp_path))
    fill(db)
    before = db.content()
    sync(db)
    db.worker.kill()
    text = "dbs:\n- path: {path}\n  restore-if-db-not-exists: true\n  replicas:\n  - url: {first}\n  - url: {second}\n"
    path = wiped(tmp_path)
    config = tmp_path / "litestream.yml"
    for first in (f"file://{tmp_path}/empty", "s3://nowhere/app?endpoint=http://127.0.0.1:9"):
        path = wiped(tmp_path)
        config.write_text(text.format(path=path, first=first, second=in_folder.url))
        worker = start("python", env=in_s3.env | {"LITESTREAM_CONFIG": str(config)})
        assert worker.open(f"file:{path}?vfs=litestream").content() == before
        worker.kill()
    # Empty and away: it may be there. The one before has got a copy by now, or not.
    path = wiped(tmp_path)
    empty = f"file://{tmp_path}/still-empty"
    config.write_text(text.format(path=path, first=empty, second="s3://nowhere/app?endpoint=http://127.0.0.1:9"))
    with pytest.raises(SqlError, match="is missing, and cannot be restored"):
        start("python", env=in_s3.env | {"LITESTREAM_CONFIG": str(config)}).open(f"file:{path}?vfs=litestream").rows("SELECT 1")
    assert not path.exists()


def test_two_processes_restore_once(start, in_folder, tmp_path):
    db = opened(start, in_folder, wiped(tmp_path))
    fill(db, 5000)
    sync(db)
    count = db.one("SELECT count(*) FROM t")
    db.worker.kill()
    path = wiped(tmp_path)
    workers = [start("python", in_folder) for _ in range(4)]
    for worker in workers:
        worker.begin("open", name="db", target=in_folder.primary(path, restore="missing"), timeout=10)
    for worker in workers:
        assert worker._line("open", 60) == b'{"ok": null}'
    restored = 0
    for worker in workers:
        db = Connection(worker, "db")
        assert db.one("SELECT count(*) FROM t") == count
        restored += db.load().one("SELECT count(*) FROM litestream_restores")
    assert restored == 1


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
def test_a_containers_life(start, in_folder, tmp_path, signal_):
    """Opened with an empty folder, written, ended; nothing is lost that a sync had confirmed."""
    confirmed = 0
    for _ in range(8):
        db = opened(start, in_folder, wiped(tmp_path))
        db.run("CREATE TABLE IF NOT EXISTS life(n)")
        assert db.one("SELECT coalesce(max(n), 0) FROM life") >= confirmed
        for _ in range(3):
            db.rows("INSERT INTO life SELECT coalesce(max(n), 0) + 1 FROM life")
        confirmed = db.one("SELECT max(n) FROM life")
        sync(db)
        db.rows("INSERT INTO life SELECT max(n) + 1 FROM life")
        os.kill(db.worker.pid, signal_)
        db.worker.kill()
    assert in_folder.gaps() == []


def test_a_containers_lives(in_s3, tmp_path):
    """`scripts/container.py` goes through more of them."""
    report = container.run(rounds=6, seed=1, location=in_s3, folder=tmp_path)
    assert (report["terminated"], report["killed"]) == (3, 3) and report["rows"] > 10
