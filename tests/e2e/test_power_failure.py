"""A power failure under `synchronous=NORMAL` loses commits that `litestream_sync()` had confirmed.

They are in the replica. A database that is exactly an earlier transaction then is brought forward; one that lost
half of a transaction stops. What was confirmed is never buried.
"""

import json
import random
import re

import pytest

from harness.sql import fill, insert, restore, status, sync
from harness.state import replica_state
from harness.worker import SqlError
from test_reverted_folder import Snapshot

BOOT = re.compile(r'"boot":"[^"]*"')


def fail_power(worker, database, lost):
    """The machine goes down, and comes up with what the disk had: `lost` is what it never got."""
    worker.kill()
    lost()
    state = replica_state(database) / "vfs.json"
    state.write_text(BOOT.sub('"boot":"the boot before"', state.read_text()))
    database.with_name(database.name + "-shm").unlink(missing_ok=True)


def test_the_end_of_the_wal_is_lost(start, location, tmp_path):
    """The state folder was written, the WAL was not."""
    database = tmp_path / "app.db"
    worker = start("python", location)
    db = worker.open(location.primary(database))
    db.run("PRAGMA synchronous=NORMAL")
    fill(db)
    sync(db)
    wal = database.with_name("app.db-wal")
    on_disk = wal.read_bytes()
    insert(db, rows=10)
    sync(db)
    expected = db.content()
    fail_power(worker, database, lambda: wal.write_bytes(on_disk))
    before = {f.path for f in location.files()}
    db = start("python", location).open(location.primary(database))
    assert db.content() == expected, "it is brought forward"
    assert {f.path for f in location.files()} == before
    insert(db)
    sync(db)
    restore(db, location, tmp_path / "restored.db")
    assert start().open(tmp_path / "restored.db").content() == db.content()


def test_half_of_a_transaction_is_lost(start, location, tmp_path):
    """A variation: what came back is a state between two transactions of the replica."""
    database = tmp_path / "app.db"
    worker = start("python", location)
    db = worker.open(location.primary(database, sync_interval="10s"))
    db.run("PRAGMA synchronous=NORMAL")
    fill(db)
    sync(db)
    wal = database.with_name("app.db-wal")
    db.run("BEGIN", "UPDATE t SET name = 'one' WHERE id = 1", "COMMIT")
    on_disk = wal.read_bytes()
    db.run("BEGIN", "UPDATE t SET name = 'two' WHERE id = 100", "COMMIT")
    sync(db)
    last = location.last_txid()
    fail_power(worker, database, lambda: wal.write_bytes(on_disk))
    db = start("python", location).open(location.primary(database))
    insert(db)
    try:
        sync(db, 20)
    except SqlError as error:
        assert "litestream_restore" in str(error) and "litestream_resume" in str(error)
        assert location.last_txid() == last
    restore(db, location, tmp_path / "restored.db")
    restored = start().open(tmp_path / "restored.db")
    assert restored.rows("SELECT name FROM t WHERE id IN (1, 100)") == [["one"], ["two"]]


@pytest.mark.parametrize("seed", range(4))
def test_what_was_confirmed_is_there_or_replication_stops(seed, start, in_folder, tmp_path):
    """The whole folder, or only the database, as it was some commits ago."""
    database, chance = tmp_path / "app.db", random.Random(seed)
    confirmed = 0
    for _ in range(3):
        worker = start("python", in_folder)
        db = worker.open(in_folder.primary(database, sync_interval="10ms"))
        db.run("PRAGMA synchronous=NORMAL", "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, name, data)")
        for n in range(chance.randint(3, 8)):
            snapshot = Snapshot(database) if n == 0 or chance.random() < 0.3 else snapshot
            insert(db, rows=chance.randint(1, 20))
            if chance.random() < 0.6:
                sync(db)
                confirmed = db.one("SELECT count(*) FROM t")
        fail_power(worker, database, snapshot.revert)
        db = start("python", in_folder).open(in_folder.primary(database))
        insert(db)
        try:
            sync(db, 20)
            confirmed += 1
        except SqlError:
            assert json.loads(status(db))["databases"][0]["state"] == "stopped"
        db.close()
        (tmp_path / "restored.db").unlink(missing_ok=True)
        restore(start("python").open(":memory:"), in_folder, tmp_path / "restored.db")
        assert start().open(tmp_path / "restored.db").one("SELECT count(*) FROM t") >= confirmed
        restore(start("python").open(":memory:"), in_folder, database, force=True)
